"""How else a follow-up may lie in its scanner: moved, rolled, cut, with table or arms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pipeline.geometry import FloatArray, Geometry
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


def in_turn(*changes: Change) -> Change:
    def change(volume: Volume) -> tuple[Volume, FloatArray]:
        across = np.eye(4)
        for one in changes:
            volume, matrix = one(volume)
            across = matrix @ across
        return volume, across

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
    "15 degrees roll the other way, and off": in_turn(rolled(-15), shifted(40, -30, 60)),
    "slices in reverse": reversed_slices,
    "narrow field of view": narrow,
    "table": with_table,
    "arms": with_arms,
    "all at once": in_turn(with_table, with_arms, reversed_slices, rolled(12), shifted(-310, 245, -1200)),
}
