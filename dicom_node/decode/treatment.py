"""What was done to a lesion, as plan.json writes it: applicators and protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

from dicom_node.decode.schema import Node
from dicom_node.probe_table import ProbeTable
from pipeline.case import Applicator, Energy, IsothermSize, ProtocolPhase
from pipeline.simulate.schedule import PRESETS

#: Beyond these a slip of unit or decimal point: no published freeze is longer than an hour, no generator stronger.
LONGEST_PHASE_S, LONGEST_PROTOCOL_S, MOST_POWER_W = 7200.0, 21600.0, 500.0
#: A shorter phase does nothing that could be told. Each freeze of a protocol is kept apart to be written, and more than
#: so many phases no console runs.
_SHORTEST_PHASE_S, _MOST_PHASES = 1.0, 60
_LEAST_SHAFT_MM, _FARTHEST_MM = 1.0, 3000.0
#: The ice of the shortest probes is nearly a ball; one much wider than long has its numbers the wrong way round.
_LEAST_LENGTH_SHARE = 0.8
_PHASES: dict[Energy, tuple[str, ...]] = {
    "cryoablation": ("freeze", "thaw", "heat"),
    "radiofrequency": ("heat",),
    "microwave": ("heat",),
}


def read_applicators(node: Node, energy: Energy) -> tuple[Applicator, ...]:
    """The applicators of a lesion, their devices not looked up yet. Raises Refused ``plan_invalid`` naming the key."""
    found = tuple(_applicator(item, energy) for item in node.child("applicators").list(at_least=0))
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
    if isinstance(given.value, str) and given.value in PRESETS and energy == "cryoablation":
        return PRESETS[given.value].phases
    if not isinstance(given.value, list) or not given.value:
        usual = f", or one of {', '.join(PRESETS)}" if energy == "cryoablation" else ""
        raise given.wrong(f"must be a list of one phase or more{usual}")
    items = given.list(at_least=1)
    if len(items) > _MOST_PHASES:
        raise given.wrong(f"has {len(items)} phases; at most {_MOST_PHASES} are possible")
    phases = tuple(_phase(item, energy) for item in items)
    if not any(phase.phase == _PHASES[energy][0] for phase in phases):
        raise given.wrong(f"has no phase {_PHASES[energy][0]}; without one a {energy} makes no zone")
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


def _applicator(node: Node, energy: Energy) -> Applicator:
    node.object(
        required=("model", "tip_lps_mm", "entry_lps_mm"), optional=("power_fraction", "start_s", "isotherm_size")
    )
    tip, entry = node.child("tip_lps_mm").point(), node.child("entry_lps_mm").point()
    for name, point in (("tip_lps_mm", tip), ("entry_lps_mm", entry)):
        if max(abs(value) for value in point) > _FARTHEST_MM:
            raise node.child(name).wrong("lies farther than 3 m from the scanner's center; points are LPS millimetres")
    apart_mm = math.dist(tip, entry)
    if apart_mm < _LEAST_SHAFT_MM:
        text = (
            f"must be at least {_LEAST_SHAFT_MM:g} mm from tip_lps_mm, not {apart_mm:.2g}; points are LPS millimetres"
        )
        raise node.child("entry_lps_mm").wrong(text)
    if node.has("isotherm_size") and energy != "cryoablation":
        raise node.child("isotherm_size").wrong(f"is what a cryoprobe makes in gel; in {energy} leave it out")
    return Applicator(
        node.child("model").line(),
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
    diameter_mm = node.child("diameter_mm").number(least=4, most=80)
    length_mm = node.child("length_mm").number(least=6, most=120) if node.has("length_mm") else None
    if length_mm is not None and length_mm < _LEAST_LENGTH_SHARE * diameter_mm:
        text = f"is less than {_LEAST_LENGTH_SHARE:g} of diameter_mm; the length is meant along the probe"
        raise node.child("length_mm").wrong(text)
    return IsothermSize(
        temperature_c=celsius.number(least=-100, most=0),
        after_s=node.child("after_s").number(least=30, most=LONGEST_PHASE_S),
        diameter_mm=diameter_mm,
        length_mm=length_mm,
        medium_c=node.child("medium_c").number(least=4, most=45) if node.has("medium_c") else 37.0,
    )


def _phase(node: Node, energy: Energy) -> ProtocolPhase:
    node.object(required=("phase", "duration_s"), optional=("power_w", "active"))
    possible = _PHASES[energy]
    phase = node.child("phase").one_of(("freeze", "thaw", "heat"))
    if phase not in possible:
        raise node.child("phase").wrong(f"must be {' or '.join(possible)} in {energy}")
    for name, goes_with in (("power_w", "heat"), ("active", "thaw")):
        if node.has(name) and phase != goes_with:
            raise node.child(name).wrong(f"goes with a phase {goes_with}, not with {phase}; leave it out")
    is_active = node.child("active").boolean() if node.has("active") else phase == "heat" and energy == "cryoablation"
    return ProtocolPhase(
        cast(Literal["freeze", "thaw", "heat"], phase),
        node.child("duration_s").number(least=_SHORTEST_PHASE_S, most=LONGEST_PHASE_S),
        node.child("power_w").number(above=0, most=MOST_POWER_W) if node.has("power_w") else None,
        is_active=is_active,
    )
