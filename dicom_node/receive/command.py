"""DIMSE command sets (PS3.7): a flat list of elements in implicit VR little endian, read and written as such."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from dicom_node.receive.pdu import ProtocolError

_HEAD = struct.Struct("<HHL")
_NO_DATASET = 0x0101
#: Set in the Command Field of a response.
_RESPONSE = 0x8000
_GROUP_LENGTH, _CLASS, _REQUESTED_CLASS, _FIELD, _ID = 0x0000, 0x0002, 0x0003, 0x0100, 0x0110
_ANSWERED_ID, _DATASET_TYPE, _STATUS, _COMMENT = 0x0120, 0x0800, 0x0900, 0x0902
_INSTANCE, _REQUESTED_INSTANCE, _EVENT_TYPE, _ACTION_TYPE = 0x1000, 0x1001, 0x1002, 0x1008
_LONGEST_COMMENT = 64


class Field(IntEnum):
    """Command Fields that are dealt with."""

    C_STORE = 0x0001
    C_ECHO = 0x0030
    C_CANCEL = 0x0FFF
    N_EVENT_REPORT = 0x0100
    N_ACTION = 0x0130


class Status(IntEnum):
    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_ACTION = 0x0123
    UNRECOGNIZED_OPERATION = 0x0211
    OUT_OF_RESOURCES = 0xA700
    DATASET_DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True)
class Command:
    """A request or response. sop_class_uid, sop_instance_uid: affected or requested; type_id: of an action or event."""

    field: int
    message_id: int
    has_dataset: bool
    sop_class_uid: str
    sop_instance_uid: str
    type_id: int

    @property
    def is_response(self) -> bool:
        return bool(self.field & _RESPONSE)


def read_command(content: bytes) -> Command:
    """The command in a command set. Raises ProtocolError."""
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(content):
        if at + 8 > len(content):
            raise ProtocolError("a command set ends inside an element")
        group, element, length = _HEAD.unpack_from(content, at)
        if group != 0 or at + 8 + length > len(content):
            raise ProtocolError("a command set holds what is no command element")
        elements[element] = content[at + 8 : at + 8 + length]
        at += 8 + length
    if _FIELD not in elements or _DATASET_TYPE not in elements:
        raise ProtocolError("a command set without Command Field or Command Data Set Type")
    message = _ID if _ID in elements else _ANSWERED_ID
    return Command(
        field=_number(elements, _FIELD),
        message_id=_number(elements, message),
        has_dataset=_number(elements, _DATASET_TYPE) != _NO_DATASET,
        sop_class_uid=_text(elements, _CLASS) or _text(elements, _REQUESTED_CLASS),
        sop_instance_uid=_text(elements, _INSTANCE) or _text(elements, _REQUESTED_INSTANCE),
        type_id=_number(elements, _ACTION_TYPE) or _number(elements, _EVENT_TYPE),
    )


def reply_to(command: Command, status: int, *, comment: str = "") -> bytes:
    """The command set of a response without a data set. comment: why, for people; its first 64 characters are sent."""
    elements: dict[int, bytes | int] = {
        _CLASS: _uid(command.sop_class_uid),
        _FIELD: command.field | _RESPONSE,
        _ANSWERED_ID: command.message_id,
        _DATASET_TYPE: _NO_DATASET,
        _STATUS: status,
    }
    if comment:
        plain = comment.encode("ascii", "replace").replace(b"\\", b"/")[:_LONGEST_COMMENT]
        elements[_COMMENT] = plain + b" " * (len(plain) % 2)
    if command.sop_instance_uid:
        elements[_INSTANCE] = _uid(command.sop_instance_uid)
    if command.field == Field.N_ACTION:
        elements[_ACTION_TYPE] = command.type_id
    if command.field == Field.N_EVENT_REPORT:
        elements[_EVENT_TYPE] = command.type_id
    return _encoded(elements)


def event_report(sop_class_uid: str, sop_instance_uid: str, *, message_id: int, event_type: int) -> bytes:
    """The command set of an N-EVENT-REPORT request with a data set."""
    return _encoded(
        {
            _CLASS: _uid(sop_class_uid),
            _FIELD: int(Field.N_EVENT_REPORT),
            _ID: message_id,
            _DATASET_TYPE: 0x0001,
            _INSTANCE: _uid(sop_instance_uid),
            _EVENT_TYPE: event_type,
        }
    )


def _encoded(elements: Mapping[int, bytes | int]) -> bytes:
    body = b""
    for element in sorted(elements):
        value = elements[element]
        content = value if isinstance(value, bytes) else value.to_bytes(2, "little")
        body += _HEAD.pack(0, element, len(content)) + content
    return _HEAD.pack(0, _GROUP_LENGTH, 4) + len(body).to_bytes(4, "little") + body


def _number(elements: Mapping[int, bytes], element: int) -> int:
    content = elements.get(element, b"")
    if len(content) not in (0, 2):
        raise ProtocolError(f"a command element (0000,{element:04X}) of {len(content)} bytes")
    return int.from_bytes(content, "little")


def _text(elements: Mapping[int, bytes], element: int) -> str:
    return elements.get(element, b"").decode("ascii", "replace").rstrip(" \0")


def _uid(text: str) -> bytes:
    content = text.encode("ascii", "replace")
    return content + b"\0" * (len(content) % 2)
