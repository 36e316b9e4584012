"""The regions as one DICOM Segmentation (BINARY): ablation zone, index tumor and uncovered tumor of each lesion.

BINARY and not LABELMAP: the uncovered tumor lies inside the index tumor, and viewers of today mix up label map colors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes as public
from pydicom.sr.coding import Code

from dicom_node import codes
from dicom_node.results.equipment import maker, private_scheme, processing_equipment, stamp
from dicom_node.results.identifiers import MODEL, SERIES, Identifiers, Kind
from dicom_node.results.legend import LOOKS, Look, Region
from pipeline.assessment import LesionAssessment
from pipeline.case import Organ
from pipeline.geometry import Geometry
from pipeline.volume import Mask

#: Type and, inside it, the modifier that says which of the two neoplasms or lesions it is.
_TYPES: dict[Region, tuple[Code, Code]] = {
    "zone": (codes.NON_ENHANCING_LESION, codes.ABLATION_ZONE),
    "tumor": (codes.NEOPLASM, codes.INDEX_TUMOR),
    "uncovered": (codes.NEOPLASM, codes.UNCOVERED_TUMOR),
}


@dataclass(frozen=True, eq=False)
class Segment:
    """One segment: its number in the object, and what it shows. look: where it is not called and colored as its region
    is elsewhere."""

    number: int
    lesion_id: str
    region: Region
    mask: Mask
    look: Look | None = None


@dataclass(frozen=True)
class Made:
    """How segments came about: the kind of object, the algorithm's name and family, and what is told of the making."""

    kind: Kind
    content_label: str
    algorithm: str
    family: Code
    contribution: str


FOLLOW_UP = Made(
    "segmentation",
    "ABLATION_ZONE",
    MODEL,
    public.DCM.ArtificialIntelligence,
    "Registration, segmentation and margin measurement",
)


def segments_of(lesions: Sequence[LesionAssessment]) -> tuple[Segment, ...]:
    """The segments to write, numbered from 1; empty regions are left out."""
    found: list[Segment] = []
    for lesion in lesions:
        for region in _TYPES:
            mask: Mask | None = getattr(lesion, region)
            if mask is not None and not mask.is_empty:
                found.append(Segment(len(found) + 1, lesion.lesion_id, region, mask))
    return tuple(found)


def segmentation(
    segments: Sequence[Segment],
    heads: Sequence[Dataset],
    organ: Organ,
    identifiers: Identifiers,
    made_by: Made = FOLLOW_UP,
) -> hd.seg.Segmentation:
    """The Segmentation object on the segments' one grid; slices without any region are left out.

    heads: from `source_heads`. A frame names its source image where one lies in the same place.
    """
    series_number, description = SERIES[made_by.kind]
    pixels, grid = _stack(segments)
    made = hd.seg.Segmentation(
        source_images=heads,
        pixel_array=hd.Volume(
            pixels,
            affine=grid.lps_from_index,
            coordinate_system="PATIENT",
            frame_of_reference_uid=grid.frame_uid,
            channels={"SegmentNumber": [segment.number for segment in segments]},
        ),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(segment, organ, identifiers, made_by) for segment in segments],
        series_instance_uid=identifiers.series_uid(made_by.kind),
        series_number=series_number,
        sop_instance_uid=identifiers.instance_uid(made_by.kind),
        instance_number=1,
        **maker(identifiers),
        content_label=made_by.content_label,
        content_description=description,
        series_description=description,
        content_date=identifiers.created.date(),
        content_time=identifiers.created.time(),
        specific_character_set="ISO_IR 192",
        coding_schemes=[private_scheme()],
        contributing_equipment=[processing_equipment(identifiers, made_by.contribution)],
        omit_empty_frames=True,
    )
    stamp(made, heads[0], identifiers)
    return made


def slices_of(segments: Sequence[Segment]) -> tuple[int, int]:
    """The first slice in which any region lies, and the one after the last."""
    filled = np.flatnonzero(np.any([segment.mask.voxels.any(axis=(1, 2)) for segment in segments], axis=0))
    return int(filled[0]), int(filled[-1]) + 1


def _stack(segments: Sequence[Segment]) -> tuple[NDArray[np.uint8], Geometry]:
    """uint8 ``[k, j, i, segment]`` over those slices, and their grid."""
    grid = segments[0].mask.geometry
    first, last = slices_of(segments)
    stack = np.stack([segment.mask.voxels[first:last].view(np.uint8) for segment in segments], axis=-1)
    return stack, grid.crop((first, 0, 0), (last, *grid.shape[1:]))


def _description(segment: Segment, organ: Organ, identifiers: Identifiers, made_by: Made) -> hd.seg.SegmentDescription:
    kind, modifier = _TYPES[segment.region]
    look = segment.look or Look(LOOKS[segment.region].label.lower(), LOOKS[segment.region].color)
    described = hd.seg.SegmentDescription(
        segment.number,
        f"{segment.lesion_id} {look.label}"[:64],
        codes.ABNORMAL_STRUCTURE,
        kind,
        hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        hd.AlgorithmIdentificationSequence(made_by.algorithm, made_by.family, identifiers.software_version),
        tracking_uid=identifiers.tracking_uid(segment.lesion_id),
        tracking_id=segment.lesion_id,
        anatomic_regions=[codes.ORGANS[organ]],
        display_color=hd.color.CIELabColor.from_string(look.color),
    )
    # highdicom has no parameter for the modifier, and it belongs inside the type.
    described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
        hd.sr.CodedConcept(modifier.value, modifier.scheme_designator, modifier.meaning)
    ]
    return described
