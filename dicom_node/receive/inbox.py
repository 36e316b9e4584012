"""Instances that have arrived and are safe on the disk, before they are sorted into the store.

A file is called `TIME.ID-LENGTH.dcm` with the length that it has when it is whole. So what a crash or power cut left
can be told: whole files were or may have been answered with success and are kept, others were not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from dicom_node.lock import WorkerLock
from dicom_node.receive.incoming import Incoming


class Inbox:
    """A folder of arrived instances. durable: whether a file has reached the disk before `keep` returns."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._folder = folder
        self.is_durable = durable
        self._lock = WorkerLock(folder.parent, "listener.lock")
        folder.mkdir(parents=True, exist_ok=True)

    def acquire(self) -> bool:
        """Whether this process alone uses the folder from now on; False while another does."""
        return self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def part(self) -> Path:
        """A name for the file of an instance that is not whole yet."""
        return self._folder / f"{uuid4().hex}.part"

    def keep(self, incoming: Incoming) -> Path:
        """The file of a whole instance. Raises OSError where it cannot be written; then nothing is left of it."""
        length = len(incoming.head) + incoming.length
        path = self._folder / f"{time.time_ns():020d}.{uuid4().hex}-{length}.dcm"
        large = incoming.finish()
        if large is not None:
            assert incoming.path is not None
            os.rename(incoming.path, path)
            incoming.path = path
            self._sync(large.fileno())
            self._sync_folder()
            large.close()
            return path
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write_all(descriptor, incoming.head, incoming.content())
            self._sync(descriptor)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        # To sync the file brings its name to the disk too on ext4, xfs and btrfs; then this costs next to nothing.
        self._sync_folder()
        return path

    def left_over(self) -> Iterator[Path]:
        """The whole files, oldest first, after those that are not whole have been deleted: for the start of a node."""
        whole = []
        for path in self._folder.iterdir():
            length = path.stem.rpartition("-")[2]
            if path.suffix == ".dcm" and length.isdigit() and int(length) == path.stat().st_size:
                whole.append(path)
            else:
                path.unlink(missing_ok=True)
        yield from sorted(whole)

    def _sync(self, descriptor: int) -> None:
        if self.is_durable:
            os.fsync(descriptor)

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            self._sync(descriptor)
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, *parts: bytes | memoryview) -> None:
    views = [memoryview(part) for part in parts]
    while views:
        written = os.writev(descriptor, views)
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if views:
            views[0] = views[0][written:]
