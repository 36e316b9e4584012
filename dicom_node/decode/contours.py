"""One ROI of an RTSTRUCT: closed planar contours to voxels of the baseline's grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from scipy import ndimage
from skimage.draw import polygon2mask

from dicom_node.decode.files import Header
from dicom_node.refusal import Refused
from pipeline.geometry import Geometry

#: Contours this close to a slice (in slices) are that slice's own.
_ON_SLICE = 0.1


def roi_voxels(header: Header, number: int, key: str, baseline: Geometry) -> NDArray[np.bool_]:
    """Boolean voxels on the baseline's grid whose centers lie inside the contours; inner contours are holes.

    Contours between or sparser than the baseline's slices are interpolated by their distance in the plane.
    Raises Refused, naming the key: region_missing, region_wrong_frame, region_unreadable, empty_region.
    """
    roi = _roi(header, number, key)
    if str(roi.get("ReferencedFrameOfReferenceUID", "")) != baseline.frame_uid:
        raise Refused("region_wrong_frame", f"{key} lies in another frame of reference than the baseline series.")
    planes = _planes(contours_of(header, number, key), key, baseline)
    if not planes:
        raise Refused("empty_region", f"{key}: the region is empty; draw it again.")
    return _filled(planes, baseline)


def contours_of(header: Header, number: int, key: str) -> list[Dataset]:
    """The ROI's closed contours; none where it was not drawn. Raises Refused ``region_missing``, naming the key."""
    _roi(header, number, key)
    drawn = _item(header, "ROIContourSequence", "ReferencedROINumber", number)
    contours = (drawn.get("ContourSequence") or ()) if drawn is not None else ()
    return [c for c in contours if str(c.get("ContourGeometricType")) in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")]


def _roi(header: Header, number: int, key: str) -> Dataset:
    roi = _item(header, "StructureSetROISequence", "ROINumber", number)
    if roi is None:
        raise Refused("region_missing", f"{key}.roi_number {number} is not in the RTSTRUCT.")
    return roi


def _item(header: Header, sequence: str, keyword: str, number: int) -> Dataset | None:
    for item in header.dataset.get(sequence) or ():
        if int(item.get(keyword, -1)) == number:
            found: Dataset = item
            return found
    return None


def _planes(contours: Sequence[Dataset], key: str, baseline: Geometry) -> dict[float, NDArray[np.bool_]]:
    """Filled pixels by the (fractional) slice that their contours lie on; nested contours cancel out."""
    planes: dict[float, NDArray[np.bool_]] = {}
    for contour in contours:
        index = baseline.index_of(np.array(contour.ContourData, float).reshape(-1, 3))
        if np.ptp(index[:, 0]) > 0.5:
            raise Refused("region_unreadable", f"{key}: its contours are not parallel to the baseline's slices.")
        depth = float(index[:, 0].mean())
        nearest = float(np.round(depth))
        depth = nearest if abs(depth - nearest) <= _ON_SLICE else round(depth, 2)
        filled = polygon2mask(baseline.shape[1:], index[:, 1:])
        planes[depth] = planes[depth] ^ filled if depth in planes else filled
    return planes


def _filled(planes: dict[float, NDArray[np.bool_]], baseline: Geometry) -> NDArray[np.bool_]:
    voxels = np.zeros(baseline.shape, bool)
    depths = np.array(sorted(planes))
    step = float(np.median(np.diff(depths))) if len(depths) > 1 else 1.0
    distances = {depth: _distance(planes[depth]) for depth in depths.tolist()}
    for k in range(baseline.shape[0]):
        below, above = depths[depths <= k], depths[depths >= k]
        low, high = (below[-1] if len(below) else None), (above[0] if len(above) else None)
        if low is not None and low == high:
            voxels[k] = planes[float(low)]
        elif low is not None and high is not None and high - low <= 1.5 * step:
            weight = (k - low) / (high - low)
            voxels[k] = (1 - weight) * distances[float(low)] + weight * distances[float(high)] > 0
        else:  # each contour stands for a slab of half the contour spacing on either side
            ends = [end for end in (low, high) if end is not None and abs(end - k) < 0.5 * step]
            if (ends and step > 1 + _ON_SLICE) or (ends and ends[0] != round(float(ends[0]))):
                voxels[k] = planes[float(ends[0])]
    return voxels


def _distance(filled: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray(ndimage.distance_transform_edt(filled) - ndimage.distance_transform_edt(~filled), np.float64)
