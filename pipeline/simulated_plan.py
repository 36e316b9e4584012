"""The plan completed: where it brings no simulated zone, one is simulated from its applicators and protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.assessment import Reason
from pipeline.case import Lesion, Plan
from pipeline.fine_grids import thinned
from pipeline.simulate.placement import CannotSimulate, fine_enough_mm, oddities
from pipeline.simulate.zone import SimulatedZone, SimulationSettings, simulate_zone
from pipeline.transform import sample_distance
from pipeline.volume import Mask

#: As good as an expectation needs to be: cells of 1.5 mm take a fifth of the time of 1 mm and move the edge by 0.2 mm.
#: For a thin shaft they are made finer.
AS_EXPECTATION = SimulationSettings(spacing_mm=1.5)
#: Applicators that miss a tumor by this much were not meant for it: about the size of what they ablate, and this
#: project's own choice.
FAR_MM = 30.0
_SOME_POINTS = 5000


@dataclass(frozen=True, eq=False)
class CompletedPlan:
    """The plan, and what to tell of the zones that were simulated or could not be."""

    plan: Plan
    told: tuple[Reason, ...]


def wants_simulation(lesion: Lesion) -> bool:
    """Whether a lesion brings what a zone can be simulated from, and no zone."""
    return lesion.simulated_zone is None and bool(lesion.applicators)


def completed_plan(
    plan: Plan, settings: SimulationSettings, *, about_to: Callable[[], None] = lambda: None
) -> CompletedPlan:
    """The plan with every zone that can be simulated. about_to: called before the first is.

    A zone that cannot be simulated is no reason to refuse a follow-up: it is then looked for around the tumor.
    """
    lesions: list[Lesion] = []
    told: tuple[Reason, ...] = ()
    for number, lesion in enumerate(plan.lesions):
        if wants_simulation(lesion):
            if not told:
                about_to()
            lesion, new = _with_zone(plan, lesion, f"lesions[{number}]", settings)
            told = (*told, *new)
        lesions.append(lesion)
    return CompletedPlan(replace(plan, lesions=tuple(lesions)) if told else plan, told)


def of_devices(lesion: Lesion, key: str) -> tuple[Reason, ...]:
    """What a reader should know of the devices that a zone was simulated for. key: of the lesion in the plan."""
    unknown: dict[str, int] = {}
    for number, applicator in enumerate(lesion.applicators):
        if not applicator.model_is_known:
            unknown.setdefault(applicator.model, number)
    generic = sorted(
        {a.model for a in lesion.applicators if a.model_is_known and a.probe and a.probe.is_generic}
        - {a.model for a in lesion.applicators if a.isotherm_size}
    )
    found: tuple[Reason, ...] = ()
    if unknown:
        kinds = " and ".join(sorted({a.probe.model for a in lesion.applicators if not a.model_is_known and a.probe}))
        named = ", ".join(f"{key}.applicators[{number}].model {model}" for model, number in unknown.items())
        text = f"plan.json: {named} {'is' if len(unknown) == 1 else 'are'} not in the probe table"
        found += (Reason("applicator_model_unknown", f"{text}: simulated as the {kinds}."),)
    if generic:
        text = f"No published size of {', '.join(generic)} is known: simulated with the numbers of its class."
        found += (Reason("applicator_numbers_generic", text),)
    return found


def of_place(lesion: Lesion, zone: SimulatedZone, key: str) -> Reason | None:
    """Why a simulated zone cannot be meant for its lesion, if so. key: of the lesion in the plan."""
    mask = zone.counting.mask
    if mask.is_empty:
        text = f"The simulation of {lesion.lesion_id} reaches {zone.counting.name} nowhere: check {key}.protocol."
        return Reason("simulated_zone_empty", text)
    return zone_astray(lesion, mask, f"{key}.applicators")


def zone_astray(lesion: Lesion, zone: Mask | None, what: str) -> Reason | None:
    """Why a simulated zone cannot be meant for its lesion's tumor, if there is one and so. what: to check then."""
    if zone is None or planned_depth_mm(lesion.tumor, zone) >= -FAR_MM:
        return None
    text = f"The simulated zone of {lesion.lesion_id} lies more than {FAR_MM:.0f} mm from its tumor: check {what}."
    return Reason("simulated_zone_astray", text)


def planned_depth_mm(tumor: Mask, zone: Mask) -> float:
    """How deep in the zone any part of the tumor lies; negative: how far all of it lies outside."""
    points = tumor.points_lps_mm()
    some = points[:: max(1, len(points) // _SOME_POINTS)]
    return float(sample_distance(thinned(zone), some).max())


def of_applicators(lesion: Lesion, zone: SimulatedZone, key: str) -> tuple[Reason, ...]:
    """Where an applicator's points look like a slip. key: of the lesion in the plan."""
    found = oddities(lesion.tumor, zone.applicators)
    return tuple(Reason("applicator_doubted", f"plan.json: {key}.{text}") for text in found)


def _with_zone(plan: Plan, lesion: Lesion, key: str, settings: SimulationSettings) -> tuple[Lesion, tuple[Reason, ...]]:
    settings = replace(settings, spacing_mm=fine_enough_mm(lesion.applicators, settings.spacing_mm))
    try:
        zone = simulate_zone(plan, lesion, settings)
    except CannotSimulate as problem:
        text = f"No zone could be simulated for {lesion.lesion_id}: {key}.{problem.key} {problem.text}."
        return lesion, (Reason("zone_not_simulated", text),)
    beside = (*of_applicators(lesion, zone, key), *of_devices(lesion, key))
    if (wrong := of_place(lesion, zone, key)) is not None:
        return lesion, (Reason("zone_not_simulated", f"{wrong.text} It is not used."), *beside)
    mask = zone.counting.mask
    # As much of its grid as distances to it need.
    mask = mask.crop(mask.geometry.box_around(mask.points_lps_mm(), pad_mm=20.0))
    text = (
        f"The plan brings no simulated zone for {lesion.lesion_id}; it was simulated from applicators and protocol "
        f"({zone.counting.name}, {mask.volume_ml:.1f} ml)."
    )
    return replace(lesion, simulated_zone=mask, zone_is_predicted=True), (Reason("zone_simulated", text), *beside)
