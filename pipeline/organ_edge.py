"""The organ's edge: how deep below it a tumor's surface lies, and so how much margin there can be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from pipeline.geometry import FloatArray, Geometry
from pipeline.margin import MarginMap, distance_to_surface_mm
from pipeline.sampling import Box, box_of
from pipeline.surface import level_of_mask
from pipeline.transform import identity, resample_distance, sample_distance
from pipeline.volume import Mask

_SLACK_MM = 8.0
#: Half as wide as what is filled: the inferior vena cava measures some 20 to 25 mm.
CLEFT_MM = 12.5


def organ_depth_mm(
    organ: Mask, tumors: Sequence[Mask], points_lps_mm: FloatArray, *, scan: Geometry, reach_mm: float
) -> FloatArray:
    """`depth_below_mm` the edge of `closed_organ`."""
    whole = closed_organ(organ, tumors, points_lps_mm, scan=scan, reach_mm=reach_mm)
    return depth_below_mm(whole, points_lps_mm, reach_mm=reach_mm)


def depth_below_mm(organ: Mask, points_lps_mm: FloatArray, *, reach_mm: float) -> FloatArray:
    """(n,) depth below the organ's edge at (n, 3) points, negative outside, at most `reach_mm`.

    All in the baseline's frame. organ: as `closed_organ` gives it, around these points and to at least this reach.
    """
    roughly = sample_distance(organ, points_lps_mm).astype(np.float64)
    depth = np.clip(roughly, -reach_mm, reach_mm)
    near = np.abs(roughly) < reach_mm + float(organ.geometry.spacing_mm.max())
    if near.any():
        # The faces of the box are edges too, but farther off than `reach_mm`.
        around = organ.crop(organ.geometry.box_around(points_lps_mm[near], pad_mm=reach_mm + _SLACK_MM))
        level = level_of_mask(around)
        distance = np.minimum(distance_to_surface_mm(points_lps_mm[near], level.surface()), reach_mm)
        depth[near] = np.where(level.at(points_lps_mm[near]) > 0, distance, -distance)
    return depth


def closed_organ(
    organ: Mask, tumors: Sequence[Mask], points_lps_mm: FloatArray, *, scan: Geometry, reach_mm: float
) -> Mask:
    """The organ around (n, 3) points near a tumor, as far as `reach_mm` and a little more, in the baseline's frame.

    Tumors belong to the organ, also where the organ's mask leaves them out, and so do holes, vessels and clefts up to
    2 * `CLEFT_MM` wide: a vein that a mask leaves out is no capsule. Where the scan (the baseline's grid) ends, the
    organ is taken to go on, whatever the grid of its mask.
    """
    part = _continued(organ, scan, box_of(points_lps_mm).grown(reach_mm + CLEFT_MM + _SLACK_MM))
    same = identity(part.geometry.frame_uid)
    voxels = part.voxels.copy()
    for tumor in tumors:
        voxels |= resample_distance(tumor, part.geometry, same) > 0
    return _closed(Mask(voxels, part.geometry))


def _continued(organ: Mask, scan: Geometry, box: Box) -> Mask:
    """The organ in a box, on its own grid carried on; beyond the scan it is as at the scan's end."""
    own = organ.geometry
    corners = own.index_of(box.corners())
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    matrix = own.lps_from_index.copy()
    matrix[:3, 3] = own.lps_of(low)
    k, j, i = (int(n) for n in high - low + 1)
    grid = Geometry((k, j, i), matrix, own.frame_uid)
    # A mask whose voxels are not the scan's may end up to a voxel before the scan does.
    apart = scan.index_of(own.lps_of((0.0, 0.0, 0.0)))
    shared = np.allclose(own.lps_from_index[:3, :3], scan.lps_from_index[:3, :3], atol=1e-3)
    shared = shared and np.allclose(apart, np.round(apart), atol=0.01)
    short = 0.0 if shared else own.spacing_mm.max() / scan.spacing_mm
    middle = (np.array(scan.shape) - 1) / 2
    half = np.maximum(middle - short, 0.0)
    inner = scan.lps_of(np.clip(scan.index_of(grid.grid_lps()), middle - half, middle + half))
    index = np.moveaxis(own.index_of(inner), -1, 0)
    voxels = ndimage.map_coordinates(organ.voxels.view(np.uint8), index, order=0, mode="constant", cval=0)
    return Mask(voxels > 0, grid)


def _closed(part: Mask) -> Mask:
    """The part with its holes and narrow clefts filled; beyond the grid's faces nothing is assumed."""
    spacing = part.geometry.spacing_mm
    grown = ndimage.distance_transform_edt(~part.voxels, sampling=spacing) <= CLEFT_MM
    if not grown.all():
        grown = ndimage.distance_transform_edt(grown, sampling=spacing) > CLEFT_MM
    return Mask(ndimage.binary_fill_holes(grown | part.voxels), part.geometry)


def required_here_mm(depth_mm: FloatArray, required_mm: float) -> FloatArray:
    """(n,) the margin to ask for at points of that depth: no more than there is organ, none outside it."""
    return np.minimum(required_mm, np.maximum(depth_mm, 0.0))


def organ_limited_mm(margins: MarginMap, depth_mm: FloatArray, required_mm: float) -> FloatArray:
    """(n,) the margins, with what the organ's edge makes impossible credited where the tumor is covered.

    At least `required_mm` exactly where the margin reaches what may be asked for there. Uncovered tumor keeps its
    negative margin, at the capsule as elsewhere.
    """
    credited = margins.distance_mm + required_mm - required_here_mm(depth_mm, required_mm)
    return np.where(margins.distance_mm < 0, margins.distance_mm, credited)
