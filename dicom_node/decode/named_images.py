"""The images that a region object says it was drawn on, where the images themselves are not at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydicom import Dataset

from dicom_node.broken import BROKEN
from dicom_node.decode.files import Header
from dicom_node.decode.plan import PlanFile

#: What an object of another study of the patient may not say of the baseline's.
_OF_STUDY = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "StudyDescription", "ReferringPhysicianName")


def named_images(plan_file: PlanFile, objects: Iterable[Header], shape: tuple[int, int]) -> tuple[Dataset, ...]:
    """Headers of the baseline's images as far as the plan's region objects name them: patient, study, UIDs, no place.

    objects: where to look; the first that names images of the baseline series serves. shape: rows and columns to put
    into the headers, which no such object knows. Empty where none names any.
    """
    for header in objects:
        if header.text("PatientID") != plan_file.patient_id:
            continue
        try:
            named = dict(_instances(header.dataset, plan_file.baseline_series_uid))
        except BROKEN:
            continue
        if named:
            return tuple(_head(header.dataset, plan_file, reference, shape) for reference in named.items())
    return ()


def _instances(dataset: Dataset, series_uid: str) -> Iterator[tuple[str, str]]:
    """SOP Instance UID and SOP Class UID of each image of the series, from a SEG, a map or an RTSTRUCT."""
    for series in dataset.get("ReferencedSeriesSequence") or ():
        if str(series.get("SeriesInstanceUID") or "") == series_uid:
            yield from map(_reference, series.get("ReferencedInstanceSequence") or ())
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                if str(series.get("SeriesInstanceUID") or "") == series_uid:
                    yield from map(_reference, series.get("ContourImageSequence") or ())


def _reference(item: Dataset) -> tuple[str, str]:
    return str(item.ReferencedSOPInstanceUID), str(item.ReferencedSOPClassUID)


def _head(named_by: Dataset, plan_file: PlanFile, reference: tuple[str, str], shape: tuple[int, int]) -> Dataset:
    head = Dataset()
    own_study = str(named_by.get("StudyInstanceUID") or "") == plan_file.baseline_study_uid
    for keyword in ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        if keyword in named_by:
            head[keyword] = named_by[keyword]
    for keyword in _OF_STUDY if own_study else ():
        if keyword in named_by:
            head[keyword] = named_by[keyword]
    head.StudyInstanceUID = plan_file.baseline_study_uid
    head.SeriesInstanceUID = plan_file.baseline_series_uid
    head.SOPInstanceUID, head.SOPClassUID = reference
    head.Rows, head.Columns = shape
    return head
