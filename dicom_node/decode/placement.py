"""A region on a grid of its own, brought to the baseline: onto its grid where it fits, else with room around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.geometry import Geometry
from pipeline.volume import Mask

#: Background kept around a region on a grid of its own, so that distances to it are right this far out.
_ROOM_MM = 40.0
#: A map is interpolated no finer than this, whatever the baseline's voxels.
_FINEST_MM = 1.0


def placed(voxels: NDArray[np.bool_], geometry: Geometry, baseline: Geometry) -> Mask:
    """The region, which is not empty, cut to what is inside and put on the baseline's grid, or on its own grid with
    room around it.

    On skewed slices it is sampled on the baseline's grid, and may then be empty.
    """
    box = ndimage.find_objects(voxels.astype(np.uint8))[0]
    part = geometry.crop([s.start for s in box], [s.stop for s in box])
    inside = voxels[box]
    if _fits(part, baseline):
        first = np.round(baseline.index_of(part.lps_of((0, 0, 0)))).astype(int)
        whole = np.zeros(baseline.shape, bool)
        whole[tuple(slice(a, a + n) for a, n in zip(first, inside.shape, strict=True))] = inside
        return Mask(whole, baseline)
    if not _right_angled(part):
        return _sampled(inside, part, baseline)
    room = np.ceil(_ROOM_MM / part.spacing_mm).astype(int)
    matrix = part.lps_from_index.copy()
    matrix[:3, 3] = part.lps_of(-room)
    padded = np.pad(inside, [(n, n) for n in room])
    return Mask(padded, Geometry((padded.shape[0], padded.shape[1], padded.shape[2]), matrix, part.frame_uid))


def beyond_zero(
    level: NDArray[np.float32], geometry: Geometry, baseline: Geometry
) -> tuple[NDArray[np.bool_], Geometry]:
    """Where a map is zero or more, on the map's grid, or one between its voxels where it is coarser than the baseline.

    The values between voxels are interpolated, not the voxels of the region, so its surface is no staircase. level:
    ``[k, j, i]``, NaN where the map says nothing. geometry: of the map; baseline tells how fine the grid has to be.
    """
    known = np.isfinite(level)
    reached = known & (level >= 0)
    if not reached.any():
        return reached, geometry
    finest = max(float(baseline.spacing_mm.min()), _FINEST_MM)
    parts = np.where(np.array(level.shape) > 1, np.ceil(geometry.spacing_mm / finest - 0.01), 1).astype(int)
    parts = np.maximum(parts, 1)
    if (parts == 1).all():
        return reached, geometry
    found = ndimage.find_objects(reached.astype(np.uint8))[0]
    start = np.maximum([s.start - 1 for s in found], 0)
    stop = np.minimum([s.stop + 1 for s in found], level.shape)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    fine = _between(np.where(known, level, 0.0)[box], parts) >= 0
    fine &= _between(known[box].astype(np.float32), parts) >= 0.5
    matrix = geometry.lps_from_index.copy()
    matrix[:3, 3] = geometry.lps_of(start)
    matrix[:3, :3] /= parts
    return fine, Geometry((fine.shape[0], fine.shape[1], fine.shape[2]), matrix, geometry.frame_uid)


def _between(values: NDArray[np.float32], parts: NDArray[np.int_]) -> NDArray[np.float32]:
    """The values on a grid that divides each spacing into so many parts, linear in between."""
    for axis, count in enumerate(parts.tolist()):
        at = np.arange((values.shape[axis] - 1) * count + 1) / count
        low = np.minimum(at.astype(int), max(values.shape[axis] - 2, 0))
        high = np.minimum(low + 1, values.shape[axis] - 1)
        weight = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        values = (1 - weight) * values.take(low, axis) + weight * values.take(high, axis)
    return values


def _fits(part: Geometry, baseline: Geometry) -> bool:
    """Whether the part's voxels are voxels of the baseline (to a hundredth of a voxel at every corner)."""
    corners = part.corners_lps()
    own, index = np.round(part.index_of(corners)), baseline.index_of(corners)
    first = np.round(index[0])
    if (first < 0).any() or (first + part.shape > np.array(baseline.shape)).any():
        return False
    return bool(np.abs(index - own - first).max() < 0.01) and bool(
        np.allclose(part.lps_from_index[:3, :3], baseline.lps_from_index[:3, :3], atol=1e-3)
    )


def _right_angled(geometry: Geometry) -> bool:
    axes = geometry.lps_from_index[:3, :3] / geometry.spacing_mm
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() < 1e-2)


def _sampled(voxels: NDArray[np.bool_], geometry: Geometry, baseline: Geometry) -> Mask:
    """A region drawn on tilted slices, on the baseline's upright grid."""
    padded = np.pad(voxels, 1).astype(np.float32)
    to_part = geometry.index_from_lps @ baseline.lps_from_index
    values = ndimage.affine_transform(
        padded, to_part[:3, :3], to_part[:3, 3] + 1, output_shape=baseline.shape, order=1, mode="constant", cval=0.0
    )
    return Mask(values >= 0.5, baseline)
