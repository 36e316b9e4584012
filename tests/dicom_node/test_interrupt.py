"""Ctrl+C: one line, status 130, and nothing that still computes holds the end up."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

LINE = "marginwatch: Stopped; nothing half-done is left, start it again as you like.\n"
ORDERLY = """
import sys, time
from dicom_node.interrupt import ended_by_ctrl_c
with ended_by_ctrl_c(grace_s=60):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("closed", flush=True)
"""
COMPUTING = """
import time
from concurrent.futures import ThreadPoolExecutor
from dicom_node.interrupt import ended_by_ctrl_c
with ended_by_ctrl_c(grace_s=0.5), ThreadPoolExecutor(2) as pool:
    print("ready", flush=True)
    list(pool.map(time.sleep, [60, 60]))
"""
COMMAND = """
import sys, time
import dicom_node.assessing
from dicom_node import cli
def assess_files(*_, **__):
    print("ready", flush=True)
    time.sleep(60)
dicom_node.assessing.assess_files = assess_files
sys.argv = ["marginwatch", "assess", "--plan", ".", "--baseline", ".", "--followup", ".", "--out", "out"]
cli.main()
"""


@pytest.mark.parametrize(("code", "said"), [(ORDERLY, "closed\n"), (COMPUTING, ""), (COMMAND, "")])
def test_one_line_and_status_130_at_once(code, said, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=50)
    assert (process.returncode, out, err) == (130, said, LINE)
    assert time.monotonic() - started < 30


def test_without_ctrl_c_the_block_is_as_any_other():
    code = "from dicom_node.interrupt import ended_by_ctrl_c\nwith ended_by_ctrl_c():\n    raise SystemExit(3)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 3
