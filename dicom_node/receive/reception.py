"""What becomes of the requests of associations: instances into the inbox, and answers to storage commitment."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import BytesIO

from dicom_node.identity import identity_of_file
from dicom_node.logs import about
from dicom_node.placing import Brought
from dicom_node.receive.association import Message, Reply
from dicom_node.receive.command import Command, Status
from dicom_node.receive.commitment import Commitment
from dicom_node.receive.gate import Gate
from dicom_node.receive.head import file_head, quick_identity
from dicom_node.receive.inbox import Inbox
from dicom_node.receive.incoming import Incoming
from dicom_node.receive.intake import Intake
from dicom_node.receive.negotiation import Context, Rejection, Request
from dicom_node.records import Identity
from dicom_node.refusal import Refused

_LOG = logging.getLogger("marginwatch.listener")

_PIECE_BYTES = 1 << 20


class Reception:
    """The services of a node's listener. require_space: raises `Refused` ("disk_full"); max_instance_bytes: of a data
    set."""

    def __init__(
        self,
        gate: Gate,
        inbox: Inbox,
        intake: Intake,
        commitment: Commitment,
        *,
        require_space: Callable[[], None],
        max_instance_bytes: int,
    ) -> None:
        self._gate = gate
        self._inbox = inbox
        self._intake = intake
        self._commitment = commitment
        self._require_space = require_space
        self._max_instance_bytes = max_instance_bytes

    def refuses(self, request: Request) -> Rejection | None:
        return self._gate.refuses(request)

    def incoming(self, command: Command, context: Context, request: Request) -> Incoming:
        head = file_head(
            command.sop_class_uid,
            command.sop_instance_uid,
            context.transfer_syntax,
            source_ae_title=request.calling_ae_title,
        )
        try:
            self._require_space()
        except (Refused, OSError):
            return Incoming(head, part=self._inbox.part, most_bytes=0)
        return Incoming(head, part=self._inbox.part, most_bytes=self._max_instance_bytes)

    def store(self, message: Message, request: Request) -> Reply:
        incoming = message.incoming
        if incoming is None:
            return Reply(Status.CANNOT_UNDERSTAND, "a C-STORE without a data set")
        source = f"{message.command.sop_instance_uid} from {request.calling_ae_title}"
        reply = _answered(lambda: self._kept(message, incoming, request), source)
        if reply.status != Status.SUCCESS:
            incoming.drop()
        return reply

    def deposit(self, content: bytes, *, source: str = "", study_instance_uid: str = "") -> Reply:
        """Keep an instance that came in another way than by C-STORE, as a whole DICOM file. source: who it came from,
        an AE title; study_instance_uid: of which study it has to be, if not empty."""
        return _answered(lambda: self._deposited(content, source, study_instance_uid), f"one by {source}")

    def commit(self, message: Message, request: Request) -> Reply:
        return self._commitment.requested(message, request)

    def reported(self, message: Message) -> Reply:
        return self._commitment.reported(message)

    def _kept(self, message: Message, incoming: Incoming, request: Request) -> Reply:
        if text := self._no_room(incoming):
            return Reply(Status.OUT_OF_RESOURCES, text)
        identity = quick_identity(incoming.start, message.context.transfer_syntax)
        if identity.sop_instance_uid != message.command.sop_instance_uid:
            text = "The data set is not the instance that was announced."
            return Reply(Status.CANNOT_UNDERSTAND, text, identity=identity)
        if identity.sop_class_uid != message.command.sop_class_uid:
            text = "The data set is not of the class that was announced."
            return Reply(Status.DATASET_DOES_NOT_MATCH, text, identity=identity)
        return self._taken(identity, incoming, request.calling_ae_title)

    def _deposited(self, content: bytes, source: str, study_instance_uid: str) -> Reply:
        found = identity_of_file(BytesIO(content))
        identity = found.identity
        if study_instance_uid and identity.study_instance_uid != study_instance_uid:
            return Reply(Status.DATASET_DOES_NOT_MATCH, "The instance is of another study.", identity=identity)
        head = file_head(
            identity.sop_class_uid, identity.sop_instance_uid, found.transfer_syntax_uid, source_ae_title=source
        )
        incoming = Incoming(head, part=self._inbox.part, most_bytes=self._max_instance_bytes)
        for at in range(found.start_bytes, len(content), _PIECE_BYTES):
            piece = memoryview(content)[at : at + _PIECE_BYTES]
            incoming.room(len(piece))[:] = piece
        if text := self._no_room(incoming):
            reply = Reply(Status.OUT_OF_RESOURCES, text, identity=identity)
        else:
            reply = self._taken(identity, incoming, source)
        if reply.status != Status.SUCCESS:
            incoming.drop()
        return reply

    def _no_room(self, incoming: Incoming) -> str:
        """Why the data set cannot be kept, whatever it is; empty where it can."""
        try:
            self._require_space()
        except Refused as refused:
            return refused.text
        except OSError as problem:
            return _unwritable(problem)
        if incoming.problem is not None:
            return _unwritable(incoming.problem)
        return "The instance is larger than this node takes." if incoming.is_too_large else ""

    def _taken(self, identity: Identity, incoming: Incoming, source: str) -> Reply:
        try:
            self._intake.take(Brought(self._inbox.keep(incoming), identity, source))
        except OSError as problem:
            with _about(identity):
                return Reply(Status.OUT_OF_RESOURCES, _unwritable(problem), identity=identity)
        return Reply(Status.SUCCESS, identity=identity)


def _unwritable(problem: OSError) -> str:
    _LOG.error("the data folder cannot be used: %s", problem.strerror)
    return "The node cannot write to its disk."


def _answered(keep: Callable[[], Reply], what: str) -> Reply:
    """What an attempt to keep an instance is answered with, also where it cannot be read. what: for the log."""
    try:
        reply = keep()
    except Refused as refused:
        reply = Reply(Status.CANNOT_UNDERSTAND, refused.text)
    if reply.status != Status.SUCCESS:
        with _about(reply.identity):
            _LOG.warning("an instance was not stored, %r (%04XH): %s", what, reply.status, reply.comment)
    return reply


def _about(identity: Identity | None) -> AbstractContextManager[None]:
    """What is logged in the block says whose instance it is about, as far as that is known."""
    if identity is None:
        return about(step="receive")
    return about(study_instance_uid=identity.study_instance_uid, patient_id=identity.patient_id, step="receive")
