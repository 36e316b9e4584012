"""The whole method on small phantoms: every outcome of the contract's table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from pipeline.assess import assess
from pipeline.assessment import Assessment, LesionAssessment, Reason, Registration
from pipeline.case import Case, ContrastPhase, EarlierFollowUp, EarlierLesion, Organ, Plan
from pipeline.geometry import Geometry
from pipeline.lesion import LesionView, segment, view_lesion
from pipeline.organ import FoundOrgan
from pipeline.phantom import Phantom, make_phantom
from pipeline.phantom_stories import story
from pipeline.segment import Surroundings, Zone
from pipeline.transform import Transform
from pipeline.volume import Mask, Volume, signed_distance_mm


def run(phantom: Phantom, number: int = 0, previous: tuple[EarlierFollowUp, ...] = ()) -> Assessment:
    return assess(Case(phantom.plan, phantom.followups[number].followup, previous))


def true_view(phantom: Phantom) -> tuple[Case, LesionView]:
    """The lesion on the follow-up where it truly lies."""
    made = phantom.followups[0]
    box = made.followup.volume.geometry.box_around(made.truth.zone.points_lps_mm(), pad_mm=30.0)
    image = made.followup.volume.crop(box)
    zone_mm, tumor_mm = (signed_distance_mm(mask)[box] for mask in (made.truth.zone, made.truth.tumor))
    around = Surroundings(zone_mm, tumor_mm, None, 0.8)
    case = Case(phantom.plan, made.followup)
    return case, LesionView(phantom.plan.lesions[0], image, around, image.geometry.grid_lps())


def earlier(assessment: Assessment) -> EarlierFollowUp:
    return EarlierFollowUp(
        assessment.days_since_procedure,
        tuple(EarlierLesion(x.lesion_id, x.outcome, x.zone, x.required_margin_mm) for x in assessment.lesions),
        assessment.registration.baseline_from_followup,
    )


@pytest.mark.slow
def test_uncovered_tumor_is_measured(incomplete_phantom: Phantom, incomplete_assessment: Assessment) -> None:
    fits(incomplete_assessment, incomplete_phantom)


@dataclass(frozen=True)
class Watched:
    """An assessment and the stages it told of."""

    found: Assessment
    told: list[str]


def watched(case: Case) -> Watched:
    told: list[str] = []
    ticks = iter(range(1000))
    return Watched(assess(case, clock=lambda: float(next(ticks)), progress=told.append), told)


@pytest.fixture(scope="module")
def clean(clean_told: tuple[Assessment, list[str]]) -> Watched:
    return Watched(*clean_told)


@pytest.mark.slow
def test_a_covered_tumor_is_complete(progression_phantom: Phantom, clean: Watched) -> None:
    assert progression_phantom.followups[0].truth.expected == "complete"
    fits(clean.found, progression_phantom)
    all_is_told(clean)


@pytest.mark.slow
def test_a_narrow_margin_is_measured() -> None:
    phantom = make_phantom(story("narrow"))
    narrow = watched(phantom.case())
    assert narrow.found.outcome == "narrow_margin"
    fits(narrow.found, phantom)
    all_is_told(narrow)


def all_is_told(watched: Watched) -> None:
    """Progress and times."""
    assert watched.told == ["organ", "register", "segment", "register_near_lesion", "measure"]
    assert set(watched.found.timing_s) == set(watched.told)
    assert all(v > 0 for v in watched.found.timing_s.values())


def fits(found: Assessment, phantom: Phantom) -> None:
    """Outcome, margin and zone against the truth."""
    truth = phantom.followups[0].truth
    assert found.outcome == truth.expected
    lesion = found.lesions[0]
    assert lesion.margin is not None
    # Voxels of 2 to 3 mm: a millimetre and a half is what they allow.
    assert abs(lesion.margin.minimal_margin_mm - truth.minimal_margin_mm) < 1.5
    assert lesion.margin.covered_fraction == pytest.approx(truth.covered_fraction, abs=0.05)
    assert lesion.zone is not None
    both = (lesion.zone.voxels & truth.zone.voxels).sum()
    assert 2 * both / (lesion.zone.voxels.sum() + truth.zone.voxels.sum()) > 0.93
    assert lesion.zone.geometry.same_grid(phantom.followups[0].followup.volume.geometry)
    assert found.needs_review == (found.outcome != "complete")
    assert found.registration.quality.accepted


@pytest.mark.slow
def test_progression_only_after_a_clean_followup(
    progression_phantom: Phantom, clean: Watched, assessed_again: Callable[[Case, Registration], LesionAssessment]
) -> None:
    assert clean.found.outcome == "complete"
    with_history = run(progression_phantom, 1, (earlier(clean.found),))
    assert with_history.outcome == "local_progression"
    kinds = {f.kind for x in with_history.lesions for f in x.findings}
    assert "new_enhancement" in kinds
    without = assessed_again(progression_phantom.case(1), with_history.registration)
    assert without.outcome == "incomplete_coverage"


@pytest.mark.slow
def test_a_shrunken_zone_keeps_the_earlier_outcome(progression_phantom: Phantom, clean: Watched) -> None:
    spec = story("shrinking")
    assert spec.followups[0] == progression_phantom.spec.followups[0]
    phantom = make_phantom(replace(spec, name=progression_phantom.spec.name))  # the same frames of reference
    second = run(phantom, 1, (earlier(clean.found),))
    assert (clean.found.outcome, second.outcome) == ("complete", "complete")
    assert second.lesions[0].reasons[0].code == "unchanged_since_clean_followup"


def test_unenhanced_is_not_assessable(incomplete_phantom: Phantom) -> None:
    case = Case(incomplete_phantom.plan, replace(incomplete_phantom.followups[0].followup, phase="unenhanced"))
    found = assess(case)
    assert found.outcome == "not_assessable"
    assert [r.code for r in found.reasons] == ["unenhanced_followup"]
    assert found.needs_review
    assert found.lesions[0].margin is None


@pytest.mark.parametrize(
    ("phase", "organ_hu", "assessed"),
    [("enhanced", 82.0, True), ("unknown", 82.0, False), ("enhanced", 60.0, False), ("unknown", 110.0, True)],
)
def test_a_liver_bears_out_tags_and_proves_contrast_alone_only_where_very_bright(
    incomplete_phantom: Phantom, phase: ContrastPhase, organ_hu: float, assessed: bool
) -> None:
    """82 HU may be iron or amiodarone."""
    case, view = true_view(incomplete_phantom)
    unshifted = segment(case, view)
    assert isinstance(unshifted, Zone)
    shift = np.float32(organ_hu - unshifted.intensities.organ)
    image = Volume(view.image.voxels + shift, view.image.geometry, "ct_hu")
    followup = replace(case.followup, phase=phase)
    found = segment(replace(case, followup=followup), replace(view, image=image))
    assert isinstance(found, Zone) if assessed else isinstance(found, Reason)
    assert isinstance(found, Zone) or found.code == "contrast_phase_missing"


@pytest.mark.parametrize(("phase", "assessed"), [("enhanced", True), ("unknown", False)])
@pytest.mark.parametrize("organ", ["liver", "soft_tissue"])
def test_an_mr_without_evidence_of_contrast_is_not_assessable(
    incomplete_phantom: Phantom, organ: Organ, phase: ContrastPhase, assessed: bool
) -> None:
    """Its signal has no scale that would prove contrast, however bright the organ is."""
    case, view = true_view(incomplete_phantom)
    image = Volume(view.image.voxels + np.float32(500), view.image.geometry, "mr_signal")
    plan, followup = replace(case.plan, organ=organ), replace(case.followup, phase=phase)
    found = segment(replace(case, plan=plan, followup=followup), replace(view, image=image))
    assert isinstance(found, Zone) if assessed else isinstance(found, Reason)
    assert isinstance(found, Zone) or found.code == "contrast_phase_missing"


@pytest.mark.slow
def test_another_body_is_refused() -> None:
    phantom = make_phantom(story("wrong_body"))
    found = run(phantom)
    assert found.outcome == "not_assessable"
    assert not found.registration.quality.accepted
    codes = {r.code for r in found.registration.quality.reasons}
    assert codes & {"registration_images_disagree", "registration_distorts"}


def test_a_followup_that_misses_the_lesion_is_refused(incomplete_phantom: Phantom) -> None:
    followup = incomplete_phantom.followups[0].followup
    zone = incomplete_phantom.followups[0].truth.zone
    top = int(np.argwhere(zone.voxels)[:, 0].max())
    volume = followup.volume.crop((slice(top + 1, None), slice(None), slice(None)))
    found = assess(Case(incomplete_phantom.plan, replace(followup, volume=volume)))
    assert found.outcome == "not_assessable"
    assert [r.code for r in found.reasons] == ["lesion_outside_followup"]


@pytest.mark.slow
def test_a_zone_cut_by_the_scan_is_not_measured(incomplete_phantom: Phantom) -> None:
    followup = incomplete_phantom.followups[0].followup
    slices = np.flatnonzero(incomplete_phantom.followups[0].truth.zone.voxels.any((1, 2)))
    middle = int(slices[0] + 0.2 * (slices[-1] - slices[0]))
    volume = followup.volume.crop((slice(middle, None), slice(None), slice(None)))
    found = assess(Case(incomplete_phantom.plan, replace(followup, volume=volume)))
    assert found.outcome == "not_assessable"
    assert [r.code for r in found.lesions[0].reasons] == ["zone_cut_by_field_of_view"]


def test_regions_without_a_voxel_are_no_plan(incomplete_phantom: Phantom) -> None:
    plan, lesion = incomplete_phantom.plan, incomplete_phantom.plan.lesions[0]
    empty = Mask(np.zeros(lesion.tumor.geometry.shape, bool), lesion.tumor.geometry)
    for part in ("tumor", "simulated_zone"):
        with pytest.raises(ValueError, match=f"lesion {lesion.lesion_id}: the .* is empty"):
            replace(lesion, **{part: empty})
    for part in ("organ_mask", "vessel_mask"):
        with pytest.raises(ValueError, match="mask is empty"):
            replace(plan, **{part: empty})


def test_what_may_be_core_or_tumor_is_told_and_the_interval_allows_for_both(
    incomplete_phantom: Phantom,
    incomplete_assessment: Assessment,
    assessed_again: Callable[[Case, Registration], LesionAssessment],
) -> None:
    """A tumor deep in the zone, and a ball of 7 mm around it whose brightness lies between zone and organ."""
    made, registration = incomplete_phantom.followups[0], incomplete_assessment.registration
    volume, middle = made.volume, made.truth.zone.centroid_lps_mm
    lesion, transform = incomplete_phantom.plan.lesions[0], registration.baseline_from_followup
    assert transform is not None
    grid = lesion.tumor.geometry
    tumor = Mask(np.linalg.norm(grid.grid_lps() - transform(middle), axis=-1) < 5.0, grid)
    plan = replace(incomplete_phantom.plan, lesions=(replace(lesion, tumor=tumor),))
    ball = np.linalg.norm(volume.geometry.grid_lps() - middle, axis=-1) < 7.0
    brighter = replace(volume, voxels=(volume.voxels + 45.0 * ball).astype(volume.voxels.dtype))
    plain, found = (
        assessed_again(Case(plan, replace(made.followup, volume=v)), registration) for v in (volume, brighter)
    )
    assert "tumor_or_core_in_zone" not in [r.code for r in plain.reasons]
    assert "tumor_or_core_in_zone" in [r.code for r in found.reasons]
    assert plain.margin is not None
    assert found.margin is not None
    low, high = found.margin.minimal_margin_interval_mm
    assert low < 0.0 < plain.margin.minimal_margin_mm < high
    assert found.outcome == "incomplete_coverage"


@pytest.mark.parametrize("covered", [True, False])
def test_a_tumor_of_a_few_voxels_has_a_volume_and_a_mask(
    covered: bool, incomplete_phantom: Phantom, assessed_with: Callable[[Plan], LesionAssessment]
) -> None:
    """Four voxels: deep in the zone, or at the end of the tumor that it leaves free."""
    lesion, truth = incomplete_phantom.plan.lesions[0], incomplete_phantom.followups[0].truth
    grid = lesion.tumor.geometry
    inside = lesion.tumor.points_lps_mm()
    shift = (truth.tumor - truth.zone).centroid_lps_mm - truth.tumor.centroid_lps_mm
    at = inside[np.argmin(inside @ shift) if covered else np.argmax(inside @ shift)]
    voxels = np.zeros(grid.shape, bool)
    k, j, i = np.round(grid.index_of(at)).astype(int)
    voxels[k, j : j + 2, i : i + 2] = True
    small = replace(lesion, tumor=Mask(voxels, grid))
    found = assessed_with(replace(incomplete_phantom.plan, lesions=(small,)))
    assert found.tumor is not None
    assert not found.tumor.is_empty
    assert found.margin is not None
    assert 0 < found.margin.tumor_volume_ml < 0.1
    if covered:
        assert found.margin.minimal_margin_mm > 0
        assert found.margin.covered_fraction == pytest.approx(1.0)
    else:
        assert found.outcome == "incomplete_coverage"
        assert found.margin.covered_fraction < 1.0


@pytest.mark.slow
def test_a_tumor_region_of_one_voxel_is_taken_for_a_slip_of_the_pen(incomplete_phantom: Phantom) -> None:
    """The whole way, since a region without an extent must not stop the registration either."""
    lesion = incomplete_phantom.plan.lesions[0]
    voxels = np.zeros(lesion.tumor.geometry.shape, bool)
    voxels[tuple(np.round(lesion.tumor.geometry.index_of(lesion.tumor.centroid_lps_mm)).astype(int))] = True
    one = replace(lesion, tumor=Mask(voxels, lesion.tumor.geometry))
    plan = replace(incomplete_phantom.plan, lesions=(one,))
    found = assess(Case(plan, incomplete_phantom.followups[0].followup))
    assert found.outcome == "not_assessable"
    assert [r.code for r in found.lesions[0].reasons] == ["tumor_region_too_small"]


@pytest.mark.parametrize("own_grid", [False, True])
def test_a_tumor_that_the_baseline_cuts_off_is_not_assessable(
    own_grid: bool, progression_phantom: Phantom, clean: Watched, assessed_again: Callable[..., LesionAssessment]
) -> None:
    """Nobody saw the rest of it, whether its mask ends with the scan or has a grid of its own with air around."""
    plan, lesion = progression_phantom.plan, progression_phantom.plan.lesions[0]
    slices = np.flatnonzero(lesion.tumor.voxels.any((1, 2)))
    for top, code in ((slices[len(slices) // 2], "tumor_cut_by_baseline"), (slices[-1] + 2, "margin_reached")):
        part = (slice(0, top + 1), slice(None), slice(None))
        tumor = lesion.tumor.crop(part)
        if own_grid:
            tumor = Mask(np.pad(tumor.voxels, ((0, 8), (0, 0), (0, 0))), lesion.tumor.geometry.crop(
                (0, 0, 0), (top + 9, *tumor.voxels.shape[1:])))  # fmt: skip
        cut = replace(plan, baseline=plan.baseline.crop(part), lesions=(replace(lesion, tumor=tumor),))
        found = assessed_again(Case(cut, progression_phantom.followups[0].followup), clean.found.registration)
        assert found.reasons[0].code == code
        assert found.outcome == ("complete" if code == "margin_reached" else "not_assessable")


@pytest.mark.slow
def test_each_of_two_lesions_has_its_own_answer(incomplete_phantom: Phantom) -> None:
    """The second one was never treated: nothing there looks like a zone."""
    plan, lesion = incomplete_phantom.plan, incomplete_phantom.plan.lesions[0]
    grid = lesion.tumor.geometry
    assert plan.organ_mask is not None
    inner = signed_distance_mm(plan.organ_mask) > 25.0
    places = grid.lps_of(np.argwhere(inner))
    away = np.linalg.norm(places - lesion.tumor.centroid_lps_mm, axis=1)
    other = places[np.argmin(np.abs(away - 50.0))]
    ball = Mask(np.linalg.norm(grid.grid_lps() - other, axis=-1) < 8.0, grid)
    second = replace(lesion, lesion_id="L2", tumor=ball, simulated_zone=None)
    both = replace(plan, lesions=(second, lesion))
    found = assess(Case(both, incomplete_phantom.followups[0].followup))
    assert [x.lesion_id for x in found.lesions] == ["L2", lesion.lesion_id]
    assert [x.outcome for x in found.lesions] == ["not_assessable", "incomplete_coverage"]
    assert found.outcome == "incomplete_coverage"
    assert found.reasons[0].code == "tumor_not_covered"
    margin, truth = found.lesions[1].margin, incomplete_phantom.followups[0].truth
    assert margin is not None
    assert abs(margin.minimal_margin_mm - truth.minimal_margin_mm) < 1.5


@pytest.mark.slow
def test_the_baseline_given_as_followup_shows_no_ablation_zone(incomplete_phantom: Phantom) -> None:
    plan = incomplete_phantom.plan
    grid = plan.baseline.geometry
    again = Volume(plan.baseline.voxels, Geometry(grid.shape, grid.lps_from_index, "another frame"), "ct_hu")
    followup = replace(incomplete_phantom.followups[0].followup, volume=again)
    found = assess(Case(plan, followup))
    assert found.outcome == "not_assessable"
    assert found.lesions[0].reasons[0].code in ("zone_looks_like_tumor", "zone_not_found")


def test_a_view_holds_three_slices_however_thick(incomplete_phantom: Phantom) -> None:
    plan, followup = incomplete_phantom.plan, incomplete_phantom.followups[0].followup
    grid = followup.volume.geometry
    step = int(np.ceil(25.0 / grid.spacing_mm[0]))
    matrix = grid.lps_from_index.copy()
    matrix[:3, 0] *= step
    voxels = followup.volume.voxels[::step]
    thick = Volume(voxels, Geometry(voxels.shape, matrix, grid.frame_uid), "ct_hu")
    lesion = replace(plan.lesions[0], simulated_zone=None, required_margin_mm=0.0)
    same = Transform(plan.baseline.geometry.frame_uid, grid.frame_uid, np.eye(4))
    case = Case(plan, replace(followup, volume=thick))
    view = view_lesion(case, lesion, same, FoundOrgan(plan.organ_mask, "given"))
    assert view.image.geometry.shape[0] >= 3
