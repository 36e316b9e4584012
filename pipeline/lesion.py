"""One lesion on the registered follow-up: its surroundings, its zone, its margin, what changed, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.assessment import (
    Finding,
    LesionAssessment,
    Reason,
    SimulatedZoneComparison,
)
from pipeline.carried import CarriedTumor
from pipeline.case import Case, Lesion
from pipeline.contraction import contraction_mm
from pipeline.coverage import inside
from pipeline.enhancement import LIVER_SURELY_ENHANCED_HU, LIVER_UNENHANCED_HU
from pipeline.geometry import Geometry
from pipeline.history import earlier_of, earlier_outcomes, may_have_shrunk_to
from pipeline.judge import earlier_clean, judge_lesion
from pipeline.margin import measure_margin
from pipeline.measurement import measure_lesion
from pipeline.organ import FoundOrgan
from pipeline.progression import Scene, find_growth, find_nodules, find_uncovered
from pipeline.segment import Surroundings, Zone, segment_zone
from pipeline.simulated_plan import planned_depth_mm
from pipeline.surface import Surface, level_of_mask
from pipeline.transform import Transform, identity, resample_distance, sample, sample_distance
from pipeline.volume import Mask, Volume
from pipeline.zone_prior import prior_distance_mm, prior_scale

Array = NDArray[np.float32]

ROI_MM = 30.0
#: Zones still grow in the first days after heating (microwave: median volume +57 % from the end of the procedure to
#: 24 h later, a CT series of 26 ablations), so growth counts only against a later zone. The three weeks are this
#: project's own choice.
GROWTH_COUNTS_AFTER_DAYS = 21


_UNPROVEN = Reason(
    "contrast_phase_missing",
    "Neither the image nor its tags prove that contrast was given; a contrast-enhanced scan is needed.",
)


_LOOKS_ALIKE = Reason(
    "tumor_not_distinguishable",
    "By its brightness before the procedure, viable tumor would look like the ablation zone on this scan, so tumor "
    "left at the zone's edge could not be seen; another contrast phase or MR is needed.",
)


_OUT_OF_VIEW = Reason(
    "lesion_outside_followup",
    "The follow-up does not show the whole lesion, or the study belongs to another patient or region; a scan that "
    "shows the lesion with its surroundings is needed.",
)
_TUMOR_CUT = Reason(
    "tumor_cut_by_baseline",
    "The tumor reaches the border of the baseline scan, so part of it may never have been seen; a plan on a scan that "
    "shows all of it is needed.",
)
_SIMULATED_CUT = Reason(
    "simulated_zone_cut_by_baseline",
    "The simulated zone reaches the border of the baseline scan or lies outside the follow-up, so it is not compared "
    "with the zone found.",
)
_SIMULATED_MISSES = Reason(
    "simulated_zone_misses_tumor",
    "The simulated zone covers no part of its tumor: check that the plan names the right regions and applicators.",
)
_UNTREATED = Reason(
    "zone_looks_like_tumor",
    "What is darker than the organ has the tumor's own place, size and brightness: the scan may be from before the "
    "ablation, or the tumor untreated.",
)
#: Zones that were meant to cover a tumor reach beyond it on all sides; 3 mm around one of 25 mm gives a Dice of 0.75.
UNTREATED_DICE = 0.8
#: What two masks of voxels may say without meaning it.
_SURELY_OUT_MM = 1.0
#: A ball of 3.4 mm: below what is seen, biopsied or ablated, so a slip of the drawing tool.
LEAST_TUMOR_ML = 0.02


@dataclass(frozen=True, eq=False)
class LesionView:
    """The follow-up cropped around one lesion, with everything planned mapped onto it (mm, positive inside)."""

    lesion: Lesion
    image: Volume
    around: Surroundings
    baseline_points: NDArray[np.float64]
    """(k, j, i, 3): where each voxel of `image` lies in the baseline, LPS mm."""

    @cached_property
    def planned_depth_mm(self) -> float | None:
        """How deep in the simulated zone any part of the tumor lies (see `planned_depth_mm`); None without one."""
        zone = self.lesion.simulated_zone
        return None if zone is None else planned_depth_mm(self.lesion.tumor, zone)


def view_lesion(case: Case, lesion: Lesion, baseline_from_followup: Transform, organ: FoundOrgan) -> LesionView:
    """Crops and maps. Raises ValueError when the lesion lies outside the follow-up: see `is_in_view`."""
    points = baseline_from_followup.inverse_points(_some(lesion.points_lps_mm))
    pad = ROI_MM + (lesion.required_margin_mm if lesion.tumor in lesion.expected_regions else 0.0)
    pad = max(pad, 2 * float(case.followup.volume.geometry.spacing_mm.max()))  # three slices, however thick
    box = case.followup.volume.geometry.box_around(points, pad_mm=pad)
    if min(s.stop - s.start for s in box) < 3:
        raise ValueError("the lesion lies outside the follow-up")
    image = case.followup.volume.crop(box)
    mapped = baseline_from_followup(image.geometry.grid_lps())
    tumor_mm = sample_distance(lesion.tumor, mapped)
    scale = prior_scale(case.days_since_procedure, case.plan.energy)
    prior_mm = prior_distance_mm(lesion, mapped, tumor_mm, scale=scale)
    organ_mm = sample_distance(organ.mask, mapped) if organ.mask else None
    ratio = _tumor_to_organ(case.plan.baseline, lesion)
    return LesionView(lesion, image, Surroundings(prior_mm, tumor_mm, organ_mm, ratio), mapped)


def is_in_view(case: Case, lesion: Lesion, baseline_from_followup: Transform) -> bool:
    """Whether at least nine tenths of the tumor lie inside the follow-up scan."""
    points = baseline_from_followup.inverse_points(_some(lesion.tumor.points_lps_mm()))
    return float(case.followup.volume.geometry.contains(points).mean()) >= 0.9


def why_not_in_view(case: Case, lesion: Lesion) -> Reason:
    """Why a lesion that is not in view (`is_in_view`) cannot be assessed; it may be the plan's fault."""
    return _TUMOR_CUT if _cut_by_border(lesion.tumor, case.plan.baseline.geometry) else _OUT_OF_VIEW


