"""How else a follow-up may lie in its scanner: moved, rolled, cut, with table or arms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pipeline.geometry import FloatArray, Geometry
from pipeline.phantom import Phantom
from pipeline.transform import Transform, identity, resample_distance
from pipeline.volume import Volume

Change = Callable[[Volume], tuple[Volume, FloatArray]]
"""Another follow-up, and the (4, 4) matrix from the old one's LPS points to the new one's."""


def moved(volume: Volume, new_from_old: FloatArray) -> tuple[Volume, FloatArray]:
    """The same voxels under a geometry moved by a (4, 4) matrix of LPS mm."""
    geometry = replace(volume.geometry, lps_from_index=new_from_old @ volume.geometry.lps_from_index)
    return Volume(volume.voxels, geometry, volume.quantity), new_from_old


def shifted(x_mm: float, y_mm: float, z_mm: float) -> Change:
    """The patient elsewhere in the scanner, by so much along the LPS axes."""
    new_from_old = np.eye(4)
    new_from_old[:3, 3] = (x_mm, y_mm, z_mm)
    return lambda volume: moved(volume, new_from_old)


def rolled(roll_deg: float) -> Change:
    """The patient rolled about the body's long axis, through the origin."""
    c, s = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
    new_from_old = np.eye(4)
    new_from_old[:2, :2] = [[c, -s], [s, c]]
    return lambda volume: moved(volume, new_from_old)


def in_turn(*changes: Change) -> Change:
    """One change after the other."""

    def change(volume: Volume) -> tuple[Volume, FloatArray]:
        new_from_old = np.eye(4)
        for one in changes:
            volume, more = one(volume)
            new_from_old = more @ new_from_old
        return volume, new_from_old

    return change


def reversed_slices(volume: Volume) -> tuple[Volume, FloatArray]:
    """The same scan with its slices stored from the other end."""
    g = volume.geometry
    lps_from_index = g.lps_from_index.copy()
    lps_from_index[:3, 3] = g.lps_of((g.shape[0] - 1, 0, 0))
    lps_from_index[:3, 0] *= -1
    flipped = Geometry(g.shape, lps_from_index, g.frame_uid)
    return Volume(np.ascontiguousarray(volume.voxels[::-1]), flipped, volume.quantity), np.eye(4)


def narrow(volume: Volume) -> tuple[Volume, FloatArray]:
    """A field of view that leaves out a fifth of the body on the left."""
    columns = volume.geometry.shape[2]
    return volume.crop((slice(None), slice(None), slice(0, 4 * columns // 5))), np.eye(4)


def half_of_the_liver(phantom: Phantom, *, upper: bool) -> Change:
    """The first follow-up without half of the liver's slices, on either side of the lesion, as far as the lesion
    allows; upper: the cranial half stays."""
    made, organ = phantom.followups[0], phantom.plan.organ_mask
    if organ is None:
        raise ValueError("the phantom's plan has no organ mask")
    grid, truth = made.volume.geometry, made.truth
    shift = np.eye(4)
    shift[:3, 3] = (truth.landmarks_baseline_lps_mm - truth.landmarks_followup_lps_mm).mean(0)
    there = Transform(organ.geometry.frame_uid, grid.frame_uid, shift)
    slices = np.flatnonzero((resample_distance(organ, grid, there) > 0).any((1, 2)))
    lesion = np.flatnonzero((resample_distance(truth.zone, grid, identity(grid.frame_uid)) > -15).any((1, 2)))
    middle = int(slices.mean())
    part = slice(min(middle, int(lesion[0])), None) if upper else slice(0, max(middle, int(lesion[-1])) + 1)
    return lambda volume: (volume.crop((part, slice(None), slice(None))), np.eye(4))


def with_table(volume: Volume) -> tuple[Volume, FloatArray]:
    """A curved table top behind the body; CT only."""
    points = volume.geometry.grid_lps()
    y = points[..., 1].max() - 12 - 0.0004 * points[..., 0] ** 2
    slab = np.abs(points[..., 1] - y) < 4
    voxels = np.where(slab & (volume.voxels < -300), 150, volume.voxels).astype(volume.voxels.dtype)
    return Volume(voxels, volume.geometry, volume.quantity), np.eye(4)


def with_arms(volume: Volume) -> tuple[Volume, FloatArray]:
    """Two arms with their bones along the body, which the baseline had above the head; CT only."""
    points = volume.geometry.grid_lps()
    voxels = volume.voxels.copy()
    for side in (-1, 1):
        edge = points[..., 0].max() if side > 0 else points[..., 0].min()
        away = np.hypot(points[..., 0] - (edge - side * 22), points[..., 1])
        voxels[(away < 30) & (voxels < -300)] = 45
        voxels[away < 9] = 700
    return Volume(voxels, volume.geometry, volume.quantity), np.eye(4)


CHANGES: dict[str, Change] = {
    "same": lambda volume: (volume, np.eye(4)),
    "60 mm off": shifted(60, 0, 0),
    "60 mm off along the body": shifted(0, 0, -60),
    "another vendor's origin": shifted(-310, 245, -1200),
    "15 degrees roll": rolled(15),
    "15 degrees roll the other way, and off": in_turn(rolled(-15), shifted(40, -30, 60)),
    "slices in reverse": reversed_slices,
    "narrow field of view": narrow,
    "table": with_table,
    "arms": with_arms,
    "all at once": in_turn(with_table, with_arms, reversed_slices, rolled(12), shifted(-310, 245, -1200)),
}
"""Changes that any follow-up can undergo."""


def changes_of(phantom: Phantom) -> dict[str, Change]:
    """All changes for the first follow-up of a phantom, those that depend on where its liver lies too."""
    return {
        **CHANGES,
        "upper half of the liver": half_of_the_liver(phantom, upper=True),
        "lower half of the liver": half_of_the_liver(phantom, upper=False),
    }
