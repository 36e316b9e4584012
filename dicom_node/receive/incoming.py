"""The data set of one message while it comes in: in memory, and on the disk from a certain size on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

#: Data sets up to this size stay in memory until they are whole; larger ones are written as they come.
IN_MEMORY_BYTES = 32 << 20
#: What is kept of a data set that is written as it comes, so that it can be seen whose it is.
_START_BYTES = 1 << 20
_FIRST_BYTES = 1 << 20


class Incoming:
    """Takes fragments in turn. Not safe between threads.

    head: what a file of it begins with; part: names a new file for a data set too large for memory; most_bytes: a
    larger data set is read and dropped (`is_too_large`), and so is one that the disk does not take (`problem`).
    """

    def __init__(self, head: bytes, *, part: Callable[[], Path], most_bytes: int) -> None:
        self.head = head
        self.length = 0
        self.problem: OSError | None = None
        self._part = part
        self._most_bytes = most_bytes
        self._buffer = bytearray(_FIRST_BYTES)
        self._used = 0
        self._start = b""
        self._file: BinaryIO | None = None
        self.path: Path | None = None

    @property
    def is_too_large(self) -> bool:
        return self.length > self._most_bytes

    def room(self, length: int) -> memoryview:
        """A view of `length` bytes to be filled with what comes next."""
        self.length += length
        if self.is_too_large or self.problem is not None:
            self.drop()
        elif self._used + length > IN_MEMORY_BYTES:
            try:
                self._spill()
            except OSError as problem:
                self.problem = problem
                self.drop()
        if self._used + length > len(self._buffer):
            self._buffer.extend(bytes(max(length, len(self._buffer))))
        view = memoryview(self._buffer)[self._used : self._used + length]
        self._used += length
        return view

    def start(self, most_bytes: int = _START_BYTES) -> bytes:
        """The first bytes of the data set, at most 1 MiB; all of a small one."""
        return self._start[:most_bytes] or bytes(memoryview(self._buffer)[: min(self._used, most_bytes)])

    def content(self) -> memoryview:
        """All of a data set in memory."""
        assert self._file is None
        return memoryview(self._buffer)[: self._used]

    def finish(self) -> BinaryIO | None:
        """The file of a data set that was too large for memory, with everything written; None for a smaller one. Raises
        OSError.
        """
        if self._file is not None:
            self._spill()
        return self._file

    def drop(self) -> None:
        """Forget what came, and delete what was written of it."""
        self._used = 0
        if self._file is not None:
            self._file.close()
            self._file = None
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            self.path = None

    def _spill(self) -> None:
        if self._file is None:
            self._start = self.start()
            self.path = self._part()
            self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)
            self._file.write(self.head)
        view = memoryview(self._buffer)[: self._used]
        while view:
            view = view[self._file.write(view) :]
        self._used = 0
