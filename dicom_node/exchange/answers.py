"""What a PACS says that it has, and that it says nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

#: How long a PACS may take for all that it is asked at a time, and to send one series.
ASK_WITHIN_S = 900.0
FETCH_WITHIN_S = 3600.0
#: More matches than this are no answer to what was asked: the PACS ignored a key.
MOST_STUDIES = 1000
MOST_SERIES = 2000
MOST_INSTANCES = 50_000


class NoAnswer(Exception):
    """A peer cannot be reached, or does not do what was asked; the text says which."""


@dataclass(frozen=True)
class RemoteStudy:
    """A study that a PACS has. study_date: YYYYMMDD, empty where it does not say."""

    study_instance_uid: str
    patient_id: str
    issuer_of_patient_id: str
    study_date: str

    @classmethod
    def read(cls, text: Callable[[str], str]) -> RemoteStudy:
        """From a match; text: its values by keyword, empty where there is none."""
        keywords = ("StudyInstanceUID", "PatientID", "IssuerOfPatientID", "StudyDate")
        return cls(*(text(keyword) for keyword in keywords))


@dataclass(frozen=True)
class RemoteSeries:
    """A series that a PACS has, and the number of its instances."""

    series_instance_uid: str
    modality: str
    instances: int

    @classmethod
    def read(cls, text: Callable[[str], str], counted: Callable[[str], int]) -> RemoteSeries:
        """From a match, as with a study. counted: how many instances the series with this UID has, for a PACS that does
        not say."""
        uid, said = text("SeriesInstanceUID"), text("NumberOfSeriesRelatedInstances")
        return cls(uid, text("Modality"), int(said) if said.isdecimal() else counted(uid))


@dataclass(frozen=True)
class RemoteInstance:
    """An instance that a PACS has. sop_class_uid: empty where it does not say."""

    sop_instance_uid: str
    sop_class_uid: str


@dataclass(frozen=True)
class Wanted:
    """What is to be brought: a series, or some of its instances. patient_id: whose it has to be."""

    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...] = field(default=())
    """Empty: all of the series."""
