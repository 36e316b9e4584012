"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("models", "pipeline", "dicom_node")
FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "base", "manager", "constants", "types", "exceptions", "misc"}
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
PROJECT_FILES = [
    path
    for name in (*PACKAGES, "benchmarks", "configs", "docs", "tests", ".ci")
    for path in (ROOT / name).rglob("*")
    if path.suffix in {".py", ".md", ".toml", ".html", ".css", ".js", ".json", ""}
    and path.is_file()
    and "__pycache__" not in path.parts
] + [ROOT / name for name in ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml")]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_short_documented_and_well_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400, "over 400 lines: split it"
    assert ast.get_docstring(ast.parse(text)), "the first line says what the module holds"
    assert path.stem.strip("_") not in FORBIDDEN_NAMES, "name it after a noun or verb of the field"


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py"], ids=name_of)
def test_an_init_holds_only_a_docstring(path: Path) -> None:
    assert len(ast.parse(path.read_text(encoding="utf-8")).body) == 1


@pytest.mark.parametrize("path", [p for p in MODULES if "pipeline" in p.parts], ids=name_of)
def test_the_pipeline_opens_no_file_reads_no_clock_and_logs_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not calls & {"open", "print", "eval", "exec"}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"time", "logging", "pathlib", "os", "socket"}


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    ours = Path(__file__)
    place = re.compile(r"(?<![\w.])/(work|root|home/[a-z]+)/")
    found = [name_of(p) for p in PROJECT_FILES if p != ours and place.search(p.read_text(encoding="utf-8"))]
    assert not found


def test_every_dependency_has_a_lower_bound_and_an_upper_major() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        assert re.fullmatch(r"torch==2\.13\.0|[\w-]+(\[\w+\])?>=[\d.]+,<\d+", requirement), requirement


def test_decisions_are_one_page_each_and_numbered_once() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [page.name[:4] for page in pages]
    assert len(set(numbers)) == len(numbers)
    for page in pages:
        lines = page.read_text(encoding="utf-8").splitlines()
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", page.name)
        assert lines[0].startswith("# ")
        assert len(lines) <= 60, f"{page.name} is longer than a page"


def test_make_and_ci_have_what_people_are_told_of() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {"demo", "test", "check", "bench", "clean", "help"} <= targets
    for script in ("run", "system-parts"):
        assert os.access(ROOT / ".ci" / script, os.X_OK)
    ci = (ROOT / ".ci" / "run").read_text()
    assert ci.index("step check") < ci.index("step test")


@pytest.mark.parametrize("path", BENCHMARKS, ids=name_of)
def test_a_benchmark_says_what_it_asks(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


#: Declared and loaded by name, not imported: decoders that pydicom finds, a database driver, the page's templates.
LOADED_BY_NAME = {"pylibjpeg", "pylibjpeg-openjpeg", "pyjpegls", "python-gdcm", "psycopg", "jinja2"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    """Nothing rides on what another package happens to bring along, and nothing is installed for no one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=]", requirement)[0].lower() for requirement in project["dependencies"]}
    imported: set[str] = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - set(PACKAGES)
    owners = packages_distributions()
    needed = {owners[name][0].lower() for name in foreign}
    assert needed - declared == set()
    assert declared - needed - LOADED_BY_NAME == set()
