"""What was done to a lesion, as plan.json writes it: applicators and protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

from dicom_node.decode.schema import Node
from dicom_node.probe_table import ProbeTable
from pipeline.case import Applicator, Energy, IsothermSize, ProtocolPhase
from pipeline.simulate.schedule import PRESETS

#: Beyond these a slip of unit or decimal point: no published freeze is longer than an hour, no generator stronger.
LONGEST_PHASE_S, LONGEST_PROTOCOL_S, MOST_POWER_W = 7200.0, 21600.0, 500.0
_LEAST_SHAFT_MM, _FARTHEST_MM = 1.0, 3000.0
_PHASES: dict[Energy, tuple[str, ...]] = {
    "cryoablation": ("freeze", "thaw", "heat"),
    "radiofrequency": ("heat",),
    "microwave": ("heat",),
}


def read_applicators(node: Node) -> tuple[Applicator, ...]:
    """The applicators of a lesion, their devices not looked up yet. Raises Refused ``plan_invalid`` naming the key."""
    found = tuple(_applicator(item) for item in node.child("applicators").list(at_least=0))
    for number, applicator in enumerate(found):
        for other in found[:number]:
            same = (applicator.tip_lps_mm, applicator.start_s) == (other.tip_lps_mm, other.start_s)
            if same:
                key = f"{node.key}.applicators[{number}].tip_lps_mm"
                raise Node(None, key).wrong("is where another applicator's tip is at the same time")
    return found


def read_protocol(node: Node, energy: Energy) -> tuple[ProtocolPhase, ...]:
    """The protocol of a lesion: its phases, or the name of a usual one. Raises Refused ``plan_invalid`` naming the key.

    In cryoablation a phase "heat" is a thaw that the probe warms.
    """
    given = node.child("protocol")
    if isinstance(given.value, str):
        if given.value not in PRESETS or energy != "cryoablation":
            raise given.wrong(f"must be a list of phases or, for cryoablation, one of {', '.join(PRESETS)}")
        return PRESETS[given.value].phases
    phases = tuple(_phase(item, energy) for item in given.list(at_least=1))
    total = sum(phase.duration_s for phase in phases)
    if total > LONGEST_PROTOCOL_S:
        raise given.wrong(f"takes {total / 3600:.1f} hours; at most {LONGEST_PROTOCOL_S / 3600:g} are possible")
    return phases


def with_devices(applicators: Sequence[Applicator], energy: Energy, table: ProbeTable) -> tuple[Applicator, ...]:
    """The applicators with what the table knows of their devices."""
    found = []
    for applicator in applicators:
        probe, known = table.find(applicator.model, energy)
        found.append(replace(applicator, probe=probe, model_is_known=known))
    return tuple(found)


def _applicator(node: Node) -> Applicator:
    node.object(
        required=("model", "tip_lps_mm", "entry_lps_mm"), optional=("power_fraction", "start_s", "isotherm_size")
    )
    tip, entry = node.child("tip_lps_mm").point(), node.child("entry_lps_mm").point()
    apart = sum((a - b) ** 2 for a, b in zip(tip, entry, strict=True)) ** 0.5
    if apart < _LEAST_SHAFT_MM:
        raise node.child("entry_lps_mm").wrong("must differ from tip_lps_mm")
    for name, point in (("tip_lps_mm", tip), ("entry_lps_mm", entry)):
        if max(abs(value) for value in point) > _FARTHEST_MM:
            raise node.child(name).wrong("lies farther than 3 m from the scanner's center; points are LPS millimetres")
    return Applicator(
        node.child("model").text(),
        tip,
        entry,
        power_fraction=node.child("power_fraction").number(above=0, most=1) if node.has("power_fraction") else 1.0,
        start_s=node.child("start_s").number(least=0, most=LONGEST_PROTOCOL_S) if node.has("start_s") else 0.0,
        isotherm_size=_isotherm_size(node.child("isotherm_size")) if node.has("isotherm_size") else None,
    )


def _isotherm_size(node: Node) -> IsothermSize:
    node.object(required=("temperature_c", "after_s", "diameter_mm"), optional=("length_mm", "medium_c"))
    celsius = node.child("temperature_c")
    if celsius.number() > 100:
        raise celsius.wrong("must be in °C; this looks like kelvin")
    return IsothermSize(
        temperature_c=celsius.number(least=-100, most=0),
        after_s=node.child("after_s").number(least=30, most=LONGEST_PHASE_S),
        diameter_mm=node.child("diameter_mm").number(least=4, most=80),
        length_mm=node.child("length_mm").number(least=6, most=120) if node.has("length_mm") else None,
        medium_c=node.child("medium_c").number(least=4, most=45) if node.has("medium_c") else 37.0,
    )


def _phase(node: Node, energy: Energy) -> ProtocolPhase:
    node.object(required=("phase", "duration_s"), optional=("power_w", "active"))
    possible = _PHASES[energy]
    phase = node.child("phase").one_of(("freeze", "thaw", "heat"))
    if phase not in possible:
        raise node.child("phase").wrong(f"must be {' or '.join(possible)} in {energy}")
    active = node.has("active") and node.child("active").boolean()
    return ProtocolPhase(
        cast(Literal["freeze", "thaw", "heat"], phase),
        node.child("duration_s").number(above=0, most=LONGEST_PHASE_S),
        node.child("power_w").number(above=0, most=MOST_POWER_W) if node.has("power_w") else None,
        is_active=active,
    )
