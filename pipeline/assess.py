"""The method, on one page: start, deform, find the zone, deform again around it, measure, judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pipeline.assessment import Assessment, LesionAssessment, Reason, Registration, RegistrationQuality
from pipeline.bias_field import evened
from pipeline.both_ways import BothWays, both_ways_from, deform_both_ways
from pipeline.carried import CarriedTumor, carry
from pipeline.case import Case, Lesion, Plan
from pipeline.fine_grids import on_coarser_grids, spread
from pipeline.geometry import Geometry
from pipeline.judge import most_urgent, needs_review
from pipeline.lesion import (
    LesionView,
    assess_lesion,
    is_in_view,
    not_assessable,
    segment,
    view_lesion,
    why_not_in_view,
)
from pipeline.organ import FoundOrgan
from pipeline.organ_mask import organ_of
from pipeline.register import COARSE_LEVELS, FINE_LEVELS
from pipeline.registration_error import registration_errors
from pipeline.rigid import rigid_start
from pipeline.sampling import Box, box_of, extent_of
from pipeline.segment import Zone
from pipeline.simulate.zone import SimulationSettings
from pipeline.simulated_plan import AS_EXPECTATION, completed_plan, zone_astray
from pipeline.transform import Transform, grown, identity
from pipeline.trust import agreement_around, judge_registration, refused_together, worst_of
from pipeline.volume import Mask
from pipeline.where import Where

REGION_MM = 60.0  # how far around the lesions the registration looks
NEAR_MM = 30.0  # how far it looks closely
ORGAN_RIM_MM = 10.0
TUMOR_CUT_MM = 2.0
ZONE_CUT_MM = 3.0
PRIOR_CUT_MM = 5.0

_REFUSED = RegistrationQuality(False, None, None)


def assess(
    case: Case,
    *,
    simulation: SimulationSettings | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    progress: Callable[[str], None] = lambda _stage: None,
) -> Assessment:
    """The answer for one follow-up. Never raises for a study that cannot be assessed: that is an outcome.

    simulation: how a zone is simulated where the plan brings none; clock: seconds, for `timing_s`; progress: told the
    name of each stage as it starts.
    """
    watch = _Watch(clock, progress)
    if (unfit := _unfit(case)) is not None:
        return _refused(case, [unfit] * len(case.plan.lesions), watch)
    completed = completed_plan(case.plan, simulation or AS_EXPECTATION, about_to=lambda: watch.stage("simulate"))
    case = replace(case, plan=completed.plan)
    watch.stage("organ")
    grid = case.followup.volume.geometry
    case = _evened(on_coarser_grids(case))
    organ, plan = organ_of(case.plan)
    case = replace(case, plan=plan)
    watch.stage("register")
    start = rigid_start(case.followup.volume, case.plan.baseline, region=_planned_box(case))
    unseen = [x.lesion_id for x in case.plan.lesions if not is_in_view(case, x, start)]
    if len(unseen) == len(case.plan.lesions):
        return _refused(case, [why_not_in_view(case, x) for x in case.plan.lesions], watch)
    whole, case = case, replace(case, plan=_without(case.plan, unseen))
    where = _where(case, start, organ)
    followup, baseline = case.followup.volume, case.plan.baseline
    ways = deform_both_ways(followup, baseline, both_ways_from(start), where=where, levels=COARSE_LEVELS)
    coarse = ways.joined
    watch.stage("segment")
    found = [segment(case, view) for view in _views(case, coarse, organ)]
    watch.stage("register_near_lesion")
    zones = tuple(z.mask for z in found if isinstance(z, Zone))
    closer = replace(where, cut_fixed=_zone_cut(case, coarse, found), zones=zones)
    ways = deform_both_ways(followup, baseline, ways, where=closer, levels=FINE_LEVELS)
    joined = ways.joined
    each, carried = zip(*(_trusted(case, lesion, ways, closer) for lesion in case.plan.lesions), strict=True)
    qualities = refused_together(each)
    watch.stage("measure")
    seen = {x.lesion_id: x for x in _assess_lesions(case, joined, organ, list(zip(qualities, carried, strict=True)))}
    answers = [seen.get(x.lesion_id) or not_assessable(x, (why_not_in_view(whole, x),)) for x in whole.plan.lesions]
    lesions = tuple(_on_grid(answer, grid) for answer in answers)
    outcome = most_urgent(tuple(x.outcome for x in lesions))
    return Assessment(
        outcome=outcome,
        needs_review=needs_review(outcome, tuple(x.margin for x in lesions)),
        reasons=_study_reasons(case, lesions, organ, completed.told),
        days_since_procedure=case.days_since_procedure,
        registration=Registration(joined, worst_of(qualities)),
        lesions=lesions,
        timing_s=watch.done(),
    )


def _unfit(case: Case) -> Reason | None:
    """Why a case need not be looked at any closer, if so."""
    followup, baseline = case.followup.volume, case.plan.baseline
    if case.followup.phase == "unenhanced":
        text = "The follow-up was scanned without contrast; what enhances cannot be told from what does not."
        return Reason("unenhanced_followup", text)
    if followup.quantity != baseline.quantity:
        text = "Plan and follow-up are of different modalities (CT and MR), which this version does not register."
        return Reason("different_modality", text)
    if case.plan.organ == "lung":
        text = "Ablation zones in the lung are not assessed yet: they are denser than the organ and change otherwise."
        return Reason("organ_not_supported", text)
    for lesion in case.plan.lesions:
        astray = zone_astray(lesion, lesion.simulated_zone, "that the plan names the right regions")
        if astray is not None:
            return astray
    for name, volume in (("follow-up", followup), ("plan's baseline", baseline)):
        if volume.is_blank:
            return Reason("image_blank", f"The {name} has the same value everywhere, or none: its pixels were lost.")
        if not np.isfinite(volume.voxels).all():
            text = f"Some voxels of the {name} have no value; what they would show cannot be told."
            return Reason("image_has_gaps", text)
        if lost := volume.blank_slices:
            text = (
                f"The {name} has slices within it that hold one value only ({lost}): their pixels were lost; send the "
                "series again."
            )
            return Reason("image_has_gaps", text)
    return None


def _evened(case: Case) -> Case:
    """The case with MR images free of shading."""
    followup = replace(case.followup, volume=evened(case.followup.volume))
    return replace(case, followup=followup, plan=replace(case.plan, baseline=evened(case.plan.baseline)))


class _Watch:
    """Times the stages of one run."""

    def __init__(self, clock: Callable[[], float], progress: Callable[[str], None]) -> None:
        self._clock, self._progress = clock, progress
        self._name, self._since = "", clock()
        self._spent: dict[str, float] = {}

    def stage(self, name: str) -> None:
        self.done()
        self._name = name
        self._progress(name)

    def done(self) -> dict[str, float]:
        now = self._clock()
        if self._name:
            self._spent[self._name] = self._spent.get(self._name, 0.0) + now - self._since
        self._name, self._since = "", now
        return dict(self._spent)


def _refused(case: Case, reasons: Sequence[Reason], watch: _Watch) -> Assessment:
    """reasons: one for each lesion."""
    lesions = tuple(not_assessable(x, (reason,)) for x, reason in zip(case.plan.lesions, reasons, strict=True))
    told, days = tuple(dict.fromkeys(reasons)), case.days_since_procedure
    registration = Registration(None, replace(_REFUSED, reasons=told))
    return Assessment("not_assessable", True, told, days, registration, lesions, watch.done())


def _planned_box(case: Case) -> Box:
    """The box around all tumors and planned zones, in the baseline's frame."""
    return box_of(np.concatenate([lesion.points_lps_mm for lesion in case.plan.lesions]))


