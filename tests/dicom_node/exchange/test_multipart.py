"""multipart/related comes apart the same however the network cuts it, and what is cut off is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.exchange.answers import NoAnswer
from dicom_node.exchange.multipart import parts, wrapped

EDGE = "multipart/related; boundary=edge"


def cut(message: bytes, size: int) -> list[bytes]:
    return [message[start : start + size] for start in range(0, len(message), size)]


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.integers(1, 50))
def test_bodies_come_back_however_the_message_is_cut(bodies, size):
    message = b"".join(b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + body + b"\r\n" for body in bodies)
    if any(b"\r\n--edge" in body for body in bodies):
        return
    assert list(parts(cut(message + b"--edge--\r\n", size), EDGE, most_bytes=1000)) == bodies


def test_what_is_written_can_be_read(tmp_path):
    files = [tmp_path / "1.dcm", tmp_path / "2.dcm"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 100 + b"\r\n--")
    message = b"".join(wrapped(files, "edge"))
    assert list(parts([message], EDGE, most_bytes=1000)) == [file.read_bytes() for file in files]


def test_what_is_cut_off_or_too_large_is_noticed():
    message = b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + b"x" * 100
    with pytest.raises(NoAnswer, match="broke off"):
        list(parts([message], EDGE, most_bytes=1000))
    with pytest.raises(NoAnswer, match="too large"):
        list(parts([message, b"x" * 100_000], EDGE, most_bytes=1000))


def test_what_is_not_multipart_is_told():
    for other in ("", "application/json", "multipart/related", "application/json; boundary=edge"):
        with pytest.raises(NoAnswer, match="multipart"):
            list(parts([b"--edge--\r\n"], other, most_bytes=1000))
    with pytest.raises(NoAnswer, match="multipart"):
        list(parts([b"--edge and more\r\n\r\n--edge--\r\n"], EDGE, most_bytes=1000))
