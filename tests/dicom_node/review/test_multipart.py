"""Multipart bodies: cut anywhere, the parts are the same; what is broken or too large is told."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.multipart import Malformed, boundary_of
from dicom_node.review.multipart import Caps, TooLarge, read_parts

BOUNDARY = b"0f3cf5c0"


def body(contents: list[bytes], *, preamble: bytes = b"") -> bytes:
    parts = b"".join(
        b"--" + BOUNDARY + b"\r\nContent-Type: application/dicom; x=y\r\nContent-Location: /1\r\n\r\n" + c + b"\r\n"
        for c in contents
    )
    return preamble + parts + b"--" + BOUNDARY + b"--\r\nepilogue"


@dataclass(frozen=True)
class Read:
    content_type: str
    content: bytes | None


def read(data: bytes, *, cut: int = 65536, part_bytes: int = 2**20, body_bytes: int = 2**24) -> list[Read]:
    found: list[Read] = []

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(data), cut):
            yield data[at : at + cut]

    async def collect() -> None:
        caps = Caps(part_bytes, body_bytes, Path(tempfile.gettempdir()))
        try:
            async for part in read_parts(chunks(), BOUNDARY, caps):
                found.append(Read(part.content_type, part.content()))
        except (Malformed, TooLarge) as problem:
            problem.args = (*problem.args, found)
            raise

    asyncio.run(collect())
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([b"\r\n--0f3cf5c", b"--", b"\r\n", b"\r"]), max_size=4),
    st.integers(1, 40),
    st.sampled_from([b"", b"hello\r\n", b"\r\n"]),
)
def test_wherever_the_body_is_cut_the_parts_are_the_same(contents, cut, preamble):
    assert [part.content for part in read(body(contents, preamble=preamble), cut=cut)] == contents


def test_large_parts_come_whole():
    contents = [os.urandom(9 * 2**20), b"small", os.urandom(3 * 2**20)]
    found = read(body(contents), part_bytes=2**24, body_bytes=2**25)
    assert [part.content for part in found] == contents
    assert {part.content_type for part in found} == {"application/dicom"}


def test_a_part_that_is_too_large_is_passed_over():
    found = read(body([b"a", b"b" * 5000, b"c"]), part_bytes=4000)
    assert [part.content for part in found] == [b"a", None, b"c"]


def test_a_body_that_is_too_large_is_broken_off_after_what_came():
    with pytest.raises(TooLarge) as problem:
        read(body([b"a" * 1000, b"b" * 100_000]), cut=1000, body_bytes=50_000)
    assert [part.content for part in problem.value.args[-1]] == [b"a" * 1000]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing of the kind",
        body([b"x"])[:-15],
        b"--0f3cf5c0\r\nContent-Type: application/dicom\r\n\r\nno end",
        b"--0f3cf5c0 and more\r\n\r\n\r\n--0f3cf5c0--",
        b"--0f3cf5c0\r\n" + b"x" * 40000,
        b"--0f3cf5c0" + b" " * 40000,
    ],
)
def test_what_is_no_multipart_is_told(data):
    with pytest.raises(Malformed) as problem:
        read(data)
    assert problem.value.args[0].endswith(".")


def test_the_boundary_is_read_from_the_content_type():
    header = 'multipart/related; type="application/dicom"; boundary="a b:c"'
    assert boundary_of(header) == ("multipart/related", "application/dicom", b"a b:c")
    for bad in ("multipart/related", "multipart/related; boundary=", 'multipart/related; boundary="ä"', ""):
        with pytest.raises(Malformed):
            boundary_of(bad)
