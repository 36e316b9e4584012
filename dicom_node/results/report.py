"""The numbers and the verdict as a DICOM Comprehensive 3D SR, template TID 1500 Measurement Report.

The report is unverified and preliminary: a machine made it, and a radiologist decides.
"""

from __future__ import annotations

from collections.abc import Sequence

from highdicom import sr
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node import codes
from dicom_node.notice import RADIOLOGIST_DECIDES
from dicom_node.results.equipment import maker, private_scheme, processing_equipment, stamp
from dicom_node.results.identifiers import MANUFACTURER, MODEL, SERIES, Replaced
from dicom_node.results.legend import registration_sentence, sentence
from dicom_node.results.measurements import Setting, comment, groups_of
from pipeline.assessment import Assessment


def report(assessment: Assessment, heads: Sequence[Dataset], setting: Setting) -> sr.Comprehensive3DSR:
    """The SR of one follow-up. heads: the source images, from `source_heads`."""
    identifiers = setting.identifiers
    device = sr.DeviceObserverIdentifyingAttributes(
        identifiers.device_uid, name=MODEL, manufacturer_name=MANUFACTURER, model_name=MODEL
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(codes.DEVICE_OBSERVER, device)
        ),
        procedure_reported=codes.MR_PROCEDURE if heads[0].Modality == "MR" else codes.CT_PROCEDURE,
        imaging_measurements=[group for lesion in assessment.lesions for group in groups_of(lesion, setting)],
        title=codes.MEASUREMENT_REPORT,
    )
    content[0].ContentSequence.append(_evaluation(assessment, replaces=identifiers.replaces is not None))
    series_number, description = SERIES["report"]
    made = sr.Comprehensive3DSR(
        evidence=[*heads, *([setting.segmentation] if setting.segmentation is not None else [])],
        content=content,
        series_instance_uid=identifiers.series_uid("report"),
        series_number=series_number,
        sop_instance_uid=identifiers.instance_uid("report"),
        instance_number=1,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=description,
        specific_character_set="ISO_IR 192",
        coding_schemes=[private_scheme()],
        contributing_equipment=[processing_equipment(identifiers)],
        **maker(identifiers),
    )
    stamp(made, heads[0], identifiers)
    if identifiers.replaces is not None:
        made.PredecessorDocumentsSequence = [_predecessor(identifiers.study_instance_uid, identifiers.replaces)]
    return made


def _predecessor(study_instance_uid: str, replaced: Replaced) -> Dataset:
    """The reference to the report that this one takes the place of (PS3.3 C.17.2)."""
    study, series, instance = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = Comprehensive3DSRStorage
    instance.ReferencedSOPInstanceUID = replaced.sop_instance_uid
    series.SeriesInstanceUID, series.ReferencedSOPSequence = replaced.series_instance_uid, [instance]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = study_instance_uid, [series]
    return study


def _evaluation(assessment: Assessment, *, replaces: bool) -> sr.ContainerContentItem:
    """The verdict on the whole study, coded and in words (TID 1500, Qualitative Evaluations)."""
    contains = sr.RelationshipTypeValues.CONTAINS
    container = sr.ContainerContentItem(codes.QUALITATIVE_EVALUATIONS, relationship_type=contains)
    answer = codes.YES if assessment.needs_review else codes.NO
    lines = [sentence(assessment), *(reason.text for reason in assessment.reasons)]
    if replaces:
        lines.append("This report takes the place of an earlier one of this study, which is withdrawn.")
    container.ContentSequence = sr.ContentSequence(
        [
            sr.CodeContentItem(codes.OUTCOME, codes.OUTCOMES[assessment.outcome], contains),
            sr.CodeContentItem(codes.NEEDS_REVIEW, answer, contains),
            sr.TextContentItem(codes.REGISTRATION, registration_sentence(assessment.registration.quality), contains),
            *(comment(line) for line in (*lines, RADIOLOGIST_DECIDES)),
        ]
    )
    return container
