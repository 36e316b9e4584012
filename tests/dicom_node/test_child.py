"""The assessment's own process: its answer, its refusal, its death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from dicom_node.child import ChildBroke, Job, assess_in_child
from dicom_node.refusal import Refused

JOB = Job(plan="plan.json", baseline=("a",), followup=("b", "c"), previous=(), out="out")


def command(body: str) -> list[str]:
    """A child whose assessment is the body of a function."""
    code = f"""
import os, sys, time
from dicom_node.child import answer_one
from dicom_node.refusal import Refused
def assess(plan, *, baseline, followup, previous, out, simulation, supersedes):
    {body}
answer_one(assess)
"""
    return [sys.executable, "-c", code]


def test_the_document_comes_back_whatever_is_printed():
    body = "print('noise'); os.system('echo more'); return {'followup': [str(p) for p in followup]}"
    assert assess_in_child(JOB, time_limit_s=60, command=command(body)) == {"followup": ["b", "c"]}


def test_a_refusal_comes_back_as_one():
    with pytest.raises(Refused, match=r"No images\.") as refused:
        assess_in_child(JOB, time_limit_s=60, command=command("raise Refused('no_images', 'No images.')"))
    assert refused.value.code == "no_images"


def test_a_bug_comes_back_with_its_traceback():
    with pytest.raises(ChildBroke, match="ZeroDivisionError"):
        assess_in_child(JOB, time_limit_s=60, command=command("1 / 0"))


def test_it_is_stopped_at_the_time_limit():
    started = time.monotonic()
    with pytest.raises(ChildBroke, match="longer than 1 s"):
        assess_in_child(JOB, time_limit_s=1, command=command("time.sleep(60)"))
    assert time.monotonic() - started < 20


def test_it_can_be_killed():
    def watch(process: subprocess.Popen[str]) -> None:
        threading.Timer(0.5, process.kill).start()

    with pytest.raises(ChildBroke, match="signal 9"):
        assess_in_child(JOB, time_limit_s=60, command=command("time.sleep(60)"), watch=watch)


def test_it_dies_with_its_parent(tmp_path):
    pid_file = tmp_path / "pid"
    body = f"open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent_code = (
        "from dicom_node.child import Job, assess_in_child\n"
        "job = Job('p', (), (), (), 'o')\n"
        f"assess_in_child(job, time_limit_s=60, command={command(body)!r})"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_code])
    deadline = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(pid_file.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
