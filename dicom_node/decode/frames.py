"""Headers to frames: where each slice lies and what sets it apart, for classic and enhanced multi-frame images."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.tag import Tag
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from dicom_node.broken import BROKEN
from dicom_node.decode.files import Header
from dicom_node.decode.pixels import Rescale, check_grayscale, rescale_of
from dicom_node.refusal import Refused

_CLASSIC = (CTImageStorage, MRImageStorage)
_ENHANCED = (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
)
_CAPTURED = (SecondaryCaptureImageStorage, MultiFrameTrueColorSecondaryCaptureImageStorage)
#: What may tell two volumes of one series apart, the most telling first.
_MARKS = (
    "StackID",
    "ComplexImageComponent",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "EchoTime",
    "EffectiveEchoTime",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "InversionTime",
    "ConvolutionKernel",
    "KVP",
    "ContrastBolusAgentPhase",
)
#: Dimensions that run along the slices of one volume.
_SPATIAL_DIMENSIONS = ("StackID", "InStackPositionNumber", "ImagePositionPatient", "FrameNumber")


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice. Positions and directions in LPS; row_lps runs along a row of pixels, column_lps down a column."""

    header: Header
    number: int
    """Index of the frame within its file, from 0."""
    position_lps_mm: NDArray[np.float64]
    row_lps: NDArray[np.float64]
    column_lps: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    """Between rows, between columns."""
    thickness_mm: float | None
    shape: tuple[int, int]
    frame_uid: str
    image_type: tuple[str, ...]
    rescale: Rescale
    marks: Mapping[str, Hashable]
    """What may tell this volume from another of the series, by name, the most telling first."""
    taken: tuple[str, int]
    """Sorts frames of one position in time."""

    @property
    def normal_lps(self) -> NDArray[np.float64]:
        return np.asarray(np.cross(self.row_lps, self.column_lps))

    @property
    def along_mm(self) -> float:
        """Position along the normal."""
        return float(self.position_lps_mm @ self.normal_lps)


def check_image(header: Header) -> None:
    """Raises Refused where the file is not a grayscale CT or MR image: not_an_image, secondary_capture, not_ct_or_mr,
    no_pixel_data, truncated_file, not_grayscale.
    """
    name, modality = header.name, header.text("Modality")
    sop = header.text("SOPClassUID") or header.meta("MediaStorageSOPClassUID")
    if "Rows" not in header.dataset:
        if modality in ("CT", "MR"):
            raise Refused("no_pixel_data", f"{name} holds no pixel data; send the images themselves.")
        raise Refused("not_an_image", f"{name} holds no image ({modality or 'no modality'}).")
    if sop in _CAPTURED:  # whatever it says to be: in a series of slices it is a picture of them
        check_grayscale(header)
    if header.pixels == "missing":
        raise Refused("no_pixel_data", f"{name} holds no pixel data; send the images themselves.")
    if modality not in ("CT", "MR"):
        raise Refused("not_ct_or_mr", f"{name} is neither CT nor MR ({modality or 'no modality'}).")
    check_grayscale(header)
    if sop and sop not in (*_CLASSIC, *_ENHANCED):
        raise Refused("secondary_capture", f"{name} is a derived picture, no original slice; remove it.")
    if header.pixels == "cut_short":
        raise Refused("truncated_file", f"{name} is cut short inside its pixel data; export it again.")


def frames_of(header: Header) -> list[Frame]:
    """All frames of one CT or MR file.

    Raises Refused as `check_image`, and no_position, no_pixel_spacing, no_frame_of_reference, not_hounsfield,
    modality_lut, rescale_slope_zero, broken_header.
    """
    check_image(header)
    if not header.text("FrameOfReferenceUID"):
        raise Refused(
            "no_frame_of_reference",
            f"{header.name} has no Frame of Reference UID, so its position in the patient is unknown.",
        )
    try:
        return _all_frames(header)
    except BROKEN as problem:
        raise Refused("broken_header", f"{header.name} has a damaged header; export it again.") from problem


def _all_frames(header: Header) -> list[Frame]:
    per_frame = header.dataset.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        if int(header.text("NumberOfFrames") or 1) > 1:
            raise Refused("no_position", f"{header.name} does not say where its frames lie in the patient.")
        return [_frame(header, 0, header.dataset, header.dataset)]
    shared = header.dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    return [_frame(header, n, _merged(shared[0], group), group) for n, group in enumerate(per_frame)]


