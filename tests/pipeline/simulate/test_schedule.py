"""Protocols as stretches in which nothing is switched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.case import Applicator, ProtocolPhase
from pipeline.probe import CryoProbe, HeatProbe
from pipeline.simulate.schedule import COOLING_S, PRESETS, intervals_of

MakeProbe = Callable[..., Applicator]
FREEZE, THAW = ProtocolPhase("freeze", 600.0), ProtocolPhase("thaw", 480.0)
ELECTRODE = HeatProbe("electrode", 0.75, 30.0, 2.0, 0.8, 60.0, 50.0, 15.0, 100.5, "made")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_lasts_as_its_name_says(preset: object, applicator: MakeProbe) -> None:
    assert preset is PRESETS[preset.name]  # type: ignore[attr-defined]
    phases = preset.phases  # type: ignore[attr-defined]
    minutes = [phase.duration_s / 60 for phase in phases]
    named = [float(n) for n in preset.name.split("-")]  # type: ignore[attr-defined]
    if preset.name == "3-7-10":  # type: ignore[attr-defined]
        assert minutes[::2] == named
    else:
        assert minutes == named
    assert [phase.phase for phase in phases] == ["freeze", "thaw"] * (len(phases) // 2) + ["freeze"] * (len(phases) % 2)
    intervals = intervals_of([applicator()], phases)
    assert [interval.duration_s for interval in intervals] == [60 * m for m in minutes]
    assert [interval.freezes for interval in intervals] == [phase.phase == "freeze" for phase in phases]


def test_a_probe_freezes_and_then_is_off(applicator: MakeProbe, argon: CryoProbe) -> None:
    freeze, thaw = intervals_of([applicator()], (FREEZE, THAW))
    (drive,) = freeze.drives
    assert drive is not None
    assert (drive.coolant_c, drive.transfer_w_m2k, drive.ramp_s) == (-150.0, argon.transfer_w_m2k, 25.0)
    assert thaw.drives == (None,)
    assert freeze.limit_c is None


def test_an_active_thaw_warms_the_probe_that_can(applicator: MakeProbe, argon: CryoProbe) -> None:
    active = replace(THAW, is_active=True)
    passive = replace(argon, thaw_c=None)
    _, thaw = intervals_of([applicator(), applicator((20.0, 0.0, -15.0), probe=passive)], (FREEZE, active))
    warm, off = thaw.drives
    assert warm is not None
    assert warm.coolant_c == 20.0
    assert off is None


def test_power_is_a_share_of_heat_transfer_and_of_watts(applicator: MakeProbe, argon: CryoProbe) -> None:
    (freeze,) = intervals_of([applicator(power=0.6)], (FREEZE,))
    assert freeze.drives[0] is not None
    assert freeze.drives[0].transfer_w_m2k == pytest.approx(0.6 * argon.transfer_w_m2k)
    heat, cooling = intervals_of([applicator(probe=ELECTRODE, power=0.5)], (ProtocolPhase("heat", 300.0),))
    assert heat.powers_w == pytest.approx((0.5 * 0.8 * 60.0,))
    assert heat.limit_c == 100.5
    assert heat.drives[0] is not None
    assert heat.drives[0].coolant_c == 15.0
    assert not heat.freezes
    assert (cooling.duration_s, cooling.drives, cooling.powers_w) == (COOLING_S, (None,), ())
    stated, _ = intervals_of([applicator(probe=ELECTRODE)], (ProtocolPhase("heat", 300.0, power_w=40.0),))
    assert stated.powers_w == pytest.approx((0.8 * 40.0,))


def test_a_moved_probe_begins_when_it_is_there(applicator: MakeProbe) -> None:
    both = [applicator(), applicator((20.0, 0.0, -15.0), start_s=700.0)]
    intervals = intervals_of(both, (FREEZE,))
    assert [i.duration_s for i in intervals] == [600.0, 100.0, 600.0]
    assert [[d is not None for d in i.drives] for i in intervals] == [[True, False], [False, False], [False, True]]
    assert [i.freezes for i in intervals] == [True, False, True]


def test_the_first_generator_that_rests_rests_them_all(applicator: MakeProbe) -> None:
    later = replace(ELECTRODE, limit_c=None), replace(ELECTRODE, limit_c=95.0)
    both = [applicator(probe=probe) for probe in later]
    assert intervals_of(both, (ProtocolPhase("heat", 60.0),))[0].limit_c == 95.0
