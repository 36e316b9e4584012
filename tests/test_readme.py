"""Every block of the README runs, or is held against the code that would run it."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from dicom_node.cli import app
from dicom_node.decode.plan import read_plan_file
from dicom_node.settings import ListenerSettings, load_settings
from pipeline.assessment import FindingKind
from pipeline.phantom_stories import STORIES
from pipeline.simulate.schedule import PRESETS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def test_the_readme_has_what_these_tests_look_for() -> None:
    assert (len(blocks("python")), len(blocks("json")), len(commands())) == (1, 1, 10)


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("marginwatch")])
def test_a_command_and_its_options_exist(line: str) -> None:
    words = shlex.split(line)[1:]
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make")])
def test_a_make_target_exists(line: str) -> None:
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_no_command_is_of_another_kind() -> None:
    assert {line.split()[0] for line in commands()} == {"make", "marginwatch", "cp", "/usr/bin/storescu"}


def test_the_copied_configuration_is_there_and_valid() -> None:
    (source,) = (line.split()[1] for line in commands() if line.startswith("cp "))
    assert load_settings(ROOT / source).listener == ListenerSettings()


def test_storescu_calls_the_node_as_it_is_configured() -> None:
    (words,) = (shlex.split(line) for line in commands() if "storescu" in line)
    listener = ListenerSettings()
    assert words[words.index("-aec") + 1 :][:3] == [listener.ae_title, listener.host, str(listener.port)]


def test_every_story_of_the_made_patient_is_named() -> None:
    named = README.split("Other stories:")[1].split("\n\n")[0]
    assert {*re.findall(r"`(\w+)`", named), "progression"} == set(STORIES)


def test_the_plan_is_a_valid_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(blocks("json")[0])
    assert read_plan_file(path).plan_id == "P-17"


def test_the_outcomes_are_those_of_the_code() -> None:
    from pipeline.assessment import URGENCY

    assert tuple(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) == URGENCY


def test_the_usual_protocols_are_named() -> None:
    assert set(re.findall(r'`"(\d+(?:-\d+)+)"`', README)) == set(PRESETS)


def reason_codes() -> set[str]:
    """Every code that a `Reason` is made with."""
    codes: set[str] = set(get_args(FindingKind))
    for path in (*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "dicom_node").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Reason":
                code = call.args[0]
                if isinstance(code, ast.Constant):
                    codes.add(code.value)
                else:  # a finding's kind, or a code of the list that gets a word before it
                    assert ast.unparse(code) in ("finding.kind", "f'baseline_{note.code}'")
    return codes


def test_every_reason_is_explained() -> None:
    page = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert len(explained) == len(set(explained))
    assert set(explained) == reason_codes()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README)) - {"docs/benchmarks.md"}))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.slow
def test_the_made_patient_is_assessed_as_written(tmp_path: Path) -> None:
    """The python block and then the assess commands, in an empty folder."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", blocks("python")[0]], cwd=tmp_path, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    for line in (line for line in commands() if line.startswith(("marginwatch assess", "marginwatch simulate"))):
        done = subprocess.run(shlex.split(line), cwd=tmp_path, env=environment, check=False, capture_output=True)
        assert done.returncode == 0, done.stderr
    outcomes = [json.loads((tmp_path / f"result-{n}" / "assessment.json").read_text())["outcome"] for n in (1, 2)]
    assert outcomes == ["complete", "local_progression"]
    for name in ("zone.nii.gz", "tumor.nii.gz", "uncovered.nii.gz", "baseline_from_followup.h5", "report.pdf"):
        assert (tmp_path / "result-1" / name).is_file()
    for name in ("simulation.json", "zone.dcm", "L1-zone.nii.gz"):
        assert (tmp_path / "simulated" / name).is_file()
