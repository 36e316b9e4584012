"""An organ mask that cannot be right is set aside: at a wrong edge too little margin would be asked for."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from pipeline.assess import assess
from pipeline.assessment import Assessment
from pipeline.case import Case, Lesion, Organ, Plan
from pipeline.geometry import upright_grid
from pipeline.organ_mask import organ_of
from pipeline.phantom import Phantom
from pipeline.volume import Mask, Volume

GRID = upright_grid((100, 100, 100), (1.0, 1.0, 1.0), (-50.0, -50.0, -50.0), "frame")
POINTS = GRID.grid_lps()
BASELINE = Volume(np.zeros(GRID.shape, np.int16), GRID, "ct_hu")


def ball(x_mm: float, radius_mm: float) -> Mask:
    return Mask(np.linalg.norm(POINTS - (x_mm, 0.0, 0.0), axis=-1) <= radius_mm, GRID)


def below(x_mm: float) -> Mask:
    """An organ that ends at a plane."""
    return Mask(POINTS[..., 0] <= x_mm, GRID)


def plan_of(organ: Mask | None, *tumors: Mask, required_mm: float = 5.0) -> Plan:
    lesions = tuple(Lesion(f"L{n}", required_mm, tumor) for n, tumor in enumerate(tumors, 1))
    return Plan("P", "liver", "cryoablation", date(2026, 1, 1), BASELINE, lesions, organ)


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(below(30.0), ball(0.0, 10.0)),
        plan_of(below(10.0), ball(0.0, 10.0)),  # at the capsule
        plan_of(below(7.5), ball(0.0, 10.0)),  # bulging, or drawn 2.5 mm too far
        plan_of(Mask(below(40.0).voxels & ~ball(0.0, 12.0).voxels, GRID), ball(0.0, 10.0)),  # left out, deep inside
        plan_of(Mask(below(11.0).voxels & ~ball(0.0, 11.0).voxels, GRID), ball(0.0, 10.0)),  # and at the capsule
        plan_of(Mask(below(40.0).voxels & ~ball(0.0, 12.0).voxels, GRID), ball(-3.0, 8.0), ball(5.0, 6.0)),
        plan_of(Mask(np.ones(GRID.shape, bool), GRID), ball(0.0, 10.0)),
        plan_of(ball(0.0, 10.0), ball(0.0, 10.0), required_mm=0.0),  # no edge is too near then
    ],
    ids=["deep", "at the edge", "bulging", "a hole", "a bay", "two", "all over", "no margin asked"],
)
def test_an_organ_mask_that_fits_is_kept(plan: Plan) -> None:
    organ, kept = organ_of(plan)
    assert kept is plan
    assert (organ.mask, organ.note) == (plan.organ_mask, None)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (plan_of(below(4.0), ball(0.0, 10.0)), "of the surface of L1's tumor lies outside the organ"),
        (plan_of(below(20.0), ball(-20.0, 9.0), ball(25.0, 9.0)), "of the surface of L2's tumor lies outside"),
        (
            plan_of(ball(0.0, 10.0), ball(0.0, 10.0)),
            "100% of the surface of L1's tumor lies nearer to the organ's edge",
        ),
    ],
    ids=["cut", "second lesion", "the tumor itself"],
)
@pytest.mark.parametrize("organ", ["liver", "kidney"])
def test_an_organ_mask_that_contradicts_the_tumor_lowers_no_margin(plan: Plan, said: str, organ: Organ) -> None:
    """Where nothing better is found, as outside the liver, it still guides: the tumor lies in it."""
    found, kept = organ_of(replace(plan, organ=organ))
    assert kept.organ_mask is None
    assert kept.lesions is plan.lesions
    assert found.mask is not None
    assert (found.mask is plan.organ_mask) == (organ == "kidney")
    assert found.note is not None
    assert found.note.code == "organ_mask_doubted"
    assert said in found.note.text


def test_an_organ_mask_elsewhere_does_not_even_guide() -> None:
    found, kept = organ_of(replace(plan_of(below(-30.0), ball(0.0, 10.0)), organ="kidney"))
    assert (found.mask, kept.organ_mask) == (None, None)
    assert found.note is not None
    assert "100% of the surface of L1's tumor lies outside" in found.note.text


def test_thick_slices_may_be_drawn_a_slice_too_far() -> None:
    """The organ ends a slice of 5 mm before the tumor does."""
    grid = upright_grid((20, 60, 60), (5.0, 1.0, 1.0), (-30.0, -30.0, -50.0), "frame")
    points = grid.grid_lps()
    organ, tumor = Mask(points[..., 2] <= 5.0, grid), Mask(np.linalg.norm(points, axis=-1) <= 10.0, grid)
    plan = plan_of(organ, tumor)
    assert organ_of(plan)[1] is plan


def test_without_an_organ_mask_one_is_looked_for() -> None:
    found, kept = organ_of(replace(plan_of(None, ball(0.0, 10.0)), organ="kidney"))
    assert found.mask is None
    assert kept.organ_mask is None
    assert found.note is not None
    assert found.note.code == "organ_mask_not_in_plan"
    assert found.note.text.startswith("Organ mask: none, as none is grown for kidney")


@pytest.mark.slow
def test_an_organ_mask_elsewhere_changes_no_answer(
    incomplete_phantom: Phantom, incomplete_assessment: Assessment
) -> None:
    """It neither guides the registration nor lowers what is required."""
    plan = incomplete_phantom.plan
    elsewhere = Mask(np.roll(plan.lesions[0].tumor.voxels, 60, axis=2), plan.lesions[0].tumor.geometry)
    found = assess(Case(replace(plan, organ_mask=elsewhere), incomplete_phantom.followups[0].followup))
    assert found.outcome == incomplete_assessment.outcome
    margin, before = found.lesions[0].margin, incomplete_assessment.lesions[0].margin
    assert margin is not None
    assert before is not None
    assert margin.minimal_margin_mm == pytest.approx(before.minimal_margin_mm, abs=1.0)
    assert margin.organ_limited_margin_mm is None
    (doubt,) = [r for r in found.reasons if r.code == "organ_mask_doubted"]
    assert "lies outside the organ" in doubt.text
    assert "Organ mask used: " in doubt.text
    assert "organ_mask_not_in_plan" not in [r.code for r in found.reasons]