def segment(case: Case, view: LesionView) -> Zone | Reason:
    """The zone, or why there is none; in the liver on CT an unknown contrast phase is settled by its own brightness."""
    phase = case.followup.phase
    on_scale = view.image.quantity == "ct_hu" and case.plan.organ == "liver"
    if phase == "unknown" and not on_scale:
        return _UNPROVEN
    found = segment_zone(view.image, view.around, zone_is_darker=case.plan.organ != "lung")
    if isinstance(found, Reason) and view.lesion.zone_is_predicted:
        around = _without_prediction(case, view)
        found = segment_zone(view.image, around, zone_is_darker=case.plan.organ != "lung")
    if isinstance(found, Zone) and on_scale and phase in ("unknown", "enhanced"):
        # What bears out tags need not prove contrast by itself.
        least_hu = LIVER_UNENHANCED_HU if phase == "enhanced" else LIVER_SURELY_ENHANCED_HU
        return found if found.intensities.organ >= least_hu else _UNPROVEN
    return found


def _without_prediction(case: Case, view: LesionView) -> Surroundings:
    """What is expected around the tumor alone: a prediction must not hide what is found without it."""
    alone = replace(view.lesion, simulated_zone=None, zone_is_predicted=False)
    scale = prior_scale(case.days_since_procedure, case.plan.energy)
    prior_mm = prior_distance_mm(alone, view.baseline_points, view.around.tumor_mm, scale=scale)
    return replace(view.around, prior_mm=prior_mm)


def assess_lesion(case: Case, view: LesionView, found: Zone | Reason, carried: CarriedTumor) -> LesionAssessment:
    """The lesion's answer on the follow-up's own grid."""
    answer = _answer(case, view, found, carried)
    if view.planned_depth_mm is None or view.planned_depth_mm >= 0:
        return answer
    return replace(answer, reasons=(*answer.reasons, _SIMULATED_MISSES))


