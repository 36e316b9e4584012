"""What a simulated zone means for its tumor: sizes and planned margins against shapes whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.case import Applicator, Plan, ProtocolPhase
from pipeline.geometry import Geometry, upright_grid
from pipeline.probe import CryoProbe, TabledZone
from pipeline.simulate.planned import ENSEMBLE, PlannedMargin, Spread, planned_margins, spread_of
from pipeline.simulate.zone import Edge, SimulatedZone, SimulationSettings, simulate_zone
from pipeline.surface import Level, surface_of_mask

ARGON = CryoProbe("argon", 0.75, 24.0, 3.0, -150.0, 2000.0, 25.0, 20.0, "made")
MakeProbe = Callable[..., Applicator]
MakePlan = Callable[..., Plan]
FINE = SimulationSettings(spacing_mm=1.0, room_mm=12.0)


def sphere(diameter_mm: float, spread: float = 0.1) -> TabledZone:
    """Centered on the tumor by the `applicator` fixture's tip."""
    return TabledZone("sphere", diameter_mm, diameter_mm, 15.0, spread, "made")


def margins_of(plan: Plan, settings: SimulationSettings) -> tuple[PlannedMargin, ...]:
    """Of the plan's only lesion."""
    (lesion,) = plan.lesions
    return planned_margins(simulate_zone(plan, lesion, settings), lesion.tumor, surface_of_mask(lesion.tumor))


def spread_alone(plan: Plan, settings: SimulationSettings) -> Spread:
    (lesion,) = plan.lesions
    zone = simulate_zone(plan, lesion, settings)
    return spread_of(plan, lesion, settings, zone, surface_of_mask(lesion.tumor))


@pytest.mark.parametrize(("tumor_mm", "zone_mm"), [(6.0, 11.0), (8.0, 10.0), (9.0, 7.0), (5.0, 20.0)])
def test_between_spheres_the_margin_is_the_difference_of_their_radii(
    plan: MakePlan, applicator: MakeProbe, tumor_mm: float, zone_mm: float
) -> None:
    made = plan((applicator((0.0, 0.0, -15.0), probe=sphere(2 * zone_mm)),), (), tumor_radius_mm=tumor_mm)
    (margin,) = margins_of(made, FINE)
    # The surface of a tumor from its voxels may bulge by a tenth of a millimetre, and the least margin finds it.
    assert margin.minimal_margin_mm == pytest.approx(zone_mm - tumor_mm, abs=0.15)
    assert margin.covered_fraction == pytest.approx(min(1.0, (zone_mm / tumor_mm) ** 3), abs=0.02)
    assert margin.size.volume_ml[0] == pytest.approx(4 / 3 * np.pi * zone_mm**3 / 1000, rel=0.015)
    assert margin.size.length_mm == pytest.approx(2 * zone_mm, abs=0.2)
    assert margin.size.diameter_mm == pytest.approx(2 * zone_mm, rel=0.035)
    assert margin.edge == "tabled"


def test_a_tabled_zone_wider_than_the_room_is_not_cut(plan: MakePlan, applicator: MakeProbe) -> None:
    made = plan((applicator((0.0, 0.0, -15.0), probe=TabledZone("flat", 90.0, 40.0, 15.0, 0.1, "made")),), ())
    (margin,) = margins_of(made, SimulationSettings())
    assert margin.size.diameter_mm == pytest.approx(90.0, rel=0.02)
    assert margin.size.volume_ml[0] == pytest.approx(np.pi / 6 * 90.0**2 * 40.0 / 1000, rel=0.01)


def test_beside_the_tumor_the_margin_is_what_sticks_out(plan: MakePlan, applicator: MakeProbe) -> None:
    made = plan((applicator((4.0, 0.0, -15.0), probe=sphere(20.0)),), ())
    (margin,) = margins_of(made, FINE)
    assert margin.minimal_margin_mm == pytest.approx(10.0 - 6.0 - 4.0, abs=0.15)
    assert margin.thinnest_lps_mm is not None
    assert margin.thinnest_lps_mm[0] == pytest.approx(-6.0, abs=0.5)  # on the side that the zone is moved from


def test_an_ellipsoid_is_as_long_and_as_wide_as_the_table_says(plan: MakePlan, applicator: MakeProbe) -> None:
    tip, entry = (-10.0, -12.0, -8.0), (40.0, 48.0, 32.0)
    one = replace(applicator(probe=TabledZone("t", 22.0, 34.0, 15.0, 0.1, "made")), tip_lps_mm=tip, entry_lps_mm=entry)
    made = plan((one,), ())
    (margin,) = margins_of(made, FINE)
    assert margin.size.length_mm == pytest.approx(34.0, abs=0.3)
    assert margin.size.diameter_mm == pytest.approx(22.0, rel=0.02)


def test_two_tabled_zones_are_their_union(plan: MakePlan, applicator: MakeProbe) -> None:
    apart = [applicator((x, 0.0, -15.0), probe=sphere(16.0)) for x in (-10.0, 10.0)]
    made = plan(tuple(apart), ())
    (margin,) = margins_of(made, FINE)
    assert margin.size.volume_ml[0] == pytest.approx(2 * 4 / 3 * np.pi * 8.0**3 / 1000, rel=0.01)


