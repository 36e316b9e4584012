"""What a registration says of its own error, on images whose texture is known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.both_ways import BothWays, both_ways_from
from pipeline.geometry import FloatArray, upright_grid
from pipeline.registration_error import APART_SCALE, FLOOR_MM, RegistrationErrors, registration_errors
from pipeline.sampling import Box, extent_of, spline_grid
from pipeline.transform import SplineField, Transform
from pipeline.trust import MOST_EXPECTED_ERROR_MM, judge_registration
from pipeline.volume import Mask, Volume
from pipeline.where import Where

GRID = upright_grid((60, 60, 60), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), "followup")
MIDDLE = np.array([59.0, 59.0, 59.0])
AROUND = Box(MIDDLE - 8.0, MIDDLE + 8.0)
RIM = MIDDLE + 18.0 * np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])


def scan(frame_uid: str, *, texture_hu: float, noise_hu: float = 10.0, seed: int = 0) -> Volume:
    """Blobs of some 12 mm, the same in every frame, under noise of its own."""
    grid = upright_grid(GRID.shape, GRID.spacing_mm, (0.0, 0.0, 0.0), frame_uid)
    x, y, z = np.moveaxis(grid.grid_lps(), -1, 0) * (2 * np.pi / 25.0)
    blobs = np.sin(x + 0.3 * y) * np.sin(y - 0.2 * z) * np.sin(z + 0.4 * x)
    noise = np.random.default_rng(seed).normal(0, noise_hu, GRID.shape)
    return Volume((60.0 + texture_hu * blobs + noise).astype(np.float32), grid, "ct_hu")


def ball(frame_uid: str, radius_mm: float) -> Mask:
    grid = upright_grid(GRID.shape, GRID.spacing_mm, (0.0, 0.0, 0.0), frame_uid)
    return Mask(np.linalg.norm(grid.grid_lps() - MIDDLE, axis=-1) < radius_mm, grid)


def errors(texture_hu: float, *, cut_mm: float = 15.0, apart_mm: float = 0.0, **more: float) -> RegistrationErrors:
    """The error of the identity, which is true, between two scans of the same texture."""
    followup = scan("followup", texture_hu=texture_hu, seed=1, **more)
    baseline = scan("baseline", texture_hu=texture_hu, seed=2, **more)
    start = Transform("baseline", "followup", np.eye(4))
    ways = both_ways_from(start)
    control = spline_grid(Box(np.zeros(3), np.full(3, 118.0)), 20.0, "followup")
    there = Transform("baseline", "followup", np.eye(4), SplineField(np.zeros((3, *control.shape)), control))
    other = spline_grid(Box(np.zeros(3), np.full(3, 118.0)), 20.0, "baseline")
    off = np.zeros((3, *other.shape))
    off[0] = apart_mm
    back = Transform("followup", "baseline", ways.back.matrix, SplineField(off, other))
    where = Where(extent_of(GRID), (), ball("followup", cut_mm), ball("baseline", 8.0))
    return registration_errors(followup, baseline, BothWays(there, back), where=where, around=AROUND)


def expected_mm(found: RegistrationErrors, points: FloatArray = RIM) -> float:
    return float(found.expected_mm(points).mean())


def test_more_texture_and_less_noise_leave_less_error() -> None:
    rich, poor, noisy = errors(60.0), errors(15.0), errors(60.0, noise_hu=40.0)
    assert FLOOR_MM < expected_mm(rich) < expected_mm(noisy)
    assert expected_mm(rich) < expected_mm(poor)
    assert expected_mm(rich) < 1.0


def test_the_error_grows_into_the_hole_where_nothing_is_seen() -> None:
    found = errors(60.0, cut_mm=22.0)
    in_hole, far = (
        expected_mm(found, MIDDLE[None]),
        expected_mm(found, MIDDLE + np.array([[32.0, 0, 0], [0, -32.0, 0]])),
    )
    assert in_hole > 1.3 * far


def test_both_ways_that_disagree_add_to_the_error() -> None:
    alike, apart = errors(60.0), errors(60.0, apart_mm=2.0)
    assert expected_mm(apart) ** 2 - expected_mm(alike) ** 2 == pytest.approx((APART_SCALE * 1.0) ** 2, rel=0.25)


def test_without_any_texture_the_registration_is_refused() -> None:
    """Two plain images agree wherever one lies: nothing may be claimed."""
    found = errors(0.0, noise_hu=0.0)
    assert expected_mm(found) > MOST_EXPECTED_ERROR_MM
    quality = judge_registration(
        found, Transform("baseline", "followup", np.eye(4)), tumor_points_lps_mm=RIM, agreement=0.9
    )
    assert not quality.accepted
    assert [r.code for r in quality.reasons] == ["registration_uncertain"]


def test_the_same_input_gives_the_same_draws() -> None:
    one, two = errors(40.0), errors(40.0)
    assert np.array_equal(one.at(RIM), two.at(RIM))
    assert one.at(RIM).shape == (len(one.coefficients_mm), len(RIM), 3)
    assert np.allclose(one.expected_mm(RIM) ** 2, (one.at(RIM) ** 2).sum(-1).mean(0))
