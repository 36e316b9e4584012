"""Where the zone is expected, by energy, time and what is planned."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.case import Lesion
from pipeline.geometry import upright_grid
from pipeline.volume import Mask
from pipeline.zone_prior import prior_distance_mm, prior_scale

GRID = upright_grid((60, 60, 60), (1.0, 1.0, 1.0), (-29.5, -29.5, -29.5), "frame")


def ball(radius_mm: float, x_mm: float = 0.0) -> Mask:
    return Mask(np.linalg.norm(GRID.grid_lps() - (x_mm, 0.0, 0.0), axis=-1) < radius_mm, GRID)


def radius_where_zero(prior: np.ndarray, toward: int = 1) -> float:
    """Distance from the middle to the edge along x."""
    row = prior[30, 30, :] if toward > 0 else prior[30, 30, ::-1]
    outside = 30 + int(np.argmax(row[30:] <= 0))
    return outside - 29.5 - row[outside] / (row[outside] - row[outside - 1])


def expected(lesion: Lesion, scale: float) -> np.ndarray:
    points = GRID.grid_lps()
    tumor_mm = 8.0 - np.linalg.norm(points, axis=-1).astype(np.float32)
    return prior_distance_mm(lesion, points, tumor_mm, scale=scale)


def test_frozen_zones_shrink_with_time() -> None:
    scales = [prior_scale(d, "cryoablation") for d in (0, 30, 180, 365, 3000)]
    assert scales == sorted(scales, reverse=True)
    assert scales[0] == 1.0


def test_a_microwave_zone_has_grown_by_57_percent_after_a_day_and_shrinks_later() -> None:
    assert prior_scale(1, "microwave") ** 3 == pytest.approx(1.57, rel=0.02)
    later = [prior_scale(d, "microwave") for d in (1, 30, 180, 365)]
    assert later == sorted(later, reverse=True)
    assert prior_scale(0, "microwave") == 1.0


def test_a_radiofrequency_zone_grows_half_as_much_as_a_microwave_zone_and_shrinks_as_frozen_ones_do() -> None:
    half = 1 + (prior_scale(1, "microwave") - 1) / 2
    assert prior_scale(1, "radiofrequency") == pytest.approx(half)
    assert prior_scale(0, "radiofrequency") == 1.0
    for days in (30, 180, 365):
        alike = half * prior_scale(days, "cryoablation")
        assert prior_scale(days, "radiofrequency") == pytest.approx(alike, abs=0.011)


@pytest.mark.parametrize("scale", [1.0, 0.8, 1.16])
def test_the_expected_zone_has_the_scaled_radius(scale: float) -> None:
    planned = expected(Lesion("L1", 5.0, ball(8.0), simulated_zone=ball(15.0)), scale)
    assert radius_where_zero(planned) == pytest.approx(15.0 * scale, abs=0.6)
    without = expected(Lesion("L1", 5.0, ball(8.0)), scale)
    assert radius_where_zero(without) == pytest.approx(13.0 * scale, abs=0.6)


def test_a_predicted_zone_beside_the_tumor_leaves_the_tumor_expected_too() -> None:
    beside = ball(8.0, x_mm=15.0)
    predicted = expected(Lesion("L1", 5.0, ball(8.0), simulated_zone=beside, zone_is_predicted=True), 1.0)
    assert radius_where_zero(predicted, toward=1) == pytest.approx(23.0, abs=0.8)
    assert radius_where_zero(predicted, toward=-1) == pytest.approx(13.0, abs=0.6)
    planned = expected(Lesion("L1", 5.0, ball(8.0), simulated_zone=beside), 1.0)
    assert planned[30, 30, 25] < 0