def _without(plan: Plan, lesion_ids: list[str]) -> Plan:
    return replace(plan, lesions=tuple(x for x in plan.lesions if x.lesion_id not in lesion_ids))


def _where(case: Case, start: Transform, organ: FoundOrgan) -> Where:
    """The cost's region before the zone is known: what was planned, with slack, counts as zone."""
    whole = extent_of(case.followup.volume.geometry)
    boxes = [box_of(start.inverse_points(lesion.points_lps_mm)) for lesion in case.plan.lesions]
    region = Box(np.min([b.low for b in boxes], 0), np.max([b.high for b in boxes], 0)).grown(REGION_MM).meet(whole)
    near = tuple(b.grown(NEAR_MM).meet(whole) for b in boxes)
    baseline_box = box_of(start(region.corners())).grown(20.0)
    base = baseline_box.grid(2.0, case.plan.baseline.geometry.frame_uid)
    tumors = [lesion.tumor for lesion in case.plan.lesions]
    rim = grown([organ.mask], base, identity(base.frame_uid), by_mm=ORGAN_RIM_MM) if organ.mask is not None else None
    zones = [region for lesion in case.plan.lesions for region in lesion.expected_regions]
    with_tumor = [x.required_margin_mm for x in case.plan.lesions if x.tumor in x.expected_regions]
    slack = PRIOR_CUT_MM + max(with_tumor, default=0.0)
    followup_grid = region.grown(15.0).grid(2.0, case.followup.volume.geometry.frame_uid)
    return Where(
        box=region,
        near=near,
        organ_moving=rim,
        cut_moving=grown(tumors, base, identity(base.frame_uid), by_mm=TUMOR_CUT_MM),
        cut_fixed=grown(zones, followup_grid, start, by_mm=slack),
    )


