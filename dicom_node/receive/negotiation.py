"""What an association is asked for and what is granted: A-ASSOCIATE-RQ, -AC and -RJ (PS3.8 9.3.2 to 9.3.4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from pydicom.uid import (
    AllTransferSyntaxes,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AllStoragePresentationContexts

from dicom_node.receive.pdu import Kind, ProtocolError
from dicom_node.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STORAGE_CLASSES = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
_CLASSES = STORAGE_CLASSES | {VERIFICATION, STORAGE_COMMITMENT}
_SYNTAXES = frozenset(map(str, AllTransferSyntaxes))
_PLAIN = tuple(map(str, (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)))
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
#: PS3.8 9.3.2.2: presentation context IDs are odd numbers up to 255.
_MOST_CONTEXTS = 128
_ITEM_HEAD = struct.Struct(">BxH")


class Rejection(Enum):
    """Why an association is refused: result, source and reason of PS3.8 9.3.4."""

    APPLICATION_CONTEXT = (1, 1, 2)
    CALLING_AE_TITLE = (1, 1, 3)
    CALLED_AE_TITLE = (1, 1, 7)
    CONGESTION = (2, 3, 1)
    LIMIT = (2, 3, 2)

    def pdu(self) -> bytes:
        return struct.pack(">BxLxBBB", Kind.ASSOCIATE_RJ, 4, *self.value)


@dataclass(frozen=True)
class Proposal:
    """One presentation context as it is asked for."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """An A-ASSOCIATE-RQ. max_pdu_bytes: what the peer takes; 0: any. roles: by SOP class, whether the peer proposes to
    be its user and whether to be its provider (PS3.7 D.3.3.4); empty where it does not say."""

    called_ae_title: str
    calling_ae_title: str
    application_context: str
    proposals: tuple[Proposal, ...]
    max_pdu_bytes: int
    raw_titles: bytes = field(repr=False)
    roles: Mapping[str, tuple[bool, bool]] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """One presentation context as it was granted."""

    abstract_syntax: str
    transfer_syntax: str


def read_request(body: bytes) -> Request:
    """The request in an A-ASSOCIATE-RQ's body. Raises ProtocolError."""
    if len(body) < 68:
        raise ProtocolError("an A-ASSOCIATE-RQ that is too short")
    if not int.from_bytes(body[:2], "big") & 1:
        raise ProtocolError("an A-ASSOCIATE-RQ of an unknown protocol version")
    application_context, proposals = "", []
    user: list[tuple[int, bytes]] = []
    for kind, content in _items(body[68:]):
        if kind == 0x10:
            application_context = _uid(content)
        elif kind == 0x20:
            proposals.append(_proposal(content))
        elif kind == 0x50:
            user += _items(content)
    if not proposals or len(proposals) > _MOST_CONTEXTS:
        raise ProtocolError(f"an A-ASSOCIATE-RQ with {len(proposals)} presentation contexts")
    max_pdu_bytes = next((int.from_bytes(value, "big") for kind, value in user if kind == 0x51 and len(value) == 4), 0)
    roles = dict(_role(value) for kind, value in user if kind == 0x54)
    if 0 < max_pdu_bytes < 1024:
        raise ProtocolError(f"a largest PDU of {max_pdu_bytes} bytes cannot hold an answer")
    called, calling = (body[at : at + 16].decode("ascii", "replace").strip(" \0") for at in (4, 20))
    if not (called + calling).isprintable():
        raise ProtocolError("an AE title with control characters")
    return Request(called, calling, application_context, tuple(proposals), max_pdu_bytes, body[4:68], roles)


def granted(request: Request) -> dict[int, Context]:
    """The contexts that are granted, by their IDs: of classes that the node serves, in the syntax that fits best."""
    found = {}
    for proposal in request.proposals:
        known = _SYNTAXES if proposal.abstract_syntax in STORAGE_CLASSES else frozenset(_PLAIN)
        syntax = _best_syntax([uid for uid in proposal.transfer_syntaxes if uid in known])
        if proposal.abstract_syntax in _CLASSES and syntax is not None:
            found[proposal.context_id] = Context(proposal.abstract_syntax, syntax)
    return found


def acceptance(request: Request, contexts: Mapping[int, Context], *, max_pdu_bytes: int) -> bytes:
    """The A-ASSOCIATE-AC that answers the request."""
    items = [_item(0x10, _APPLICATION_CONTEXT.encode())]
    for proposal in request.proposals:
        context = contexts.get(proposal.context_id)
        result = 0 if context else 4 if proposal.abstract_syntax in _CLASSES else 3
        syntax = context.transfer_syntax if context else ImplicitVRLittleEndian
        items.append(_item(0x21, struct.pack(">BxBx", proposal.context_id, result) + _item(0x40, syntax.encode())))
    user = _item(0x51, max_pdu_bytes.to_bytes(4, "big"))
    user += _item(0x52, IMPLEMENTATION_CLASS_UID.encode()) + _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    if STORAGE_COMMITMENT in request.roles:  # a PACS that reports on its own association proposes to be the provider
        uid = STORAGE_COMMITMENT.encode()
        user += _item(0x54, struct.pack(">H", len(uid)) + uid + bytes(request.roles[STORAGE_COMMITMENT]))
    items.append(_item(0x50, user))
    body = struct.pack(">Hxx", 1) + request.raw_titles + b"".join(items)
    return struct.pack(">BxL", Kind.ASSOCIATE_AC, len(body)) + body


def is_of_dicom(request: Request) -> bool:
    """Whether it is an application context of DICOM."""
    return request.application_context == _APPLICATION_CONTEXT


def _best_syntax(known: Sequence[str]) -> str | None:
    """The sender's first choice; but where that is one of the uncompressed ones, explicit little endian before implicit
    before big endian, because private elements keep their VR and later readers find it fastest."""
    if not known or known[0] not in _PLAIN:
        return known[0] if known else None
    return min((syntax for syntax in known if syntax in _PLAIN), key=_PLAIN.index)


def _proposal(content: bytes) -> Proposal:
    if len(content) < 4 or not content[0] & 1:
        raise ProtocolError("a presentation context without a valid ID")
    abstract, transfers = "", []
    for kind, value in _items(content[4:]):
        if kind == 0x30:
            abstract = _uid(value)
        elif kind == 0x40:
            transfers.append(_uid(value))
    return Proposal(content[0], abstract, tuple(transfers))


def _role(content: bytes) -> tuple[str, tuple[bool, bool]]:
    length = int.from_bytes(content[:2], "big")
    if len(content) != 4 + length:
        raise ProtocolError("a role selection of a wrong length")
    return _uid(content[2 : 2 + length]), (bool(content[-2]), bool(content[-1]))


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of the items that follow one another."""
    at = 0
    while at < len(content):
        if at + 4 > len(content):
            raise ProtocolError("an item of the association request ends in its head")
        kind, length = _ITEM_HEAD.unpack_from(content, at)
        if at + 4 + length > len(content):
            raise ProtocolError("an item of the association request is longer than the request")
        yield kind, content[at + 4 : at + 4 + length]
        at += 4 + length


def _item(kind: int, content: bytes) -> bytes:
    return _ITEM_HEAD.pack(kind, len(content)) + content


def _uid(content: bytes) -> str:
    return content.decode("ascii", "replace").rstrip(" \0")
