"""Storage commitment (PS3.4 annex J): this node answers for what lies on its disk, and for nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_node.broken import BROKEN
from dicom_node.exchange.commitment_report import CommitmentReport, read_report
from dicom_node.receive.association import Message, Reply, Report
from dicom_node.receive.command import Status, event_report
from dicom_node.receive.negotiation import STORAGE_COMMITMENT, Request

_LOG = logging.getLogger("marginwatch.commitment")

#: The well-known instance that commitment is asked of (PS3.4 J.3.5).
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
_REQUEST_ACTION, _ALL_COMMITTED, _SOME_FAILED = 1, 1, 2
#: Failure Reasons (PS3.3 C.14.1.1).
NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0112, 0x0119


@dataclass(frozen=True)
class Reference:
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Answer:
    """What is committed to, and what is not and why (Failure Reason)."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: Mapping[Reference, int]


class Reports(Protocol):
    """Takes what other nodes report on what they were asked to commit to."""

    def reported(self, report: CommitmentReport) -> bool:
        """Whether there is such a transaction."""


class Commitment:
    """Answers requests, and takes reports.

    missing: of references, those that are not on the disk, with the Failure Reason. calls_back: whether the peer of an
    AE title will get the answer on an association of its own; else it goes back on the one of the request.
    """

    def __init__(
        self,
        missing: Callable[[Sequence[Reference]], Mapping[Reference, int]],
        reports: Reports,
        *,
        calls_back: Callable[[str, Answer], bool],
    ) -> None:
        self._missing = missing
        self._reports = reports
        self._calls_back = calls_back

    def requested(self, message: Message, request: Request) -> Reply:
        if message.command.sop_instance_uid != PUSH_MODEL_INSTANCE or message.command.type_id != _REQUEST_ACTION:
            return Reply(Status.NO_SUCH_ACTION)
        try:
            dataset = _dataset(message)
            wanted = _references(dataset, "ReferencedSOPSequence")
            transaction_uid = str(dataset.TransactionUID)
        except BROKEN:
            return Reply(Status.CANNOT_UNDERSTAND, "The request cannot be read.")
        if not wanted:
            return Reply(Status.PROCESSING_FAILURE, "The request names no instance.")
        try:
            failed = self._missing(wanted)
        except Exception:  # noqa: BLE001  whatever keeps the node from looking: nothing may be promised
            _LOG.exception("a request for storage commitment could not be looked up")
            return Reply(Status.PROCESSING_FAILURE, "The node cannot look at its store at the moment.")
        answer = Answer(transaction_uid, tuple(r for r in wanted if r not in failed), dict(failed))
        if self._calls_back(request.calling_ae_title, answer):
            return Reply(Status.SUCCESS)
        command = event_report(STORAGE_COMMITMENT, PUSH_MODEL_INSTANCE, message_id=1, event_type=event_type_of(answer))
        report = Report(command, _encoded(report_of(answer), message.context.transfer_syntax))
        return Reply(Status.SUCCESS, report=report)

    def reported(self, message: Message) -> Reply:
        try:
            report = read_report(_dataset(message))
        except BROKEN:
            return Reply(Status.PROCESSING_FAILURE, "The report cannot be read.")
        try:
            known = self._reports.reported(report)
        except Exception:  # noqa: BLE001  the peer may report again
            _LOG.exception("a report on storage commitment could not be recorded")
            return Reply(Status.PROCESSING_FAILURE, "The node cannot record the report at the moment.")
        return Reply(Status.SUCCESS) if known else Reply(Status.PROCESSING_FAILURE, "There is no such transaction.")


def report_of(answer: Answer) -> Dataset:
    """The event information of an N-EVENT-REPORT (PS3.4 J.3.3)."""
    report = Dataset()
    report.TransactionUID = answer.transaction_uid
    if answer.committed:
        report.ReferencedSOPSequence = [_item(reference) for reference in answer.committed]
    if answer.failed:
        report.FailedSOPSequence = [_item(reference, reason) for reference, reason in answer.failed.items()]
    return report


def event_type_of(answer: Answer) -> int:
    return _SOME_FAILED if answer.failed else _ALL_COMMITTED


def _item(reference: Reference, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class_uid, reference.sop_instance_uid
    if reason is not None:
        item.FailureReason = reason
    return item


def _references(dataset: Dataset, keyword: str) -> tuple[Reference, ...]:
    items = dataset.get(keyword) or ()
    return tuple(Reference(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)) for item in items)


def _dataset(message: Message) -> Dataset:
    """The data set of a request. Raises what `BROKEN` names."""
    if message.incoming is None or message.incoming.is_too_large:
        raise ValueError("no data set, or one that is too large")
    content, syntax = bytes(message.incoming.content()), message.context.transfer_syntax
    is_implicit, is_little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    return read_dataset(BytesIO(content), is_implicit_VR=is_implicit, is_little_endian=is_little)


def _encoded(dataset: Dataset, transfer_syntax_uid: str) -> bytes:
    file = DicomBytesIO()
    file.is_implicit_VR = transfer_syntax_uid == ImplicitVRLittleEndian
    file.is_little_endian = transfer_syntax_uid != ExplicitVRBigEndian
    write_dataset(file, dataset)
    content: bytes = file.getvalue()
    return content