def _answer(case: Case, view: LesionView, found: Zone | Reason, carried: CarriedTumor) -> LesionAssessment:
    lesion, full = view.lesion, case.followup.volume.geometry
    tumor = _tumor_voxels(view)
    if lesion.tumor.volume_ml < LEAST_TUMOR_ML:
        text = (
            f"The plan's tumor region holds only {lesion.tumor.volume_ml:.3f} ml, less than a ball of 3.4 mm: check "
            "that the tumor is drawn as it should be."
        )
        return not_assessable(lesion, (Reason("tumor_region_too_small", text),), tumor=tumor.embedded_in(full))
    if _cut_by_border(lesion.tumor, case.plan.baseline.geometry):
        return not_assessable(lesion, (_TUMOR_CUT,), tumor=tumor.embedded_in(full))
    if isinstance(found, Reason):
        return not_assessable(lesion, (found,), tumor=tumor.embedded_in(full))
    clean = earlier_clean(earlier_outcomes(case, lesion)) is not None
    if _looks_untreated(found, tumor) and not (clean and may_have_shrunk_to(found.mask.volume_ml, case, lesion)):
        return not_assessable(lesion, (_UNTREATED,), tumor=tumor.embedded_in(full), zone=found.mask.embedded_in(full))
    if _cut_by_border(found.mask, full):
        text = "The ablation zone reaches the border of the follow-up scan; a scan that shows all of it is needed."
        reason = Reason("zone_cut_by_field_of_view", text)
        return not_assessable(lesion, (reason,), tumor=tumor.embedded_in(full), zone=found.mask.embedded_in(full))
    measured = measure_lesion(case, lesion, found, carried)
    findings, compared = _findings(case, view, found), _compared(case, view, found, measured.tumor)
    verdict = judge_lesion(
        measured.margin,
        findings,
        required_margin_mm=lesion.required_margin_mm,
        earlier=earlier_outcomes(case, lesion),
        days=case.days_since_procedure,
    )
    outcome, reasons = verdict.outcome, verdict.reasons
    unproven = not clean and not found.intensities.tumor_is_distinguishable
    if unproven and outcome in ("complete", "narrow_margin"):
        reasons, outcome = (_LOOKS_ALIKE, *verdict.reasons), "not_assessable"
    return LesionAssessment(
        lesion_id=lesion.lesion_id,
        outcome=outcome,
        required_margin_mm=lesion.required_margin_mm,
        reasons=(*reasons, *measured.remarks, *_remarks(view, found, compared)),
        margin=measured.margin,
        simulated_zone=compared,
        findings=findings,
        zone=found.mask.embedded_in(full),
        tumor=tumor.embedded_in(full),
        uncovered=(tumor - found.mask).embedded_in(full),
        registration_error=measured.registration_error,
        tissue_contraction_mm=contraction_mm(carried.baseline_from_followup, found.mask),
    )


def _looks_untreated(zone: Zone, tumor: Mask) -> bool:
    """Whether what was found has the tumor's place, size and brightness: a scan from before the ablation would too."""
    if zone.intensities.tumor_is_distinguishable or tumor.is_empty:
        return False
    return 2 * (zone.mask & tumor).volume_ml / (zone.mask.volume_ml + tumor.volume_ml) > UNTREATED_DICE


def _remarks(view: LesionView, zone: Zone, compared: SimulatedZoneComparison | None) -> tuple[Reason, ...]:
    """What a reader should know beside the verdict of zone and plan."""
    out: tuple[Reason, ...] = ()
    if zone.bright_core_ml > 0:
        core = f"{zone.bright_core_ml:.1f} ml deep inside the zone are brighter than its rest"
        out += (Reason("bright_core_in_zone", f"{core} and taken for coagulated core."),)
    if view.planned_depth_mm is None:
        return out
    if compared is None:
        return (*out, _SIMULATED_CUT)
    if compared.minimal_margin_mm < -_SURELY_OUT_MM and view.planned_depth_mm >= 0:
        text = f"The simulated zone leaves part of the tumor out ({-compared.minimal_margin_mm:.1f} mm at the farthest)"
        out += (Reason("simulated_zone_leaves_tumor", f"{text}; the verdict rests on the zone found."),)
    return out


def not_assessable(
    lesion: Lesion, reasons: tuple[Reason, ...], *, tumor: Mask | None = None, zone: Mask | None = None
) -> LesionAssessment:
    """The honest answer when nothing may be claimed."""
    return LesionAssessment(
        lesion.lesion_id, "not_assessable", lesion.required_margin_mm, reasons, tumor=tumor, zone=zone
    )


