"""How much margin the organ's edge leaves room for, on balls whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.assessment import LesionAssessment, Margin, ScarcePlace
from pipeline.case import Outcome, Plan
from pipeline.geometry import FloatArray, upright_grid
from pipeline.judge import judge_lesion, needs_review
from pipeline.location import Location
from pipeline.margin import measure_margin
from pipeline.organ_edge import organ_depth_mm, organ_limited_mm, required_here_mm
from pipeline.organ_mask import organ_of
from pipeline.phantom import Phantom
from pipeline.surface import level_of_mask, surface_of_mask
from pipeline.volume import Mask

GRID = upright_grid((80, 80, 80), (1.0, 1.0, 1.0), (-40.0, -40.0, -40.0), "frame")
POINTS = GRID.grid_lps()
TUMOR = (0.0, 0.0, 0.0)


def ball(center: tuple[float, float, float], radius_mm: float) -> Mask:
    return Mask(np.linalg.norm(POINTS - center, axis=-1) <= radius_mm, GRID)


def below(x_mm: float) -> Mask:
    """An organ that ends at a plane."""
    return Mask(POINTS[..., 0] <= x_mm, GRID)


def depth_at(organ: Mask, points: FloatArray, reach_mm: float = 20.0) -> FloatArray:
    return organ_depth_mm(organ, [ball(TUMOR, 8.0)], points, scan=GRID, reach_mm=reach_mm)


def test_depth_below_a_flat_edge() -> None:
    points = np.array([[x, 0.0, 0.0] for x in (-8.0, 0.0, 5.0, 8.0, 12.0)])
    assert depth_at(below(10.5), points) == pytest.approx([18.5, 10.5, 5.5, 2.5, -1.5], abs=0.35)


def test_beyond_the_reach_depth_is_the_reach() -> None:
    assert depth_at(below(30.5), np.zeros((1, 3)), reach_mm=12.0) == pytest.approx([12.0])


def test_the_tumor_belongs_to_the_organ_also_where_the_mask_leaves_it_out() -> None:
    hollow = Mask(below(30.5).voxels & ~ball(TUMOR, 9.0).voxels, GRID)
    points = surface_of_mask(ball(TUMOR, 8.0)).vertices_lps_mm
    assert depth_at(hollow, points).min() > 15


def test_where_the_scan_ends_the_organ_goes_on() -> None:
    whole = Mask(np.ones(GRID.shape, bool), GRID)
    tumor = ball((33.0, 0.0, 0.0), 5.0)
    points = surface_of_mask(tumor).vertices_lps_mm
    assert organ_depth_mm(whole, [tumor], points, scan=GRID, reach_mm=10.0).min() == pytest.approx(10.0)


@pytest.mark.parametrize("spacing_mm", [1.0, 1.5, 2.0, 3.0])
def test_where_the_scan_ends_the_organ_goes_on_also_by_a_mask_on_a_grid_of_its_own(spacing_mm: float) -> None:
    """Such a mask comes cut at the scan's end with air around it: that is no capsule."""
    low, count = -40.0 - 30 * spacing_mm + 0.4, 150
    own = upright_grid((count,) * 3, (spacing_mm,) * 3, (low,) * 3, "frame")
    organ = Mask((np.abs(own.grid_lps() - GRID.lps_of((39.5,) * 3)) <= 39.5).all(-1), own)
    tumor = ball((28.0, 0.0, 0.0), 9.0)  # 2 mm from where the scan ends
    points = surface_of_mask(tumor).vertices_lps_mm
    assert organ_depth_mm(organ, [tumor], points, scan=GRID, reach_mm=10.0).min() == pytest.approx(10.0)
    # A true edge within the scan stays one.
    smaller = Mask(organ.voxels & (own.grid_lps()[..., 1] <= 12.5), own)
    depth = organ_depth_mm(smaller, [tumor], points, scan=GRID, reach_mm=10.0)
    assert depth.min() == pytest.approx(3.5, abs=spacing_mm / 2 + 0.3)


