"""Scans and regions on finer grids than the method needs: coarser for the way through, and back at its end.

Voxels of up to half of `FINEST_MM` only cost: at 0.3 mm a lesion's surroundings hold 18 million of them, each noisier
than one of 0.6 mm, and no edge on CT or MR is that sharp.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.case import Case, EarlierLesion, Lesion
from pipeline.geometry import Geometry, GeometryMismatch
from pipeline.volume import Mask, Volume

#: Voxels are joined as long as they stay no larger than this.
FINEST_MM = 0.7


def on_coarser_grids(case: Case) -> Case:
    """The case with no grid finer than it needs to be, earlier zones included."""
    plan, volume = case.plan, case.followup.volume
    plan = replace(
        plan,
        baseline=averaged(plan.baseline),
        lesions=tuple(_on_coarser_grids(lesion) for lesion in plan.lesions),
        organ_mask=plan.organ_mask and thinned(plan.organ_mask),
        vessel_mask=plan.vessel_mask and thinned(plan.vessel_mask),
    )
    previous = tuple(replace(p, lesions=tuple(_earlier(x) for x in p.lesions)) for p in case.previous)
    return replace(case, plan=plan, followup=replace(case.followup, volume=averaged(volume)), previous=previous)


def _earlier(lesion: EarlierLesion) -> EarlierLesion:
    return replace(lesion, zone=lesion.zone and thinned(lesion.zone))


def _on_coarser_grids(lesion: Lesion) -> Lesion:
    return replace(
        lesion, tumor=thinned(lesion.tumor), simulated_zone=lesion.simulated_zone and thinned(lesion.simulated_zone)
    )


def averaged(volume: Volume) -> Volume:
    """The image as means of blocks of voxels, float32; what is left over at the far ends is left out."""
    steps = _steps(volume.geometry)
    if steps == (1, 1, 1):
        return volume
    joined = _joined(volume.geometry)
    k, j, i = np.multiply(joined.shape, steps)
    blocks = volume.voxels[:k, :j, :i].reshape([x for pair in zip(joined.shape, steps, strict=True) for x in pair])
    return Volume(blocks.mean(axis=(1, 3, 5), dtype=np.float32), joined, volume.quantity)


def thinned(mask: Mask) -> Mask:
    """The region as every so many voxels show it, which moves no edge on average; whole where nothing would be left."""
    steps = _steps(mask.geometry)
    if steps == (1, 1, 1):
        return mask
    voxels = mask.voxels[tuple(slice(None, None, step) for step in steps)]
    if not voxels.any():
        return mask
    matrix = mask.geometry.lps_from_index.copy()
    matrix[:3, :3] *= steps
    return Mask(voxels, Geometry(voxels.shape, matrix, mask.geometry.frame_uid))


def spread(mask: Mask, onto: Geometry) -> Mask:
    """A region found on an averaged image, on the image's own grid; itself where that is the same.

    Raises GeometryMismatch for a region on another grid.
    """
    if mask.geometry.same_grid(onto):
        return mask
    steps = _steps(onto)
    if not mask.geometry.same_grid(_joined(onto)):
        raise GeometryMismatch("the mask does not lie on the grid that voxels of that one join to")
    voxels = mask.voxels
    for axis, step in enumerate(steps):
        voxels = voxels.repeat(step, axis)
    missing = [(0, n - there) for n, there in zip(onto.shape, voxels.shape, strict=True)]
    return Mask(np.pad(voxels, missing, mode="edge"), onto)


def _joined(geometry: Geometry) -> Geometry:
    """The grid of an averaged image."""
    steps = _steps(geometry)
    shape = [n // step for n, step in zip(geometry.shape, steps, strict=True)]
    kept = geometry.crop((0, 0, 0), np.multiply(shape, steps))
    return kept.resampled(kept.spacing_mm * steps)


def _steps(geometry: Geometry) -> tuple[int, int, int]:
    """How many voxels are joined along k, j, i; a grid keeps at least one along each."""
    k, j, i = (
        int(np.clip(FINEST_MM / spacing + 1e-6, 1, n))
        for spacing, n in zip(geometry.spacing_mm, geometry.shape, strict=True)
    )
    return k, j, i
