"""Pictures, PDF and DICOM objects of one answer, written into its folder."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset

from dicom_node.results.capture import captures
from dicom_node.results.document import report_pdf
from dicom_node.results.encapsulated import encapsulated_pdf
from dicom_node.results.identifiers import Identifiers
from dicom_node.results.measurements import Setting
from dicom_node.results.pictures import pictures_of, write_pictures
from dicom_node.results.planes import planes_of
from dicom_node.results.report import report
from dicom_node.results.segmentation import segmentation, segments_of, slices_of
from dicom_node.results.sources import source_heads
from dicom_node.study import StudyCase
from pipeline.assessment import Assessment


def write_objects(assessment: Assessment, study: StudyCase, identifiers: Identifiers, folder: Path) -> None:
    """Writes `images/*.png`, `report.pdf` and `dicom/*.dcm`; no segmentation where there is nothing to segment."""
    case = study.case
    organ, days = case.plan.organ, assessment.days_since_procedure
    planes = [planes_of(lesion, case.followup, organ) for lesion in assessment.lesions]
    numbered = enumerate(zip(assessment.lesions, planes, strict=True), 1)
    pictures = [picture for n, (lesion, cut) in numbered for picture in pictures_of(lesion, n, cut, days)]
    write_pictures(pictures, folder / "images")
    pdf = report_pdf(assessment, study, planes, identifiers)
    (folder / "report.pdf").write_bytes(pdf)

    segments = segments_of(assessment.lesions)
    middle = case.followup.volume.voxels.shape[0] // 2
    heads = source_heads(study.sources, slices_of(segments) if segments else (middle, middle + 1))
    segmented = segmentation(segments, heads, organ, identifiers) if segments else None
    setting = Setting(case.plan, days, study.series_instance_uid, segmented, segments, identifiers)
    made: dict[str, Dataset] = {} if segmented is None else {"segmentation": segmented}
    made["report"] = report(assessment, heads, setting)
    made["document"] = encapsulated_pdf(pdf, heads[0], identifiers)
    for number, capture in enumerate(captures(pictures, heads[0], organ, identifiers), 1):
        made[f"capture-{number}"] = capture
    (folder / "dicom").mkdir()
    for name, dataset in made.items():
        dataset.save_as(folder / "dicom" / f"{name}.dcm", enforce_file_format=True)
