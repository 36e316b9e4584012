"""Where the baseline does not show the organ's edge, none lowers the required margin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.assessment import LesionAssessment
from pipeline.case import Plan
from pipeline.geometry import FloatArray, upright_grid
from pipeline.organ_edge import closed_organ, depth_below_mm
from pipeline.organ_edge_seen import edge_unseen
from pipeline.phantom import Phantom
from pipeline.surface import surface_of_mask
from pipeline.volume import Mask, Quantity, Volume

GRID = upright_grid((80, 80, 80), (1.0, 1.0, 1.0), (-40.0, -40.0, -40.0), "frame")
X = GRID.grid_lps()[..., 0]
REQUIRED_MM = 5.0


def ball(x_mm: float, radius_mm: float) -> Mask:
    return Mask(np.linalg.norm(GRID.grid_lps() - (x_mm, 0.0, 0.0), axis=-1) <= radius_mm, GRID)


def scan(true_organ: Mask, *, beyond: float, noise: float = 15.0, quantity: Quantity = "ct_hu") -> Volume:
    """110 in the organ, a darker tumor, something else beyond."""
    voxels = np.where(true_organ.voxels, 110.0, beyond)
    voxels = np.where(ball(0.0, 8.0).voxels, 80.0, voxels)
    voxels = voxels + np.random.default_rng(3).normal(0.0, noise, voxels.shape)
    return Volume(voxels.astype(np.float32), GRID, quantity)


def unseen_at(organ: Mask, baseline: Volume) -> tuple[FloatArray, FloatArray]:
    """Places on the tumor's surface where less than the required margin would be asked for, and whether the edge there
    is not seen."""
    tumor = ball(0.0, 8.0)
    points = surface_of_mask(tumor).vertices_lps_mm
    whole = closed_organ(organ, [tumor], points, scan=GRID, reach_mm=REQUIRED_MM + 6.0)
    near = points[depth_below_mm(whole, points, reach_mm=REQUIRED_MM) < REQUIRED_MM]
    assert len(near) > 20
    return near, edge_unseen(baseline, whole, [tumor], near, reach_mm=REQUIRED_MM).astype(float)


@pytest.mark.parametrize("beyond", [-100.0, -840.0, 55.0, 170.0])
@pytest.mark.parametrize("at_mm", [6.0, 8.0, 10.0])
def test_an_edge_with_something_else_behind_it_is_seen(at_mm: float, beyond: float) -> None:
    organ = Mask(at_mm >= X, GRID)
    _, unseen = unseen_at(organ, scan(organ, beyond=beyond))
    assert unseen.mean() < 0.02


@pytest.mark.parametrize(("quantity", "beyond"), [("ct_hu", 115.0), ("ct_hu", 100.0), ("mr_signal", 105.0)])
def test_an_edge_before_something_as_bright_as_the_organ_is_not_seen(quantity: Quantity, beyond: float) -> None:
    organ = Mask(X <= 10.0, GRID)
    for noise in (1.0, 15.0):
        _, unseen = unseen_at(organ, scan(organ, beyond=beyond, noise=noise, quantity=quantity))
        assert unseen.mean() > 0.95


def test_a_wrong_edge_is_found_beside_a_right_one() -> None:
    """The organ ends on one side; on the other side its mask is cut through it."""
    true_organ = Mask(X <= 10.0, GRID)
    places, unseen = unseen_at(Mask(true_organ.voxels & (X >= -10.0), GRID), scan(true_organ, beyond=-100.0))
    assert unseen[places[:, 0] < -4.0].mean() > 0.95
    assert unseen[places[:, 0] > 4.0].mean() < 0.02


def test_what_cannot_be_looked_at_is_not_seen() -> None:
    organ, tumor = Mask(X <= 10.0, GRID), ball(0.0, 8.0)
    far = np.array([[400.0, 0.0, 0.0]])
    baseline = scan(organ, beyond=-100.0)
    assert edge_unseen(baseline, organ, [tumor], far, reach_mm=REQUIRED_MM).all()
    assert not len(edge_unseen(baseline, organ, [tumor], np.empty((0, 3)), reach_mm=REQUIRED_MM))


def test_a_mask_cut_through_the_organ_beside_the_tumor_lowers_no_margin(
    incomplete_phantom: Phantom, assessed_with: Callable[[Plan], LesionAssessment]
) -> None:
    plan, tumor = incomplete_phantom.plan, incomplete_phantom.plan.lesions[0].tumor
    assert plan.organ_mask is not None
    end = tumor.points_lps_mm()[:, 1].min() - 1.0
    cut = Mask(plan.organ_mask.voxels & (plan.organ_mask.geometry.grid_lps()[..., 1] >= end), plan.organ_mask.geometry)
    whole, found = assessed_with(plan), assessed_with(replace(plan, organ_mask=cut))
    assert whole.margin is not None
    assert found.margin is not None
    assert found.margin.organ_limited_margin_mm == pytest.approx(whole.margin.organ_limited_margin_mm, abs=0.01)
    assert "organ_edge_not_seen" in [r.code for r in found.reasons]
    assert "organ_edge_not_seen" not in [r.code for r in whole.reasons]
