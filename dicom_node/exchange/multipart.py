"""multipart/related, as DICOMweb wraps instances (PS3.18 8.6.1.2): read piece by piece, written whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.message import Message
from pathlib import Path

from dicom_node.exchange.answers import NoAnswer

#: A part's own headers are a few lines; what is longer is no multipart message.
_MOST_HEADER_BYTES = 1 << 16


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Raises `NoAnswer` where it is not multipart."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_maintype() != "multipart" or not isinstance(boundary, str) or not boundary:
        raise NoAnswer("the PACS did not answer with multipart/related")
    return boundary.encode("latin-1")


def parts(chunks: Iterable[bytes], boundary: bytes, *, most_bytes: int) -> Iterator[bytes]:
    """The body of each part. Raises `NoAnswer` where the message ends early or a part is larger than `most_bytes`."""
    delimiter = b"\r\n--" + boundary
    buffer = bytearray(b"\r\n")  # so that the first delimiter looks like the others
    searched, inside = 0, False
    for chunk in chunks:
        buffer += chunk
        while True:
            found = buffer.find(delimiter, searched)
            if found < 0:
                searched = max(0, len(buffer) - len(delimiter))
                break
            after = bytes(buffer[found + len(delimiter) : found + len(delimiter) + 2])
            if len(after) < 2:
                searched = found
                break
            if inside:
                yield _body(bytes(buffer[:found]))
            if after == b"--":
                return
            del buffer[: found + len(delimiter)]
            searched, inside = 0, True
        if len(buffer) > most_bytes + _MOST_HEADER_BYTES:
            raise NoAnswer("the PACS sent an instance that is too large")
    raise NoAnswer("the PACS broke off in the middle of its answer")


def wrapped(files: Iterable[Path], boundary: str) -> Iterator[bytes]:
    """The pieces of a message with the content of each file as a part."""
    for file in files:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        yield file.read_bytes()
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _body(part: bytes) -> bytes:
    """A part without its headers; before them stands the end of the delimiter's line."""
    if part.startswith(b"\r\n\r\n"):  # no headers at all
        return part[4:]
    end = part.find(b"\r\n\r\n", 0, _MOST_HEADER_BYTES)
    if end < 0:
        raise NoAnswer("the PACS did not answer with multipart/related")
    return part[end + 4 :]
