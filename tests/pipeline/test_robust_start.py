"""However a follow-up lies in its scanner, the rigid start ends at the same answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.geometry import FloatArray, Geometry
from pipeline.phantom import Phantom
from pipeline.rigid import rigid_start
from pipeline.sampling import box_of
from pipeline.transform import Transform, identity, resample_distance
from pipeline.volume import Volume

Change = Callable[[Volume], tuple[Volume, FloatArray]]
"""Another follow-up, and the (4, 4) matrix from the old one's LPS points to the new one's."""


def moved(volume: Volume, matrix: FloatArray) -> tuple[Volume, FloatArray]:
    geometry = replace(volume.geometry, lps_from_index=matrix @ volume.geometry.lps_from_index)
    return Volume(volume.voxels, geometry, volume.quantity), matrix


def shifted(x: float, y: float, z: float) -> Change:
    matrix = np.eye(4)
    matrix[:3, 3] = (x, y, z)
    return lambda volume: moved(volume, matrix)


def rolled(degrees: float) -> Change:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(4)
    matrix[:2, :2] = [[c, -s], [s, c]]
    return lambda volume: moved(volume, matrix)


def both(first: Change, second: Change) -> Change:
    def change(volume: Volume) -> tuple[Volume, FloatArray]:
        once, a = first(volume)
        twice, b = second(once)
        return twice, b @ a

    return change


def reversed_slices(volume: Volume) -> tuple[Volume, FloatArray]:
    g = volume.geometry
    matrix = g.lps_from_index.copy()
    matrix[:3, 3] = g.lps_of((g.shape[0] - 1, 0, 0))
    matrix[:3, 0] *= -1
    flipped = Geometry(g.shape, matrix, g.frame_uid)
    return Volume(np.ascontiguousarray(volume.voxels[::-1]), flipped, volume.quantity), np.eye(4)


def narrow(volume: Volume) -> tuple[Volume, FloatArray]:
    """A field of view that leaves out a fifth of the body on the left."""
    columns = volume.geometry.shape[2]
    return volume.crop((slice(None), slice(None), slice(0, 4 * columns // 5))), np.eye(4)


def with_table(volume: Volume) -> tuple[Volume, FloatArray]:
    """A curved table top behind the body."""
    points = volume.geometry.grid_lps()
    y = points[..., 1].max() - 12 - 0.0004 * points[..., 0] ** 2
    slab = np.abs(points[..., 1] - y) < 4
    voxels = np.where(slab & (volume.voxels < -300), 150, volume.voxels).astype(volume.voxels.dtype)
    return Volume(voxels, volume.geometry, volume.quantity), np.eye(4)


def with_arms(volume: Volume) -> tuple[Volume, FloatArray]:
    """Two arms with their bones along the body, which the baseline had above the head."""
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
    "15 degrees roll the other way, and off": both(rolled(-15), shifted(40, -30, 60)),
    "slices in reverse": reversed_slices,
    "narrow field of view": narrow,
    "table": with_table,
    "arms": with_arms,
}


@pytest.fixture(scope="module")
def undisturbed(incomplete_phantom: Phantom) -> FloatArray:
    made = incomplete_phantom.followups[0]
    return start_of(made.followup.volume, incomplete_phantom)(made.truth.landmarks_followup_lps_mm)


def start_of(followup: Volume, phantom: Phantom) -> Transform:
    region = box_of(phantom.plan.lesions[0].tumor.points_lps_mm())
    return rigid_start(followup, phantom.plan.baseline, region=region)


@pytest.mark.parametrize("name", CHANGES)
def test_the_start_does_not_depend_on_where_the_scan_lies(
    name: str, incomplete_phantom: Phantom, undisturbed: FloatArray
) -> None:
    made = incomplete_phantom.followups[0]
    followup, across = CHANGES[name](made.followup.volume)
    points = made.truth.landmarks_followup_lps_mm @ across[:3, :3].T + across[:3, 3]
    found = start_of(followup, incomplete_phantom)(points)
    errors = np.linalg.norm(found - made.truth.landmarks_baseline_lps_mm, axis=1)
    least = np.linalg.norm(undisturbed - made.truth.landmarks_baseline_lps_mm, axis=1)
    assert errors.mean() < least.mean() + 1.0
    assert np.linalg.norm(found - undisturbed, axis=1).mean() < 1.5


@pytest.mark.parametrize("upper", [True, False], ids=["upper half", "lower half"])
def test_half_of_the_liver_is_enough(upper: bool, incomplete_phantom: Phantom, undisturbed: FloatArray) -> None:
    """Half of the liver's slices are not in view, on either side of the lesion as far as the lesion allows."""
    made = incomplete_phantom.followups[0]
    volume, grid = made.followup.volume, made.followup.volume.geometry
    organ = incomplete_phantom.plan.organ_mask
    assert organ is not None
    shift = np.eye(4)
    shift[:3, 3] = (made.truth.landmarks_baseline_lps_mm - made.truth.landmarks_followup_lps_mm).mean(0)
    there = Transform(organ.geometry.frame_uid, grid.frame_uid, shift)
    slices = np.flatnonzero((resample_distance(organ, grid, there) > 0).any((1, 2)))
    lesion = np.flatnonzero((resample_distance(made.truth.zone, grid, identity(grid.frame_uid)) > -15).any((1, 2)))
    middle = int(slices.mean())
    part = slice(min(middle, lesion[0]), None) if upper else slice(0, max(middle, lesion[-1]) + 1)
    cut = volume.crop((part, slice(None), slice(None)))
    points = made.truth.landmarks_followup_lps_mm
    inside = cut.geometry.contains(points)
    assert inside.mean() > 0.5
    found = start_of(cut, incomplete_phantom)(points[inside])
    errors = np.linalg.norm(found - made.truth.landmarks_baseline_lps_mm[inside], axis=1).mean()
    least = np.linalg.norm(undisturbed - made.truth.landmarks_baseline_lps_mm, axis=1)[inside].mean()
    assert errors < least + 1.0
