"""One ROI of an RTSTRUCT: closed planar contours to voxels, on the baseline's slices or on planes of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.decode.contour_planes import Outline, filled_stack
from dicom_node.decode.files import Header
from dicom_node.refusal import Refused
from pipeline.geometry import Geometry

#: How far a contour's points may lie from its plane: half a slice of the baseline, or this on planes of its own.
_OFF_PLANE_MM = 0.5
#: A contour that encloses less is a line or a point.
_LEAST_AREA_MM2 = 1e-3
#: No region of a patient reaches farther; coordinates that do are wrong.
_FARTHEST_MM = 2000.0
#: Planes of the region's own are divided no finer than this, whatever the baseline's voxels.
_FINEST_MM = 0.5


def contours_of(header: Header, number: int, key: str) -> list[Outline]:
    """The ROI's closed contours in LPS; none where it was not drawn. Points, lines and what encloses nothing are left
    out. Raises Refused, naming the key: region_missing, region_unreadable.
    """
    _roi(header, number, key)
    drawn = _item(header, "ROIContourSequence", "ReferencedROINumber", number)
    outlines = (_outline(c) for c in ((drawn.get("ContourSequence") or ()) if drawn is not None else ()))
    found = [outline for outline in outlines if outline is not None]
    if found:
        points = np.concatenate([outline.points for outline in found])
        if not np.isfinite(points).all() or np.ptp(points, axis=0).max() > _FARTHEST_MM:
            raise Refused("region_unreadable", f"{key}: its contours reach farther than any patient; export it again.")
    return found


def roi_frame_uid(header: Header, number: int, key: str) -> str:
    """The frame of reference that the ROI is drawn in. Raises Refused ``region_missing``, naming the key."""
    stated = str(_roi(header, number, key).get("ReferencedFrameOfReferenceUID") or "").strip()
    frames = header.dataset.get("ReferencedFrameOfReferenceSequence") or [Dataset()]
    return stated or str(frames[0].get("FrameOfReferenceUID") or header.text("FrameOfReferenceUID")).strip()


def roi_voxels(contours: Sequence[Outline], key: str, baseline: Geometry) -> tuple[NDArray[np.bool_], Geometry]:
    """Boolean voxels whose centers lie inside the contours, and their grid.

    contours: at least one, in the baseline's frame. The grid is the baseline's where they lie on its slices or between
    them; else it follows the contours' own planes, as fine as the baseline. Contours sparser than the slices are
    interpolated by their distance in the plane. Raises Refused ``region_unreadable``, naming the key, for contours that
    are not planar or not parallel to one another.
    """
    on_slices = [Outline(baseline.index_of(outline.points), outline.is_xor) for outline in contours]
    if all(np.ptp(outline.points[:, 0]) <= 0.5 for outline in on_slices):
        return filled_stack(on_slices, baseline.shape, slab=1.0), baseline
    grid = _own_grid(contours, key, baseline)
    own = [Outline(grid.index_of(outline.points), outline.is_xor) for outline in contours]
    slab = float(baseline.spacing_mm.max() / grid.spacing_mm[0])
    return filled_stack(own, grid.shape, slab=slab), grid


def _own_grid(contours: Sequence[Outline], key: str, baseline: Geometry) -> Geometry:
    """A grid whose slices are parallel to the contours, with one on each plane where these are evenly spaced."""
    areas = [_area_lps_mm2(outline.points) for outline in contours]
    largest = max(areas, key=lambda area: float(np.linalg.norm(area)))
    normal = largest / np.linalg.norm(largest)
    if any(np.ptp(outline.points @ normal) > 2 * _OFF_PLANE_MM for outline in contours):
        text = "its contours are not planar, or their planes are not parallel to one another."
        raise Refused("region_unreadable", f"{key}: {text}")
    axes = baseline.lps_from_index[:3, :3] / baseline.spacing_mm
    across = axes[:, np.abs(axes.T @ normal).argmin()]
    row = across - (across @ normal) * normal
    row /= np.linalg.norm(row)
    column = np.cross(normal, row)
    finest = max(float(baseline.spacing_mm.min()), _FINEST_MM)
    depths = np.sort([float(outline.points.mean(0) @ normal) for outline in contours])
    gaps = np.diff(depths)
    gaps = gaps[gaps > _OFF_PLANE_MM / 2]
    between = float(np.percentile(gaps, 50, method="lower")) if len(gaps) else float(baseline.spacing_mm.max())
    parts = 2 * max(round((between / finest - 1) / 2), 0) + 1  # odd, so that slabs end half-way between planes
    spacing = np.array([max(between, finest) / parts, finest, finest])
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([normal, column, row], 1) * spacing
    points = np.concatenate([outline.points for outline in contours])
    low, high = (f((points - points[0]) @ np.stack([normal, column, row], 1), axis=0) for f in (np.min, np.max))
    room = np.ceil(max(float(baseline.spacing_mm.max()), between) / spacing).astype(int) + 1
    room[1:] = 2
    # So the first plane lies on a slice.
    matrix[:3, 3] = points[0] + np.stack([normal, column, row], 1) @ (low - room * spacing)
    shape = np.ceil((high - low) / spacing).astype(int) + 2 * room + 1
    return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), matrix, baseline.frame_uid)


def _outline(contour: Dataset) -> Outline | None:
    """The contour without points that are there twice in a row; None where it is none that encloses anything."""
    kind = str(contour.get("ContourGeometricType") or "").strip()
    data = contour.get("ContourData")
    if kind not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR") or data is None:
        return None
    points = np.array(data, float).reshape(-1, 3)
    points = points[np.abs(points - np.roll(points, 1, axis=0)).max(axis=1) > 0] if len(points) else points
    if len(points) < 3 or np.linalg.norm(_area_lps_mm2(points)) < _LEAST_AREA_MM2:
        return None
    return Outline(points, kind == "CLOSEDPLANAR_XOR")


def _area_lps_mm2(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) the enclosed area along the normal of a polygon, by Newell's sum."""
    from_first = points - points[0]
    return np.asarray(np.cross(from_first, np.roll(from_first, -1, axis=0)).sum(0) / 2)


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