def test_another_tumor_that_the_mask_leaves_out_is_no_capsule() -> None:
    other = ball((26.0, 0.0, 0.0), 15.0)
    bay = Mask(below(28.5).voxels & ~other.voxels, GRID)
    points = np.array([[8.0, 0.0, 0.0]])
    assert organ_depth_mm(bay, [ball(TUMOR, 8.0)], points, scan=GRID, reach_mm=15.0)[0] < 5
    assert organ_depth_mm(bay, [ball(TUMOR, 8.0), other], points, scan=GRID, reach_mm=15.0)[0] == pytest.approx(15.0)


def test_no_more_is_required_than_there_is_organ() -> None:
    assert required_here_mm(np.array([-3.0, 0.0, 2.0, 9.0]), 5.0).tolist() == [0.0, 0.0, 2.0, 5.0]


@pytest.mark.parametrize(("reaches", "complete"), [(10.5, True), (9.5, False)])
def test_a_zone_up_to_the_capsule_is_enough_there(reaches: float, complete: bool) -> None:
    """Tumor of 8 mm, capsule 2.5 mm off it; the zone has 7 mm on all sides but ends at the capsule, or 1 mm before."""
    organ, tumor = below(10.5), ball(TUMOR, 8.0)
    zone = Mask(ball(TUMOR, 15.0).voxels & (POINTS[..., 0] <= reaches), GRID)
    surface = surface_of_mask(tumor)
    margins = measure_margin(surface, level_of_mask(zone))
    depth = depth_at(organ, surface.vertices_lps_mm)
    limited = float(organ_limited_mm(margins, depth, 5.0).min())
    assert margins.minimal_margin_mm == pytest.approx(reaches - 8.0, abs=0.4)
    assert limited == pytest.approx(5.0 if complete else 4.0, abs=0.4)


def test_uncovered_tumor_at_the_capsule_counts() -> None:
    organ, tumor = below(8.5), ball(TUMOR, 8.0)
    zone = Mask(ball(TUMOR, 15.0).voxels & (POINTS[..., 0] <= 6.5), GRID)
    surface = surface_of_mask(tumor)
    margins = measure_margin(surface, level_of_mask(zone))
    limited = organ_limited_mm(margins, depth_at(organ, surface.vertices_lps_mm), 5.0)
    assert limited.min() == margins.minimal_margin_mm == pytest.approx(-1.5, abs=0.4)


def made_margin(raw: float, limited: float | None) -> Margin:
    return Margin(raw, (raw - 1, raw + 1), (0.0, 0.0, 0.0), 4.0, 20.0, 1.0, 0.0, 0.0, 0.3, limited)


@pytest.mark.parametrize(
    ("raw", "limited", "outcome", "code"),
    [
        (2.5, None, "narrow_margin", "margin_below_required"),
        (2.5, 5.1, "complete", "margin_reached_to_organ_edge"),
        (2.5, 4.0, "narrow_margin", "margin_below_required"),
        (-1.5, -1.5, "incomplete_coverage", "tumor_not_covered"),
        (5.5, 6.0, "complete", "margin_reached"),
    ],
)
def test_the_verdict_asks_for_what_the_organ_allows(raw: float, limited: float | None, outcome: str, code: str) -> None:
    found = judge_lesion(made_margin(raw, limited), (), required_margin_mm=5.0, earlier=(), days=30)
    assert (found.outcome, found.reasons[0].code) == (outcome, code)


def test_a_narrow_margin_is_told_where_it_is_narrow_not_where_there_is_no_organ() -> None:
    """0.5 mm at the capsule, 3 mm deep in the organ; 5 mm required."""
    place = ScarcePlace((9.0, 0.0, 0.0), 3.0, 5.0, Location(("anterior",), 18.0))
    margin = replace(made_margin(0.5, 3.0), scarcest=place)
    found = judge_lesion(margin, (), required_margin_mm=5.0, earlier=(), days=30)
    assert found.outcome == "narrow_margin"
    text = found.reasons[0].text
    assert "0.5 mm lies at the organ's edge" in text
    assert "anterior, 18 mm from the capsule, it is 3.0 mm, below the 5.0 mm required there" in text


@pytest.mark.parametrize(("required", "said"), [(4.0, "4.0 mm required there"), (5.0, "5.0 mm required.")])
def test_a_narrow_margin_is_held_against_what_is_required_at_its_place(required: float, said: str) -> None:
    """The least margin of 2 mm lies where the organ leaves room for 4 mm, or for all of the 5 mm."""
    place = ScarcePlace((9.0, 0.0, 0.0), 2.0, required, Location(("anterior",), required))
    margin = replace(made_margin(2.0, 3.0), scarcest=place)
    (reason,) = judge_lesion(margin, (), required_margin_mm=5.0, earlier=(), days=30).reasons
    assert reason.code == "margin_below_required"
    assert f"the least margin of 2.0 mm is below the {said}" in reason.text


