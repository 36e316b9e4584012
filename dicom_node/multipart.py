"""Multipart bodies (RFC 2046) taken apart as they stream in, as DICOMweb wraps instances. Pure: no network, no file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Literal

#: RFC 2046 allows some of these only; peers use the others too.
_BOUNDARY = re.compile(r"[ -~]{0,69}[!-~]\Z")
_LONGEST_HEAD_BYTES = 16384


class Malformed(Exception):
    """The body is not what its headers say; text: what is wrong, in a sentence."""


@dataclass(frozen=True)
class PartBegins:
    """content_type: in small letters, without parameters; empty where the part has none."""

    content_type: str


@dataclass(frozen=True)
class PartEnds:
    """The part that began last is whole."""


Event = PartBegins | bytes | PartEnds


def boundary_of(content_type: str) -> tuple[str, str, bytes]:
    """Media type, its `type` parameter and the boundary of a multipart content type. Raises `Malformed`."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = str(header.get_param("boundary") or "")
    if not _BOUNDARY.match(boundary):
        raise Malformed("The content type names no valid boundary.")
    return header.get_content_type(), str(header.get_param("type") or "").lower(), boundary.encode("ascii")


class MultipartParser:
    """Takes pieces of a body in turn. is_at_end: whether the closing boundary has come; what follows it is ignored."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter looks like the others
        self._looked_to = 0
        self._inside: Literal["preamble", "delimiter", "head", "content", "end"] = "preamble"

    @property
    def is_at_end(self) -> bool:
        return self._inside == "end"

    def feed(self, piece: bytes) -> Iterator[Event]:
        """What the body holds as far as it has come: a part begins, some of its content, it ends. Raises `Malformed`.

        All of it has to be taken before the next piece is fed.
        """
        self._buffer += piece
        goes_on = True
        while goes_on:
            if self._inside == "preamble":
                goes_on = self._found() is not None
            elif self._inside == "delimiter":
                goes_on = self._delimiter_line()
            elif self._inside == "head":
                content_type = self._content_type()
                goes_on = content_type is not None
                if content_type is not None:
                    self._inside = "content"
                    yield PartBegins(content_type)
            elif self._inside == "content":
                content, is_whole = self._content()
                goes_on = is_whole
                if content:
                    yield content
                if is_whole:
                    yield PartEnds()
            else:
                self._buffer.clear()
                return

    def _found(self) -> bytes | None:
        """What stands before the next delimiter, which is taken away too; None where it has not come yet."""
        at = self._buffer.find(self._delimiter, self._looked_to)
        if at < 0:
            self._looked_to = max(0, len(self._buffer) - len(self._delimiter))
            return None
        found = bytes(memoryview(self._buffer)[:at])
        del self._buffer[: at + len(self._delimiter)]
        self._looked_to, self._inside = 0, "delimiter"
        return found

    def _content(self) -> tuple[bytes, bool]:
        """Some content of the part, and whether it is the last of it."""
        if (last := self._found()) is not None:
            return last, True
        # What may be the beginning of a delimiter stays.
        ready = bytes(memoryview(self._buffer)[: self._looked_to])
        del self._buffer[: self._looked_to]
        self._looked_to = 0
        return ready, False

    def _delimiter_line(self) -> bool:
        """Whether all of the line with the delimiter has come."""
        if len(self._buffer) < 2:
            return False
        if self._buffer.startswith(b"--"):
            self._inside = "end"
            return True
        padding = self._line(b"\r\n", "A part does not begin on a line of its own.")
        if padding is None:
            return False
        if padding.strip(b" \t"):
            raise Malformed("A boundary is followed by something else.")
        self._inside = "head"
        return True

    def _content_type(self) -> str | None:
        """The media type of the part; None where its head has not come yet."""
        if len(self._buffer) < 2:
            return None
        if self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
            return ""
        head = self._line(b"\r\n\r\n", "The headers of a part are too long.")
        if head is None:
            return None
        for line in head.decode("latin-1").split("\r\n"):
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-type":
                return value.partition(";")[0].strip().lower()
        return ""

    def _line(self, end: bytes, complaint: str) -> bytes | None:
        """What comes before `end`, which is taken away too; None where it has not come yet."""
        at = self._buffer.find(end, 0, _LONGEST_HEAD_BYTES + len(end))
        if at < 0:
            if len(self._buffer) > _LONGEST_HEAD_BYTES:
                raise Malformed(complaint)
            return None
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        return found
