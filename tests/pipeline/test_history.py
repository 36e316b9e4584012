"""What an earlier follow-up said, and how far that counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.assessment import Assessment, LesionAssessment, Registration
from pipeline.carried import CarriedTumor
from pipeline.case import Case, EarlierFollowUp, EarlierLesion, Outcome
from pipeline.lesion import assess_lesion, segment, view_lesion
from pipeline.organ import FoundOrgan
from pipeline.phantom import Phantom
from pipeline.segment import Zone
from pipeline.volume import Mask, signed_distance_mm

FIVE_MM = 5.0


def ball_like(tumor: Mask, times: float) -> Mask:
    """A ball around the tumor's middle of so many times its volume."""
    radius_mm = (3000 * tumor.volume_ml * times / 4 / np.pi) ** (1 / 3)
    away = np.linalg.norm(tumor.geometry.grid_lps() - tumor.centroid_lps_mm, axis=-1)
    return Mask(away < radius_mm, tumor.geometry)


def before(days: int, outcome: Outcome, zone: Mask | None, asked_mm: float | None = FIVE_MM) -> EarlierFollowUp:
    return EarlierFollowUp(days, (EarlierLesion("L1", outcome, zone, asked_mm),), None)


Told = tuple[Outcome, float | None]
"""An earlier outcome, and its zone's volume over the tumor's."""


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ([("complete", None)], "unchanged_since_clean_followup"),
        ([("complete", 1.2)], "unchanged_since_clean_followup"),
        ([("complete", 6.0)], "zone_looks_like_tumor"),
        # What was refused before vouches for nothing now.
        ([("complete", 6.0), ("not_assessable", 1.0)], "zone_looks_like_tumor"),
        ([("not_assessable", 1.0)], "zone_looks_like_tumor"),
        ([], "zone_looks_like_tumor"),
    ],
)
def test_what_looks_like_the_tumor_may_be_a_shrunken_zone_only_where_it_can_have_shrunk_so(
    progression_phantom: Phantom,
    clean_told: tuple[Assessment, list[str]],
    carried_again: Callable[[Case, Registration], CarriedTumor],
    told: list[Told],
    code: str,
) -> None:
    """The dark thing on the scan is the tumor as it was, and viable tumor would be as dark as a zone."""
    lesion, registration = progression_phantom.plan.lesions[0], clean_told[0].registration
    previous = tuple(
        before(10 + n, outcome, None if times is None else ball_like(lesion.tumor, times))
        for n, (outcome, times) in enumerate(told)
    )
    case = Case(progression_phantom.plan, progression_phantom.followups[0].followup, previous)
    assert registration.baseline_from_followup is not None
    view = view_lesion(case, lesion, registration.baseline_from_followup, FoundOrgan(case.plan.organ_mask, "given"))
    segmented = segment(case, view)
    assert isinstance(segmented, Zone)
    looks = replace(segmented.intensities, tumor_is_distinguishable=False)
    tumor = Mask(view.around.tumor_mm > 0, view.image.geometry)
    dark = replace(segmented, mask=tumor, distance_mm=signed_distance_mm(tumor), intensities=looks, if_core=None)
    found = assess_lesion(case, view, dark, carried_again(case, registration))
    assert found.reasons[0].code == code
    assert (found.outcome == "complete") == (code == "unchanged_since_clean_followup")


@pytest.mark.parametrize(
    ("asked_mm", "outcome"), [(None, "narrow_margin"), (5.0, "complete"), (7.5, "complete"), (0.0, "narrow_margin")]
)
def test_what_was_complete_by_a_smaller_margin_is_narrow_by_a_larger_one(
    progression_phantom: Phantom,
    clean_told: tuple[Assessment, list[str]],
    assessed_again: Callable[[Case, Registration], LesionAssessment],
    asked_mm: float | None,
    outcome: Outcome,
) -> None:
    followup = progression_phantom.followups[0].followup
    case = Case(progression_phantom.plan, followup, (before(10, "complete", None, asked_mm),))
    assert [(x.lesion_id, x.required_margin_mm) for x in case.plan.lesions] == [("L1", FIVE_MM)]
    found = assessed_again(case, clean_told[0].registration)
    assert (found.outcome, found.reasons[0].code) == (outcome, "unchanged_since_clean_followup")
    assert f"was {outcome.replace('_', ' ')} by the margin required now" in found.reasons[0].text
