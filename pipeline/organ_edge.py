"""The organ's edge: how deep below it a tumor's surface lies, and so how much margin there can be."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pipeline.geometry import FloatArray, Geometry
from pipeline.margin import MarginMap, distance_to_surface_mm
from pipeline.surface import level_of_mask
from pipeline.transform import identity, resample_distance, sample_distance
from pipeline.volume import Mask

_SLACK_MM = 8.0
#: Half as wide as what is filled: the inferior vena cava measures some 20 to 25 mm.
CLEFT_MM = 12.5


def organ_depth_mm(organ: Mask, tumor: Mask, points_lps_mm: FloatArray, *, reach_mm: float) -> FloatArray:
    """(n,) depth below the organ's edge at (n, 3) points near the tumor, negative outside, at most `reach_mm`.

    All in the baseline's frame. The tumor belongs to the organ, also where the organ's mask leaves it out, and so do
    holes, vessels and clefts up to 2 * `CLEFT_MM` wide: a vein that a mask leaves out is no capsule. Where the scan
    ends the organ is taken to go on.
    """
    box = organ.geometry.box_around(points_lps_mm, pad_mm=reach_mm + CLEFT_MM + _SLACK_MM)
    part = organ.crop(box)
    with_tumor = part.voxels | (resample_distance(tumor, part.geometry, identity(part.geometry.frame_uid)) > 0)
    whole = _closed(_continued(Mask(with_tumor, part.geometry), box, organ.geometry, reach_mm))
    roughly = sample_distance(whole, points_lps_mm).astype(np.float64)
    depth = np.clip(roughly, -reach_mm, reach_mm)
    near = np.abs(roughly) < reach_mm + float(whole.geometry.spacing_mm.max())
    if near.any():
        # The faces of the box are edges too, but farther off than `reach_mm`.
        around = whole.crop(whole.geometry.box_around(points_lps_mm[near], pad_mm=reach_mm + _SLACK_MM))
        level = level_of_mask(around)
        distance = np.minimum(distance_to_surface_mm(points_lps_mm[near], level.surface()), reach_mm)
        depth[near] = np.where(level.at(points_lps_mm[near]) > 0, distance, -distance)
    return depth


def _continued(part: Mask, box: tuple[slice, slice, slice], full: Geometry, by_mm: float) -> Mask:
    """The part with its border voxels repeated for `by_mm` wherever it ends because the scan does."""
    by = np.ceil((by_mm + CLEFT_MM + _SLACK_MM) / part.geometry.spacing_mm).astype(int)
    pads = [
        (int(n) if s.start == 0 else 0, int(n) if s.stop == size else 0)
        for s, n, size in zip(box, by, full.shape, strict=True)
    ]
    voxels = np.pad(part.voxels, pads, mode="edge")
    matrix = part.geometry.lps_from_index.copy()
    matrix[:3, 3] = part.geometry.lps_of(tuple(-float(low) for low, _ in pads))
    return Mask(voxels, Geometry(voxels.shape, matrix, part.geometry.frame_uid))


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
