"""What the ledger holds: studies, instances, plans, assessments, sends. Without pydicom, which is slow to load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from unicodedata import category

from dicom_node.refusal import Refused

AssessmentState = Literal["queued", "running", "done", "refused", "failed", "cancelled"]
#: pending: no peer can hold any of it; sending: on its way, or broken off there; stored: taken by the peer, which has
#: yet to commit itself to keep it.
SendState = Literal["pending", "sending", "stored", "sent", "failed"]
#: What is still owed.
OWED: tuple[SendState, ...] = ("pending", "sending", "stored", "failed")
ENDED: tuple[AssessmentState, ...] = ("done", "refused", "failed", "cancelled")
#: Of the earlier results in whose place an assessment brought none. failed: tried without success, and tried again;
#: empty: there is nothing to be withdrawn.
Withdrawal = Literal["", "owed", "failed", "made"]
#: What an assessment needs while it runs; the engine has a queue for each. Sending is the outbox's.
Resource = Literal["cpu", "gpu"]
#: Of studies that came by C-STORE, and of those that lay in an archive: they can wait.
ROUTED_PRIORITY = 1
ARCHIVE_PRIORITY = 100
#: A UID that may name a file. Wider than PS3.5 9.1, because anonymized archives hold hashes for UIDs; but never a path:
#: it begins with a letter or a digit, and has no separator.
_SAFE_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}\Z")
#: The classes that can hold a slice of a scan; a Secondary Capture in a CT series is none, nor are our own results.
IMAGE_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
        "1.2.840.10008.5.1.4.1.1.4",  # MR
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
    }
)


@dataclass(frozen=True)
class Identity:
    """The identity of one instance; UIDs are safe as file names. acquired: YYYYMMDD, or empty when unknown.

    issuer_of_patient_id: whose patient ID it is; empty where the instance does not say.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    patient_id: str
    acquired: str
    issuer_of_patient_id: str = ""

    def __post_init__(self) -> None:
        for name in ("sop_instance_uid", "sop_class_uid", "study_instance_uid", "series_instance_uid"):
            if not _SAFE_UID.match(getattr(self, name)):
                raise Refused("bad_uid", f"The instance has no valid {name.replace('_', ' ')}.")
        whose = self.patient_id + self.issuer_of_patient_id
        if not whose.isprintable() and any(category(character) in ("Cc", "Cs") for character in whose):
            # To leave them out would make another patient of it; databases and XML cannot hold all of them.
            raise Refused("bad_patient_id", "The patient ID or its issuer holds control characters.")

    @property
    def is_image(self) -> bool:
        """Whether it may be a slice of a scan: CT or MR."""
        return self.sop_class_uid in IMAGE_CLASSES


@dataclass(frozen=True)
class Study:
    """A study as received. complete: it can be assessed; revision: grows when more arrives after that.

    held: why it is not called complete though nothing more arrives, a sentence; released: whether a person said that it
    is to be assessed as it is.
    """

    study_instance_uid: str
    patient_id: str
    acquired: str
    images: int
    revision: int
    complete: bool
    last_arrival: float
    issuer_of_patient_id: str = ""
    held: str = ""
    released: bool = False
    priority: int = ROUTED_PRIORITY
    """The lower, the sooner it is assessed."""


@dataclass(frozen=True)
class Instance:
    """One stored instance. path: relative to the data folder, or absolute for a file that is read in place.

    sha256: of its data set; seen, head_sha256: see `Arrival`. Empty where an earlier version did not record them.
    """

    sop_instance_uid: str
    path: str
    sha256: str
    seen: str = ""
    head_sha256: str = ""
    sop_class_uid: str = ""
    series_instance_uid: str = ""
    received_from: str | None = None


@dataclass(frozen=True)
class Arrival:
    """An instance and where it lies.

    seen, head_sha256: for a file that is read in place, its size and time, and the hash of what precedes the data set;
    by these it is noticed when the file is changed.
    received_from: the AE title of the system that brought it; empty where that is not known.
    """

    identity: Identity
    path: Path
    sha256: str = ""
    seen: str = ""
    head_sha256: str = ""
    received_from: str = ""


@dataclass(frozen=True)
class RegisteredPlan:
    """A plan the node keeps; folder: relative to the data folder; digest: of everything in it."""

    plan_id: str
    patient_id: str
    procedure_date: str
    baseline_study_instance_uid: str
    digest: str
    folder: str
    added_at: float
    issuer_of_patient_id: str = ""


@dataclass(frozen=True)
class AssessmentRecord:
    """One follow-up against one plan; the defaults are those of one that is queued now.

    inputs: digest of all that went in, empty: to be made anew; previous: the assessments it builds on.
    """

    assessment_id: str
    study_instance_uid: str
    plan_id: str
    revision: int
    number: int
    """How many assessments of this study against this plan there have been, this one included."""
    priority: int
    inputs: str = ""
    previous: tuple[str, ...] = ()
    state: AssessmentState = "queued"
    superseded: bool = False
    code: str = ""
    text: str = ""
    document: Mapping[str, Any] | None = None
    """The `assessment.json`; None until done."""
    folder: str = ""
    queued_at: float = 0.0
    """Seconds since the epoch, by the ledger; 0: not recorded yet."""
    ended_at: float | None = None
    resource: Resource = "cpu"
    owner: str = ""
    """The worker that has it in hand; empty where none has."""
    token: int = 0
    """Raised whenever it changes hands: only who holds the present one may say how it ended."""
    takeovers: int = 0
    """How many workers died or fell silent while they had it."""
    withdrawal: Withdrawal = ""


@dataclass(frozen=True)
class Send:
    """How sending one assessment's objects to one destination went; what is not sent yet is tried again."""

    assessment_id: str
    destination: str
    state: SendState
    text: str
    at: float


@dataclass(frozen=True)
class WorkerRecord:
    """A worker that is at work. beat: a counter that it raises; lost: it fell silent, and may do nothing any more."""

    worker_id: str
    host: str
    version: str
    started_at: float
    cpus: int
    gpus: int
    beat: int = 0
    lost: bool = False


class OfPatient(Protocol):
    """What belongs to a patient: a plan, a study."""

    @property
    def patient_id(self) -> str: ...
    @property
    def issuer_of_patient_id(self) -> str: ...


def same_patient(patient_id: str, issuer: str, known: OfPatient) -> bool:
    """Whether a patient ID, by whom it was issued, is the plan's or study's; an issuer that is not said is any."""
    other = known.issuer_of_patient_id
    return patient_id == known.patient_id and (not issuer or not other or issuer == other)
