"""Geometry against the plain matrix product, and its properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.geometry import FrameMismatch, Geometry, frozen


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Any grid: turned, anisotropic, perhaps left-handed."""
    shape = tuple(draw(st.integers(2, 40)) for _ in range(3))
    spacing = np.array([draw(st.floats(0.3, 8)) for _ in range(3)])
    turn = Rotation.from_euler("xyz", [draw(st.floats(-180, 180)) for _ in range(3)], degrees=True).as_matrix()
    signs = np.array([draw(st.sampled_from([-1.0, 1.0])) for _ in range(3)])
    matrix = np.eye(4)
    matrix[:3, :3] = turn * spacing * signs
    matrix[:3, 3] = [draw(st.floats(-500, 500)) for _ in range(3)]
    return Geometry((shape[0], shape[1], shape[2]), matrix, "1.2.3")


def upright(shape: tuple[int, int, int] = (4, 5, 6), spacing: tuple[float, float, float] = (3.0, 2.0, 1.0)) -> Geometry:
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0], [0, 1, 2]] = spacing
    matrix[:, 3] = (-10, -20, -30, 1)
    return Geometry(shape, matrix, "1.2.3")


def test_index_order_is_slice_row_column() -> None:
    geometry = upright()
    assert geometry.lps_of((0, 0, 0)).tolist() == [-10, -20, -30]
    assert geometry.lps_of((1, 2, 3)).tolist() == [-10 + 3, -20 + 4, -30 + 3]
    assert geometry.spacing_mm.tolist() == [3, 2, 1]
    assert geometry.voxel_volume_mm3 == pytest.approx(6)


