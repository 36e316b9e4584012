"""What a PACS has, by C-FIND (Study Root)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydicom import Dataset
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find  # type: ignore[attr-defined]

from dicom_node.connection import Called
from dicom_node.exchange.answers import (
    MOST_INSTANCES,
    MOST_SERIES,
    MOST_STUDIES,
    NoAnswer,
    RemoteInstance,
    RemoteSeries,
    RemoteStudy,
)
from dicom_node.exchange.association import associated, speaking

_PENDING = (0xFF00, 0xFF01)


@dataclass(frozen=True, eq=False)
class Query:
    """An association for C-FIND; every method raises `NoAnswer`."""

    association: Any

    def studies(self, *, patient_id: str = "", study_instance_uid: str = "", dates: str = "") -> list[RemoteStudy]:
        """The studies with these values; dates: YYYYMMDD-YYYYMMDD."""
        keys = {"PatientID": patient_id, "StudyInstanceUID": study_instance_uid, "StudyDate": dates}
        found = self._find("STUDY", MOST_STUDIES, **keys, IssuerOfPatientID="")
        return [RemoteStudy.read(partial(_text, item)) for item in found]

    def series(self, study_instance_uid: str) -> list[RemoteSeries]:
        """The series of a study; they are counted image by image where the PACS does not say how many each has."""
        keys = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": "", "Modality": ""}
        found = self._find("SERIES", MOST_SERIES, **keys, NumberOfSeriesRelatedInstances="")

        def counted(series_instance_uid: str) -> int:
            return len(self.instances(study_instance_uid, series_instance_uid))

        return [RemoteSeries.read(partial(_text, item), counted) for item in found]

    def instances(self, study_instance_uid: str, series_instance_uid: str) -> list[RemoteInstance]:
        """The instances of a series."""
        keys = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": series_instance_uid}
        found = self._find("IMAGE", MOST_INSTANCES, **keys, SOPInstanceUID="", SOPClassUID="")
        return [RemoteInstance(_text(item, "SOPInstanceUID"), _text(item, "SOPClassUID")) for item in found]

    def _find(self, level: str, most: int, **keys: str) -> list[Dataset]:
        with speaking():
            return self._answers(level, most, keys)

    def _answers(self, level: str, most: int, keys: dict[str, str]) -> list[Dataset]:
        query = Dataset()
        if not all(value.isascii() for value in keys.values()):
            query.SpecificCharacterSet = "ISO_IR 192"
        query.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(query, keyword, value)
        found: list[Dataset] = []
        for answer, item in self.association.send_c_find(query, Find):
            status = answer.get("Status")
            if status is None:
                raise NoAnswer("the PACS broke the association off, or did not answer the C-FIND in time")
            if status not in _PENDING:
                if status != 0x0000:
                    raise NoAnswer(f"the PACS answered {status:#06x} to the C-FIND")
                break
            if item is None or len(found) >= most:
                raise NoAnswer("the PACS answers the C-FIND with what cannot be used, or with far too much")
            found.append(item)
        return found


@contextmanager
def querying(called: Called, calling_ae_title: str) -> Iterator[Query]:
    """A query for as long as the block lasts."""
    with associated(called, calling_ae_title, [build_context(Find)]) as association:
        yield Query(association)


def _text(item: Dataset, keyword: str) -> str:
    try:
        value = item.get(keyword)
    except (ValueError, TypeError, KeyError, NotImplementedError):  # what a PACS writes is not always DICOM
        return ""
    return "" if value is None else str(value).strip().rstrip("\0")
