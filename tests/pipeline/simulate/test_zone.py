"""The simulated zone of a lesion: edges, energies, and what cannot be simulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.case import Applicator, Lesion, Plan, ProtocolPhase
from pipeline.geometry import upright_grid
from pipeline.probe import CryoProbe, HeatProbe, TabledZone
from pipeline.simulate.dose import Dose
from pipeline.simulate.placement import CannotSimulate, active_line, fine_enough_mm
from pipeline.simulate.planned import planned_margins
from pipeline.simulate.zone import Factors, SimulatedZone, SimulationSettings, scene_of, simulate, simulate_zone
from pipeline.surface import surface_of_mask
from pipeline.volume import Mask

MakeProbe = Callable[..., Applicator]
MakePlan = Callable[..., Plan]
COARSE = SimulationSettings(spacing_mm=2.0, room_mm=24.0)
ARGON = CryoProbe("argon", 0.75, 24.0, 3.0, -150.0, 2000.0, 25.0, 20.0, "made")
ELECTRODE = HeatProbe("electrode", 0.75, 20.0, 4.0, 0.8, 40.0, 60.0, 15.0, 100.5, "made")
TABLED = TabledZone("tabled", 30.0, 40.0, 10.0, 0.1, "made")
HEAT = (ProtocolPhase("heat", 240.0),)
DOUBLE = (ProtocolPhase("freeze", 300.0), ProtocolPhase("thaw", 120.0), ProtocolPhase("freeze", 300.0))


def zone_of(plan: Plan, settings: SimulationSettings = COARSE, factors: Factors | None = None) -> SimulatedZone:
    return simulate(scene_of(plan, plan.lesions[0], settings), settings, factors)


def ml(zone: SimulatedZone, number: int = 0) -> float:
    return zone.edges[number].mask.volume_ml


def test_the_active_part_begins_behind_the_tip(applicator: MakeProbe, argon: CryoProbe) -> None:
    line = active_line(applicator())
    assert line.start_lps_mm == pytest.approx((0.3, 0.2, -12.0))
    assert line.end_lps_mm == pytest.approx((0.3, 0.2, 12.0))
    assert (line.radius_mm, line.reach_mm) == (argon.radius_mm, 0.0)


def test_colder_edges_lie_inside_warmer_ones_and_later_cycles_around_earlier_ones(plan: MakePlan) -> None:
    zone = zone_of(plan())
    assert [edge.temperature_c for edge in zone.edges] == [-20.0, 0.0, -40.0]
    assert zone.counting.name == "-20 °C"
    lethal, ice, coldest = (edge.mask.voxels for edge in zone.edges)
    assert coldest.any()
    assert (coldest <= lethal).all()
    assert (lethal <= ice).all()
    assert 1 < ml(zone) < 10
    for edge in zone.edges:
        assert len(edge.cycles) == 2
        first, last = (cycle.values > 0 for cycle in edge.cycles)
        assert (first <= last).all()
        assert edge.level is edge.cycles[-1]
    assert zone.temperature_c is not None
    agree = (zone.temperature_c < -20) == lethal
    assert agree.all()
    assert zone.axis == pytest.approx((0, 0, 1))
    center = zone.counting.mask.centroid_lps_mm
    assert center == pytest.approx((0.3, 0.2, 0.0), abs=0.3)


def test_the_counting_edge_is_the_one_that_was_asked_for(plan: MakePlan) -> None:
    zone = zone_of(plan(), replace(COARSE, isotherm_c=-30.0))
    assert [edge.temperature_c for edge in zone.edges] == [-30.0, 0.0, -20.0, -40.0]
    assert ml(zone, 3) < ml(zone, 0) < ml(zone, 2)


def test_less_power_and_more_blood_make_a_smaller_zone(plan: MakePlan, applicator: MakeProbe) -> None:
    full = ml(zone_of(plan()))
    assert ml(zone_of(plan((applicator(power=0.5),)))) < 0.9 * full
    assert ml(zone_of(plan(), factors=Factors(perfusion=2.0))) < full
    assert ml(zone_of(plan(), factors=Factors(conductivity=1.2))) > full
    assert ml(zone_of(plan(), factors=Factors(transfer=1.3))) > full


def test_where_the_probe_points_does_not_matter(plan: MakePlan, argon: CryoProbe) -> None:
    volumes, surface = [], surface_of_mask(plan().lesions[0].tumor)
    for direction in ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.5, 0.6, 0.7)):
        axis = np.array(direction) / np.linalg.norm(direction)
        tip, entry = (tuple(float(v) for v in at * axis) for at in (-15.0, 65.0))
        made = plan((Applicator("argon", tip, entry, argon),), DOUBLE[:1])  # type: ignore[arg-type]
        zone = zone_of(made)
        volumes.append(planned_margins(zone, made.lesions[0].tumor, surface)[0].size.volume_ml[0])
    assert np.ptp(volumes) / np.mean(volumes) < 0.04  # of 1.6 ml on cells of 2 mm


def test_a_probe_moved_to_a_second_place_makes_two_cycles(plan: MakePlan, applicator: MakeProbe) -> None:
    """Later elsewhere: the first zone is there after the first cycle, both after the second."""
    freeze = (ProtocolPhase("freeze", 240.0),)
    one, other = applicator((-8.0, 0.0, -15.0)), applicator((8.0, 0.0, -15.0), start_s=300.0)
    alone = zone_of(plan((one,), freeze))
    moved = zone_of(plan((one, other), freeze))
    assert len(moved.counting.cycles) == 2
    first, both = (cycle.values > 0 for cycle in moved.counting.cycles)
    volume_ml = moved.grid.voxel_volume_mm3 / 1000
    assert float(first.sum()) * volume_ml == pytest.approx(ml(alone), rel=0.1)
    assert both.sum() > 1.8 * first.sum()


def test_probes_that_begin_one_after_another_freeze_in_one_cycle(plan: MakePlan, applicator: MakeProbe) -> None:
    freeze = (ProtocolPhase("freeze", 240.0),)
    zone = zone_of(plan((applicator((-8.0, 0.0, -15.0)), applicator((8.0, 0.0, -15.0), start_s=60.0)), freeze))
    assert len(zone.counting.cycles) == 1


def test_tissues_told_apart_by_the_image_matter(plan: MakePlan) -> None:
    made = plan()
    lps = made.baseline.geometry.grid_lps()
    fatty = np.where(lps[..., 0] > 6, -90, 50).astype(np.int16)
    other = replace(made, baseline=replace(made.baseline, voxels=fatty))
    assert ml(zone_of(other), 1) != pytest.approx(ml(zone_of(made), 1), rel=0.02)
    blind = replace(COARSE, by_tissue=False)
    assert ml(zone_of(other, blind), 1) == pytest.approx(ml(zone_of(made, blind), 1))


def test_a_large_vessel_keeps_the_ice_off(plan: MakePlan) -> None:
    grid = upright_grid((40, 40, 40), (2.0,) * 3, (-39.0,) * 3, "baseline")
    lps = grid.grid_lps()
    vessel = Mask(np.hypot(lps[..., 0] - 11.0, lps[..., 1]) < 4.0, grid)
    zone = zone_of(plan(vessel_mask=vessel))
    points = zone.grid.grid_lps()
    within = np.hypot(points[..., 0] - 11.0, points[..., 1]) < 2.5
    assert zone.temperature_c is not None
    assert (zone.temperature_c[within] > 36.99).all()
    assert ml(zone, 1) < 0.97 * ml(zone_of(plan()), 1)


@pytest.mark.parametrize("law", ["arrhenius", "cem43"])
def test_heat_coagulates(plan: MakePlan, applicator: MakeProbe, law: str) -> None:
    settings = replace(COARSE, dose=Dose(law))  # type: ignore[arg-type]
    sizes = []
    for power in (0.4, 1.0):
        zone = zone_of(plan((applicator(probe=ELECTRODE, power=power),), HEAT), settings)
        assert [edge.name for edge in zone.edges] == ["coagulated"]
        assert zone.temperature_c is not None
        assert (zone.temperature_c[zone.counting.mask.voxels] > 43).all()
        sizes.append(ml(zone))
    assert 0.5 < sizes[0] < 0.9 * sizes[1] < 40
    assert zone.counting.mask.centroid_lps_mm == pytest.approx((0.3, 0.2, -1.0), abs=0.5)


def test_a_tabled_zone_is_its_ellipsoid(plan: MakePlan, applicator: MakeProbe) -> None:
    zone = zone_of(plan((applicator(probe=TABLED),), ()), replace(COARSE, spacing_mm=1.0))
    assert ml(zone) == pytest.approx(np.pi / 6 * 30.0 * 30.0 * 40.0 / 1000, rel=0.01)
    assert zone.counting.mask.centroid_lps_mm == pytest.approx((0.3, 0.2, -5.0), abs=0.1)
    assert zone.temperature_c is None
    larger = zone_of(plan((applicator(probe=TABLED),), ()), factors=Factors(transfer=1.3))
    assert ml(larger) == pytest.approx(1.1**3 * ml(zone), rel=0.02)


def broken(lesion: Lesion, **changes: object) -> Lesion:
    return replace(lesion, **changes)  # type: ignore[arg-type]


def test_what_makes_no_zone_is_refused_by_its_key(plan: MakePlan, applicator: MakeProbe) -> None:
    made = plan()
    lesion = made.lesions[0]
    cases = (
        ({"applicators": ()}, "applicators", "names no applicator"),
        ({"applicators": (applicator(probe=None),)}, "applicators", "nothing is known"),
        ({"applicators": (applicator(), applicator(probe=TABLED))}, "applicators", "mixes"),
        ({"applicators": (applicator(), applicator(probe=ELECTRODE))}, "applicators", "freeze and devices that heat"),
        ({"protocol": ()}, "protocol", "is missing"),
        ({"protocol": HEAT}, "protocol", "no phase freeze"),
        ({"applicators": (applicator(probe=ELECTRODE),)}, "protocol", "no phase heat"),
        ({"applicators": (applicator((300.0, 0.0, 0.0)),)}, "applicators[0].tip_lps_mm", "outside the baseline"),
        ({"applicators": (applicator(), applicator((1.0, 0.2, -15.0)))}, "applicators[1].tip_lps_mm", "overlaps"),
    )
    for changes, key, said in cases:
        with pytest.raises(CannotSimulate, match=said) as told:
            simulate_zone(made, broken(lesion, **changes), COARSE)
        assert told.value.key == key


def test_swapped_ends_are_suspected_where_a_probe_is_too_far(plan: MakePlan, applicator: MakeProbe) -> None:
    made = plan()
    away, middle = (55.0, 55.0, 57.0), (0.0, 0.0, -10.0)
    swapped = replace(applicator(), tip_lps_mm=away, entry_lps_mm=middle)
    with pytest.raises(CannotSimulate, match=r"at most 60 mm are possible; are tip and entry swapped\?"):
        simulate_zone(made, broken(made.lesions[0], applicators=(swapped,)), COARSE)


def test_settings_that_no_one_can_mean_are_refused() -> None:
    with pytest.raises(ValueError, match="looks like kelvin"):
        SimulationSettings(isotherm_c=253.0)
    with pytest.raises(ValueError, match="between -80 and 0"):
        SimulationSettings(isotherm_c=-90.0)
    with pytest.raises(ValueError, match="coarser cells"):
        SimulationSettings(spacing_mm=5.0)


def test_a_tabled_device_is_placed_as_strictly_as_any_other(plan: MakePlan, applicator: MakeProbe) -> None:
    """A good one beside it hides nothing."""
    made = plan()
    good = applicator(probe=TABLED)
    outside = applicator((0.0, 0.0, -300.0), probe=TABLED)
    astray = applicator((50.0, 50.0, 40.0), probe=TABLED)
    swapped = replace(good, tip_lps_mm=(57.0, 57.0, 57.0), entry_lps_mm=(0.0, 0.0, -5.0))
    for wrong, said in (
        (outside, "lies outside the baseline scan"),
        (astray, "puts the zone 71 mm from the tumor; at most 60 mm are possible$"),
        (swapped, r"puts the zone .* are tip and entry swapped\?"),
    ):
        with pytest.raises(CannotSimulate, match=said) as told:
            scene_of(made, broken(made.lesions[0], applicators=(good, wrong), protocol=()), COARSE)
        assert told.value.key == "applicators[1].tip_lps_mm"
    together = (good, applicator((1.0, 0.2, -15.0), probe=TABLED))  # two ellipsoids may meet, two shafts may not
    scene_of(made, broken(made.lesions[0], applicators=together, protocol=()), COARSE)


@pytest.mark.parametrize("probe", [ARGON, TABLED], ids=["argon", "tabled"])
def test_applicators_too_far_apart_for_any_grid_are_refused(
    plan: MakePlan, applicator: MakeProbe, probe: CryoProbe | TabledZone
) -> None:
    made = plan(tuple(applicator((x, 0.0, -15.0), probe=probe) for x in (-55.0, 55.0)))
    wide = SimulationSettings(spacing_mm=0.4, room_mm=45.0)
    with pytest.raises(CannotSimulate, match=r"ask for \d\d million cells of 0\.4 mm; at most 20 million") as told:
        simulate_zone(made, made.lesions[0], wide)
    assert told.value.key == "applicators"


def test_cells_are_as_wide_as_wanted_or_as_the_thinnest_shaft_allows(applicator: MakeProbe) -> None:
    thin = replace(ARGON, radius_mm=0.3)
    assert fine_enough_mm([applicator()], 1.5) == 1.5
    assert fine_enough_mm([applicator(), applicator(probe=thin)], 1.5) == pytest.approx(1.05)
    assert fine_enough_mm([applicator(probe=TABLED)], 1.5) == 1.5
