"""The parts of a multipart body (RFC 2046) as they stream in; a large one waits on the disk, not in memory."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO

import anyio
from anyio import to_thread

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]\Z")
_LONGEST_HEAD_BYTES = 16384
_IN_MEMORY_BYTES = 8 * 2**20
_WRITTEN_AT_ONCE_BYTES = 2**20
#: A sender that falls silent for longer does not keep its place.
_CHUNK_WITHIN_S = 60.0


class Malformed(Exception):
    """The body is not what its headers say; text: what is wrong, in a sentence."""


class TooLarge(Exception):
    """The whole body is larger than is taken."""


@dataclass(frozen=True)
class Caps:
    """part_bytes: a larger part is passed over; body_bytes: a larger body is broken off; folder: where parts wait."""

    part_bytes: int
    body_bytes: int
    folder: Path


@dataclass(frozen=True)
class Part:
    """content_type: in small letters, without parameters; content: None where the part was too large."""

    content_type: str
    content: bytes | None


def boundary_of(content_type: str) -> tuple[str, str, bytes]:
    """Media type, its `type` parameter and the boundary of a multipart content type. Raises `Malformed`."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = str(header.get_param("boundary") or "")
    if not _BOUNDARY.match(boundary):
        raise Malformed("The content type names no valid boundary.")
    return header.get_content_type(), str(header.get_param("type") or "").lower(), boundary.encode("ascii")


async def read_parts(chunks: AsyncIterator[bytes], boundary: bytes, caps: Caps) -> AsyncIterator[Part]:
    """Each part once it is there as a whole. Raises `Malformed` and `TooLarge`; the parts before hold."""
    reader = _Reader(chunks, b"\r\n--" + boundary, caps)
    await reader.skip_preamble()
    while not await reader.at_end():
        content_type = await reader.head()
        yield Part(content_type, await reader.content())


class _Reader:
    def __init__(self, chunks: AsyncIterator[bytes], delimiter: bytes, caps: Caps) -> None:
        self._chunks = chunks
        self._delimiter = delimiter
        self._caps = caps
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter looks like the others
        self._taken_bytes = 0

    async def skip_preamble(self) -> None:
        while (at := self._buffer.find(self._delimiter)) < 0:
            del self._buffer[: max(0, len(self._buffer) - len(self._delimiter))]
            await self._more()
        del self._buffer[: at + len(self._delimiter)]

    async def at_end(self) -> bool:
        """Whether the delimiter just read is the closing one; else stands at the start of a part's head."""
        await self._have(2)
        if self._buffer.startswith(b"--"):
            return True
        padding = await self._until(b"\r\n", "A part does not begin on a line of its own.")
        if padding.strip(b" \t"):
            raise Malformed("A boundary is followed by something else.")
        return False

    async def head(self) -> str:
        """The media type of the part."""
        await self._have(2)
        if self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
            return ""
        head = await self._until(b"\r\n\r\n", "The headers of a part are too long.")
        for line in head.decode("latin-1").split("\r\n"):
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-type":
                return value.partition(";")[0].strip().lower()
        return ""

    async def content(self) -> bytes | None:
        """What is in the part; None where it is too large."""
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, dir=str(self._caps.folder)) as file:
            size, looked_to = 0, 0
            while True:
                at = self._buffer.find(self._delimiter, looked_to)
                done = at >= 0
                # What may be the beginning of a delimiter stays.
                ready = at if done else len(self._buffer) - len(self._delimiter)
                if done or ready >= _WRITTEN_AT_ONCE_BYTES:
                    size += ready
                    if size <= self._caps.part_bytes:
                        await to_thread.run_sync(file.write, bytes(self._buffer[:ready]))
                    del self._buffer[:ready]
                if done:
                    del self._buffer[: len(self._delimiter)]
                    return None if size > self._caps.part_bytes else await to_thread.run_sync(_whole, file)
                looked_to = max(0, len(self._buffer) - len(self._delimiter))
                await self._more()

    async def _until(self, end: bytes, complaint: str) -> bytes:
        """What comes before `end`, which is taken away too."""
        while (at := self._buffer.find(end)) < 0:
            if len(self._buffer) > _LONGEST_HEAD_BYTES:
                raise Malformed(complaint)
            await self._more()
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        return found

    async def _have(self, count: int) -> None:
        while len(self._buffer) < count:
            await self._more()

    async def _more(self) -> None:
        try:
            with anyio.fail_after(_CHUNK_WITHIN_S):
                chunk = await anext(self._chunks, None)
        except TimeoutError:
            raise Malformed(f"Nothing more of the body came for {_CHUNK_WITHIN_S:g} s.") from None
        if chunk is None:
            raise Malformed("The body ends before its last boundary.")
        self._taken_bytes += len(chunk)
        if self._taken_bytes > self._caps.body_bytes:
            raise TooLarge
        self._buffer += chunk


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
