"""Registration both ways: alike when the scans change roles, and right through a turned start."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.both_ways import BothWays, both_ways_from, deform_both_ways
from pipeline.geometry import FloatArray, upright_grid
from pipeline.register import COARSE_LEVELS
from pipeline.sampling import Box, extent_of, spline_grid
from pipeline.transform import SplineField, Transform
from pipeline.volume import Mask, Volume
from pipeline.where import Where

SHAPE, SPACING_MM = (56, 60, 64), (2.0, 2.0, 2.0)
TURN = np.array([[0.996, -0.087, 0.0, 9.0], [0.087, 0.996, 0.0, -4.0], [0.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.0, 1.0]])


def texture(points: FloatArray) -> FloatArray:
    x, y, z = np.moveaxis(points, -1, 0) * (2 * np.pi / 31.0)
    return np.asarray(60.0 + 60.0 * np.sin(x + 0.3 * y) * np.sin(y - 0.2 * z) * np.sin(z + 0.4 * x))


def true_partner(points: FloatArray) -> FloatArray:
    """Where a point of the follow-up lies in the baseline: a turn, after a bend of up to 3 mm."""
    bend = 3.0 * np.sin(points[..., [1, 2, 0]] * (2 * np.pi / 120.0))
    return np.asarray((points + bend) @ TURN[:3, :3].T + TURN[:3, 3])


def scans() -> tuple[Volume, Volume]:
    """Follow-up and baseline."""
    followup = upright_grid(SHAPE, SPACING_MM, (0.0, 0.0, 0.0), "followup")
    baseline = upright_grid(SHAPE, SPACING_MM, (0.0, 0.0, 0.0), "baseline")
    noise = np.random.default_rng(0).normal(0, 4, (2, *SHAPE))
    return (
        Volume((texture(true_partner(followup.grid_lps())) + noise[0]).astype(np.float32), followup, "ct_hu"),
        Volume((texture(baseline.grid_lps()) + noise[1]).astype(np.float32), baseline, "ct_hu"),
    )


def registered(fixed: Volume, moving: Volume, start: Transform, where: Where) -> Transform:
    ways = deform_both_ways(fixed, moving, both_ways_from(start), where=where, levels=COARSE_LEVELS)
    return ways.joined


def test_the_mean_of_both_ways_is_right_and_alike_when_the_scans_change_roles() -> None:
    followup, baseline = scans()
    start = Transform("baseline", "followup", TURN)
    nothing = [Mask(np.zeros(SHAPE, bool), s.geometry) for s in (followup, baseline)]
    where = Where(extent_of(followup.geometry), (Box(np.full(3, 30.0), np.full(3, 90.0)),), nothing[0], nothing[1])
    found = registered(followup, baseline, start, where)
    points = np.random.default_rng(1).uniform(40.0, 80.0, (200, 3))
    error = np.linalg.norm(found(points) - true_partner(points), axis=1)
    assert error.mean() < 0.4
    assert np.linalg.norm(start(points) - true_partner(points), axis=1).mean() > 2.0
    back = Transform("followup", "baseline", np.linalg.inv(TURN))
    other = registered(baseline, followup, back, where.swapped(back, baseline.geometry))
    assert np.linalg.norm(other(found(points)) - points, axis=1).mean() < 0.2


def test_the_mean_is_smooth_at_the_edge_of_either_way() -> None:
    """Both ways are off alike, the way back wider than the way there, and the other way round."""
    for there_wide, back_wide in ((False, True), (True, False)):
        boxes = [Box(np.full(3, 0.0 if wide else 20.0), np.full(3, 120.0 if wide else 100.0)) for wide in
                 (there_wide, back_wide)]  # fmt: skip
        grids = [spline_grid(box, 10.0, frame) for box, frame in zip(boxes, ("followup", "baseline"), strict=True)]
        fields = [np.zeros((3, *grid.shape)) for grid in grids]
        fields[1][0] = -2.0
        there, back = (SplineField(f, g) for f, g in zip(fields, grids, strict=True))
        ways = BothWays(Transform("baseline", "followup", np.eye(4), there),
                        Transform("followup", "baseline", np.eye(4), back))  # fmt: skip
        line = np.stack([np.arange(-10.0, 60.0, 0.5), np.full(140, 60.0), np.full(140, 60.0)], -1)
        moved = (ways.joined(line) - line)[:, 0]
        assert moved[-1] == pytest.approx(1.0, abs=0.01)
        assert np.abs(np.diff(moved)).max() < 0.15


def test_beyond_what_is_covered_the_map_fades_to_the_start_without_a_tear() -> None:
    boxes = Box(np.zeros(3), np.full(3, 100.0)), Box(np.zeros(3), np.full(3, 120.0))
    grids = [spline_grid(box, 10.0, frame) for box, frame in zip(boxes, ("followup", "baseline"), strict=True)]
    fields = [np.zeros((3, *grid.shape)) for grid in grids]
    fields[0][0], fields[1][0] = 8.0, -8.0
    there, back = (SplineField(f, g) for f, g in zip(fields, grids, strict=True))
    ways = BothWays(Transform("baseline", "followup", TURN, there),
                    Transform("followup", "baseline", np.linalg.inv(TURN), back))  # fmt: skip
    line = np.stack([np.arange(50.0, 260.0, 0.5), *[np.full(420, 50.0)] * 2], -1)
    away = np.linalg.norm(ways.joined(line) - ways.there.rigid_inverse().inverse_points(line), axis=1)
    assert away[0] > 3.9
    assert away[-1] < 1e-9
    assert np.abs(np.diff(away)).max() < 0.3  # within half a millimetre
    assert ways.joined.jacobian_determinants(line).min() > 0.3


def test_a_zone_that_leaves_the_other_scan_is_swapped_as_far_as_it_shows() -> None:
    followup, baseline = scans()
    zones = [
        Mask(np.linalg.norm(followup.geometry.grid_lps() - (x, 60.0, 60.0), axis=-1) < 12.0, followup.geometry)
        for x in (120.0, 110.0)
    ]
    nothing = Mask(np.zeros(SHAPE, bool), baseline.geometry)
    away = Transform("baseline", "followup", np.eye(4) + 22.0 * np.eye(4, k=3))
    where = Where(extent_of(followup.geometry), (), zones[0], nothing, zones=tuple(zones))
    found = where.swapped(away.rigid_inverse(), baseline.geometry).zones
    assert len(found) == 1
    assert 0 < found[0].volume_ml < zones[1].volume_ml / 2


def test_swapping_exchanges_roles_and_the_side_of_the_pull() -> None:
    followup, baseline = scans()
    zone = Mask(np.linalg.norm(followup.geometry.grid_lps() - 60.0, axis=-1) < 15.0, followup.geometry)
    tumor = Mask(np.linalg.norm(baseline.geometry.grid_lps() - 60.0, axis=-1) < 8.0, baseline.geometry)
    where = Where(extent_of(followup.geometry), (), zone, tumor, organ_moving=tumor, zones=(zone,))
    back = Transform("followup", "baseline", np.linalg.inv(TURN))
    other = where.swapped(back, baseline.geometry)
    assert (other.cut_fixed, other.cut_moving, other.organ_fixed, other.organ_moving) == (tumor, zone, tumor, None)
    assert other.drawn == -where.drawn
    there = back.inverse_points(np.full((1, 3), 60.0))[0]
    assert np.linalg.norm(other.zones[0].centroid_lps_mm - there) < 0.5
    assert abs(other.zones[0].volume_ml / zone.volume_ml - 1) < 0.05
