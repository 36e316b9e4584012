"""multipart/related, as DICOMweb wraps instances (PS3.18 8.6.1.2): read piece by piece, written whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dicom_node.exchange.answers import NoAnswer
from dicom_node.multipart import Malformed, MultipartParser, PartBegins, PartEnds, boundary_of


def parts(chunks: Iterable[bytes], content_type: str, *, most_bytes: int) -> Iterator[bytes]:
    """The body of each part of a message with this Content-Type.

    Raises `NoAnswer` where it is no multipart message, ends early or has a part larger than `most_bytes`.
    """
    try:
        media_type, _, boundary = boundary_of(content_type)
        if not media_type.startswith("multipart/"):
            raise Malformed("The content type is not multipart.")
        yield from _parts(chunks, MultipartParser(boundary), most_bytes)
    except Malformed as problem:
        raise NoAnswer(f"the PACS did not answer with multipart/related ({problem})") from None


def _parts(chunks: Iterable[bytes], parser: MultipartParser, most_bytes: int) -> Iterator[bytes]:
    content = bytearray()
    for chunk in chunks:
        for event in parser.feed(chunk):
            if isinstance(event, PartBegins):
                content.clear()
            elif isinstance(event, PartEnds):
                yield bytes(content)
            elif len(content) + len(event) > most_bytes:
                raise NoAnswer("the PACS sent an instance that is too large")
            else:
                content += event
        if parser.is_at_end:
            return
    raise NoAnswer("the PACS broke off in the middle of its answer")


def wrapped(files: Iterable[Path], boundary: str) -> Iterator[bytes]:
    """The pieces of a message with the content of each file as a part."""
    for file in files:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        yield file.read_bytes()
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()
