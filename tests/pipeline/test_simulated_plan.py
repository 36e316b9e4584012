"""Plans completed by simulation, and what is told of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.case import Applicator, IsothermSize, Lesion, Plan, ProtocolPhase
from pipeline.phantom import Phantom
from pipeline.probe import CryoProbe, TabledZone
from pipeline.simulate.placement import CannotSimulate
from pipeline.simulate.zone import SimulationSettings, simulate_zone
from pipeline.simulated_plan import AS_EXPECTATION, completed_plan
from pipeline.transform import sample_distance

COARSE = SimulationSettings(spacing_mm=3.0, by_tissue=False)
PROBE = CryoProbe("argon", 1.2, 30.0, 3.0, -150.0, 1850.0, 25.0, 20.0, "made")
FREEZE = (ProtocolPhase("freeze", 600.0), ProtocolPhase("thaw", 300.0), ProtocolPhase("freeze", 600.0))


def through(plan: Plan, off_mm: float = 0.0, *, probe: CryoProbe | None = PROBE, known: bool = True) -> Plan:
    """The plan without a zone, one probe through the middle of its tumor or beside it, along z."""
    lesion = plan.lesions[0]
    x, y, z = (float(v) for v in lesion.tumor.centroid_lps_mm)
    placed = Applicator("A", (x, y + off_mm, z - 18.0), (x, y + off_mm, z + 60.0), probe, model_is_known=known)
    return replace(plan, lesions=(replace(lesion, simulated_zone=None, applicators=(placed,), protocol=FREEZE),))


def codes(plan: Plan) -> list[str]:
    return [reason.code for reason in completed_plan(plan, COARSE).told]


def test_a_zone_is_simulated_where_the_plan_brings_none(incomplete_phantom: Phantom) -> None:
    plan, begun = through(incomplete_phantom.plan), []
    found = completed_plan(plan, COARSE, about_to=lambda: begun.append(True))
    lesion = found.plan.lesions[0]
    assert lesion.simulated_zone is not None
    assert lesion.zone_is_predicted
    assert begun == [True]
    whole = simulate_zone(plan, plan.lesions[0], COARSE).counting.mask
    assert lesion.simulated_zone.volume_ml == pytest.approx(whole.volume_ml)
    middle = np.array([lesion.tumor.centroid_lps_mm])
    assert sample_distance(lesion.simulated_zone, middle)[0] > 3.0
    assert [reason.code for reason in found.told] == ["zone_simulated"]
    assert f"{whole.volume_ml:.1f} ml" in found.told[0].text


def test_a_planned_zone_is_left_alone(incomplete_phantom: Phantom) -> None:
    plan, begun = incomplete_phantom.plan, []
    found = completed_plan(plan, COARSE, about_to=lambda: begun.append(True))
    assert found.plan is plan
    assert found.told == ()
    assert begun == []


def test_what_is_not_known_of_a_device_is_told(incomplete_phantom: Phantom) -> None:
    generic = replace(PROBE, is_generic=True)
    assert codes(through(incomplete_phantom.plan, probe=generic)) == ["zone_simulated", "applicator_numbers_generic"]
    unknown = codes(through(incomplete_phantom.plan, probe=generic, known=False))
    assert unknown == ["zone_simulated", "applicator_model_unknown"]


def test_a_zone_far_from_its_tumor_is_not_used(incomplete_phantom: Phantom) -> None:
    found = completed_plan(through(incomplete_phantom.plan, 60.0), COARSE)
    assert found.plan.lesions[0].simulated_zone is None
    assert [reason.code for reason in found.told] == ["zone_not_simulated"]
    assert "lesions[0].applicators" in found.told[0].text


def test_what_cannot_be_simulated_is_told_and_refuses_nothing(incomplete_phantom: Phantom) -> None:
    plan = through(incomplete_phantom.plan)

    def changed(lesion: Lesion) -> Plan:
        return replace(plan, lesions=(lesion,))

    lesion = plan.lesions[0]
    outside = replace(lesion.applicators[0], tip_lps_mm=(5000.0, 0.0, 0.0))
    x, y, z = lesion.applicators[0].tip_lps_mm
    far = replace(lesion.applicators[0], tip_lps_mm=(x + 90.0, y, z), entry_lps_mm=(x + 90.0, y, z + 60.0))
    for wrong, key in (
        (replace(lesion, protocol=()), "lesions[0].protocol"),
        (replace(lesion, protocol=(ProtocolPhase("thaw", 300.0),)), "lesions[0].protocol"),
        (replace(lesion, applicators=(outside,)), "lesions[0].applicators[0].tip_lps_mm"),
        (replace(lesion, applicators=lesion.applicators * 2), "lesions[0].applicators[1].tip_lps_mm"),
        (replace(lesion, applicators=(*lesion.applicators, far)), "lesions[0].applicators[1].tip_lps_mm"),
        (replace(lesion, applicators=(replace(lesion.applicators[0], probe=None),)), "lesions[0].applicators"),
    ):
        found = completed_plan(changed(wrong), COARSE)
        assert found.plan.lesions[0].simulated_zone is None
        assert [reason.code for reason in found.told] == ["zone_not_simulated"]
        assert key in found.told[0].text


def test_a_protocol_too_short_to_freeze_is_told(incomplete_phantom: Phantom) -> None:
    plan = through(incomplete_phantom.plan)
    short = replace(plan, lesions=(replace(plan.lesions[0], protocol=(ProtocolPhase("freeze", 2.0),)),))
    found = completed_plan(short, COARSE)
    assert found.plan.lesions[0].simulated_zone is None
    assert found.told[0].code == "zone_not_simulated"
    assert "nowhere" in found.told[0].text


def test_points_that_look_like_a_slip_are_told(incomplete_phantom: Phantom) -> None:
    plan = through(incomplete_phantom.plan)
    lesion = plan.lesions[0]
    (probe,) = lesion.applicators
    x, y, z = probe.tip_lps_mm
    swapped = replace(probe, tip_lps_mm=(x, y, z + 75.0), entry_lps_mm=(x, y, z + 10.0))
    short = replace(probe, entry_lps_mm=(x, y, z + 20.0))
    for placed, said in (
        (swapped, "are tip and entry swapped?"),
        (short, "is 20 mm from the tip, but the active part"),
    ):
        found = completed_plan(replace(plan, lesions=(replace(lesion, applicators=(placed,)),)), COARSE)
        (doubt,) = [reason for reason in found.told if reason.code == "applicator_doubted"]
        assert doubt.text.startswith("plan.json: lesions[0].applicators[0].entry_lps_mm ")
        assert said in doubt.text
    assert "applicator_doubted" not in codes(plan)


def test_a_probe_thinner_than_the_cells_can_show_gets_finer_ones(incomplete_phantom: Phantom) -> None:
    thin = replace(PROBE, radius_mm=0.35, active_length_mm=20.0)
    plan = through(incomplete_phantom.plan, probe=thin)
    short = replace(plan, lesions=(replace(plan.lesions[0], protocol=(ProtocolPhase("freeze", 90.0),)),))
    usual = replace(AS_EXPECTATION, by_tissue=False, room_mm=12.0)
    with pytest.raises(CannotSimulate, match=r"cells of 1\.5 mm are too coarse"):
        simulate_zone(short, short.lesions[0], usual)
    found = completed_plan(short, usual)
    assert [reason.code for reason in found.told] == ["zone_simulated"]
    zone = found.plan.lesions[0].simulated_zone
    assert zone is not None
    assert zone.geometry.spacing_mm == pytest.approx([3.5 * 0.35] * 3)


def test_the_edge_is_the_isotherm_of_the_settings(incomplete_phantom: Phantom) -> None:
    zones = []
    for celsius in (-20.0, -40.0):
        found = completed_plan(through(incomplete_phantom.plan), replace(COARSE, isotherm_c=celsius))
        assert f"({celsius:g} °C, " in found.told[0].text
        zones.append(found.plan.lesions[0].simulated_zone)
    assert zones[1].volume_ml < 0.85 * zones[0].volume_ml


def test_a_shaft_is_judged_by_the_fitted_device(incomplete_phantom: Phantom) -> None:
    """The table's device would reach 33 mm from the tip, the fitted one does not reach the skin at 30 mm."""
    plan = through(incomplete_phantom.plan)
    lesion = plan.lesions[0]
    x, y, z = lesion.applicators[0].tip_lps_mm
    short = replace(lesion.applicators[0], entry_lps_mm=(x, y, z + 30.0))

    def doubts(applicator: Applicator) -> list[str]:
        changed = replace(lesion, applicators=(applicator,), protocol=FREEZE[:1])
        told = completed_plan(replace(plan, lesions=(changed,)), COARSE).told
        assert told[0].code == "zone_simulated"
        return [reason.text for reason in told if reason.code == "applicator_doubted"]

    assert len(doubts(short)) == 1
    assert doubts(replace(short, isotherm_size=IsothermSize(-20.0, 150.0, 10.0, length_mm=24.0))) == []


def test_a_stated_isotherm_of_a_device_that_is_not_simulated_is_refused(incomplete_phantom: Phantom) -> None:
    plan = through(incomplete_phantom.plan)
    lesion = plan.lesions[0]
    tabled = TabledZone("tabled", 30.0, 40.0, 15.0, 0.1, "made")
    placed = replace(lesion.applicators[0], probe=tabled, isotherm_size=IsothermSize(-20.0, 600.0, 30.0))
    found = completed_plan(replace(plan, lesions=(replace(lesion, applicators=(placed,)),)), COARSE)
    assert [reason.code for reason in found.told] == ["zone_not_simulated"]
    assert "lesions[0].applicators[0].isotherm_size is given, but" in found.told[0].text
