"""The interval and the probabilities of the least margin, on balls whose margin is known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.geometry import FloatArray, upright_grid
from pipeline.margin import MarginMap, measure_margin
from pipeline.registration_error import RegistrationErrors
from pipeline.sampling import Box, spline_grid
from pipeline.segment import Intensities, Zone
from pipeline.surface import Surface, level_of_mask
from pipeline.uncertainty import EdgeError, MarginUncertainty, margin_uncertainty
from pipeline.volume import Mask, signed_distance_mm

GRID = upright_grid((48, 48, 48), (1.0, 1.0, 1.0), (-23.5, -23.5, -23.5), "followup")


def ball(radius_mm: float, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mask:
    return Mask(np.linalg.norm(GRID.grid_lps() - np.array(center), axis=-1) < radius_mm, GRID)


def shifts(sd_mm: float, draws: int = 256) -> RegistrationErrors:
    """Errors that move all points alike."""
    control = spline_grid(Box(np.full(3, -30.0), np.full(3, 30.0)), 15.0, "followup")
    moved = sd_mm * np.random.default_rng(3).standard_normal((draws, 3, 1, 1, 1))
    return RegistrationErrors(moved * np.ones((1, 3, *control.shape)), control)


def unsure(
    *, offset_mm: float, sd_mm: float = 0.3, noise_hu: float = 4.0, required: float | FloatArray = 5.0
) -> tuple[MarginMap, MarginUncertainty]:
    """A tumor of 8 mm off the middle of a zone of 14 mm: its margin is 6 mm less the offset."""
    mask = ball(14.0)
    gray = Intensities(40.0, 100.0, 100.0, 100.0, noise_hu, 60.0 / noise_hu)
    zone = Zone(mask, gray, signed_distance_mm(mask), 0.0)
    tumor: Surface = level_of_mask(ball(8.0, (offset_mm, 0.0, 0.0))).surface()
    margins = measure_margin(tumor, level_of_mask(mask))
    asked = np.broadcast_to(required, margins.distance_mm.shape)
    return margins, margin_uncertainty(margins, shifts(sd_mm), EdgeError.of(zone), required_mm=asked)


def test_the_interval_holds_the_margin_and_widens_with_every_cause() -> None:
    margins, found = unsure(offset_mm=3.0)
    low, high = found.interval_mm
    assert low < 3.0 < high
    assert low < margins.minimal_margin_mm < high
    for worse in ({"sd_mm": 1.0}, {"noise_hu": 20.0}):
        _, wider = unsure(offset_mm=3.0, **worse)
        assert wider.interval_mm[1] - wider.interval_mm[0] > 1.2 * (high - low)


def test_along_one_direction_the_interval_is_that_of_the_shift() -> None:
    """A tumor far to one side has one thinnest place: only the error toward it counts."""
    _, found = unsure(offset_mm=5.0, sd_mm=1.0, noise_hu=0.1)
    assert found.interval_mm[1] - found.interval_mm[0] == pytest.approx(2 * 1.96 * np.hypot(1.0, 0.13), rel=0.15)


def test_probabilities_follow_the_margin() -> None:
    below = [unsure(offset_mm=offset, sd_mm=1.0)[1].probability_below_0mm for offset in (1.0, 5.0, 6.0, 7.0, 10.0)]
    assert below == sorted(below)
    assert below[0] < 0.01
    assert 0.3 < below[2] < 0.7
    assert below[-1] > 0.99
    _, found = unsure(offset_mm=3.0)
    assert found.probability_below_required > 0.99
    assert found.probability_below_0mm < 0.01


def test_what_the_organ_edge_excuses_is_not_held_against_the_margin() -> None:
    """At the capsule nothing more is asked for, but uncovered tumor counts there too."""
    excused = unsure(offset_mm=3.0, required=0.0)[1]
    assert excused.probability_below_required == pytest.approx(excused.probability_below_0mm, abs=0.01)
    assert excused.probability_below_0mm < 0.01
    uncovered = unsure(offset_mm=9.0, required=0.0)[1]
    assert uncovered.probability_below_required > 0.99
