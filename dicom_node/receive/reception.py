"""What becomes of the requests of associations: instances into the inbox, and answers to storage commitment."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import BytesIO

from pydicom import dcmread

from dicom_node.broken import BROKEN
from dicom_node.digest import start_of_dataset
from dicom_node.logs import about
from dicom_node.receive.association import Message, Reply
from dicom_node.receive.command import Command, Status
from dicom_node.receive.commitment import Commitment
from dicom_node.receive.gate import Gate
from dicom_node.receive.head import file_head, quick_identity
from dicom_node.receive.inbox import Inbox
from dicom_node.receive.incoming import Incoming
from dicom_node.receive.intake import Arrived, Intake
from dicom_node.receive.negotiation import Context, Rejection, Request
from dicom_node.records import Identity
from dicom_node.refusal import Refused

_LOG = logging.getLogger("marginwatch.listener")

#: As much of a data set as surely says whose it is.
_HEAD_BYTES = 1 << 20


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
        try:
            reply = self._kept(message, incoming, request)
        except Refused as refused:
            full = refused.code == "disk_full"
            reply = Reply(Status.OUT_OF_RESOURCES if full else Status.CANNOT_UNDERSTAND, refused.text)
        except OSError as problem:
            _LOG.error("an instance was not stored: the data folder cannot be used: %s", problem.strerror)
            reply = Reply(Status.OUT_OF_RESOURCES, "The node cannot write to its disk.")
        if reply.status != Status.SUCCESS:
            incoming.drop()
            with _about(reply.identity):
                _LOG.warning("an instance was not stored (%04XH): %s", reply.status, reply.comment)
        return reply

    def deposit(self, content: bytes, *, source: str = "", study_instance_uid: str = "") -> Reply:
        """Keep an instance that came in another way than by C-STORE, as a whole DICOM file. source: who it came from,
        an AE title; study_instance_uid: of which study it has to be, if not empty."""
        try:
            stream = BytesIO(content)
            meta = dcmread(stream, specific_tags=[], stop_before_pixels=True).file_meta
            syntax = str(meta.TransferSyntaxUID)
            stream.seek(0)
            start = start_of_dataset(stream)
            identity = quick_identity(lambda most: content[start : start + most], syntax)
        except Refused as refused:
            return Reply(Status.CANNOT_UNDERSTAND, refused.text)
        except BROKEN:
            return Reply(Status.CANNOT_UNDERSTAND, "This is no DICOM file with its transfer syntax.")
        if study_instance_uid and identity.study_instance_uid != study_instance_uid:
            return Reply(Status.DATASET_DOES_NOT_MATCH, "The instance is of another study.", identity=identity)
        head = file_head(identity.sop_class_uid, identity.sop_instance_uid, syntax, source_ae_title=source)
        incoming = Incoming(head, part=self._inbox.part, most_bytes=self._max_instance_bytes)
        try:
            self._require_space()
            for at in range(start, len(content), _HEAD_BYTES):
                part = memoryview(content)[at : at + _HEAD_BYTES]
                incoming.room(len(part))[:] = part
            if incoming.problem is not None:
                raise incoming.problem
            if incoming.is_too_large:
                return Reply(Status.OUT_OF_RESOURCES, "The instance is larger than this node takes.", identity=identity)
            self._take(identity, incoming, source)
        except Refused as refused:
            return Reply(Status.OUT_OF_RESOURCES, refused.text, identity=identity)
        except OSError as problem:
            incoming.drop()
            with _about(identity):
                _LOG.error("an instance was not stored: the data folder cannot be used: %s", problem.strerror)
            return Reply(Status.OUT_OF_RESOURCES, "The node cannot write to its disk.", identity=identity)
        return Reply(Status.SUCCESS, identity=identity)

    def commit(self, message: Message, request: Request) -> Reply:
        return self._commitment.requested(message, request)

    def reported(self, message: Message, request: Request) -> Reply:
        del request
        return self._commitment.reported(message)

    def _kept(self, message: Message, incoming: Incoming, request: Request) -> Reply:
        self._require_space()
        if incoming.problem is not None:
            raise incoming.problem
        if incoming.is_too_large:
            return Reply(Status.OUT_OF_RESOURCES, "The instance is larger than this node takes.")
        identity = quick_identity(incoming.start, message.context.transfer_syntax)
        announced = message.command.sop_instance_uid
        if identity.sop_instance_uid != announced:
            text = "The data set is not the instance that was announced."
            return Reply(Status.CANNOT_UNDERSTAND, text, identity=identity)
        self._take(identity, incoming, request.calling_ae_title)
        return Reply(Status.SUCCESS, identity=identity)

    def _take(self, identity: Identity, incoming: Incoming, source: str) -> None:
        self._intake.take(Arrived(self._inbox.keep(incoming), identity, source))


def _about(identity: Identity | None) -> AbstractContextManager[None]:
    """What is logged in the block says whose instance it is about, as far as that is known."""
    if identity is None:
        return about(step="receive")
    return about(study_instance_uid=identity.study_instance_uid, patient_id=identity.patient_id, step="receive")
