"""Protocol data units of the DICOM upper layer (PS3.8 9.3) on a blocking socket: what a PDU may be, and no more."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from io import BufferedReader
from typing import Literal, cast

#: Larger than any PDU that is offered, so that most come with one or two calls to the kernel.
_READ_AHEAD_BYTES = 1 << 18
#: Of any PDU but P-DATA-TF. 128 presentation contexts with some twenty transfer syntaxes each stay below.
_MOST_CONTROL_BYTES = 1 << 18
#: A P-DATA-TF a little longer than was offered harms nobody; senders count its length in different ways.
_TOLERATED_BYTES = 1024


class Kind(IntEnum):
    """PDU types."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class AbortReason(IntEnum):
    """Why the provider aborts (PS3.8 9.3.8)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PARAMETER = 6


class BrokenOff(Exception):
    """The peer went away, or a time limit closed the connection."""


class ProtocolError(Exception):
    """The peer sent what the upper layer does not allow; reason: for the A-ABORT that answers it."""

    def __init__(self, text: str, reason: AbortReason = AbortReason.INVALID_PARAMETER) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Fragment:
    """The head of a presentation data value: its bytes follow on the connection."""

    context_id: int
    is_command: bool
    is_last: bool
    length: int


class Connection:
    """A connection's PDUs, read one at a time. max_pdu_bytes: what the peer was offered for a P-DATA-TF.

    Every method may raise BrokenOff.
    """

    def __init__(self, peer: socket.socket, *, max_pdu_bytes: int) -> None:
        self._peer = peer
        self._most_data_bytes = max_pdu_bytes + _TOLERATED_BYTES
        self._stream = cast(BufferedReader, peer.makefile("rb", buffering=_READ_AHEAD_BYTES))
        self._can_acknowledge = hasattr(socket, "TCP_QUICKACK") and peer.family in (socket.AF_INET, socket.AF_INET6)

    def next_pdu(self) -> tuple[Kind, int]:
        """The type and length of the next PDU, whose body is to be read by `body` or by `fragment`. Raises
        ProtocolError.
        """
        head = self._read(6)
        length = int.from_bytes(head[2:], "big")
        try:
            kind = Kind(head[0])
        except ValueError:
            raise ProtocolError(f"unknown PDU type {head[0]}", AbortReason.UNRECOGNIZED_PDU) from None
        most = self._most_data_bytes if kind is Kind.DATA else _MOST_CONTROL_BYTES
        if length > most:
            raise ProtocolError(f"a PDU of {length} bytes, at most {most} are taken")
        self._acknowledge_at_once()
        return kind, length

    def body(self, length: int) -> bytes:
        return self._read(length)

    def fragment(self, left: int) -> Fragment:
        """The head of the next presentation data value. left: what is left of its PDU. Raises ProtocolError."""
        if left < 6:
            raise ProtocolError("a P-DATA-TF ends inside a presentation data value")
        length, context_id, control = struct.unpack(">LBB", self._read(6))
        if length < 2 or length + 4 > left:
            raise ProtocolError("a presentation data value is longer than its P-DATA-TF")
        return Fragment(context_id, bool(control & 1), bool(control & 2), length - 2)

    def read_into(self, view: memoryview) -> None:
        """Fill the view with the next bytes."""
        try:
            while view:
                count = self._stream.readinto(view)
                if not count:
                    raise BrokenOff
                view = view[count:]
        except (OSError, ValueError):
            raise BrokenOff from None

    def send(self, content: bytes) -> None:
        try:
            self._peer.sendall(content)
        except (OSError, ValueError):
            raise BrokenOff from None

    def close(self) -> None:
        for close in (self._stream.close, self._peer.close):
            try:
                close()
            except (OSError, ValueError):
                continue

    def _read(self, length: int) -> bytes:
        try:
            content = self._stream.read(length)
        except (OSError, ValueError):
            raise BrokenOff from None
        if len(content) < length:
            raise BrokenOff
        return content

    def _acknowledge_at_once(self) -> None:
        """Re-arm TCP_QUICKACK, which the kernel drops again and again: a sender with Nagle's algorithm on waits 40 ms
        for each delayed acknowledgement."""
        if self._can_acknowledge:
            try:
                self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            except OSError:
                raise BrokenOff from None


def data_pdus(context_id: int, content: bytes, *, kind: Literal["command", "dataset"], max_pdu_bytes: int) -> bytes:
    """P-DATA-TF PDUs that carry a command or data set. max_pdu_bytes: what the peer takes; 0: any."""
    most = (max_pdu_bytes or 1 << 17) - 6
    flag = 1 if kind == "command" else 0
    out = []
    for start in range(0, max(len(content), 1), most):
        part = content[start : start + most]
        last = 2 if start + most >= len(content) else 0
        out.append(struct.pack(">BxLLBB", Kind.DATA, len(part) + 6, len(part) + 2, context_id, flag | last) + part)
    return b"".join(out)


def release_reply() -> bytes:
    return struct.pack(">BxLL", Kind.RELEASE_RP, 4, 0)


def abort(reason: AbortReason) -> bytes:
    """An A-ABORT of the service provider."""
    return struct.pack(">BxLBBBB", Kind.ABORT, 4, 0, 0, 2, reason)
