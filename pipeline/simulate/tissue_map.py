"""Which tissue lies where around the applicators: from the plan's regions and, on CT, from the image itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from pipeline.case import Organ
from pipeline.geometry import FloatArray, Geometry, upright_grid
from pipeline.transform import sample, sample_distance
from pipeline.volume import Mask, Volume

NAMES = ("soft_tissue", "fat", "gas", "lung", "bone", "liver", "kidney", "tumor", "vessel")
#: Hounsfield units between which tissues are told apart; contrast in vessels and kidneys stays below bone's.
GAS_BELOW_HU, LUNG_BELOW_HU, FAT_BELOW_HU, FAT_ABOVE_HU, BONE_ABOVE_HU = -950.0, -500.0, -40.0, -150.0, 320.0
_SMOOTH_MM = 1.5
#: Smaller specks of another tissue are noise.
SMALLEST_ML = 0.3
#: A thinner vessel follows the tissue around it (our own choice).
LARGE_VESSEL_MM = 3.0
_HALF_VOXEL_MM = 0.25  # what a mask's voxels may take off a radius


def grid_around(points_lps_mm: FloatArray, *, room_mm: float, spacing_mm: float, frame_uid: str) -> Geometry:
    """The upright grid of cubic cells with so much room around (n, 3) points."""
    low, high = points_lps_mm.min(axis=0) - room_mm, points_lps_mm.max(axis=0) + room_mm
    shape = np.ceil((high - low) / spacing_mm).astype(int)[::-1] + 1
    return upright_grid(shape, (spacing_mm,) * 3, low, frame_uid)


def label_map(
    grid: Geometry,
    organ: Organ,
    *,
    image: Volume | None = None,
    organ_mask: Mask | None = None,
    tumors: Sequence[Mask] = (),
    vessel_mask: Mask | None = None,
) -> NDArray[np.uint8]:
    """(k, j, i) numbers into `NAMES`; all masks in the grid's frame.

    Without an organ mask all soft tissue counts as the organ. image: on CT fat, bone, lung and gas are told by their
    Hounsfield units outside the organ mask.
    """
    labels = np.full(grid.shape, NAMES.index(organ), np.uint8)
    points = grid.grid_lps()
    inside = None if organ_mask is None else sample_distance(organ_mask, points) > 0
    if inside is not None:
        labels[~inside] = NAMES.index("soft_tissue")
    if image is not None and image.quantity == "ct_hu":
        if inside is None and organ in ("bone", "lung"):  # these the image shows; not all else is one of them
            labels[...] = NAMES.index("soft_tissue")
        found = _by_brightness(image, grid, points)
        told = found != NAMES.index("soft_tissue")
        labels[told if inside is None else told & ~inside] = found[told if inside is None else told & ~inside]
    for tumor in tumors:
        labels[sample_distance(tumor, points) > 0] = NAMES.index("tumor")
    if vessel_mask is not None:
        labels[_large(vessel_mask, points)] = NAMES.index("vessel")
    return labels


def _large(vessels: Mask, points: FloatArray) -> NDArray[np.bool_]:
    """(...,) which of (..., 3) points lie in a vessel where a ball of that width fits: opened on the mask's own grid,
    so that it is the same whatever the cells are."""
    distance_mm, own = vessels.distance_nearby
    radius_mm = LARGE_VESSEL_MM / 2
    core = own.lps_of(np.argwhere(distance_mm >= radius_mm - _HALF_VOXEL_MM))
    inside = sample_distance(vessels, points) > 0
    if len(core):
        reach_mm = radius_mm + float(own.spacing_mm.max())  # a voxel stands for all that is nearer to it
        near = cKDTree(core).query(points[inside], distance_upper_bound=reach_mm)[0]
        inside[inside] = np.isfinite(near)
    else:
        inside[...] = False
    return inside


def _by_brightness(image: Volume, grid: Geometry, points: FloatArray) -> NDArray[np.uint8]:
    """Numbers into `NAMES` by Hounsfield units; soft tissue where nothing else is sure or the image ends."""
    values = sample(image, points, outside=50.0)
    smooth = ndimage.gaussian_filter(values, _SMOOTH_MM / grid.spacing_mm)
    labels = np.full(grid.shape, NAMES.index("soft_tissue"), np.uint8)
    least = SMALLEST_ML * 1000 / grid.voxel_volume_mm3
    for name, where in (
        ("bone", smooth > BONE_ABOVE_HU),
        ("fat", (smooth < FAT_BELOW_HU) & (smooth > FAT_ABOVE_HU)),
        ("lung", (smooth < LUNG_BELOW_HU) & (smooth > GAS_BELOW_HU)),
        ("gas", smooth < GAS_BELOW_HU),
    ):
        part, _ = ndimage.label(where)
        size = np.bincount(part.ravel())
        size[0] = 0
        labels[size[part] >= least] = NAMES.index(name)
    return labels
