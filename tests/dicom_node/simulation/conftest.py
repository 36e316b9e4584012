"""Plans to simulate: the made patient's, with changes, and what the program says to them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicom_node.cli import main
from dicom_node.phantom_series import PhantomFolder

Change = Callable[[dict[str, Any]], None]
Said = tuple[int, str, str]


def changed_plan(source: Path, folder: Path, change: Change) -> Path:
    """A copy of a plan's folder whose plan.json was changed. It has no organ mask: a large one takes long."""
    shutil.copytree(source, folder, copy_function=shutil.copyfile)
    document = json.loads((folder / "plan.json").read_text())
    del document["organ_mask"]
    change(document)
    (folder / "plan.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def plan(written_phantom: PhantomFolder, tmp_path: Path) -> Callable[[Change], Path]:
    """The made patient's plan, changed."""
    return lambda change: changed_plan(written_phantom.plan.parent, tmp_path / "plan", change)


@pytest.fixture
def simulate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Said]:
    """Runs `marginwatch simulate` with a folder for its results; exit status, stdout, stderr."""

    def run(*arguments: object, out: str = "out") -> Said:
        words = ["marginwatch", "simulate", *(str(a) for a in arguments), "--out", str(tmp_path / out)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture(scope="module")
def with_baseline(written_phantom: PhantomFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the made patient's simulation, with its baseline, on coarse cells; read only."""
    from dicom_node.simulating import Wishes, simulate_files

    out = tmp_path_factory.mktemp("simulated") / "out"
    files = sorted(written_phantom.baseline.iterdir())
    simulate_files(written_phantom.plan, baseline=files, out=out, wishes=Wishes(spacing_mm=3.0))
    return out


@pytest.fixture(scope="module")
def without_baseline(written_phantom: PhantomFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without the baseline and without an ensemble; read only."""
    from dicom_node.simulating import Wishes, simulate_files

    out = tmp_path_factory.mktemp("simulated") / "out"
    simulate_files(written_phantom.plan, baseline=None, out=out, wishes=Wishes(spacing_mm=3.0, with_spread=False))
    return out


@pytest.fixture(scope="session")
def dicom_errors() -> Callable[[Path], list[str]]:
    """The error lines of dicom3tools' validator for one file."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")

    def errors_of(path: Path) -> list[str]:
        run = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
        said = (run.stdout + run.stderr).splitlines()
        assert said, "the validator said nothing"
        return [line for line in said if line.startswith(("Error", "Abort"))]

    return errors_of
