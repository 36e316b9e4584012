"""Simulated zones that do not fit their tumor or their scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.assess import assess
from pipeline.assessment import LesionAssessment
from pipeline.case import Case, Plan
from pipeline.lesion import view_lesion
from pipeline.organ import FoundOrgan
from pipeline.phantom import Phantom
from pipeline.transform import Transform
from pipeline.volume import Mask


def test_a_simulated_zone_far_from_its_tumor_is_not_believed(incomplete_phantom: Phantom) -> None:
    """As by a wrong segment number; elsewhere in the liver, or where the follow-up does not look at all."""
    plan, lesion = incomplete_phantom.plan, incomplete_phantom.plan.lesions[0]
    grid = lesion.tumor.geometry
    for by_mm in (60.0, -60.0):
        center = lesion.tumor.centroid_lps_mm + np.array([0.0, 0.0, by_mm])
        astray = Mask(np.linalg.norm(grid.grid_lps() - center, axis=-1) < 12.0, grid)
        other = replace(plan, lesions=(replace(lesion, simulated_zone=astray),))
        found = assess(Case(other, incomplete_phantom.followups[0].followup))
        assert (found.outcome, [r.code for r in found.reasons]) == ("not_assessable", ["simulated_zone_astray"])


def test_a_view_shows_the_tumor_also_where_the_simulated_zone_misses_it(incomplete_phantom: Phantom) -> None:
    plan, lesion = incomplete_phantom.plan, incomplete_phantom.plan.lesions[0]
    made, grid = incomplete_phantom.followups[0], lesion.tumor.geometry
    beside = Mask(
        np.linalg.norm(grid.grid_lps() - lesion.tumor.centroid_lps_mm - (0.0, 38.0, 0.0), axis=-1) < 8.0, grid
    )
    shift = np.eye(4)
    shift[:3, 3] = (made.truth.landmarks_baseline_lps_mm - made.truth.landmarks_followup_lps_mm).mean(0)
    there = Transform(grid.frame_uid, made.volume.geometry.frame_uid, shift)
    case = Case(plan, made.followup)
    view = view_lesion(case, replace(lesion, simulated_zone=beside), there, FoundOrgan(plan.organ_mask, "given"))
    seen_ml = float((view.around.tumor_mm > 0).sum()) * view.image.geometry.voxel_volume_mm3 / 1000
    assert seen_ml == pytest.approx(lesion.tumor.volume_ml, rel=0.1)


def test_a_simulated_zone_beside_its_tumor_is_told(
    incomplete_phantom: Phantom, assessed_with: Callable[[Plan], LesionAssessment]
) -> None:
    plan, lesion = incomplete_phantom.plan, incomplete_phantom.plan.lesions[0]
    grid = lesion.tumor.geometry
    beside = Mask(
        np.linalg.norm(grid.grid_lps() - lesion.tumor.centroid_lps_mm - (0.0, 38.0, 0.0), axis=-1) < 8.0, grid
    )
    found = assessed_with(replace(plan, lesions=(replace(lesion, simulated_zone=beside),)))
    assert "simulated_zone_misses_tumor" in [r.code for r in found.reasons]
    assert "simulated_zone_misses_tumor" not in [r.code for r in assessed_with(plan).reasons]


def test_a_simulated_zone_that_leaves_part_of_its_tumor_out_is_told(
    incomplete_phantom: Phantom, assessed_with: Callable[[Plan], LesionAssessment]
) -> None:
    plan, lesion = incomplete_phantom.plan, incomplete_phantom.plan.lesions[0]
    grid = lesion.tumor.geometry
    off_mm = np.linalg.norm(grid.grid_lps() - lesion.tumor.centroid_lps_mm - (0.0, 9.0, 0.0), axis=-1)
    found = assessed_with(replace(plan, lesions=(replace(lesion, simulated_zone=Mask(off_mm < 12.0, grid)),)))
    (told,) = [r for r in found.reasons if r.code.startswith("simulated_zone_")]
    assert found.simulated_zone is not None
    assert found.simulated_zone.minimal_margin_mm < -1.0
    assert told.code == "simulated_zone_leaves_tumor"
    assert f"({-found.simulated_zone.minimal_margin_mm:.1f} mm at the farthest)" in told.text
    assert "simulated_zone_leaves_tumor" not in [r.code for r in assessed_with(plan).reasons]


def test_a_simulated_zone_that_the_baseline_cuts_off_is_not_compared(
    incomplete_phantom: Phantom, assessed_with: Callable[[Plan], LesionAssessment]
) -> None:
    plan, lesion = incomplete_phantom.plan, incomplete_phantom.plan.lesions[0]
    assert lesion.simulated_zone is not None
    voxels = lesion.simulated_zone.voxels.copy()
    index = np.argwhere(voxels)
    k, j, i = index.mean(0).astype(int)
    voxels[k, j, i:] = True  # as far as the scan goes
    cut = replace(lesion, simulated_zone=Mask(voxels, lesion.simulated_zone.geometry))
    whole, found = assessed_with(plan), assessed_with(replace(plan, lesions=(cut,)))
    assert whole.simulated_zone is not None
    assert "simulated_zone_cut_by_baseline" not in [r.code for r in whole.reasons]
    assert found.simulated_zone is None
    assert "simulated_zone_cut_by_baseline" in [r.code for r in found.reasons]


def test_a_predicted_zone_far_too_large_hides_nothing(
    incomplete_phantom: Phantom, assessed_with: Callable[[Plan], LesionAssessment]
) -> None:
    plan, lesion = incomplete_phantom.plan, incomplete_phantom.plan.lesions[0]
    grid = lesion.tumor.geometry
    far_mm = np.linalg.norm((grid.grid_lps() - lesion.tumor.centroid_lps_mm) / (1.0, 1.15, 1.0), axis=-1)
    large = replace(lesion, simulated_zone=Mask(far_mm < 31.0, grid), zone_is_predicted=True)
    found = assessed_with(replace(plan, lesions=(large,)))
    assert found.outcome == "incomplete_coverage"
