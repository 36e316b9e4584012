"""The interval and the probabilities of the least margin, on balls whose margin is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.geometry import FloatArray, upright_grid
from pipeline.margin import MarginMap, measure_margin
from pipeline.registration_error import RegistrationErrors
from pipeline.sampling import Box, spline_grid
from pipeline.segment import Intensities, Zone
from pipeline.surface import Surface, level_of_mask
from pipeline.uncertainty import (
    OFF_MM,
    OFF_PER_SLICE,
    ROUGH_MM_SD,
    ROUGH_PER_SLICE,
    EdgeError,
    MarginUncertainty,
    margin_uncertainty,
)
from pipeline.volume import Mask, signed_distance_mm

Required = Callable[[FloatArray], FloatArray | float]

GRID = upright_grid((48, 48, 48), (1.0, 1.0, 1.0), (-23.5, -23.5, -23.5), "followup")


def ball(radius_mm: float, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mask:
    return Mask(np.linalg.norm(GRID.grid_lps() - np.array(center), axis=-1) < radius_mm, GRID)


def shifts(sd_mm: float, draws: int = 256) -> RegistrationErrors:
    """Errors that move all points alike."""
    control = spline_grid(Box(np.full(3, -30.0), np.full(3, 30.0)), 15.0, "followup")
    moved = sd_mm * np.random.default_rng(3).standard_normal((draws, 3, 1, 1, 1))
    return RegistrationErrors(moved * np.ones((1, 3, *control.shape)), control)


def unsure(
    *, offset_mm: float, sd_mm: float = 0.3, noise_hu: float = 4.0, required: Required = lambda _: 5.0
) -> tuple[MarginMap, MarginUncertainty]:
    """A tumor of 8 mm off the middle of a zone of 14 mm: its margin is 6 mm less the offset."""
    mask, drawn = ball(14.0), ball(8.0, (offset_mm, 0.0, 0.0))
    gray = Intensities(40.0, 100.0, 100.0, 100.0, noise_hu, 60.0 / noise_hu)
    zone = Zone(mask, gray, signed_distance_mm(mask), 0.0)
    tumor: Surface = level_of_mask(drawn).surface()
    margins = measure_margin(tumor, level_of_mask(mask))
    asked = np.broadcast_to(required(tumor.vertices_lps_mm), margins.distance_mm.shape)
    return margins, margin_uncertainty(margins, shifts(sd_mm), EdgeError.of(zone, drawn), required_mm=asked)


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
    off = np.linalg.norm([OFF_MM, OFF_PER_SLICE])
    rough = np.linalg.norm([ROUGH_MM_SD, ROUGH_PER_SLICE])
    sd = np.linalg.norm([1.0, off, rough])
    assert found.interval_mm[1] - found.interval_mm[0] == pytest.approx(2 * 1.96 * sd, rel=0.1)


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
    excused = unsure(offset_mm=3.0, required=lambda _: 0.0)[1]
    assert excused.probability_below_required == excused.probability_below_0mm < 0.01
    uncovered = unsure(offset_mm=9.0, required=lambda _: 0.0)[1]
    assert uncovered.probability_below_required > 0.99


def test_the_required_margin_is_asked_for_where_it_is_and_not_elsewhere() -> None:
    """3 mm of margin on one side, 9 mm on the other; half of the surface lies at the capsule."""
    thin_side = unsure(offset_mm=3.0, required=lambda points: np.where(points[:, 0] > 3.0, 5.0, 0.0))[1]
    thick_side = unsure(offset_mm=3.0, required=lambda points: np.where(points[:, 0] < 2.0, 5.0, 0.0))[1]
    assert thin_side.probability_below_required > 0.99
    assert thick_side.probability_below_required < 0.05


def test_the_edge_is_off_all_over_and_from_place_to_place() -> None:
    near, apart = np.array([[0.0, 0, 0], [1.0, 0, 0]]), np.array([[0.0, 0, 0], [60.0, 0, 0]])
    assert EdgeError(0.7, 0.0).draws_mm(near, 4000).std(0) == pytest.approx([0.7, 0.7], rel=0.05)
    assert EdgeError(0.0, 0.7).draws_mm(near, 4000).std(0) == pytest.approx([0.7, 0.7], rel=0.05)
    alike, unlike = (np.corrcoef(EdgeError(0.0, 0.7).draws_mm(points, 4000).T)[0, 1] for points in (near, apart))
    assert alike > 0.95
    assert abs(unlike) < 0.1
    assert np.corrcoef(EdgeError(0.7, 0.0).draws_mm(apart, 4000).T)[0, 1] == pytest.approx(1.0)


def test_a_tumor_drawn_on_thick_slices_is_less_sure() -> None:
    mask = ball(14.0)
    zone = Zone(mask, Intensities(40.0, 100.0, 100.0, 100.0, 4.0, 15.0), signed_distance_mm(mask), 0.0)
    grids = [upright_grid((20, 60, 60), (slices, 0.8, 0.8), (0.0, 0.0, 0.0), "baseline") for slices in (1.0, 2.5, 5.0)]
    thin, usual, thick = (EdgeError.of(zone, Mask(np.ones(g.shape, bool), g)) for g in grids)
    assert thin == usual
    assert thick.off_mm == usual.off_mm
    assert thick.rough_mm**2 - usual.rough_mm**2 == pytest.approx(0.07**2 * (5.0**2 - 2.5**2))
