"""One lesion's simulation as it is told: its zone, what that means for the tumor, and how far both may be off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from dicom_node.refusal import Refused
from pipeline.assessment import Reason
from pipeline.case import Lesion, Plan
from pipeline.simulate.placement import CannotSimulate, check_lesion
from pipeline.simulate.planned import PlannedMargin, Spread, planned_margins, spread_of
from pipeline.simulate.zone import Scene, SimulatedZone, SimulationSettings, scene_of, simulate
from pipeline.simulated_plan import of_applicators, of_devices, of_place
from pipeline.surface import surface_of_mask
from pipeline.transform import sample_distance
from pipeline.volume import Mask


@dataclass(frozen=True)
class Overlap:
    """The zone that the plan brings itself: its volume, and how far it is one with the simulated zone (Dice)."""

    volume_ml: float
    dice: float


@dataclass(frozen=True, eq=False)
class SimulatedLesion:
    """A lesion with its simulated zone. margins: one for each edge of the zone; spread: None where it was not asked
    for; overlap: None where the plan brings no zone."""

    lesion: Lesion
    zone: SimulatedZone
    margins: tuple[PlannedMargin, ...]
    spread: Spread | None
    overlap: Overlap | None
    reasons: tuple[Reason, ...]


def simulated_lesions(
    plan: Plan,
    settings: SimulationSettings,
    *,
    with_spread: bool,
    progress: Callable[[str], None] = lambda _stage: None,
) -> tuple[tuple[SimulatedLesion, ...], tuple[Reason, ...]]:
    """Every lesion of the plan that has applicators, and what to tell of the others.

    Raises Refused ``cannot_simulate``, naming the key, where no lesion has any, and where one cannot be simulated.
    """
    with_applicators = [(n, lesion) for n, lesion in enumerate(plan.lesions) if lesion.applicators]
    for number, lesion in with_applicators or list(enumerate(plan.lesions)):
        with _naming(number):
            check_lesion(lesion)
    progress("lay out")
    scenes: list[tuple[int, Scene]] = []  # all before the first is simulated: what is wrong is told at once
    for number, lesion in with_applicators:
        with _naming(number):
            scenes.append((number, scene_of(plan, lesion, settings)))
    found = [
        _simulated(plan, number, scene, settings, with_spread=with_spread, progress=progress)
        for number, scene in scenes
    ]
    left_out = tuple(
        Reason(
            "zone_not_simulated",
            f"No zone could be simulated for {lesion.lesion_id}: lesions[{number}].applicators names no applicator.",
        )
        for number, lesion in enumerate(plan.lesions)
        if not lesion.applicators
    )
    return tuple(found), left_out


@contextmanager
def _naming(number: int) -> Iterator[None]:
    """Turns CannotSimulate in the block into a refusal that names the key."""
    try:
        yield
    except CannotSimulate as problem:
        text = f"plan.json: lesions[{number}].{problem.key} {problem.text}."
        raise Refused("cannot_simulate", text) from problem


def _simulated(
    plan: Plan,
    number: int,
    scene: Scene,
    settings: SimulationSettings,
    *,
    with_spread: bool,
    progress: Callable[[str], None],
) -> SimulatedLesion:
    lesion = scene.lesion
    progress(f"simulate {lesion.lesion_id}")
    surface = surface_of_mask(lesion.tumor)
    with _naming(number):
        zone = simulate(scene, settings)
        spread = None
        if with_spread:
            spread = spread_of(
                plan,
                lesion,
                settings,
                zone,
                surface,
                told=lambda done, runs: progress(f"simulate {lesion.lesion_id} otherwise, {done} of {runs}"),
            )
    margins = planned_margins(zone, lesion.tumor, surface)
    return SimulatedLesion(
        lesion=lesion,
        zone=zone,
        margins=margins,
        spread=spread,
        overlap=None if lesion.simulated_zone is None else _overlap(lesion.simulated_zone, zone.counting.mask),
        reasons=_reasons(lesion, zone, margins[0], f"lesions[{number}]"),
    )


def _reasons(lesion: Lesion, zone: SimulatedZone, margin: PlannedMargin, key: str) -> tuple[Reason, ...]:
    """What to know of a lesion's simulation, the most important first. margin: of the edge that counts."""
    wrong = of_place(lesion, zone, key)
    of_zone = (wrong,) if wrong is not None else _of_margin(lesion, margin)
    return (*of_zone, *of_applicators(lesion, zone, key), *of_devices(lesion, key))


def _of_margin(lesion: Lesion, margin: PlannedMargin) -> tuple[Reason, ...]:
    """That the zone does not do what the plan requires, if so."""
    least_mm, required_mm = margin.minimal_margin_mm, lesion.required_margin_mm
    if least_mm is None or least_mm >= required_mm:
        return ()
    name = f"The zone simulated for {lesion.lesion_id}"
    if margin.covered_fraction == 0:
        return (Reason("simulated_zone_misses_tumor", f"{name} covers no part of its tumor."),)
    if least_mm < 0:
        text = f"{name} leaves part of the tumor out: {-least_mm:.1f} mm of it stick out at the farthest."
        return (Reason("simulated_zone_leaves_tumor", text),)
    text = f"{name} covers the tumor with {least_mm:.1f} mm to spare at the least; {required_mm:.1f} mm are required."
    return (Reason("simulated_margin_below_required", text),)


def _overlap(planned: Mask, simulated: Mask) -> Overlap:
    """On the simulation's grid, which holds all of the simulated zone."""
    if simulated.is_empty:
        return Overlap(planned.volume_ml, 0.0)
    points = simulated.points_lps_mm()
    both = float(np.count_nonzero(sample_distance(planned, points) > 0)) * simulated.geometry.voxel_volume_mm3 / 1000
    return Overlap(planned.volume_ml, 2 * both / (planned.volume_ml + simulated.volume_ml))
