"""Files and folders that appear whole or not at all, and are still there after a power cut."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from uuid import uuid4


def write_file(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, sync it, and rename: a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".arriving-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
        sync_entry(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder to fill; it stands at `target` once the block has ended, in place of one that was there.

    Raises OSError when it cannot be written; then `target` is as it was. Until the end the folder is called
    `.NAME.writing-…` and is locked by this process, so that another can tell it from what a dead one left.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh, lock = _new_folder(target)
    try:
        yield fresh
        _sync(fresh)
        _put_in_place(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        os.close(lock)


def clear_leftovers(target: Path) -> None:
    """Undo what writers of `target` that died left beside it: bring an old folder back, delete what is half-written.

    What belongs to a living process stays; where locks do not work (some network file systems), everything stays.
    """
    if not target.parent.is_dir():
        return
    gone = [_delete_if_left(folder) for folder in _beside(target, "writing")]
    if not all(gone):
        return  # a living writer may be between its two renames
    for aside in sorted(_beside(target, "replaced"), key=_age_key, reverse=True):
        if target.exists() and (target.is_file() or any(target.iterdir())):
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(target)
            sync_entry(target.parent)


def _new_folder(target: Path) -> tuple[Path, int]:
    """A fresh hidden folder beside `target`, and the descriptor that keeps it locked."""
    while True:
        fresh = target.with_name(f".{target.name}.writing-{uuid4().hex}")
        fresh.mkdir()
        lock = os.open(fresh, os.O_RDONLY)
        # Another process may have found it before it was locked, and be sweeping it away.
        if _lock(lock) != "taken" and fresh.exists():
            return fresh, lock
        os.close(lock)


def _delete_if_left(folder: Path) -> bool:
    """Delete the folder of a writer that is dead; False where one holds it, as far as can be told."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # just put in place
        return False
    try:
        if _lock(descriptor) != "locked":
            return False
        shutil.rmtree(folder, ignore_errors=True)
        return True
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> Literal["locked", "taken", "no_locks"]:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "taken"
    except OSError:
        return "no_locks"
    return "locked"


def _age_key(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # its owner has just deleted it
        return 0.0


def _beside(target: Path, what: str) -> list[Path]:
    start = f".{target.name}.{what}-"
    return [path for path in target.parent.iterdir() if path.name.startswith(start)]


def _put_in_place(fresh: Path, target: Path) -> None:
    """Rename the complete folder into place; the old one is set aside first and comes back if that fails."""
    if not target.exists():
        fresh.rename(target)
    else:
        aside = target.with_name(f".{target.name}.replaced-{uuid4().hex}")
        target.rename(aside)
        try:
            fresh.rename(target)
        except BaseException:  # Ctrl+C too
            if not target.exists():
                aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    sync_entry(target.parent)


def _sync(folder: Path) -> None:
    """Everything below the folder is on the disk, not only in memory: a power cut leaves no empty files behind."""
    for path in sorted(folder.rglob("*")):
        sync_entry(path)
    sync_entry(folder)


def sync_entry(path: Path) -> None:
    """A file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
