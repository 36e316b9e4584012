"""One segment of a DICOM Segmentation: binary, fractional or label map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import SegmentationStorage

from dicom_node.decode.files import Header
from dicom_node.decode.frame_grid import functional_groups, grid_of_frames, group_of
from dicom_node.decode.pixels import stored_values
from dicom_node.refusal import Refused
from pipeline.geometry import Geometry

LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
SEGMENTATION_CLASSES = (str(SegmentationStorage), LABEL_MAP_STORAGE)


def segment_voxels(header: Header, number: int, key: str) -> tuple[NDArray[np.bool_], Geometry]:
    """The segment on the grid of its frames, in the object's own frame of reference; planes without a frame are empty,
    fractions (probability or occupancy) count from one half.

    Raises Refused, naming the key: region_missing, region_unreadable.
    """
    dataset = header.dataset
    numbers = [int(item.SegmentNumber) for item in dataset.SegmentSequence]
    if number not in numbers:
        known = ", ".join(str(n) for n in numbers)
        raise Refused("region_missing", f"{key}.segment_number {number} is not in the object; it has {known}.")
    frames, shared = functional_groups(header)
    stored = stored_values(header)
    if len(stored) != len(frames):
        raise Refused("region_unreadable", f"{key}: the segmentation's frames and pixels do not match.")
    geometry, planes = grid_of_frames(header, stored.shape[1:], key)
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
        elif int(group_of(frame, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber) == number:
            voxels[plane] |= pixels >= threshold
    return voxels, geometry
