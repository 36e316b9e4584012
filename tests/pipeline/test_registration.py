"""Registration of the phantom against its exact motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.both_ways import BothWays, both_ways_from, deform_both_ways
from pipeline.device import device_of
from pipeline.geometry import Geometry
from pipeline.organ import find_organ
from pipeline.phantom import Phantom
from pipeline.register import COARSE_LEVELS, FINE_LEVELS, bending_energy, deform
from pipeline.rigid import rigid_start
from pipeline.sampling import Box, box_of, extent_of, refined, smoothed, spline_grid
from pipeline.transform import SplineField, Transform
from pipeline.trust import LEAST_AGREEMENT, agreement_around
from pipeline.volume import Volume
from pipeline.where import Where


def target_error(transform: Transform, phantom: Phantom, number: int = 0) -> float:
    truth = phantom.followups[number].truth
    mapped = transform(truth.landmarks_followup_lps_mm)
    return float(np.linalg.norm(mapped - truth.landmarks_baseline_lps_mm, axis=1).mean())


@pytest.fixture(scope="module")
def start(incomplete_phantom: Phantom) -> Transform:
    lesion = incomplete_phantom.plan.lesions[0]
    region = box_of(lesion.tumor.points_lps_mm())
    followup = incomplete_phantom.followups[0].followup.volume
    found = rigid_start(followup, incomplete_phantom.plan.baseline, region=region)
    return found


def test_rigid_start_brings_the_lesion_within_reach(start: Transform, incomplete_phantom: Phantom) -> None:
    assert target_error(start, incomplete_phantom) < 6.0


def test_deformation_reaches_a_millimetre_and_does_not_fold(start: Transform, incomplete_phantom: Phantom) -> None:
    plan, followup = incomplete_phantom.plan, incomplete_phantom.followups[0]
    lesion = plan.lesions[0]
    box = box_of(start.inverse_points(lesion.tumor.points_lps_mm()))
    whole = extent_of(followup.followup.volume.geometry)
    where = Where(box.grown(60).meet(whole), (box.grown(35).meet(whole),), followup.truth.zone, lesion.tumor)
    found = deform(followup.followup.volume, plan.baseline, start, where=where, levels=COARSE_LEVELS)
    assert target_error(found, incomplete_phantom) < min(1.5, target_error(start, incomplete_phantom))
    assert found.jacobian_determinants(followup.truth.landmarks_followup_lps_mm).min() > 0.5
    again = deform(followup.followup.volume, plan.baseline, start, where=where, levels=COARSE_LEVELS)
    assert found.field is not None
    assert again.field is not None
    assert np.allclose(found.field.coefficients_mm, again.field.coefficients_mm, atol=1e-4)


def test_rigid_start_finds_a_far_origin(incomplete_phantom: Phantom) -> None:
    """Another scanner's origin: the same image, 60 mm and more away."""
    baseline = incomplete_phantom.plan.baseline
    matrix = baseline.geometry.lps_from_index.copy()
    matrix[:3, 3] += (60.0, -45.0, 300.0)
    moved = Volume(baseline.voxels, replace(baseline.geometry, lps_from_index=matrix, frame_uid="other"), "ct_hu")
    region = box_of(incomplete_phantom.plan.lesions[0].tumor.points_lps_mm())
    found = rigid_start(moved, baseline, region=region)
    middle = (region.low + region.high) / 2
    assert np.linalg.norm(found(middle + np.array([60.0, -45.0, 300.0])) - middle) < 1.0


def test_agreement_tells_the_same_body_from_a_stranger(incomplete_phantom: Phantom) -> None:
    plan, followup = incomplete_phantom.plan, incomplete_phantom.followups[0]
    volume, tumor = followup.followup.volume, plan.lesions[0].tumor
    true = Transform(plan.baseline.geometry.frame_uid, volume.geometry.frame_uid, np.eye(4))
    shift = (followup.truth.landmarks_baseline_lps_mm - followup.truth.landmarks_followup_lps_mm).mean(0)
    near = np.eye(4)
    near[:3, 3] = shift
    far = np.eye(4)
    far[:3, 3] = shift + np.array([40, 30, 20])
    zone = followup.truth.zone
    box = box_of(zone.points_lps_mm())
    good = agreement_around(volume, plan.baseline, replace(true, matrix=near), near=box, zone=zone, tumor=tumor)
    bad = agreement_around(volume, plan.baseline, replace(true, matrix=far), near=box, zone=zone, tumor=tumor)
    assert good > LEAST_AGREEMENT > bad


