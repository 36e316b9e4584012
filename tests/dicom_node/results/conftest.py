"""The makers of `made.py` as a fixture, and what several tests of the results share."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dicom_node.results import folder
from dicom_node.results.folder import write_results


def _made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("marginwatch_made", Path(__file__).with_name("made.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def made() -> ModuleType:
    """The module of makers."""
    return _made()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Writes an assessment's folder; gives the folder and the document."""

    def write(assessment: Any, study: Any, name: str = "result", **more: Any) -> tuple[Path, dict[str, Any]]:
        out = tmp_path / name
        started = time.monotonic()
        more = {"earlier_timing_s": {"decode": 2.0}, "settings": {}} | more
        return out, write_results(assessment, study, out, started=started, **more)

    return write


@pytest.fixture(scope="session")
def written(made: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The result folder of a kind of scene, written once; read only."""

    @cache
    def written(kind: str) -> Path:
        out: Path = tmp_path_factory.mktemp("results") / kind
        write_results(*made.scene(kind), out, earlier_timing_s={}, started=time.monotonic(), settings={})
        return out

    return written


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders without pictures and DICOM objects, for tests that are about the folder itself."""
    monkeypatch.setattr(folder, "write_objects", lambda *_: None)


@pytest.fixture(scope="session")
def cases() -> Path:
    """The shared cases beside the repository."""
    folder = Path(__file__).resolve().parents[4] / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip("the shared cases are not beside the repository")
    return folder


@pytest.fixture(scope="session")
def errors_of() -> Callable[[Path], list[str]]:
    """The error lines of dicom3tools' validator for one file."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")

    def errors_of(path: Path) -> list[str]:
        run = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
        said = (run.stdout + run.stderr).splitlines()
        assert said, "the validator said nothing"
        return [line for line in said if line.startswith(("Error", "Abort"))]

    return errors_of
