"""Transforms against SimpleITK as the oracle, and resampling against analytic answers."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.geometry import FloatArray, FrameMismatch, Geometry, upright_grid
from pipeline.itk import image_from
from pipeline.transform import (
    SplineField,
    Transform,
    grown,
    identity,
    itk_transform,
    resample,
    resample_distance,
    sample_distance,
    transform_from_itk,
)
from pipeline.volume import NO_EDGE_MM, Mask, Volume, signed_distance_mm


def grid(shape: tuple[int, int, int], spacing: tuple[float, float, float], first: FloatArray, frame: str) -> Geometry:
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", [4, -3, 6], degrees=True).as_matrix()
    matrix[:3, :3] = turn[:, ::-1] * spacing
    matrix[:3, 3] = first
    return Geometry(shape, matrix, frame)


def affine(seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-8, 8, 3), degrees=True).as_matrix()
    matrix[:3, 3] = rng.uniform(-15, 15, 3)
    return matrix


def warp(seed: int = 0, size_mm: float = 4.0) -> Transform:
    rng = np.random.default_rng(seed)
    control = grid((7, 8, 9), (16.0, 14.0, 15.0), np.array([-60.0, -50.0, -45.0]), "followup")
    return Transform("baseline", "followup", affine(seed), SplineField(rng.normal(0, size_mm, (3, 7, 8, 9)), control))


def inner_points(transform: Transform, count: int = 200) -> FloatArray:
    assert transform.field is not None
    index = np.random.default_rng(5).uniform(1.2, np.array(transform.field.grid.shape) - 2.2, (count, 3))
    return transform.field.grid.lps_of(index)


@pytest.mark.parametrize("seed", range(3))
def test_points_map_as_in_itk(seed: int) -> None:
    ours = warp(seed)
    theirs = itk_transform(ours)
    points = inner_points(ours)
    assert ours(points) == pytest.approx(np.array([theirs.TransformPoint(p) for p in points.tolist()]), abs=1e-6)


def test_an_affine_maps_as_in_itk() -> None:
    ours = Transform("baseline", "followup", affine(3))
    points = np.random.default_rng(1).uniform(-100, 100, (20, 3))
    theirs = itk_transform(ours)
    assert ours(points) == pytest.approx(np.array([theirs.TransformPoint(p) for p in points.tolist()]), abs=1e-9)


def test_far_outside_the_control_points_only_the_affine_acts() -> None:
    ours = warp()
    far = np.array([[500.0, 0.0, 0.0], [0.0, -400.0, 90.0]])
    assert ours(far) == pytest.approx(Transform("baseline", "followup", ours.matrix)(far))
    assert np.array([itk_transform(ours).TransformPoint(p) for p in far.tolist()]) == pytest.approx(ours(far))


@pytest.mark.parametrize("transform", [warp(2), Transform("baseline", "followup", affine(2))])
def test_a_written_transform_reads_back(transform: Transform, tmp_path: object) -> None:
    path = f"{tmp_path}/baseline_from_followup.h5"
    sitk.WriteTransform(itk_transform(transform), path)
    back = transform_from_itk(sitk.ReadTransform(path), to_frame_uid="baseline", from_frame_uid="followup")
    points = np.random.default_rng(2).uniform(-40, 40, (50, 3))
    assert back(points) == pytest.approx(transform(points), abs=1e-6)


def test_a_foreign_transform_is_not_read() -> None:
    with pytest.raises(ValueError, match="not a transform written by this software"):
        transform_from_itk(sitk.Euler3DTransform(), to_frame_uid="a", from_frame_uid="b")


def test_the_inverse_leads_back() -> None:
    transform = warp(1, size_mm=2.0)
    points = inner_points(transform)
    assert transform.inverse_points(transform(points)) == pytest.approx(points, abs=5e-3)


def test_the_jacobian_of_a_stretch_is_its_volume() -> None:
    stretch = Transform("baseline", "followup", np.diag([2.0, 1.5, 1.0, 1.0]))
    assert stretch.jacobian_determinants(np.zeros((4, 3))) == pytest.approx(np.full(4, 3.0))


def test_a_fold_shows_in_the_jacobian() -> None:
    assert warp(0, size_mm=60.0).jacobian_determinants(inner_points(warp(0))).min() < 0


def test_transforms_chain_only_where_their_frames_meet() -> None:
    inner, outer = warp(), Transform("world", "baseline", affine(9))
    points = inner_points(inner)
    assert (outer @ inner)(points) == pytest.approx(outer(inner(points)))
    with pytest.raises(FrameMismatch):
        _ = inner @ outer
    with pytest.raises(ValueError, match="only an affine"):
        _ = inner @ identity("followup")


def test_no_invalid_transform_comes_to_exist() -> None:
    with pytest.raises(ValueError, match="invertible"):
        Transform("a", "b", np.zeros((4, 4)))
    with pytest.raises(FrameMismatch):
        Transform("a", "b", np.eye(4), warp().field)
    with pytest.raises(ValueError, match="at least 4 control points"):
        SplineField(np.zeros((3, 3, 8, 9)), warp().field.grid)  # type: ignore[union-attr]


def test_resampling_agrees_with_itk() -> None:
    source_grid = grid((20, 30, 32), (3.0, 2.0, 2.1), np.array([-30.0, -32.0, -28.0]), "baseline")
    values = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 300, source_grid.shape), 1.5)
    source = Volume(values.astype(np.float32), source_grid, "ct_hu")
    onto = grid((16, 18, 17), (2.5, 2.5, 2.2), np.array([-18.0, -20.0, -16.0]), "followup")
    transform = warp(4, size_mm=1.0)
    ours = resample(source, onto, transform, outside=-9999.0)
    theirs = sitk.Resample(
        image_from(source), image_from(Volume(np.zeros(onto.shape, np.float32), onto, "ct_hu")),
        itk_transform(transform), sitk.sitkLinear, -9999.0,
    )  # fmt: skip
    both = (ours > -9000) & (sitk.GetArrayFromImage(theirs) > -9000)
    assert both.mean() > 0.5
    assert ours[both] == pytest.approx(sitk.GetArrayFromImage(theirs)[both], abs=0.05)


def test_outside_the_source_there_is_no_value() -> None:
    geometry = grid((5, 5, 5), (2.0, 2.0, 2.0), np.zeros(3), "a")
    far = grid((3, 3, 3), (2.0, 2.0, 2.0), np.full(3, 200.0), "a")
    assert np.isnan(resample(Volume(np.ones((5, 5, 5), np.float32), geometry, "ct_hu"), far, identity("a"))).all()


def test_resampling_refuses_other_frames() -> None:
    geometry = grid((5, 5, 5), (2.0, 2.0, 2.0), np.zeros(3), "a")
    volume = Volume(np.ones((5, 5, 5), np.float32), geometry, "ct_hu")
    with pytest.raises(FrameMismatch):
        resample(volume, geometry, identity("b"))
    with pytest.raises(FrameMismatch):
        resample_distance(Mask(np.ones((5, 5, 5), bool), geometry), geometry, identity("b"))


def ball(geometry: Geometry, radius_mm: float) -> Mask:
    center = geometry.lps_of((np.array(geometry.shape) - 1) / 2)
    return Mask(np.linalg.norm(geometry.grid_lps() - center, axis=-1) < radius_mm, geometry)


def test_a_ball_keeps_its_size_on_another_grid() -> None:
    source = ball(grid((25, 40, 40), (3.0, 1.5, 1.5), np.array([-30.0, -30.0, -36.0]), "a"), 15.0)
    onto = grid((60, 60, 60), (1.1, 1.0, 1.2), source.centroid_lps_mm - 33, "a")
    moved = Mask(resample_distance(source, onto, identity("a")) > 0, onto)
    assert moved.volume_ml == pytest.approx(4 / 3 * np.pi * 15**3 / 1000, rel=0.05)
    assert moved.centroid_lps_mm == pytest.approx(source.centroid_lps_mm, abs=0.3)


def test_distance_is_that_of_a_ball() -> None:
    geometry = grid((40, 40, 40), (1.0, 1.0, 1.0), np.zeros(3), "a")
    mask = ball(geometry, 12.0)
    center = geometry.lps_of((np.array(geometry.shape) - 1) / 2)
    true = 12.0 - np.linalg.norm(geometry.grid_lps() - center, axis=-1)
    near = np.abs(true) < 6
    for found in (signed_distance_mm(mask), resample_distance(mask, geometry, identity("a"))):
        assert np.abs(found - true)[near].mean() < 0.35
        assert np.array_equal(found > 0, mask.voxels)


def test_distance_of_nothing_and_of_everything() -> None:
    geometry = grid((4, 4, 4), (1.0, 1.0, 1.0), np.zeros(3), "a")
    everything = Mask(np.ones((4, 4, 4), bool), geometry)
    assert (signed_distance_mm(Mask(np.zeros((4, 4, 4), bool), geometry)) == -NO_EDGE_MM).all()
    assert (signed_distance_mm(everything) == NO_EDGE_MM).all()
    # Also between voxels, where infinity would become no number at all: an organ that fills the scan holds the lesion.
    assert sample_distance(everything, np.array([[1.0, 1.0, 1.0], [1.3, 2.0, 0.6]])).tolist() == [NO_EDGE_MM] * 2


def test_regions_grow_together_on_another_grid() -> None:
    source = grid((25, 40, 40), (3.0, 1.5, 1.5), np.array([-30.0, -30.0, -36.0]), "a")
    onto = grid((40, 40, 40), (2.0, 2.0, 2.0), np.full(3, -40.0), "a")
    points = source.grid_lps()
    centers = (np.array([-8.0, 0.0, 0.0]), np.array([8.0, 0.0, 0.0]))
    balls = [Mask(np.linalg.norm(points - c, axis=-1) < 6, source) for c in centers]
    away = np.min([np.linalg.norm(onto.grid_lps() - c, axis=-1) for c in centers], 0)
    found = grown(balls, onto, identity("a"), by_mm=5.0).voxels
    assert found[away < 9.5].all()
    assert not found[away > 12.5].any()
    assert not grown([], onto, identity("a"), by_mm=5.0).voxels.any()


def test_distances_do_not_depend_on_how_tightly_a_mask_was_cropped() -> None:
    grid = upright_grid((70, 72, 74), (1.5, 1.0, 1.0), (0.0, 0.0, 0.0), "f")
    ball = Mask(np.linalg.norm(grid.grid_lps() - (36.0, 35.0, 50.0), axis=-1) < 9.0, grid)
    tight = ball.crop(ball.geometry.box_around(ball.points_lps_mm(), pad_mm=2.0))
    points = np.random.default_rng(0).uniform((6, 6, 20), (66, 66, 80), (400, 3))
    assert sample_distance(tight, points) == pytest.approx(sample_distance(ball, points), abs=1e-4)


def test_a_region_that_its_grid_cuts_off_has_no_edge_there() -> None:
    grid = upright_grid((40, 40, 40), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), "f")
    half = Mask(grid.grid_lps()[..., 2] > 29.5, grid)
    points = np.array([[20.0, 20.0, 39.0], [20.0, 20.0, 60.0], [20.0, 20.0, 10.0]])
    assert sample_distance(half, points) == pytest.approx([9.5, 30.5, -19.5], abs=0.1)
