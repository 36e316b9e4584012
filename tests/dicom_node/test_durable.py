"""Folders that appear whole: what a killed writer leaves is cleared up, what a living one holds is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_node.durable import clear_leftovers, whole_folder

FILLING = """
import sys, time
from pathlib import Path
from dicom_node import durable
{patch}
with durable.whole_folder(Path(sys.argv[1])) as fresh:
    (fresh / "value").write_text("new")
    if not {patch!r}:
        print("there", flush=True)
        time.sleep(600)
"""
#: Stops the writer between its two renames: the old folder is aside, the new one not yet in place.
BETWEEN = """
rename = Path.rename
def stopping(path, target):
    if ".writing-" in path.name:
        print("there", flush=True)
        time.sleep(600)
    return rename(path, target)
Path.rename = stopping
"""


@contextmanager
def writer(target: Path, patch: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that has come as far as it should and waits there."""
    code = FILLING.format(patch=patch)
    process = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "there\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def names(folder: Path) -> set[str]:
    return {path.name.split("-")[0] for path in folder.iterdir()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "result"
    with whole_folder(folder) as fresh:
        (fresh / "value").write_text("old")
    return folder


def test_a_killed_writers_folder_goes_when_the_next_one_comes(target):
    with writer(target) as process:
        kill(process)
    assert names(target.parent) == {"result", ".result.writing"}
    clear_leftovers(target)
    assert names(target.parent) == {"result"}
    assert (target / "value").read_text() == "old"


def test_a_living_writers_folder_stays(target):
    with writer(target):
        clear_leftovers(target)
        assert names(target.parent) == {"result", ".result.writing"}


def test_the_old_folder_comes_back_when_its_writer_was_killed_between_the_renames(target):
    with writer(target, BETWEEN) as process:
        assert names(target.parent) == {".result.replaced", ".result.writing"}
        clear_leftovers(target)
        assert names(target.parent) == {".result.replaced", ".result.writing"}
        kill(process)
    clear_leftovers(target)
    assert names(target.parent) == {"result"}
    assert (target / "value").read_text() == "old"


def test_an_old_folder_goes_once_the_new_one_stands(target):
    aside = target.with_name(".result.replaced-1")
    aside.mkdir()
    clear_leftovers(target)
    assert names(target.parent) == {"result"}
    assert (target / "value").read_text() == "old"


def test_other_names_are_left_alone(target):
    other = target.with_name(".result-2.writing-1")
    other.mkdir()
    clear_leftovers(target)
    assert other.is_dir()


def test_every_file_and_folder_is_synced_before_it_is_in_place(tmp_path, monkeypatch):
    synced: set[int] = set()
    fsync = os.fsync

    def recording(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    with whole_folder(tmp_path / "a") as fresh:
        (fresh / "sub").mkdir()
        (fresh / "sub" / "file").write_text("x")
    paths = [tmp_path, *tmp_path.rglob("*")]
    assert len(paths) == 4
    assert {path.stat().st_ino for path in paths} <= synced
