"""One segment of a DICOM Segmentation: binary, fractional or label map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import SegmentationStorage

from dicom_node.decode.files import Header
from dicom_node.decode.pixels import stored_values
from dicom_node.refusal import Refused
from pipeline.geometry import Geometry

LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
SEGMENTATION_CLASSES = (str(SegmentationStorage), LABEL_MAP_STORAGE)


def segment_voxels(header: Header, number: int, key: str, frame_uid: str) -> tuple[NDArray[np.bool_], Geometry]:
    """The segment on the grid of its frames; planes without a frame are empty, fractions count from one half.

    Raises Refused, naming the key: region_wrong_frame, region_missing, region_unreadable.
    """
    dataset = header.dataset
    if header.text("FrameOfReferenceUID") != frame_uid:
        raise Refused("region_wrong_frame", f"{key} lies in another frame of reference than the baseline series.")
    numbers = [int(item.SegmentNumber) for item in dataset.SegmentSequence]
    if number not in numbers:
        known = ", ".join(str(n) for n in numbers)
        raise Refused("region_missing", f"{key}.segment_number {number} is not in the object; it has {known}.")
    stored = stored_values(header)
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    if len(stored) != len(frames):
        raise Refused("region_unreadable", f"{key}: the segmentation's frames and pixels do not match.")
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    positions = np.array([_group(f, shared, "PlanePositionSequence").ImagePositionPatient for f in frames], float)
    geometry, planes = _grid(frames, shared, positions, stored.shape[1:], key, frame_uid)
    is_labels = header.text("SegmentationType") == "LABELMAP" or header.text("SOPClassUID") == LABEL_MAP_STORAGE
    threshold = (
        0.5 * float(dataset.get("MaximumFractionalValue", 1))
        if header.text("SegmentationType") == "FRACTIONAL"
        else 0.5
    )
    voxels = np.zeros(geometry.shape, bool)
    for frame, plane, pixels in zip(frames, planes, stored, strict=True):
        if is_labels:
            voxels[plane] |= pixels == number
        elif int(_group(frame, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber) == number:
            voxels[plane] |= pixels >= threshold
    return voxels, geometry


def _group(frame: Dataset, shared: Dataset, name: str) -> Dataset:
    sequence = frame.get(name) or shared.get(name)
    if not sequence:
        raise ValueError(f"no {name}")
    item: Dataset = sequence[0]
    return item


def _grid(
    frames: list[Dataset],
    shared: Dataset,
    positions: NDArray[np.float64],
    shape: tuple[int, ...],
    key: str,
    frame_uid: str,
) -> tuple[Geometry, NDArray[np.int_]]:
    """The regular grid of all frames' planes, and the plane of each frame."""
    axes = np.array(_group(frames[0], shared, "PlaneOrientationSequence").ImageOrientationPatient, float)
    measures = _group(frames[0], shared, "PixelMeasuresSequence")
    row, column = axes[:3], axes[3:]
    normal = np.cross(row, column)
    along = positions @ normal
    order = np.argsort(along)
    gaps = np.diff(along[order])
    gaps = gaps[gaps > 0.01]
    stated = float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 0)
    spacing = _spacing(gaps, stated)
    planes = np.round((along - along.min()) / spacing) if spacing else np.zeros(len(along))
    if not spacing or np.abs(along - along.min() - planes * spacing).max() > 0.1 * spacing:
        raise Refused("region_unreadable", f"{key}: the planes of the segmentation are not evenly spaced.")
    first, last = positions[order[0]], positions[order[-1]]
    steps = planes.max()
    matrix = np.eye(4)
    matrix[:3, 0] = (last - first) / steps if steps else normal * spacing
    matrix[:3, 1] = column * float(measures.PixelSpacing[0])
    matrix[:3, 2] = row * float(measures.PixelSpacing[1])
    matrix[:3, 3] = first
    return Geometry((int(steps) + 1, shape[0], shape[1]), matrix, frame_uid), planes.astype(int)


def _spacing(gaps: NDArray[np.float64], stated: float) -> float:
    """The planes' spacing: the one stated where every gap is a multiple of it, else the least gap."""
    for spacing in (stated, float(gaps.min(initial=np.inf))):
        if 0 < spacing < np.inf and np.abs(gaps / spacing - np.round(gaps / spacing)).max(initial=0) < 0.1:
            if len(gaps) and gaps.min() < 0.5 * spacing:
                continue
            return spacing
    return 0.0
