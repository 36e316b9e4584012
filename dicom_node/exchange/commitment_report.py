"""What a peer reports on storage commitment, on whatever association (PS3.4 J.3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom import Dataset

#: Failure Reason (PS3.3 C.14.1.1).
PROCESSING_FAILURE = 0x0110
REASONS = {
    PROCESSING_FAILURE: "processing failure",
    0x0112: "not there",
    0x0119: "class and instance do not match",
    0x0122: "class not supported",
    0x0131: "transaction repeated",
    0x0213: "out of resources",
}


@dataclass(frozen=True)
class CommitmentReport:
    """committed: SOP Instance UIDs; failed: Failure Reason by SOP Instance UID."""

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, int]


def read_report(information: Dataset) -> CommitmentReport:
    """From the event information of an N-EVENT-REPORT. Raises what `BROKEN` names where that is none."""
    return CommitmentReport(
        str(information.TransactionUID),
        frozenset(str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence") or ()),
        {
            str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or PROCESSING_FAILURE)
            for item in information.get("FailedSOPSequence") or ()
        },
    )
