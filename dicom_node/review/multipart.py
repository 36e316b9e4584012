"""The parts of a request's body as they stream in; a large one waits on the disk, not in memory."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio import to_thread

from dicom_node.multipart import Malformed, MultipartParser, PartBegins, PartEnds

_LOG = logging.getLogger("marginwatch.review")

_IN_MEMORY_BYTES = 8 * 2**20
_WRITTEN_AT_ONCE_BYTES = 2**20
#: A sender that falls silent for longer does not keep its place.
_CHUNK_WITHIN_S = 60.0


class TooLarge(Exception):
    """The whole body is larger than is taken."""


@dataclass(frozen=True)
class Caps:
    """part_bytes: a larger part is passed over; body_bytes: a larger body is broken off; folder: where parts wait, only
    while more than minimum_free_bytes is free there."""

    part_bytes: int
    body_bytes: int
    folder: Path
    minimum_free_bytes: int = 0


class Part:
    """A part that comes in, on the disk from some MiB on. content_type: as in `PartBegins`; is_too_large, has_no_room:
    then its content was passed over."""

    def __init__(self, content_type: str, caps: Caps) -> None:
        self.content_type = content_type
        self.is_too_large = self.has_no_room = False
        self._caps = caps
        self._bytes = 0
        self._pending = bytearray()
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, dir=str(caps.folder))  # noqa: SIM115

    async def add(self, content: bytes) -> None:
        self._bytes += len(content)
        if self._bytes > self._caps.part_bytes:
            self.is_too_large = True
        if self.is_too_large or self.has_no_room:
            return
        self._pending += content
        if len(self._pending) >= _WRITTEN_AT_ONCE_BYTES:
            await to_thread.run_sync(self._write)

    def content(self) -> bytes | None:
        """All of a whole part; None where it was passed over. Raises OSError."""
        self._write()
        if self.is_too_large or self.has_no_room:
            return None
        self._file.seek(0)
        return self._file.read()

    def close(self) -> None:
        """Forget the content."""
        self._pending.clear()
        self._file.close()

    def _write(self) -> None:
        try:
            if self._bytes > _IN_MEMORY_BYTES:
                free_bytes = shutil.disk_usage(self._caps.folder).free - len(self._pending)
                self.has_no_room = self.has_no_room or free_bytes < self._caps.minimum_free_bytes
            if not self.has_no_room:
                self._file.write(self._pending)
        except OSError as problem:
            _LOG.error("an instance was not stored: the data folder cannot be used: %s", problem.strerror)
            self.has_no_room = True
        self._pending.clear()


async def read_parts(chunks: AsyncIterator[bytes], boundary: bytes, caps: Caps) -> AsyncGenerator[Part, None]:
    """Each part once it is there as a whole; it is closed when the next is asked for. Raises `Malformed` and
    `TooLarge`; the parts before hold."""
    parser = MultipartParser(boundary)
    part: Part | None = None
    taken_bytes = 0
    try:
        while not parser.is_at_end:
            chunk = await _next(chunks)
            taken_bytes += len(chunk)
            if taken_bytes > caps.body_bytes:
                raise TooLarge
            for event in parser.feed(chunk):
                if isinstance(event, PartBegins):
                    part = Part(event.content_type, caps)
                    continue
                assert part is not None
                if isinstance(event, PartEnds):
                    yield part
                    part.close()
                else:
                    await part.add(event)
    finally:
        if part is not None:
            part.close()


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    try:
        with anyio.fail_after(_CHUNK_WITHIN_S):
            chunk = await anext(chunks, None)
    except TimeoutError:
        raise Malformed(f"Nothing more of the body came for {_CHUNK_WITHIN_S:g} s.") from None
    if chunk is None:
        raise Malformed("The body ends before its last boundary.")
    return chunk
