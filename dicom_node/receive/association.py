"""One association: negotiated, served message by message, and ended; in a thread of its own."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dicom_node.receive.command import Command, Field, Status, read_command, reply_to
from dicom_node.receive.incoming import Incoming
from dicom_node.receive.negotiation import (
    STORAGE_CLASSES,
    STORAGE_COMMITMENT,
    VERIFICATION,
    Context,
    Rejection,
    Request,
    acceptance,
    granted,
    is_of_dicom,
    read_request,
)
from dicom_node.receive.pdu import (
    AbortReason,
    BrokenOff,
    Connection,
    Kind,
    ProtocolError,
    abort,
    data_pdus,
    release_reply,
)
from dicom_node.records import Identity

_MOST_COMMAND_BYTES = 1 << 16
#: Of data sets of other messages than C-STORE: a storage commitment request names each instance in some 150 bytes.
MOST_REQUEST_BYTES = 16 << 20


@dataclass(frozen=True)
class Limits:
    """request_s: for the association request to be whole; pdu_s: for a PDU that has begun; idle_s: between two PDUs;
    max_pdu_bytes: offered to the peer."""

    request_s: float = 30.0
    pdu_s: float = 60.0
    idle_s: float = 300.0
    max_pdu_bytes: int = 131072


@dataclass(frozen=True)
class Reply:
    """What a request is answered with. comment: why, for people; report: sent after it; identity: of the instance, as
    far as it was read."""

    status: int
    comment: str = ""
    report: Report | None = None
    identity: Identity | None = None


@dataclass(frozen=True)
class Report:
    """An N-EVENT-REPORT to be sent on the same association: its command set and data set."""

    command: bytes
    dataset: bytes


@dataclass(frozen=True)
class Message:
    """A request with its data set; incoming: None where it has none."""

    command: Command
    context: Context
    incoming: Incoming | None


class Services(Protocol):
    """What the node does with requests. None of it may raise."""

    def refuses(self, request: Request) -> Rejection | None:
        """Why the peer is not let in, if so."""

    def incoming(self, command: Command, context: Context, request: Request) -> Incoming:
        """Room for the data set of a C-STORE request."""

    def store(self, message: Message, request: Request) -> Reply:
        """Keep an instance."""

    def commit(self, message: Message, request: Request) -> Reply:
        """Answer a request for storage commitment."""

    def reported(self, message: Message) -> Reply:
        """Take the report on a commitment that was asked for."""


@dataclass
class Tally:
    """What an association brought. stored, refused: C-STORE requests; kept: how many instances of each class, by study
    and patient ID."""

    request: Request | None = None
    stored: int = 0
    refused: int = 0
    ended: str = "broken off"
    kept: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)

    def count(self, reply: Reply) -> None:
        """Count the answer to a C-STORE."""
        if reply.status != Status.SUCCESS:
            self.refused += 1
            return
        self.stored += 1
        if reply.identity is not None:
            key = (reply.identity.study_instance_uid, reply.identity.patient_id)
            self.kept.setdefault(key, Counter())[reply.identity.sop_class_uid] += 1


class Association:
    """Serves one connection until it ends.

    rejection: what the peer is told whatever it asks for, if so. due: when it will have taken too long over what it is
    at (monotonic seconds); whoever watches then closes the connection.
    """

    def __init__(
        self,
        connection: Connection,
        services: Services,
        limits: Limits,
        *,
        rejection: Rejection | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tally = Tally()
        self._connection = connection
        self._services = services
        self._limits = limits
        self._clock = clock
        self._rejection = rejection
        self._request: Request | None = None
        self._contexts: Mapping[int, Context] = {}
        # What is not whole yet of a message: its command set, or its data set.
        self._command = bytearray()
        self._message: Message | None = None
        self.due = clock() + limits.request_s

    def serve(self) -> None:
        """Until the peer releases or aborts, goes away, or breaks the protocol, which is answered with an A-ABORT."""
        try:
            if self._negotiate():
                while self._serve_pdu():
                    pass
        except BrokenOff:
            self.tally.ended = "broken off"
        except ProtocolError as problem:
            self.tally.ended = f"aborted: {problem}"
            self._abort(problem.reason)
        finally:
            self._drop_open()
            self._connection.close()

    def _negotiate(self) -> bool:
        """Whether the association is accepted."""
        kind, length = self._connection.next_pdu()
        if kind is not Kind.ASSOCIATE_RQ:
            raise ProtocolError(f"{kind.name} before an association", AbortReason.UNEXPECTED_PDU)
        request = read_request(self._connection.body(length))
        self.tally.request = self._request = request
        rejection = self._rejection or self._services.refuses(request)
        if not is_of_dicom(request):
            rejection = Rejection.APPLICATION_CONTEXT
        if rejection is not None:
            self.tally.ended = f"rejected: {rejection.name.lower().replace('_', ' ')}"
            self._connection.send(rejection.pdu())
            return False
        self._contexts = granted(request)
        self._connection.send(acceptance(request, self._contexts, max_pdu_bytes=self._limits.max_pdu_bytes))
        return True

    def _serve_pdu(self) -> bool:
        """Whether the association goes on after the next PDU."""
        self.due = self._clock() + self._limits.idle_s
        kind, length = self._connection.next_pdu()
        self.due = self._clock() + self._limits.pdu_s
        if kind is Kind.DATA:
            self._take(length)
            return True
        self._connection.body(length)
        if kind is Kind.RELEASE_RQ:
            self.tally.ended = "released"
            self._connection.send(release_reply())
            return False
        if kind is Kind.ABORT:
            self.tally.ended = "aborted by the peer"
            return False
        raise ProtocolError(f"{kind.name} within an association", AbortReason.UNEXPECTED_PDU)

    def _take(self, left: int) -> None:
        """The presentation data values of one P-DATA-TF."""
        while left:
            part = self._connection.fragment(left)
            left -= 6 + part.length
            context = self._contexts.get(part.context_id)
            if context is None:
                raise ProtocolError(f"presentation context {part.context_id} was not granted")
            if part.is_command:
                self._take_command(part.length, context, is_last=part.is_last, context_id=part.context_id)
            else:
                self._take_dataset(part.length, is_last=part.is_last, context_id=part.context_id)

    def _take_command(self, length: int, context: Context, *, is_last: bool, context_id: int) -> None:
        if self._message is not None or len(self._command) + length > _MOST_COMMAND_BYTES:
            raise ProtocolError("a command inside a data set, or an endless one")
        part = bytearray(length)
        self._connection.read_into(memoryview(part))
        self._command += part
        if not is_last:
            return
        command = read_command(bytes(self._command))
        self._command.clear()
        message = Message(command, context, self._room(command, context) if command.has_dataset else None)
        if command.has_dataset:
            self._message = message
        else:
            self._answer(message, context_id)

    def _room(self, command: Command, context: Context) -> Incoming:
        assert self._request is not None
        if command.field == Field.C_STORE and context.abstract_syntax in STORAGE_CLASSES:
            return self._services.incoming(command, context, self._request)
        return Incoming(b"", part=_no_file, most_bytes=MOST_REQUEST_BYTES)

    def _take_dataset(self, length: int, *, is_last: bool, context_id: int) -> None:
        message = self._message
        if message is None or message.incoming is None:
            raise ProtocolError("a data set without a command")
        if message.context != self._contexts[context_id]:
            raise ProtocolError("a data set on another presentation context than its command")
        self._connection.read_into(message.incoming.room(length))
        if is_last:
            self._message = None
            self._answer(message, context_id)

    def _answer(self, message: Message, context_id: int) -> None:
        command = message.command
        if command.is_response or command.field == Field.C_CANCEL:
            return
        self.due = math.inf  # while the node is at work the peer can do nothing
        reply = self._reply(message)
        self.due = self._clock() + self._limits.pdu_s
        content = reply_to(command, reply.status, comment=reply.comment)
        self._send(context_id, content, b"")
        if reply.report is not None:
            self._send(context_id, reply.report.command, reply.report.dataset)

    def _reply(self, message: Message) -> Reply:
        command, request = message.command, self._request
        assert request is not None
        if command.field == Field.C_ECHO and message.context.abstract_syntax == VERIFICATION:
            return Reply(Status.SUCCESS)
        if command.field == Field.C_STORE and message.context.abstract_syntax in STORAGE_CLASSES:
            reply = self._services.store(message, request)
            self.tally.count(reply)
            return reply
        if message.context.abstract_syntax == STORAGE_COMMITMENT and command.field == Field.N_ACTION:
            return self._services.commit(message, request)
        if message.context.abstract_syntax == STORAGE_COMMITMENT and command.field == Field.N_EVENT_REPORT:
            return self._services.reported(message)
        return Reply(Status.UNRECOGNIZED_OPERATION)

    def _send(self, context_id: int, command: bytes, dataset: bytes) -> None:
        assert self._request is not None
        most = self._request.max_pdu_bytes
        pdus = data_pdus(context_id, command, kind="command", max_pdu_bytes=most)
        if dataset:
            pdus += data_pdus(context_id, dataset, kind="dataset", max_pdu_bytes=most)
        self._connection.send(pdus)

    def _abort(self, reason: AbortReason) -> None:
        try:
            self._connection.send(abort(reason))
        except BrokenOff:
            return

    def _drop_open(self) -> None:
        if self._message is not None and self._message.incoming is not None:
            self._message.incoming.drop()


def _no_file() -> Path:
    raise AssertionError("MOST_REQUEST_BYTES fit into memory")
