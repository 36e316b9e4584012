"""Scans finer than the method needs are joined to coarser ones, and what was found comes back on their own grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline import fine_grids
from pipeline.assess import assess
from pipeline.assessment import Assessment
from pipeline.case import Case
from pipeline.fine_grids import averaged, spread, thinned
from pipeline.geometry import Geometry, GeometryMismatch, upright_grid
from pipeline.phantom import Phantom
from pipeline.volume import Mask, Volume

RNG = np.random.default_rng(5)


def oblique(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Geometry:
    """A grid turned about two axes."""
    a, b = np.cos(0.4), np.sin(0.4)
    turn = np.array([[a, -b, 0], [b, a, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, a, -b], [0, b, a]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn * spacing_mm
    matrix[:3, 3] = (12.0, -7.0, 30.0)
    return Geometry(shape, matrix, "1.2")


def cut_in_parts(volume: Volume, parts: tuple[int, int, int]) -> Volume:
    """The same image with every voxel cut into equal ones."""
    voxels = volume.voxels
    for axis, count in enumerate(parts):
        voxels = voxels.repeat(count, axis)
    return Volume(voxels, volume.geometry.resampled(volume.geometry.spacing_mm / parts), volume.quantity)


@pytest.mark.parametrize(
    ("spacing_mm", "joined_mm"),
    [
        ((0.3, 0.3, 0.3), (0.6, 0.6, 0.6)),
        ((0.15, 0.2, 0.35), (0.6, 0.6, 0.7)),
        ((10.0, 0.3, 0.36), (10.0, 0.6, 0.36)),
        ((5.0, 0.8, 0.8), (5.0, 0.8, 0.8)),
        ((1.0, 0.5, 0.5), (1.0, 0.5, 0.5)),
    ],
)
def test_voxels_are_joined_up_to_seven_tenths_of_a_millimetre(
    spacing_mm: tuple[float, float, float], joined_mm: tuple[float, float, float]
) -> None:
    volume = Volume(RNG.normal(size=(12, 13, 14)).astype(np.float32), oblique((12, 13, 14), spacing_mm), "ct_hu")
    assert averaged(volume).geometry.spacing_mm == pytest.approx(joined_mm)
    assert thinned(Mask(volume.voxels > 0, volume.geometry)).geometry.spacing_mm == pytest.approx(joined_mm)


def test_a_coarse_scan_is_left_as_it_is() -> None:
    volume = Volume(np.zeros((4, 5, 6), np.int16), oblique((4, 5, 6), (2.5, 0.7, 0.7)), "ct_hu")
    mask = Mask(np.ones((4, 5, 6), bool), volume.geometry)
    assert averaged(volume) is volume
    assert thinned(mask) is mask
    assert spread(mask, volume.geometry) is mask


def test_averaging_undoes_cutting_voxels_in_parts() -> None:
    voxels = RNG.integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    volume = Volume(voxels, oblique((5, 6, 7), (0.6, 0.7, 0.5)), "ct_hu")
    back = averaged(cut_in_parts(volume, (2, 2, 1)))
    assert back.geometry.same_grid(volume.geometry)
    np.testing.assert_allclose(back.voxels, voxels, atol=1e-3)


def test_what_was_found_comes_back_where_it_was() -> None:
    """Also where the voxels do not divide: the last ones are as their neighbours."""
    fine = oblique((7, 9, 11), (0.3, 0.3, 0.2))
    joined = averaged(Volume(np.zeros(fine.shape, np.int16), fine, "ct_hu")).geometry
    assert joined.shape == (3, 4, 3)
    found = Mask(RNG.random(joined.shape) > 0.5, joined)
    back = spread(found, fine)
    assert back.geometry.same_grid(fine)
    inside = joined.contains(fine.grid_lps())
    nearest = np.round(joined.index_of(fine.grid_lps()[inside])).astype(int)
    assert (back.voxels[inside] == found.voxels[tuple(nearest.T)]).all()
    assert (back.voxels[-1] == back.voxels[-2]).all()
    moved = Geometry(joined.shape, joined.lps_from_index + 0.3 * np.eye(4, k=3), "1.2")
    with pytest.raises(GeometryMismatch):
        spread(Mask(found.voxels, moved), fine)


def test_a_thinned_region_keeps_its_place_and_volume_on_average() -> None:
    grid = upright_grid((60, 60, 60), (0.3, 0.3, 0.3), (0, 0, 0), "1.2")
    volumes, places = [], []
    for _ in range(20):
        center = 9.0 + RNG.uniform(-0.6, 0.6, 3)
        ball = thinned(Mask(np.linalg.norm(grid.grid_lps() - center, axis=-1) < 5.0, grid))
        volumes.append(ball.volume_ml)
        places.append(ball.centroid_lps_mm - center)
    assert np.mean(volumes) == pytest.approx(4 / 3 * np.pi * 0.125, rel=0.01)
    assert np.abs(np.mean(places, axis=0)).max() < 0.03


def test_a_region_of_one_voxel_is_not_lost() -> None:
    voxels = np.zeros((5, 5, 5), bool)
    voxels[1, 1, 1] = True
    mask = Mask(voxels, upright_grid((5, 5, 5), (0.3, 0.3, 0.3), (0, 0, 0), "1.2"))
    assert thinned(mask) is mask


@pytest.mark.slow
def test_the_whole_way_answers_on_the_scans_own_grid(
    monkeypatch: pytest.MonkeyPatch, incomplete_phantom: Phantom, incomplete_assessment: Assessment
) -> None:
    """A scan with every voxel cut in four has the same answer (the small patient has large voxels, hence the limit)."""
    monkeypatch.setattr(fine_grids, "FINEST_MM", 1.7)
    followup = incomplete_phantom.followups[0].followup
    fine = cut_in_parts(followup.volume, (1, 2, 2))
    found = assess(Case(incomplete_phantom.plan, replace(followup, volume=fine)))
    lesion, before = found.lesions[0], incomplete_assessment.lesions[0]
    assert found.outcome == incomplete_assessment.outcome
    assert lesion.margin is not None
    assert before.margin is not None
    assert lesion.margin.minimal_margin_mm == pytest.approx(before.margin.minimal_margin_mm, abs=1e-3)
    for new, old in ((lesion.zone, before.zone), (lesion.tumor, before.tumor), (lesion.uncovered, before.uncovered)):
        assert new is not None
        assert old is not None
        assert new.geometry.same_grid(fine.geometry)
        assert (new.voxels[:, ::2, ::2] == old.voxels).mean() > 0.9999
