"""Margins against spheres and ellipsoids whose answer is known, and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.geometry import Geometry
from pipeline.margin import _to_triangles, distance_to_surface_mm, measure_margin
from pipeline.surface import level_of_mask, surface_of_mask
from pipeline.volume import Mask


def grid(spacing: tuple[float, float, float], shape: tuple[int, int, int], flip: bool = False) -> Geometry:
    matrix = np.zeros((4, 4))
    for k, axis in enumerate((2, 1, 0)):
        matrix[axis, k] = spacing[k] * (-1 if flip and k == 0 else 1)
    matrix[3, 3] = 1
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Geometry(shape, matrix, "frame")


def ball(geometry: Geometry, center: tuple[float, float, float], radius: float) -> Mask:
    return Mask(np.linalg.norm(geometry.grid_lps() - center, axis=-1) <= radius, geometry)


def margin(tumor: Mask, zone: Mask) -> float:
    return measure_margin(surface_of_mask(tumor), level_of_mask(zone)).minimal_margin_mm


@pytest.mark.parametrize("shift", [0.0, 3.0, 8.0])
@pytest.mark.parametrize(("spacing", "tolerance"), [((1, 0.8, 0.8), 0.3), ((2.5, 0.8, 0.8), 0.6)])
def test_spheres(shift: float, spacing: tuple[float, float, float], tolerance: float) -> None:
    shape = tuple(int(56 / s) for s in spacing)
    g = grid(spacing, shape)  # type: ignore[arg-type]
    tumor, zone = (shift, 0.3, 0.2), (0.0, 0.1, -0.2)
    true = 15 - 10 - float(np.linalg.norm(np.subtract(tumor, zone)))
    assert abs(margin(ball(g, tumor, 10), ball(g, zone, 15)) - true) < tolerance


def test_a_tumor_outside_the_zone_altogether_has_the_margin_of_its_far_side() -> None:
    """No silent 0 and no positive distance: 20 mm off, a tumor of 5 mm lies up to 17 mm outside a zone of 8 mm."""
    g = grid((1.0, 0.8, 0.8), (70, 90, 90))
    measured = measure_margin(surface_of_mask(ball(g, (20, 0, 0), 5)), level_of_mask(ball(g, (0, 0, 0), 8)))
    assert measured.minimal_margin_mm == pytest.approx(-17.0, abs=0.3)
    assert measured.surface_fraction_below(0.0) == 1.0


def test_fractions_are_weighted_by_area() -> None:
    g = grid((1.0, 0.8, 0.8), (50, 64, 64))
    zone = ball(g, (0, 0, 0), 15)
    measured = measure_margin(surface_of_mask(ball(g, (8, 0, 0), 10)), level_of_mask(zone))
    # A sphere of radius 10 centered 8 mm off pokes out of one of radius 15 where |p| > 15: a cap of area fraction
    # (1 - cos t) / 2 with cos t = (225 - 100 - 64) / 160.
    assert measured.surface_fraction_below(0.0) == pytest.approx((1 - 61 / 160) / 2, abs=0.02)
    assert measured.surface_fraction_below(-10.0) == 0.0
    assert measured.surface_fraction_below(50.0) == pytest.approx(1.0)


def test_distance_to_triangles_equals_brute_force() -> None:
    rng = np.random.default_rng(3)
    g = grid((2.5, 0.8, 0.8), (16, 40, 40))
    surface = surface_of_mask(ball(g, (0, 0, 0), 11))
    points = rng.uniform(-16, 16, (60, 3))
    corners = surface.vertices_lps_mm[surface.faces]
    weights = rng.dirichlet((1, 1, 1), 40)
    dense = np.einsum("wk,mkx->mwx", weights, corners).reshape(-1, 3)
    slow = np.array([np.linalg.norm(dense - p, axis=1).min() for p in points])
    fast = distance_to_surface_mm(points, surface)
    assert (fast <= slow + 1e-9).all()
    assert np.abs(fast - slow).max() < 0.2


@pytest.mark.parametrize("radius", [7.0, 14.0], ids=["covered", "zone within the tumor"])
def test_the_minimal_margin_is_that_of_the_nearest_triangle_on_either_side(radius: float) -> None:
    """Outside the zone it is the greatest distance that counts; nearly concentric balls make all of them alike."""
    g = grid((1.5, 1.0, 1.0), (34, 48, 48))
    tumor, zone = surface_of_mask(ball(g, (0.3, -0.2, 0.1), radius)), level_of_mask(ball(g, (0, 0, 0), 10))
    corners = (surface := zone.surface()).vertices_lps_mm[surface.faces]
    slow = np.array([_to_triangles(p[None], corners).min() for p in tumor.vertices_lps_mm])
    signed = np.where(zone.at(tumor.vertices_lps_mm) > 0, slow, -slow)
    found = measure_margin(tumor, zone)
    assert found.minimal_margin_mm == pytest.approx(signed.min(), abs=1e-6)
    assert np.abs(found.distance_mm - signed).max() < 0.01 * slow.max()


@settings(max_examples=8, deadline=None)
@given(
    st.tuples(*[st.floats(-3, 3)] * 3), st.floats(5, 8), st.sampled_from([(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)])
)
def test_permuting_axes_and_flipping_leaves_the_margin_alone(
    center: tuple[float, float, float], radius: float, axes: tuple[int, int, int]
) -> None:
    g = grid((1.5, 1.0, 1.0), (28, 40, 40))
    tumor, zone = ball(g, center, radius), ball(g, (0, 0, 0), 13)
    matrix = g.lps_from_index.copy()
    matrix[:3, :3] = g.lps_from_index[:3, :3][:, axes]
    shape = tuple(g.shape[a] for a in axes)
    turned = Geometry(shape, matrix, "frame")  # type: ignore[arg-type]
    same = margin(Mask(tumor.voxels.transpose(axes), turned), Mask(zone.voxels.transpose(axes), turned))
    assert same == pytest.approx(margin(tumor, zone), abs=0.02)
    flipped = matrix_flipped(g)
    again = margin(Mask(tumor.voxels[::-1], flipped), Mask(zone.voxels[::-1], flipped))
    assert again == pytest.approx(margin(tumor, zone), abs=0.02)


def matrix_flipped(g: Geometry) -> Geometry:
    matrix = g.lps_from_index.copy()
    matrix[:3, 3] = g.lps_of((g.shape[0] - 1, 0, 0))
    matrix[:3, 0] = -matrix[:3, 0]
    return Geometry(g.shape, matrix, g.frame_uid)


def test_a_one_voxel_tumor_has_a_surface_and_a_margin() -> None:
    g = grid((1.0, 1.0, 1.0), (41, 41, 41))
    voxels = np.zeros(g.shape, bool)
    voxels[20, 20, 20] = True
    assert margin(Mask(voxels, g), ball(g, (0, 0, 0), 12)) == pytest.approx(11.5, abs=0.7)


def test_a_mask_at_the_border_of_its_grid_is_closed() -> None:
    g = grid((1.0, 1.0, 1.0), (20, 40, 40))
    surface = surface_of_mask(Mask(np.ones(g.shape, bool), g))
    assert len(surface.faces) > 0
    assert surface.vertex_areas_mm2().sum() == pytest.approx(2 * (40 * 40 + 2 * 20 * 40), rel=0.08)