def _tumor_voxels(view: LesionView) -> Mask:
    """The tumor on the follow-up's grid; one that slips between voxel centers keeps the voxel nearest to it."""
    return Mask(inside(view.around.tumor_mm), view.image.geometry)


def _findings(case: Case, view: LesionView, zone: Zone) -> tuple[Finding, ...]:
    image, around, model = view.image, view.around, zone.intensities
    outcomes = earlier_outcomes(case, view.lesion)
    clean = earlier_clean(outcomes) is not None or "local_progression" in outcomes
    scene = Scene(
        image=image,
        baseline=sample(case.plan.baseline, view.baseline_points),
        zone_mm=zone.distance_mm,
        tumor_mm=around.tumor_mm,
        organ_mm=around.organ_mm,
        zone=model.zone,
        organ=model.organ,
        baseline_organ=_ring_median(case.plan.baseline, view.lesion.tumor),
    )
    findings = find_nodules(scene, kind="new_enhancement" if clean else "residual_tumor")
    if not clean:
        tumor_enhances = abs(model.tumor - model.zone) > 2 * model.noise
        findings += find_uncovered(around.tumor_mm, zone.distance_mm, image.geometry, enhancing=tumor_enhances)
    for followup, found in earlier_of(case, view.lesion):
        # A zone that was not assessable may have been cut off by its scan.
        if found.zone is None or found.zone.is_empty or found.outcome == "not_assessable":
            continue
        if followup.baseline_from_followup and followup.days_since_procedure > GROWTH_COUNTS_AFTER_DAYS:
            points = followup.baseline_from_followup.inverse_points(view.baseline_points)
            earlier_mm = sample_distance(found.zone, points)
            findings += find_growth(zone.distance_mm, earlier_mm, image.geometry)
    return tuple(findings)


def _compared(case: Case, view: LesionView, zone: Zone, tumor: Surface) -> SimulatedZoneComparison | None:
    """The planned zone where it lies on the follow-up, against the segmented one; no shrinkage applied. None without a
    planned zone, and for one that the baseline cuts off or the follow-up does not show."""
    simulated = view.lesion.simulated_zone
    if simulated is None or _cut_by_border(simulated, case.plan.baseline.geometry):
        return None
    grid = zone.mask.geometry
    planned_mm = sample_distance(simulated, view.baseline_points)
    planned = Mask(inside(planned_mm), grid)
    if planned.is_empty:
        return None
    total = planned.volume_ml + zone.mask.volume_ml
    dice = 2 * (planned & zone.mask).volume_ml / total
    margin = measure_margin(tumor, level_of_mask(planned))
    predicted = view.lesion.zone_is_predicted
    return SimulatedZoneComparison(planned.volume_ml, dice, margin.minimal_margin_mm, predicted)


def _some(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """About 5000 of the points, or up to twice as many, evenly spread."""
    return points[:: max(1, len(points) // 5000)]


def _cut_by_border(region: Mask, scan: Geometry) -> bool:
    """Whether a region, on any grid, reaches the outermost voxels of a scan."""
    index = np.round(scan.index_of(region.points_lps_mm())).astype(int)
    return bool((index <= 0).any() or (index >= np.array(scan.shape) - 1).any())


def _ring_median(baseline: Volume, tumor: Mask) -> float:
    """Median intensity 4 to 12 mm around the tumor."""
    part = baseline.crop(baseline.geometry.box_around(tumor.points_lps_mm(), pad_mm=14.0))
    distance = resample_distance(tumor, part.geometry, identity(part.geometry.frame_uid))
    ring = (distance < -4.0) & (distance > -12.0)
    return float(np.median(part.voxels[ring])) if ring.any() else float(np.median(part.voxels))


def _tumor_to_organ(baseline: Volume, lesion: Lesion) -> float:
    part = baseline.crop(baseline.geometry.box_around(lesion.tumor.points_lps_mm(), pad_mm=4.0))
    distance = resample_distance(lesion.tumor, part.geometry, identity(part.geometry.frame_uid))
    inside = distance > min(1.0, float(distance.max()) / 2)
    organ = _ring_median(baseline, lesion.tumor)
    if not inside.any() or abs(organ) < 1e-3:
        return 1.0
    return float(np.median(part.voxels[inside])) / organ
