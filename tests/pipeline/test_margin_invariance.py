"""A margin belongs to two bodies, not to the grid that they were drawn on."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.geometry import FloatArray, Geometry
from pipeline.margin import measure_margin
from pipeline.surface import level_of_mask, surface_of_mask
from pipeline.volume import Mask

Pair = tuple[Mask, Mask]
SPACING_MM = (1.5, 1.0, 0.8)
EXACT_MM = 0.02
"""What is left of rounding: marching cubes cut their triangles along another diagonal once the grid is turned."""


def ellipsoid(grid: Geometry, center: FloatArray, radii: FloatArray) -> Mask:
    return Mask((((grid.grid_lps() - center) / radii) ** 2).sum(-1) <= 1, grid)


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """An ellipsoid of a tumor, covered or not, and one of a zone."""
    shape = tuple(int(40 / s) for s in SPACING_MM)
    matrix = np.zeros((4, 4))
    for k, axis in enumerate((2, 1, 0)):
        matrix[axis, k] = SPACING_MM[k]
    matrix[3, 3] = 1
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = Geometry(shape, matrix, "frame")  # type: ignore[arg-type]
    off = np.array(draw(st.tuples(*[st.floats(-4, 4)] * 3)))
    inner = np.array(draw(st.tuples(*[st.floats(4, 8)] * 3)))
    outer = np.array(draw(st.tuples(*[st.floats(8, 14)] * 3)))
    return ellipsoid(grid, off, inner), ellipsoid(grid, np.zeros(3), outer)


def margin(pair: Pair) -> float:
    tumor, zone = pair
    return measure_margin(surface_of_mask(tumor), level_of_mask(zone)).minimal_margin_mm


def regridded(pair: Pair, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Pair:
    """The same voxels in the same places, stored in another order."""

    def one(mask: Mask) -> Mask:
        g = mask.geometry
        matrix = np.eye(4)
        matrix[:3, :3] = g.lps_from_index[:3, :3][:, axes]
        shape = tuple(g.shape[a] for a in axes)
        corner = [shape[n] - 1 if flips[n] else 0 for n in range(3)]
        matrix[:3, 3] = g.lps_from_index[:3, 3] + matrix[:3, :3] @ corner
        matrix[:3, :3] *= np.where(flips, -1, 1)
        voxels = mask.voxels.transpose(axes)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
        return Mask(voxels, Geometry(shape, matrix, g.frame_uid))  # type: ignore[arg-type]

    return one(pair[0]), one(pair[1])


def moved(pair: Pair, matrix: FloatArray) -> Pair:
    """Voxels, grid and all moved in space."""

    def one(mask: Mask) -> Mask:
        g = mask.geometry
        return Mask(mask.voxels, Geometry(g.shape, matrix @ g.lps_from_index, g.frame_uid))

    return one(pair[0]), one(pair[1])


@settings(max_examples=6, deadline=None)
@given(pairs(), st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
def test_the_order_in_which_voxels_are_stored_does_not_matter(
    pair: Pair, axes: list[int], flips: tuple[bool, bool, bool]
) -> None:
    assert margin(regridded(pair, tuple(axes), flips)) == pytest.approx(margin(pair), abs=EXACT_MM)  # type: ignore[arg-type]


@settings(max_examples=6, deadline=None)
@given(pairs(), st.sampled_from([0, 1, 2]), st.sampled_from([1, 2, 3]), st.tuples(*[st.floats(-900, 900)] * 3))
def test_neither_place_nor_quarter_turns_matter(
    pair: Pair, axis: int, quarters: int, to: tuple[float, float, float]
) -> None:
    a, b = [n for n in range(3) if n != axis]
    turn = np.eye(4)
    c, s = np.round(np.cos(quarters * np.pi / 2)), np.round(np.sin(quarters * np.pi / 2))
    turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
    turn[:3, 3] = to
    assert margin(moved(pair, turn)) == pytest.approx(margin(pair), abs=EXACT_MM)


@settings(max_examples=6, deadline=None)
@given(pairs(), st.integers(0, 5), st.integers(0, 9))
def test_neither_crops_nor_air_around_matter(pair: Pair, air: int, more: int) -> None:
    tumor, zone = pair
    both = tumor | zone
    cropped = both.geometry.box_around(both.points_lps_mm(), pad_mm=float(air))
    narrow = tumor.crop(cropped), zone.crop(cropped)

    def padded(mask: Mask) -> Mask:
        g = mask.geometry
        matrix = g.lps_from_index.copy()
        matrix[:3, 3] = g.lps_of((-more, -more, -more))
        voxels = np.pad(mask.voxels, more)
        return Mask(voxels, Geometry(voxels.shape, matrix, g.frame_uid))

    assert margin(narrow) == pytest.approx(margin(pair), abs=1e-6)
    assert margin((padded(tumor), padded(zone))) == pytest.approx(margin(pair), abs=1e-6)


def test_a_tumor_in_the_middle_of_a_ball_is_measured_at_once() -> None:
    """All of the zone's surface is equally near: a search tree that wants the very nearest point looks at all."""
    grid = Geometry((80, 80, 80), np.diag([0.8, 0.8, 0.8, 1.0]), "frame")
    middle = np.full(3, 31.6)
    pair = ellipsoid(grid, middle, np.full(3, 12.0)), ellipsoid(grid, middle, np.full(3, 22.0))
    started = time.perf_counter()
    assert margin(pair) == pytest.approx(10.0, abs=0.5)
    assert time.perf_counter() - started < 20  # 1 s when nothing else runs, minutes before


@pytest.mark.parametrize("offset", [(2.0, 1.0, -1.5), (6.0, 0.0, 3.0)])
def test_finer_grids_converge_to_the_exact_margin(offset: tuple[float, float, float]) -> None:
    exact = 13.0 - 8.0 - float(np.linalg.norm(offset))
    errors = []
    for spacing in (4.0, 2.0, 1.0, 0.5):
        n = int(34 / spacing) + 1
        matrix = np.zeros((4, 4))
        matrix[[2, 1, 0], [0, 1, 2]] = spacing
        matrix[3, 3] = 1
        matrix[:3, 3] = 0.3 - spacing * (n - 1) / 2
        grid = Geometry((n, n, n), matrix, "frame")
        made = ellipsoid(grid, np.array(offset), np.full(3, 8.0)), ellipsoid(grid, np.zeros(3), np.full(3, 13.0))
        errors.append(abs(margin(made) - exact))
    assert errors[-1] < 0.06
    assert errors[0] > errors[1] > errors[2]
    assert all(error < 0.35 * spacing for error, spacing in zip(errors, (4.0, 2.0, 1.0, 0.5), strict=True))
