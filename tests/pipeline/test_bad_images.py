"""Images from which nothing can be told: the whole way ends in a reason, never in a crash or a guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.assess import assess
from pipeline.assessment import Assessment
from pipeline.case import Case
from pipeline.phantom import Phantom
from pipeline.volume import Volume

Array = NDArray[np.generic]


def with_voxels(phantom: Phantom, change: Callable[[Array], Array], *, of_baseline: bool = False) -> Assessment:
    """The assessment with one scan's voxels changed."""
    plan, followup = phantom.plan, phantom.followups[0].followup
    old = plan.baseline if of_baseline else followup.volume
    new = Volume(change(old.voxels), old.geometry, old.quantity)
    if of_baseline:
        return assess(Case(replace(plan, baseline=new), followup))
    return assess(Case(plan, replace(followup, volume=new)))


@pytest.mark.parametrize("value", [np.int16(40), np.float32(np.nan), np.float32(np.inf)])
@pytest.mark.parametrize("of_baseline", [False, True])
def test_a_blank_image_is_not_assessable(incomplete_phantom: Phantom, of_baseline: bool, value: np.generic) -> None:
    found = with_voxels(incomplete_phantom, lambda v: np.full(v.shape, value), of_baseline=of_baseline)
    assert found.outcome == "not_assessable"
    assert [r.code for r in found.reasons] == ["image_blank"]
    assert ("baseline" in found.reasons[0].text) == of_baseline
    assert [r.code for r in found.lesions[0].reasons] == ["image_blank"]


@pytest.mark.slow
def test_an_image_with_one_bright_voxel_is_not_assessable(incomplete_phantom: Phantom) -> None:
    """All but constant: the whole way, with next to nothing to register."""

    def nearly_constant(voxels: Array) -> Array:
        out = np.full(voxels.shape, 40, np.int16)
        out[tuple(n // 2 for n in out.shape)] = 200
        return out

    found = with_voxels(incomplete_phantom, nearly_constant)
    assert found.outcome == "not_assessable"
    assert found.reasons
    assert not found.registration.quality.accepted


@pytest.mark.slow
def test_noise_alone_is_not_assessable(incomplete_phantom: Phantom) -> None:
    rng = np.random.default_rng(0)
    found = with_voxels(incomplete_phantom, lambda v: rng.normal(60, 30, v.shape).astype(np.int16))
    assert found.outcome == "not_assessable"
    assert not found.registration.quality.accepted


@pytest.mark.parametrize("of_baseline", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gap_is_not_assessable(incomplete_phantom: Phantom, of_baseline: bool, value: float) -> None:
    """One voxel without a value: on its way it would come to count as dark, and dark is what an ablation zone is."""

    def with_gap(voxels: Array) -> Array:
        out = voxels.astype(np.float32)
        out[tuple(n // 2 for n in out.shape)] = value
        return out

    found = with_voxels(incomplete_phantom, with_gap, of_baseline=of_baseline)
    assert found.outcome == "not_assessable"
    assert [r.code for r in found.reasons] == ["image_has_gaps"]
    assert ("baseline" in found.reasons[0].text) == of_baseline


@pytest.mark.parametrize("of_baseline", [False, True])
def test_slices_that_lost_their_pixels_are_told(incomplete_phantom: Phantom, of_baseline: bool) -> None:
    def with_blank_slices(voxels: Array) -> Array:
        out = voxels.copy()
        middle = len(out) // 2
        out[middle - 2 : middle + 1] = 0
        return out

    found = with_voxels(incomplete_phantom, with_blank_slices, of_baseline=of_baseline)
    assert found.outcome == "not_assessable"
    assert [r.code for r in found.reasons] == ["image_has_gaps"]
    name = "plan's baseline" if of_baseline else "follow-up"
    assert f"The {name} has slices within it that hold one value only (3)" in found.reasons[0].text


@pytest.mark.slow
def test_a_scan_turned_upside_down_is_refused(incomplete_phantom: Phantom) -> None:
    """Slices in reverse under the same geometry: another body, as far as anybody can tell."""
    found = with_voxels(incomplete_phantom, lambda v: np.ascontiguousarray(v[::-1]))
    assert found.outcome == "not_assessable"
    assert not found.registration.quality.accepted
