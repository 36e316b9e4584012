"""`marginwatch batch` on a heap of studies: killed half-way, started again, run twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from dicom_node.phantom_series import write_phantom

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(2000)]


@pytest.fixture(scope="module")
def heap(tmp_path_factory) -> Path:
    """Two made patients thrown together with junk; only content tells what is what."""
    folder = tmp_path_factory.mktemp("heap")
    made = tmp_path_factory.mktemp("made")
    for number, patient in enumerate(("HEAP-1", "HEAP-2")):
        phantom = write_phantom(made / patient, seed=number, patient_id=patient)
        for study in (phantom.baseline, *phantom.followups):
            for file in study.iterdir():
                shutil.move(file, folder / f"{patient[-1]}{study.name[:1]}{file.stem}")
        shutil.move(phantom.plan.parent, folder / f"plan {number}")
    (folder / "readme.txt").write_text("not DICOM")
    (folder / "empty").touch()
    first = next(file for file in folder.iterdir() if file.is_file() and file.name.startswith("1b"))
    (folder / "cut short").write_bytes(first.read_bytes()[:200])
    return folder


def results(out: Path) -> dict[Path, int]:
    """Every result with the time it was written; a folder that is still being written has a name with a dot."""
    return {file: file.stat().st_mtime_ns for file in out.glob("results/*/[!.]*/assessment.json")}


def test_killed_half_way_and_started_again_nothing_is_done_twice(heap, tools, tmp_path):
    out = tmp_path / "out"
    command = tools.marginwatch("batch", heap, "--out", out, "--json")
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tools.wait_until(lambda: results(out), seconds=800)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = results(out)
    assert len(before) == 1

    second = tools.run("batch", heap, "--out", out, "--json")
    report = json.loads(second.stdout)
    assert {item["patient_id"] for item in report["assessed"]} == {"HEAP-1", "HEAP-2"}
    after = results(out)
    assert len(after) == 2
    assert before.items() <= after.items()

    codes = {Path(item["path"]).name: item["code"] for item in report["skipped"] if "path" in item}
    assert set(codes) == {"readme.txt", "empty", "cut short"}
    assert sorted(item["code"] for item in report["skipped"] if "study_instance_uid" in item) == ["baseline"] * 2

    third = tools.run("batch", heap, "--out", out, "--json")
    assert json.loads(third.stdout) == report
    assert results(out) == after
