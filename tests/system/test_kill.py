"""What a kill or Ctrl+C leaves; a kill in the middle of an assessment is in test_pacs.py."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from contextlib import closing

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(2000)]


def test_ctrl_c_ends_a_batch_which_goes_on_another_time(phantom, tools, tmp_path):
    """The whole process group gets the signal, as from a terminal; it must not count as a failure of the study."""
    out = tmp_path / "out"
    command = tools.marginwatch("batch", phantom.plan.parent.parent, "--out", out)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def state() -> str | None:
        with closing(sqlite3.connect(f"file:{out / 'ledger.sqlite'}?mode=ro", uri=True)) as ledger:
            return next(iter(ledger.execute("select state from assessments")), (None,))[0]

    assert process.stderr is not None
    assert next(line for line in process.stderr if line.startswith("assessing"))
    tools.wait_until(lambda: state() == "running", seconds=60)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "marginwatch: Stopped; nothing half-done is left, start it again as you like.\n"
    assert state() == "running"
    assert not (out / "results").exists()


def test_a_listener_killed_in_mid_study_keeps_what_it_acknowledged(node, phantom, tools):
    node.quiet_time_s = 600
    node.start()
    node.send(phantom.baseline)
    node.stop(signal.SIGKILL)
    node.start()
    node.send(phantom.baseline)
    data = node.folder / "data"
    tools.wait_until(lambda: not list((data / "inbox").iterdir()), seconds=30)
    assert len(list((data / "instances").rglob("*.dcm"))) == len(list(phantom.baseline.iterdir()))
    assert not list(data.rglob("*.arriving"))
    study = node.study(state="receiving")
    assert study is not None
    assert study["conflicting_instances"] == 0