@given(geometries(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_points_and_indices_are_inverse_and_agree_with_the_homogeneous_product(geometry: Geometry, seed: int) -> None:
    index = np.random.default_rng(seed).uniform(-5, 45, (7, 3))
    points = geometry.lps_of(index)
    slow = [(geometry.lps_from_index @ [*row, 1])[:3] for row in index]
    assert points == pytest.approx(np.array(slow), abs=1e-9)
    assert geometry.index_of(points) == pytest.approx(index, abs=1e-6)
    assert (geometry.lps_from_index @ geometry.index_from_lps) == pytest.approx(np.eye(4), abs=1e-9)


@given(geometries(), st.data())
@settings(max_examples=40, deadline=None)
def test_a_crop_lies_where_it_was_cut(geometry: Geometry, data: st.DataObject) -> None:
    start = [data.draw(st.integers(0, n - 1)) for n in geometry.shape]
    stop = [data.draw(st.integers(s + 1, n)) for s, n in zip(start, geometry.shape, strict=True)]
    part = geometry.crop(start, stop)
    assert part.shape == tuple(b - a for a, b in zip(start, stop, strict=True))
    assert part.lps_of((0.5, 1, 2)) == pytest.approx(geometry.lps_of(np.add(start, (0.5, 1, 2))))


@given(geometries(), st.lists(st.floats(0.3, 5), min_size=3, max_size=3))
@settings(max_examples=40, deadline=None)
def test_resampling_keeps_the_first_face_and_nearly_the_extent(geometry: Geometry, spacing: list[float]) -> None:
    other = geometry.resampled(spacing)
    assert other.spacing_mm == pytest.approx(spacing)
    assert other.lps_of((-0.5, -0.5, -0.5)) == pytest.approx(geometry.lps_of((-0.5, -0.5, -0.5)), abs=1e-6)
    extents = [np.array(g.shape) * g.spacing_mm for g in (geometry, other)]
    assert (np.abs(extents[0] - extents[1]) <= np.maximum(0.5001 * other.spacing_mm, other.spacing_mm)).all()


@given(geometries(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_box_holds_its_points(geometry: Geometry, seed: int) -> None:
    index = np.random.default_rng(seed).uniform(0, np.array(geometry.shape) - 1, (4, 3))
    box = geometry.box_around(geometry.lps_of(index), pad_mm=0.0)
    low, high = np.array([s.start for s in box]), np.array([s.stop for s in box])
    assert (low <= index.min(0) + 1e-6).all()
    assert (high - 1 >= index.max(0) - 1e-6).all()
    assert (high - low <= np.ptp(index, axis=0) + 3).all()


def test_contains_goes_to_the_outer_faces_of_the_outer_voxels() -> None:
    geometry = upright()
    assert geometry.contains(geometry.lps_of([(-0.49, 0, 0), (3.49, 4.49, 5.49)])).all()
    assert not geometry.contains(geometry.lps_of([(-0.51, 0, 0), (0, 0, 5.51)])).any()


def turned(shape: tuple[int, int, int], at_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Geometry:
    """Cells of 1.5 mm along axes that lie across those of the patient."""
    matrix = np.eye(4)
    matrix[:3, :3] = 1.5 * Rotation.from_rotvec([0.4, -0.7, 0.5]).as_matrix()
    matrix[:3, 3] = at_mm
    return Geometry(shape, matrix, "1.2.3")


def test_the_corners_are_those_of_all_voxels() -> None:
    for geometry in (upright(), turned((4, 5, 6)), turned((1, 5, 6))):
        points, corners = geometry.grid_lps().reshape(-1, 3), geometry.corners_lps()
        assert corners[0] == pytest.approx(points[0])
        assert corners.min(axis=0) == pytest.approx(points.min(axis=0))
        assert corners.max(axis=0) == pytest.approx(points.max(axis=0))


def test_a_grid_that_holds_others_holds_every_cell_of_them() -> None:
    """Also of grids that lie across it, whose first and last voxels say too little."""
    for one, other in ((upright(), turned((9, 8, 7), (3.0, -2.0, 4.0))), (turned((9, 8, 7)), upright())):
        whole = one.holding([other])
        for grid in (one, other):
            assert whole.contains(grid.grid_lps()).all()
        assert whole.index_of(one.lps_of((0, 0, 0))) == pytest.approx(np.round(whole.index_of(one.lps_of((0, 0, 0)))))
        assert whole.lps_from_index[:3, :3].tolist() == one.lps_from_index[:3, :3].tolist()
    with pytest.raises(FrameMismatch):
        upright().holding([Geometry((3, 3, 3), np.eye(4), "4.5.6")])


def test_the_grid_of_points_is_the_points_of_the_grid() -> None:
    geometry = upright()
    assert geometry.grid_lps().shape == (4, 5, 6, 3)
    assert geometry.grid_lps()[1, 2, 3].tolist() == geometry.lps_of((1, 2, 3)).tolist()


def test_same_grid_looks_at_place_shape_and_frame() -> None:
    geometry = upright()
    assert geometry.same_grid(upright())
    assert not geometry.same_grid(upright(shape=(4, 5, 7)))
    assert not geometry.same_grid(upright(spacing=(3.0, 2.0, 1.01)))
    assert not geometry.same_grid(Geometry(geometry.shape, geometry.lps_from_index, "1.2.4"))


@pytest.mark.parametrize(
    ("shape", "matrix", "words"),
    [
        ((0, 5, 5), np.eye(4), "at least one voxel"),
        ((5, 5, 5), np.eye(3), r"finite \(4, 4\)"),
        ((5, 5, 5), np.full((4, 4), np.nan), r"finite \(4, 4\)"),
        ((5, 5, 5), np.diag([1.0, 0.0, 1.0, 1.0]), "singular"),
    ],
)
def test_no_invalid_grid_comes_to_exist(shape: tuple[int, int, int], matrix: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Geometry(shape, matrix, "1.2.3")


def test_a_crop_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        upright().crop((0, 0, 0), (5, 5, 6))


def test_nothing_of_a_grid_can_be_changed() -> None:
    matrix = np.eye(4)
    geometry = Geometry((3, 3, 3), matrix, "1.2.3")
    matrix[0, 3] = 99
    assert geometry.lps_of((0, 0, 0)).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="read-only"):
        geometry.lps_from_index[0, 0] = 2


def test_frozen_does_not_freeze_the_callers_array() -> None:
    mine = np.zeros(3)
    theirs = frozen(mine)
    mine[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        theirs[0] = 2
