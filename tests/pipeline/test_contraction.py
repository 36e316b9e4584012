"""How far an ablation zone has drawn its surroundings in: the number, and that registration finds it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.both_ways import both_ways_from, deform_both_ways
from pipeline.contraction import contraction_mm, pull_of
from pipeline.geometry import FloatArray, upright_grid
from pipeline.phantom_shape import Contraction
from pipeline.register import COARSE_LEVELS, FINE_LEVELS
from pipeline.sampling import Box, extent_of, spline_grid
from pipeline.transform import SplineField, Transform
from pipeline.volume import Mask, Volume
from pipeline.where import Where

SHAPE, SPACING_MM = (60, 60, 60), (2.0, 2.0, 2.0)
MIDDLE = np.full(3, 60.0)
RADIUS_MM = 15.0
CPU = torch.device("cpu")


def ball(frame_uid: str, radius_mm: float = RADIUS_MM) -> Mask:
    grid = upright_grid(SHAPE, SPACING_MM, (0.0, 0.0, 0.0), frame_uid)
    return Mask(np.linalg.norm(grid.grid_lps() - MIDDLE, axis=-1) < radius_mm, grid)


def moved_by(displacement_mm: FloatArray, matrix: FloatArray | None = None) -> Transform:
    """A map whose control points, every 10 mm, carry these displacements (..., 3)."""
    grid = spline_grid(Box(np.zeros(3), np.full(3, 120.0)), 10.0, "followup")
    field = SplineField(np.moveaxis(displacement_mm, -1, 0), grid)
    return Transform("baseline", "followup", np.eye(4) if matrix is None else matrix, field)


def control_points() -> FloatArray:
    return spline_grid(Box(np.zeros(3), np.full(3, 120.0)), 10.0, "followup").grid_lps()


def test_what_was_larger_by_a_tenth_has_drawn_in_by_a_tenth_of_its_radius() -> None:
    zone = ball("followup")
    assert contraction_mm(moved_by(0.1 * (control_points() - MIDDLE)), zone) == pytest.approx(1.5, abs=0.03)
    assert contraction_mm(moved_by(-0.1 * (control_points() - MIDDLE)), zone) == pytest.approx(-1.5, abs=0.03)


def test_a_turn_draws_nothing_in() -> None:
    turn = np.array([[0.8, -0.6, 0.0, 5.0], [0.6, 0.8, 0.0, 1.0], [0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
    assert contraction_mm(moved_by(np.zeros_like(control_points()), turn), ball("followup")) == pytest.approx(
        0, abs=1e-6
    )


def test_a_pull_of_a_millimetre_moves_the_edge_by_one() -> None:
    rim = MIDDLE + RADIUS_MM * np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    moved = pull_of(ball("followup"), CPU).at(torch.from_numpy(rim).float()).numpy()
    outward = (moved * (rim - MIDDLE)).sum(1) / RADIUS_MM
    assert outward == pytest.approx(np.ones(6), abs=0.2)  # smoothed over its steps of 2.5 mm


def test_a_pull_does_not_depend_on_how_tightly_the_zone_was_cropped() -> None:
    zone = ball("followup")
    tight = zone.crop(zone.geometry.box_around(zone.points_lps_mm(), pad_mm=3.0))
    points = torch.from_numpy(MIDDLE + np.random.default_rng(0).uniform(-35, 35, (500, 3))).float()
    assert np.abs((pull_of(tight, CPU).at(points) - pull_of(zone, CPU).at(points)).numpy()).max() < 0.02


def test_registration_finds_how_far_a_zone_has_drawn_in() -> None:
    """Texture around a plain zone that has lost a tenth of its radius."""
    drawn = Contraction((60.0, 60.0, 60.0), RADIUS_MM, 0.1)
    followup = upright_grid(SHAPE, SPACING_MM, (0.0, 0.0, 0.0), "followup")
    baseline = upright_grid(SHAPE, SPACING_MM, (0.0, 0.0, 0.0), "baseline")
    noise = np.random.default_rng(0).normal(0, 4, (2, *SHAPE))
    here = followup.grid_lps()
    zone, tumor = ball("followup"), ball("baseline", 8.0)
    seen = np.where(zone.voxels, 40.0, texture(here + drawn.displacement_mm(here))) + noise[0]
    scans = (
        Volume(seen.astype(np.float32), followup, "ct_hu"),
        Volume((texture(baseline.grid_lps()) + noise[1]).astype(np.float32), baseline, "ct_hu"),
    )
    cut = ball("followup", RADIUS_MM + 3.0)
    where = Where(extent_of(followup), (Box(MIDDLE - 35.0, MIDDLE + 35.0),), cut, tumor)
    ways = deform_both_ways(
        *scans, both_ways_from(Transform("baseline", "followup", np.eye(4))), where=where, levels=COARSE_LEVELS
    )
    pulled = Where(where.box, where.near, cut, tumor, zones=(zone,))
    found = deform_both_ways(*scans, ways, where=pulled, levels=FINE_LEVELS).joined
    true_mm = RADIUS_MM * 0.1 / 0.9
    assert contraction_mm(found, zone) == pytest.approx(true_mm, abs=0.25)
    rim = MIDDLE + 20.0 * np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    assert np.linalg.norm(found(rim) - rim - drawn.displacement_mm(rim), axis=1).max() < 0.4


def texture(points: FloatArray) -> FloatArray:
    x, y, z = np.moveaxis(points, -1, 0) * (2 * np.pi / 31.0)
    return np.asarray(60.0 + 60.0 * np.sin(x + 0.3 * y) * np.sin(y - 0.2 * z) * np.sin(z + 0.4 * x))
