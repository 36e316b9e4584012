"""Protocols as the simulation runs them: what every probe does between any two switchings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.case import Applicator, ProtocolPhase
from pipeline.probe import CryoProbe, HeatProbe
from pipeline.simulate.heat import Drive, Interval

#: Heated tissue still takes harm while it cools.
COOLING_S = 120.0


@dataclass(frozen=True)
class _Turn:
    """One phase of one applicator in time; since_s: when the first of the like phases that follow one another began."""

    applicator: int
    start_s: float
    end_s: float
    phase: ProtocolPhase
    since_s: float


def intervals_of(applicators: Sequence[Applicator], protocol: Sequence[ProtocolPhase]) -> tuple[Interval, ...]:
    """The protocol, run by each applicator from its own `start_s` on, as stretches in which nothing is switched.

    A cycle ends where the next freezing begins after all probes have stopped freezing, and at the end. Raises
    ValueError for an applicator whose device is not known or has no heat of its own.
    """
    turns = [turn for n, applicator in enumerate(applicators) for turn in _turns(n, applicator, protocol)]
    times = sorted({0.0, *(turn.start_s for turn in turns), *(turn.end_s for turn in turns)})
    found: list[Interval] = []
    for start, end in pairwise(times):
        running = {turn.applicator: turn for turn in turns if turn.start_s <= start < turn.end_s}
        now = {number: turn.phase for number, turn in running.items()}
        drives = tuple(
            _drive(applicator, now.get(n), start - running[n].since_s if n in running else 0.0)
            for n, applicator in enumerate(applicators)
        )
        powers = tuple(_power_w(applicator, now.get(n)) for n, applicator in enumerate(applicators))
        freezes = any(phase.phase == "freeze" for phase in now.values())
        found.append(Interval(end - start, drives, powers_w=powers, limit_c=_limit_c(applicators), freezes=freezes))
    if any(any(interval.powers_w) for interval in found):
        found.append(Interval(COOLING_S, (None,) * len(applicators)))
    return tuple(found)


def _limit_c(applicators: Sequence[Applicator]) -> float | None:
    """The temperature at which the first generator rests that does."""
    limits = [a.probe.limit_c for a in applicators if isinstance(a.probe, HeatProbe) and a.probe.limit_c is not None]
    return min(limits, default=None)


def _turns(number: int, applicator: Applicator, protocol: Sequence[ProtocolPhase]) -> list[_Turn]:
    """Its phases in time, to the millisecond: nothing is switched twice because of rounding."""
    out: list[_Turn] = []
    at = round(applicator.start_s, 3)
    for phase in protocol:
        end = round(at + phase.duration_s, 3)
        alike = out and (out[-1].phase.phase, out[-1].phase.is_active) == (phase.phase, phase.is_active)
        out.append(_Turn(number, at, end, phase, out[-1].since_s if alike else at))
        at = end
    return out


def _drive(applicator: Applicator, phase: ProtocolPhase | None, running_s: float) -> Drive | None:
    """What a probe does in a phase; None where it is off. running_s: for how long it has."""
    probe = applicator.probe
    if phase is None or probe is None:
        return None
    if isinstance(probe, CryoProbe):
        if phase.phase == "freeze":
            transfer = probe.transfer_w_m2k * applicator.power_fraction
            return Drive(probe.coolant_c, transfer, probe.ramp_s, running_s=running_s)
        is_active = phase.phase == "heat" or phase.is_active
        if is_active and probe.thaw_c is not None:
            return Drive(probe.thaw_c, probe.transfer_w_m2k, probe.ramp_s, running_s=running_s)
        return None
    if isinstance(probe, HeatProbe) and phase.phase == "heat" and probe.coolant_c is not None:
        return Drive(probe.coolant_c, _COOLED_SHAFT_W_M2K)
    return None


#: Water flowing in a needle's lumen, through its wall: the shaft stays near the water's temperature. Our own choice; a
#: tenth more or less changes no zone visibly.
_COOLED_SHAFT_W_M2K = 3000.0


def _power_w(applicator: Applicator, phase: ProtocolPhase | None) -> float:
    """What a probe gives to tissue, W."""
    probe = applicator.probe
    if not isinstance(probe, HeatProbe) or phase is None or phase.phase != "heat":
        return 0.0
    given = phase.power_w if phase.power_w is not None else probe.power_w
    return given * probe.efficiency * applicator.power_fraction


@dataclass(frozen=True)
class Preset:
    """A protocol by its usual name. source: who describes it; empty where no source was found."""

    name: str
    phases: tuple[ProtocolPhase, ...]
    source: str


def _cycles(*minutes: float, active: bool = False) -> tuple[ProtocolPhase, ...]:
    """Freeze, thaw, freeze, ... of so many minutes."""
    return tuple(
        ProtocolPhase("thaw" if n % 2 else "freeze", 60 * duration, is_active=active and bool(n % 2))
        for n, duration in enumerate(minutes)
    )


_NO_SOURCE = ""  # in use, but no publication that states it was found
PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "10-8-10",
            _cycles(10, 8, 10, active=True),
            "conventional double freeze with active thaw, pig liver and kidney: "
            "CardioVasc Interv Radiol 2018, doi:10.1007/s00270-018-1950-z",
        ),
        Preset(
            "10-5-10",
            _cycles(10, 5, 10),
            "typical (thaws of 5 to 10 min): doi:10.1007/s13244-015-0460-7",
        ),
        Preset("15-2-15", _cycles(15, 2, 15), _NO_SOURCE),
        Preset("15-8-15", _cycles(15, 8, 15), _NO_SOURCE),
        Preset("13-5-13", _cycles(13, 5, 13), _NO_SOURCE),
        Preset("20-10-20-10", _cycles(20, 10, 20, 10), _NO_SOURCE),
        Preset(
            "3-7-10",
            _cycles(3, 3, 7, 4, 10),
            "triple freeze of 3, 7 and 10 min in lung; thaws of 3 and 4 min as in the records of "
            "github.com/armansarshoghi/Cryoablation-Dosimetry",
        ),
    )
}