@pytest.mark.parametrize("earlier", [(), ("complete",)])
def test_a_margin_that_is_no_number_is_not_assessable(earlier: tuple[Outcome, ...]) -> None:
    for margin in (made_margin(np.nan, None), made_margin(np.nan, np.nan)):
        found = judge_lesion(margin, (), required_margin_mm=5.0, earlier=earlier, days=30)
        assert (found.outcome, found.reasons[0].code) == ("not_assessable", "margin_not_measured")
    assert judge_lesion(made_margin(6.0, np.nan), (), required_margin_mm=5.0, earlier=(), days=30).outcome != "complete"
    assert needs_review("complete", (replace(made_margin(6.0, 6.0), minimal_margin_interval_mm=(np.nan, 7.0)),))


def vessels_from(phantom: Phantom, low_mm: float, high_mm: float) -> Mask:
    """A shell around the place of the least margin, in the baseline."""
    truth = phantom.followups[0].truth
    thin = truth.baseline_from_followup(np.array([truth.minimal_margin_point_lps_mm]))[0]
    grid = phantom.plan.lesions[0].tumor.geometry
    away = np.linalg.norm(grid.grid_lps() - thin, axis=-1)
    return Mask((away >= low_mm) & (away < high_mm), grid)


def test_an_assessment_says_where_the_thin_place_is_and_flags_the_vessel_there(
    incomplete_phantom: Phantom, assessed_with: Callable[[Plan], LesionAssessment]
) -> None:
    plan = replace(incomplete_phantom.plan, vessel_mask=vessels_from(incomplete_phantom, 0.0, 4.0))
    lesion = assessed_with(plan)
    margin = lesion.margin
    assert margin is not None
    assert margin.location is not None
    assert margin.location.directions
    assert margin.location.distance_to_capsule_mm is not None
    assert margin.organ_limited_margin_mm is not None
    assert margin.organ_limited_margin_mm >= margin.minimal_margin_mm
    assert margin.scarcest is not None
    missing = margin.scarcest.margin_mm - margin.scarcest.required_mm
    assert margin.organ_limited_margin_mm in (pytest.approx(lesion.required_margin_mm + missing),
                                              pytest.approx(margin.scarcest.margin_mm))  # fmt: skip
    assert "vessel_at_thin_margin" in [r.code for r in lesion.reasons]
    assert lesion.tissue_contraction_mm is not None
    assert abs(lesion.tissue_contraction_mm) < 1.5


def test_an_organ_mask_that_hugs_the_tumor_is_doubted_and_a_far_vessel_is_no_matter(
    incomplete_phantom: Phantom, assessed_with: Callable[[Plan], LesionAssessment]
) -> None:
    """As its own organ, a tumor would be at the edge all over and need no margin at all."""
    plan = incomplete_phantom.plan
    odd = replace(plan, organ_mask=plan.lesions[0].tumor, vessel_mask=vessels_from(incomplete_phantom, 60.0, 66.0))
    organ, sane = organ_of(odd)
    assert organ.note is not None
    found = assessed_with(sane)
    assert found.outcome != "complete"
    assert found.margin is not None
    assert (found.margin.organ_limited_margin_mm, found.margin.scarcest) == (None, None)
    assert found.margin.organ_limited_surface_fraction is None
    codes = [r.code for r in found.reasons]
    assert organ.note.code == "organ_mask_doubted"
    assert "100% of the surface" in organ.note.text
    assert "vessel_at_thin_margin" not in codes


def test_a_vein_that_the_mask_leaves_out_is_no_capsule() -> None:
    """A vein of 20 mm runs past the tumor and out of the organ at both ends."""
    vein = np.hypot(POINTS[..., 0] - 18.5, POINTS[..., 1]) <= 10.0
    organ = Mask((np.abs(POINTS[..., 1]) < 34.0) & ~vein, GRID)
    assert depth_at(organ, np.array([[8.0, 0.0, 0.0]])).min() > 15
