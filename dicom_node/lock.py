"""One worker with a data folder: a file lock that goes away with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class WorkerLock:
    """Whoever holds it may run the queue of a data folder."""

    def __init__(self, data_folder: Path) -> None:
        self._path = data_folder / "worker.lock"
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Whether the lock is now held; False while another process holds it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._handle = handle
        return True

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
