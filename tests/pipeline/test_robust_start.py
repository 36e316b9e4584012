"""However a follow-up lies in its scanner, rigid start and whole way end at the same answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.assess import assess
from pipeline.assessment import Assessment
from pipeline.case import Case
from pipeline.geometry import FloatArray
from pipeline.phantom import Phantom
from pipeline.phantom_changes import CHANGES, half_of_the_liver
from pipeline.rigid import rigid_start
from pipeline.sampling import box_of
from pipeline.transform import Transform
from pipeline.volume import Volume


@pytest.fixture(scope="module")
def undisturbed(incomplete_phantom: Phantom) -> FloatArray:
    made = incomplete_phantom.followups[0]
    return start_of(made.followup.volume, incomplete_phantom)(made.truth.landmarks_followup_lps_mm)


def start_of(followup: Volume, phantom: Phantom) -> Transform:
    region = box_of(phantom.plan.lesions[0].tumor.points_lps_mm())
    return rigid_start(followup, phantom.plan.baseline, region=region)


@pytest.mark.parametrize("name", CHANGES)
def test_the_start_does_not_depend_on_where_the_scan_lies(
    name: str, incomplete_phantom: Phantom, undisturbed: FloatArray
) -> None:
    made = incomplete_phantom.followups[0]
    followup, new_from_old = CHANGES[name](made.followup.volume)
    points = made.truth.landmarks_followup_lps_mm @ new_from_old[:3, :3].T + new_from_old[:3, 3]
    found = start_of(followup, incomplete_phantom)(points)
    errors = np.linalg.norm(found - made.truth.landmarks_baseline_lps_mm, axis=1)
    least = np.linalg.norm(undisturbed - made.truth.landmarks_baseline_lps_mm, axis=1)
    assert errors.mean() < least.mean() + 1.0
    assert np.linalg.norm(found - undisturbed, axis=1).mean() < 1.5


@pytest.mark.parametrize("upper", [True, False], ids=["upper half", "lower half"])
def test_half_of_the_liver_is_enough(upper: bool, incomplete_phantom: Phantom, undisturbed: FloatArray) -> None:
    """Half of the liver's slices are not in view, on either side of the lesion as far as the lesion allows."""
    made = incomplete_phantom.followups[0]
    cut, _ = half_of_the_liver(incomplete_phantom, upper=upper)(made.volume)
    assert 0.3 < cut.geometry.shape[0] / made.volume.geometry.shape[0] < 0.9
    points = made.truth.landmarks_followup_lps_mm
    inside = cut.geometry.contains(points)
    assert inside.mean() > 0.5
    found = start_of(cut, incomplete_phantom)(points[inside])
    errors = np.linalg.norm(found - made.truth.landmarks_baseline_lps_mm[inside], axis=1).mean()
    least = np.linalg.norm(undisturbed - made.truth.landmarks_baseline_lps_mm, axis=1)[inside].mean()
    assert errors < least + 1.0


@pytest.mark.slow
def test_the_whole_way_ends_at_the_same_answer(incomplete_phantom: Phantom, incomplete_assessment: Assessment) -> None:
    """benchmarks/robust_start.py does so with every change."""
    followup = incomplete_phantom.followups[0].followup
    volume, new_from_old = CHANGES["all at once"](followup.volume)
    found = assess(Case(incomplete_phantom.plan, replace(followup, volume=volume)))
    assert found.outcome == incomplete_assessment.outcome == "incomplete_coverage"
    margins = [a.lesions[0].margin for a in (found, incomplete_assessment)]
    assert margins[0] is not None
    assert margins[1] is not None
    assert abs(margins[0].minimal_margin_mm - margins[1].minimal_margin_mm) < 0.5
    there = np.array(margins[1].minimal_margin_point_lps_mm) @ new_from_old[:3, :3].T + new_from_old[:3, 3]
    assert np.linalg.norm(there - margins[0].minimal_margin_point_lps_mm) < 5.0
