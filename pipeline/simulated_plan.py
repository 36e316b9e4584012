"""The plan completed: where it brings no simulated zone, one is simulated from its applicators and protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.assessment import Reason
from pipeline.case import Lesion, Plan
from pipeline.simulate.placement import CannotSimulate, oddities
from pipeline.simulate.zone import SimulatedZone, SimulationSettings, simulate_zone
from pipeline.transform import sample_distance
from pipeline.volume import Mask

#: As good as an expectation needs to be: cells of 1.5 mm take a fifth of the time of 1 mm and move the edge by 0.2 mm.
AS_EXPECTATION = SimulationSettings(spacing_mm=1.5)
#: Applicators that miss a tumor by this much were not meant for it: about the size of what they ablate, and this
#: project's own choice.
FAR_MM = 30.0


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


def of_devices(lesion: Lesion) -> tuple[Reason, ...]:
    """What a reader should know of the devices that a zone was simulated for."""
    unknown = sorted({a.model for a in lesion.applicators if not a.model_is_known})
    generic = sorted(
        {a.model for a in lesion.applicators if a.model_is_known and a.probe and a.probe.is_generic}
        - {a.model for a in lesion.applicators if a.isotherm_size}
    )
    found: tuple[Reason, ...] = ()
    if unknown:
        kinds = " and ".join(sorted({a.probe.model for a in lesion.applicators if not a.model_is_known and a.probe}))
        text = f"The probe table does not know {', '.join(unknown)}: simulated as the {kinds}."
        found += (Reason("applicator_model_unknown", text),)
    if generic:
        text = f"No published size of {', '.join(generic)} is known: simulated with the numbers of its class."
        found += (Reason("applicator_numbers_generic", text),)
    return found


def of_place(lesion: Lesion, zone: SimulatedZone, key: str) -> Reason | None:
    """Why a simulated zone cannot be meant for its lesion, if so. key: of the lesion in the plan."""
    level = zone.counting.level
    if level.mask().is_empty:
        text = f"The simulation of {lesion.lesion_id} reaches {zone.counting.name} nowhere: check {key}.protocol."
        return Reason("simulated_zone_empty", text)
    if float(sample_distance(_cropped(level.mask()), lesion.tumor.points_lps_mm()).max()) < -FAR_MM:
        text = f"The zone simulated for {lesion.lesion_id} lies more than {FAR_MM:.0f} mm from its tumor"
        return Reason("simulated_zone_astray", f"{text}: check {key}.applicators.")
    return None


def of_applicators(lesion: Lesion, key: str) -> tuple[Reason, ...]:
    """Where an applicator's points look like a slip. key: of the lesion in the plan."""
    return tuple(Reason("applicator_doubted", f"plan.json: {key}.{text}") for text in oddities(lesion))


def _with_zone(plan: Plan, lesion: Lesion, key: str, settings: SimulationSettings) -> tuple[Lesion, tuple[Reason, ...]]:
    try:
        zone = simulate_zone(plan, lesion, settings)
    except CannotSimulate as problem:
        text = f"No zone could be simulated for {lesion.lesion_id}: {key}.{problem.key} {problem.text}."
        return lesion, (Reason("zone_not_simulated", text),)
    beside = (*of_applicators(lesion, key), *of_devices(lesion))
    if (wrong := of_place(lesion, zone, key)) is not None:
        return lesion, (Reason("zone_not_simulated", f"{wrong.text} It is not used."), *beside)
    mask = _cropped(zone.counting.mask)
    text = (
        f"The plan brings no simulated zone for {lesion.lesion_id}; it was simulated from applicators and protocol "
        f"({zone.counting.name}, {mask.volume_ml:.1f} ml)."
    )
    return replace(lesion, simulated_zone=mask, zone_is_predicted=True), (Reason("zone_simulated", text), *beside)


def _cropped(mask: Mask) -> Mask:
    """The mask on as much of its grid as distances to it need."""
    return mask.crop(mask.geometry.box_around(mask.points_lps_mm(), pad_mm=20.0))