def _merged(shared: Dataset, group: Dataset) -> Dataset:
    """One flat data set of the functional groups that hold for a frame; its own win over shared ones."""
    flat = Dataset()
    for groups in (shared, group):
        for element in groups:
            if element.VR == "SQ" and not element.tag.is_private and element.value:
                for inner in element.value[0]:
                    flat[inner.tag] = inner
    return flat


def _frame(header: Header, number: int, values: Dataset, group: Dataset) -> Frame:
    position = _floats(values, "ImagePositionPatient", 3)
    axes = _floats(values, "ImageOrientationPatient", 6)
    name = header.name
    if position is None or axes is None:
        raise Refused("no_position", f"{name} does not say where its slice lies in the patient.")
    row, column = axes[:3], axes[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.9 or abs(row @ column) > 1e-2:
        raise Refused("no_position", f"{name} has an impossible image orientation.")
    spacing = _floats(values, "PixelSpacing", 2)
    if spacing is None or min(spacing) <= 0:
        raise Refused("no_pixel_spacing", f"{name} has no pixel spacing, so nothing in it can be measured.")
    row = row / lengths[0]
    column = column - (column @ row) * row
    thickness = _floats(values, "SliceThickness", 1)
    kind = values.get("FrameType") or header.dataset.get("ImageType") or ()
    classic = values is header.dataset
    return Frame(
        header=header,
        number=number,
        position_lps_mm=position,
        row_lps=row,
        column_lps=column / np.linalg.norm(column),
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        thickness_mm=None if thickness is None or thickness[0] <= 0 else float(thickness[0]),
        shape=(int(header.dataset.Rows), int(header.dataset.Columns)),
        frame_uid=header.text("FrameOfReferenceUID"),
        image_type=tuple(str(part).strip() for part in ([kind] if isinstance(kind, str) else kind)),
        rescale=rescale_of(header, None if classic else values),
        marks=_marks(header, values, () if classic else _dimensions(header.dataset, group)),
        taken=_taken(values, header),
    )


def _marks(header: Header, values: Dataset, dimensions: tuple[tuple[str, Hashable], ...]) -> dict[str, Hashable]:
    kind = values.get("FrameType") or header.dataset.get("ImageType") or ()
    marks: dict[str, Hashable] = {"ImageType": tuple(kind)}
    for keyword in _MARKS:
        value = _value(values, keyword)
        marks[keyword] = _value(header.dataset, keyword) if value is None else value
    marks.update(dimensions)
    return marks


def _dimensions(dataset: Dataset, group: Dataset) -> tuple[tuple[str, Hashable], ...]:
    """The frame's place along every dimension that is not spatial, private ones included."""
    content = group.get("FrameContentSequence") or [Dataset()]
    index = content[0].get("DimensionIndexValues") or ()
    index = [index] if isinstance(index, int) else list(index)
    out = []
    for n, (item, value) in enumerate(zip(dataset.get("DimensionIndexSequence") or (), index, strict=False)):
        if keyword_for_tag(Tag(item.get("DimensionIndexPointer", 0))) not in _SPATIAL_DIMENSIONS:
            out.append((f"dimension {n + 1}", int(value)))
    return tuple(out)


def _taken(values: Dataset, header: Header) -> tuple[str, int]:
    for source, keyword in (
        (values, "FrameAcquisitionDateTime"),
        (values, "AcquisitionDateTime"),
        (values, "AcquisitionTime"),
        (values, "ContentTime"),
    ):
        text = str(source.get(keyword) or "")
        if text:
            break
    number = header.text("InstanceNumber")
    return text, int(number) if number.lstrip("-").isdigit() else 0


def _value(values: Dataset, keyword: str) -> Hashable:
    try:
        value: Any = values.get(keyword)
    except BROKEN:
        return None
    if value is None or value == "":
        return None
    if isinstance(value, (str, int, float)):
        return str(value).strip()
    return tuple(str(part) for part in value)


def _floats(values: Dataset, keyword: str, count: int) -> NDArray[np.float64] | None:
    try:
        value = values.get(keyword)
        if value is None or value == "":
            return None
        out = np.atleast_1d(np.asarray(value, np.float64))
    except BROKEN:
        return None
    return out if out.shape == (count,) and bool(np.isfinite(out).all()) else None