def test_isotherms_give_margins_in_order_and_volumes_by_cycle(plan: MakePlan) -> None:
    made = plan()
    lethal, ice, coldest = margins_of(made, SimulationSettings(spacing_mm=2.0, room_mm=24.0))
    assert (lethal.temperature_c, ice.temperature_c, coldest.temperature_c) == (-20.0, 0.0, -40.0)
    assert ice.minimal_margin_mm is not None
    assert lethal.minimal_margin_mm is not None
    assert coldest.minimal_margin_mm is not None
    assert ice.minimal_margin_mm > lethal.minimal_margin_mm > coldest.minimal_margin_mm
    for margin in (lethal, ice, coldest):
        first, last = margin.size.volume_ml
        assert 0 < first < last
        assert margin.size.length_mm > margin.size.diameter_mm


def grid() -> Geometry:
    return upright_grid((30, 30, 30), (1.0,) * 3, (-14.5,) * 3, "baseline")


def test_no_zone_has_no_margin(plan: MakePlan) -> None:
    made = plan()
    nothing = Edge("-20 °C", -20.0, (Level(np.full((30, 30, 30), -1.0, np.float32), grid()),))
    lesion = made.lesions[0]
    zone = SimulatedZone("L1", lesion.applicators, grid(), (nothing,), None)
    (margin,) = planned_margins(zone, lesion.tumor, surface_of_mask(lesion.tumor))
    assert (margin.minimal_margin_mm, margin.thinnest_lps_mm) == (None, None)
    assert margin.covered_fraction == 0.0
    assert (margin.size.volume_ml, margin.size.length_mm, margin.size.diameter_mm) == ((0.0,), 0.0, 0.0)


def test_the_spread_contains_what_is_most_likely(plan: MakePlan) -> None:
    settings = SimulationSettings(spacing_mm=2.0, room_mm=24.0)
    made = plan()
    lesion, told = made.lesions[0], []
    zone = simulate_zone(made, lesion, settings)
    surface = surface_of_mask(lesion.tumor)
    spread = spread_of(made, lesion, settings, zone, surface, told=lambda done, count: told.append((done, count)))
    likely = planned_margins(zone, lesion.tumor, surface)[0]
    assert spread.runs == len(ENSEMBLE) == 8
    assert told == [(n, 8) for n in range(1, 9)]
    assert spread.volume_ml[0] < likely.size.volume_ml[-1] < spread.volume_ml[1]
    assert spread.minimal_margin_mm is not None
    assert likely.minimal_margin_mm is not None
    assert spread.minimal_margin_mm[0] < likely.minimal_margin_mm < spread.minimal_margin_mm[1]
    nominal = zone.counting.mask.voxels
    assert zone.grid.same_grid(spread.certain.geometry)
    assert (spread.certain.voxels <= nominal).all()
    assert (nominal <= spread.possible.voxels).all()
    assert spread.certain.volume_ml < spread.possible.volume_ml


def test_the_spread_lies_on_the_cells_of_the_zone_and_holds_it(plan: MakePlan, applicator: MakeProbe) -> None:
    """Also of a probe that is too thin for the ensemble's usual cells."""
    thin = replace(ARGON, radius_mm=0.45, transfer_w_m2k=4000.0)
    made = plan((applicator(probe=thin),), (ProtocolPhase("freeze", 120.0),))
    settings = SimulationSettings(spacing_mm=1.2, room_mm=16.0)
    zone = simulate_zone(made, made.lesions[0], settings)
    spread = spread_of(made, made.lesions[0], settings, zone, surface_of_mask(made.lesions[0].tumor))
    nominal = zone.counting.mask.voxels
    for mask in (spread.certain, spread.possible):
        assert mask.geometry.same_grid(zone.grid)
    assert (spread.certain.voxels <= nominal).all()
    assert (nominal <= spread.possible.voxels).all()
    assert 0 < spread.certain.volume_ml < zone.counting.mask.volume_ml < spread.possible.volume_ml


def test_a_tabled_zone_spreads_as_its_table_says(plan: MakePlan, applicator: MakeProbe) -> None:
    made = plan((applicator((0.0, 0.0, -15.0), probe=sphere(30.0, 0.2)),), (ProtocolPhase("heat", 60.0),))
    spread = spread_alone(made, FINE)
    ball_ml = 4 / 3 * np.pi * 15.0**3 / 1000
    assert spread.volume_ml == pytest.approx((0.8**3 * ball_ml, 1.2**3 * ball_ml), rel=0.02)
    assert spread.minimal_margin_mm == pytest.approx((12.0 - 6.0, 18.0 - 6.0), abs=0.25)
    assert spread.certain.volume_ml == pytest.approx(0.8**3 * ball_ml, rel=0.03)
    assert spread.possible.volume_ml == pytest.approx(1.2**3 * ball_ml, rel=0.03)


def test_a_spread_in_which_a_member_makes_no_zone_states_no_margin(plan: MakePlan, applicator: MakeProbe) -> None:
    """A short and weak freeze that reaches the isotherm only where everything helps."""
    settings = SimulationSettings(isotherm_c=-60.0, spacing_mm=2.0, room_mm=14.0)
    made = plan((applicator(power=0.08),), (ProtocolPhase("freeze", 120.0),))
    spread = spread_alone(made, settings)
    assert spread.volume_ml[0] == 0.0
    assert spread.minimal_margin_mm is None
    assert spread.certain.is_empty
