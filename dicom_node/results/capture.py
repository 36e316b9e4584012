"""The pictures as a Secondary Capture series, for viewers that show neither a segmentation nor a structured report."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom import Dataset

from dicom_node.notice import NOT_FOR_DIAGNOSIS
from dicom_node.results.equipment import maker, processing_equipment, reference, stamp
from dicom_node.results.identifiers import SERIES, Identifiers
from dicom_node.results.pictures import Picture
from pipeline.case import Organ


def captures(
    pictures: Sequence[Picture], head: Dataset, organ: Organ, identifiers: Identifiers
) -> tuple[hd.sc.SCImage, ...]:
    """One RGB object a picture, all in one series of the follow-up's study; no patient is named in the pixels."""
    return tuple(_capture(picture, number, head, organ, identifiers) for number, picture in enumerate(pictures, 1))


def _capture(picture: Picture, number: int, head: Dataset, organ: Organ, identifiers: Identifiers) -> hd.sc.SCImage:
    series_number, description = SERIES["capture"]
    left, right, top, bottom = tuple(picture.plane.letters)
    made = hd.sc.SCImage(
        np.ascontiguousarray(picture.rgb),
        photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        study_instance_uid=head.StudyInstanceUID,
        series_instance_uid=identifiers.series_uid("capture"),
        series_number=series_number,
        sop_instance_uid=identifiers.instance_uid("capture", number),
        instance_number=number,
        patient_orientation=(right, bottom),
        series_description=description,
        specific_character_set="ISO_IR 192",
        contributing_equipment=[processing_equipment(identifiers)],
        **maker(identifiers),
    )
    stamp(made, head, identifiers)
    made.SeriesDate, made.SeriesTime = made.ContentDate, made.ContentTime
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.ConversionType = "WSD"
    made.BurnedInAnnotation = "NO"  # no identifying text
    if organ == "liver":
        made.BodyPartExamined = "LIVER"
    else:
        made.Laterality = ""  # which side is not known here, and the part may be a paired one
    made.ImageComments = f"{picture.name}, {left} at the left, {top} at the top. {NOT_FOR_DIAGNOSIS}"
    made.DerivationDescription = "Plane of the follow-up with the outlines of ablation zone and tumor"
    made.SourceImageSequence = [reference(head)]
    return made