def test_refining_a_spline_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    grid = spline_grid(Box(np.zeros(3), np.array([50.0, 40.0, 60.0])), 20.0, "f")
    coefficients = rng.normal(size=(3, *grid.shape))
    fine, fine_grid = refined(torch.tensor(coefficients), grid)
    points = rng.uniform([0, 0, 0], [50, 40, 60], (100, 3))
    a = SplineField(coefficients, grid).displacement_mm(points)
    b = SplineField(fine.numpy(), fine_grid).displacement_mm(points)
    assert np.abs(a - b).max() < 1e-9


def test_bending_energy_ignores_affine_motion_and_sees_a_bend() -> None:
    grid = spline_grid(Box(np.zeros(3), np.full(3, 60.0)), 20.0, "f")
    points = torch.tensor(np.moveaxis(grid.grid_lps(), -1, 0))
    assert float(bending_energy(0.1 * points + 3, 20.0)) < 1e-9
    assert float(bending_energy(points**2 / 1000, 20.0)) > 1e-3


def test_the_mean_of_both_ways_lies_between_them() -> None:
    """2 mm one way and 1 mm the other; where the way back knows nothing, the way there stands alone."""
    grid = spline_grid(Box(np.zeros(3), np.full(3, 200.0)), 20.0, "followup")
    half = spline_grid(Box(np.zeros(3), np.array([100.0, 200.0, 200.0])), 20.0, "baseline")
    there = Transform("baseline", "followup", np.eye(4), SplineField(np.full((3, *grid.shape), 2.0), grid))
    back = Transform("followup", "baseline", np.eye(4), SplineField(np.full((3, *half.shape), -1.0), half))
    ways = BothWays(there, back)
    assert ways.joined(np.array([40.0, 50, 60])) == pytest.approx([41.5, 51.5, 61.5], abs=0.01)
    assert ways.joined(np.array([160.0, 50, 60])) == pytest.approx([162.0, 52.0, 62.0], abs=0.01)
    assert ways.apart_mm(np.array([[40.0, 50, 60]])) == pytest.approx(np.full((1, 3), -1.0), abs=1e-3)


def test_smoothed_keeps_the_place_of_things() -> None:
    """The center of mass of a blob stays where it was, whatever the spacing."""
    shape = (20, 64, 60)
    matrix = np.diag([0, 0, 0, 1.0])
    for k, axis in enumerate((2, 1, 0)):
        matrix[axis, k] = (2.5, 0.8, 0.8)[k]
    grid = Geometry(shape, matrix, "f")
    center = grid.lps_of(np.array([9.3, 30.2, 28.7]))
    values = 200 * np.exp(-(np.linalg.norm(grid.grid_lps() - center, axis=-1) ** 2) / 50)
    for spacing in (1.0, 2.5, 3.0, 4.0, 6.0):
        out, new = smoothed(Volume(values.astype(np.float32), grid, "ct_hu"), spacing_mm=spacing, low=0, high=250)
        points = new.grid_lps().reshape(-1, 3)
        found = (points * out.reshape(-1, 1)).sum(0) / out.sum()
        assert np.abs(found - center).max() < max(0.1, 0.05 * spacing), spacing


def test_liver_is_grown_without_a_mask(incomplete_phantom: Phantom) -> None:
    plan = incomplete_phantom.plan
    found = find_organ(plan.baseline, plan.lesions[0].tumor, organ="liver")
    assert found.mask is not None, found.how
    assert plan.organ_mask is not None
    truth = plan.organ_mask.volume_ml
    assert 0.6 * truth < found.mask.volume_ml < 1.4 * truth
    assert find_organ(plan.baseline, plan.lesions[0].tumor, organ="bone").mask is None


def test_auto_is_the_accelerator_where_there_is_one() -> None:
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_of("cpu").type == "cpu"
    with pytest.raises(RuntimeError, match="device"):
        device_of("abacus")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_the_same_transform_on_the_accelerator(incomplete_phantom: Phantom) -> None:
    plan, volume = incomplete_phantom.plan, incomplete_phantom.followups[0].followup.volume
    truth = incomplete_phantom.followups[0].truth
    region = box_of(plan.lesions[0].tumor.points_lps_mm())
    start = rigid_start(volume, plan.baseline, region=region, device="cpu")
    around = box_of(truth.zone.points_lps_mm()).grown(40.0)
    where = Where(around, (around,), truth.zone, plan.lesions[0].tumor, zones=(truth.zone,))
    points = truth.landmarks_followup_lps_mm
    found = []
    for device in ("cpu", "cuda"):
        ways = both_ways_from(start)
        for levels in (COARSE_LEVELS, FINE_LEVELS):
            ways = deform_both_ways(volume, plan.baseline, ways, where=where, levels=levels, device=device)
        found.append(ways.joined(points))
    assert np.linalg.norm(found[0] - found[1], axis=1).max() < 0.1
