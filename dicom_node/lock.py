"""File locks that go away with their process, however that ends: one worker with a data folder, and who is dead."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class WorkerLock:
    """Whoever holds it may run the queue of a data folder; or, by another name, is that worker, or its listener."""

    def __init__(self, data_folder: Path, name: str = "worker.lock") -> None:
        self._path = data_folder / name
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Whether the lock is now held; False while another process holds it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock(handle):
            os.close(handle)
            return False
        self._handle = handle
        return True

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def remove(self) -> None:
        """Release it, and leave no file."""
        self._path.unlink(missing_ok=True)
        self.release()

    def is_orphaned(self) -> bool:
        """Whether its process is dead: the file is there and nobody holds it. For locks of this machine only."""
        try:
            handle = os.open(self._path, os.O_RDWR)
        except OSError:
            return False
        try:
            return _lock(handle)
        finally:
            os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without locks
        return False
    return True