def _zone_cut(case: Case, transform: Transform, found: list[Zone | Reason]) -> Mask:
    """Segmented zones (planned ones where none was found) with their rim, on the follow-up."""
    whole = case.followup.volume.geometry
    grids = [z.mask.geometry for z in found if isinstance(z, Zone)]
    planned = [
        region
        for lesion, z in zip(case.plan.lesions, found, strict=True)
        for region in (() if isinstance(z, Zone) else lesion.expected_regions)
    ]
    boxes = [extent_of(g) for g in grids]
    boxes += [box_of(transform.inverse_points(p.points_lps_mm())).grown(20.0) for p in planned]
    low, high = np.min([b.low for b in boxes], 0), np.max([b.high for b in boxes], 0)
    grid = Box(low, high).grid(1.5, whole.frame_uid)
    out = Mask(np.zeros(grid.shape, bool), grid)
    zones = [z.mask for z in found if isinstance(z, Zone)]
    if zones:
        out = out | grown(zones, grid, identity(grid.frame_uid), by_mm=ZONE_CUT_MM)
    if planned:
        out = out | grown(planned, grid, transform, by_mm=PRIOR_CUT_MM)
    return out | grown([x.tumor for x in case.plan.lesions], grid, transform, by_mm=TUMOR_CUT_MM)


def _views(case: Case, transform: Transform, organ: FoundOrgan) -> list[LesionView]:
    return [view_lesion(case, lesion, transform, organ) for lesion in case.plan.lesions]


def _trusted(case: Case, lesion: Lesion, ways: BothWays, where: Where) -> tuple[RegistrationQuality, CarriedTumor]:
    """The registration's quality around one lesion, and the tumor as it carries it."""
    joined = ways.joined
    planned = box_of(joined.inverse_points(lesion.points_lps_mm))
    followup, baseline = case.followup.volume, case.plan.baseline
    agreement = agreement_around(
        followup, baseline, joined, near=planned.grown(PRIOR_CUT_MM), zone=where.cut_fixed, tumor=where.cut_moving
    )
    errors = registration_errors(followup, baseline, ways, where=where, around=planned)
    carried = carry(lesion, joined, errors.doubted(agreement))
    quality = judge_registration(
        joined,
        points_lps_mm=carried.places_lps_mm,
        around=planned.grown(NEAR_MM).meet(extent_of(followup.geometry)),
        expected_error_mm=carried.expected_error_mm,
        agreement=agreement,
    )
    return quality, carried


def _assess_lesions(
    case: Case, transform: Transform, organ: FoundOrgan, trusted: list[tuple[RegistrationQuality, CarriedTumor]]
) -> list[LesionAssessment]:
    out = []
    for view, (quality, carried) in zip(_views(case, transform, organ), trusted, strict=True):
        if not quality.accepted:
            out.append(not_assessable(view.lesion, quality.reasons))
        else:
            out.append(assess_lesion(case, view, segment(case, view), carried))
    return out


def _on_grid(lesion: LesionAssessment, grid: Geometry) -> LesionAssessment:
    """The answer with its masks on the follow-up's own grid."""
    zone, tumor, uncovered = (m and spread(m, grid) for m in (lesion.zone, lesion.tumor, lesion.uncovered))
    return replace(lesion, zone=zone, tumor=tumor, uncovered=uncovered)


def _study_reasons(
    case: Case, lesions: tuple[LesionAssessment, ...], organ: FoundOrgan, simulated: tuple[Reason, ...]
) -> tuple[Reason, ...]:
    """All lesions' reasons, most urgent lesion first, then what a reader should know about the way."""
    seen: dict[tuple[str, str], Reason] = {}
    urgent = most_urgent(tuple(x.outcome for x in lesions))
    for lesion in sorted(lesions, key=lambda x: x.outcome != urgent):
        for reason in lesion.reasons:
            seen.setdefault((reason.code, reason.text), reason)
    notes = [organ.note] if organ.note is not None else []
    if any(x.simulated_zone is None for x in case.plan.lesions):
        text = "The plan has no simulated zone; the tumor grown by the required margin stands for it."
        notes.append(Reason("no_simulated_zone", text))
    return (*seen.values(), *simulated, *notes)
