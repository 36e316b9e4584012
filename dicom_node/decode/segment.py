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
    stated = float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 0)
    planes = _planes(along[order], stated)
    if planes is None:
        raise Refused("region_unreadable", f"{key}: the planes of the segmentation are not evenly spaced.")
    planes[order] = planes.copy()
    first, last = positions[order[0]], positions[order[-1]]
    steps = planes.max()
    matrix = np.eye(4)
    matrix[:3, 0] = (last - first) / steps if steps else normal * stated
    matrix[:3, 1] = column * float(measures.PixelSpacing[0])
    matrix[:3, 2] = row * float(measures.PixelSpacing[1])
    matrix[:3, 3] = first
    return Geometry((int(steps) + 1, shape[0], shape[1]), matrix, frame_uid), planes


def _planes(along: NDArray[np.float64], stated: float) -> NDArray[np.int_] | None:
    """The plane number of each position (ascending), counted in the stated spacing or else in the least gap; None where
    the gaps are no multiples of either.
    """
    gaps = np.diff(along)
    apart = gaps[gaps > 0.01]
    if not len(apart):
        return np.zeros(len(along), int) if stated > 0 else None
    for spacing in (stated, float(apart.min())):
        if spacing <= 0 or apart.min() < 0.5 * spacing:
            continue
        steps = np.round(gaps / spacing)
        if np.abs(gaps - steps * spacing).max() < 0.1 * spacing:
            return np.concatenate([[0], np.cumsum(steps)]).astype(int)
    return None
