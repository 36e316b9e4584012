"""Storage commitment (PS3.4 J): whether a PACS has committed itself to keep what was sent to it.

What was asked stands in the ledger's database under the transaction's UID. So it does not matter on which association
the report comes, nor whether the node was started anew in between.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)
from sqlalchemy import delete, select, update

from dicom_node.broken import BROKEN
from dicom_node.connection import Called
from dicom_node.exchange.answers import NoAnswer
from dicom_node.exchange.association import associated, speaking
from dicom_node.exchange.commitment_report import PROCESSING_FAILURE, REASONS, CommitmentReport, read_report
from dicom_node.ledger import Ledger
from dicom_node.records import Send
from dicom_node.schema import COMMITMENTS, SENDS, upsert
from dicom_node.send import sop_instance_of
from dicom_node.settings import Destination

#: Some PACSs report on the association by which they were asked; most open another one, seconds or hours later.
_REPORT_HERE_WITHIN_S = 3.0
#: A report that has not come by then is lost: it is asked for anew.
_REPORT_WITHIN_S = 3600.0


class CommitmentReports:
    """Takes what PACSs report, on whatever association it comes; safe between threads and processes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def asking(self, transaction_uid: str, owed: Send, instances: Collection[str]) -> None:
        """Record that commitment will be asked for, before it is: the report may come at once."""
        row = {
            "transaction_uid": transaction_uid,
            "assessment_id": owed.assessment_id,
            "destination": owed.destination,
            "instances": json.dumps(sorted(instances)),
            "asked_at": self._ledger.now(),
            "state": "asking",
        }
        with self._ledger.transaction() as connection:
            upsert(connection, COMMITMENTS, row)

    def asked(self, transaction_uid: str) -> None:
        """Record that the peer has taken the request, unless it has reported already."""
        mine = (COMMITMENTS.c.transaction_uid == transaction_uid) & (COMMITMENTS.c.state == "asking")
        with self._ledger.transaction() as connection:
            connection.execute(update(COMMITMENTS).where(mine).values(state="asked"))

    def reported(self, report: CommitmentReport) -> bool:
        """Record a report; whether there is such a transaction.

        What was asked about and is not among the committed has failed, whether the report says so or not. The result is
        then sent once more.
        """
        mine = COMMITMENTS.c.transaction_uid == report.transaction_uid
        with self._ledger.transaction() as connection:
            row = connection.execute(select(COMMITMENTS).where(mine)).mappings().one_or_none()
            if row is None:
                return False
            wanted = set(json.loads(row["instances"]))
            lacking = sorted(wanted - report.committed | wanted & set(report.failed))
            connection.execute(update(COMMITMENTS).where(mine).values(state="failed" if lacking else "committed"))
            owed = (SENDS.c.assessment_id == row["assessment_id"]) & (SENDS.c.destination == row["destination"])
            told = f"{len(wanted)} objects, committed"
            if lacking:
                reason = report.failed.get(lacking[0])
                why = "not in the report" if reason is None else REASONS.get(reason, f"{reason:#06x}")
                told = f"not committed: {len(lacking)} of {len(wanted)} objects ({why}); they are sent again"
            values = {"state": "failed" if lacking else "sent", "text": told, "at": self._ledger.now()}
            connection.execute(update(SENDS).where(owed & (SENDS.c.state == "stored")).values(values))
        return True

    def not_asked(self, transaction_uid: str) -> None:
        """Take back that commitment will be asked for, where the peer has not taken the request."""
        mine = (COMMITMENTS.c.transaction_uid == transaction_uid) & (COMMITMENTS.c.state == "asking")
        with self._ledger.transaction() as connection:
            connection.execute(delete(COMMITMENTS).where(mine))

    def is_open(self, transaction_uid: str) -> bool:
        """Whether its report is still to come."""
        mine = COMMITMENTS.c.transaction_uid == transaction_uid
        with self._ledger.transaction() as connection:
            return connection.execute(select(COMMITMENTS.c.state).where(mine)).scalar_one_or_none() == "asked"

    def last_asked_at(self, owed: Send) -> float | None:
        """When a report that is still to come was asked for last; None where none is.

        A request that was broken off before the peer had taken it (state "asking") is none.
        """
        mine = (COMMITMENTS.c.assessment_id == owed.assessment_id) & (COMMITMENTS.c.destination == owed.destination)
        query = select(COMMITMENTS.c.asked_at).where(mine & (COMMITMENTS.c.state == "asked"))
        with self._ledger.transaction() as connection:
            return max((float(at) for (at,) in connection.execute(query)), default=None)


@dataclass(frozen=True, eq=False)
class Commitment:
    """Asks destinations for storage commitment."""

    ledger: Ledger
    calling_ae_title: str

    def seek(self, owed: Send, destination: Destination, files: Sequence[Path]) -> bool:
        """Whether the destination has now committed itself; False where its report is still to come, or has failed.

        Asks only where no report is awaited. Raises `NoAnswer` where it cannot be asked now, and `NotSent` where a
        result cannot be read.
        """
        reports = CommitmentReports(self.ledger)
        asked_at = reports.last_asked_at(owed)
        # A clock that was set back must not put it off.
        if asked_at is None or not 0 <= self.ledger.now() - asked_at <= _REPORT_WITHIN_S:
            instances = {uid: kind for kind, uid in map(sop_instance_of, files)}
            transaction_uid = str(generate_uid(prefix=None))
            reports.asking(transaction_uid, owed, instances)
            try:
                ask_commitment(destination, self.calling_ae_title, (transaction_uid, instances), reports)
            except BaseException:
                reports.not_asked(transaction_uid)
                raise
        sends = self.ledger.sends(owed.assessment_id)
        return any(send.destination == owed.destination and send.state == "sent" for send in sends)


def ask_commitment(
    destination: Destination,
    calling_ae_title: str,
    transaction: tuple[str, Mapping[str, str]],
    reports: CommitmentReports,
) -> None:
    """Ask for commitment, and take the report if it comes at once. Raises `NoAnswer`.

    transaction: its UID, and SOP Class UID by SOP Instance UID.
    """
    transaction_uid, instances = transaction
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [_reference(kind, uid) for uid, kind in instances.items()]
    told = threading.Event()

    def on_report(event: Any) -> tuple[int, None]:
        status = take_report(event.event_information, reports.reported)
        told.set()
        return status, None

    called = Called(destination.ae_title, destination.host, destination.port)
    contexts = [build_context(StorageCommitmentPushModel)]
    handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
    with associated(called, calling_ae_title, contexts, handlers=handlers) as association:
        with speaking(destination.ae_title):
            answer, _ = association.send_n_action(
                request, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
        status = answer.get("Status")
        if status != 0x0000:
            told_status = "broke the association off" if status is None else f"answered {status:#06x}"
            raise NoAnswer(f"{destination.ae_title} {told_status}")
        reports.asked(transaction_uid)
        for _ in range(int(_REPORT_HERE_WITHIN_S / 0.1)):
            if told.wait(0.1) or not association.is_established or not reports.is_open(transaction_uid):
                break


def take_report(information: Dataset, reported: Callable[[CommitmentReport], bool]) -> int:
    """The status that answers an N-EVENT-REPORT, after its event information was handed on."""
    try:
        report = read_report(information)
    except BROKEN:
        return PROCESSING_FAILURE
    return 0x0000 if reported(report) else PROCESSING_FAILURE


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item
