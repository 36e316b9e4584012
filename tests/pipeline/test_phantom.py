"""The phantom's truth against slow, independent second ways of finding it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from pipeline.geometry import FloatArray, Geometry
from pipeline.phantom import Phantom, PhantomFollowUp, make_phantom, truth_of
from pipeline.phantom_body import level_hu, made_body, noise_hu
from pipeline.phantom_shape import Blob, Dented, least_margin, smooth_motion, surface_points, volume_grid
from pipeline.phantom_stories import STORIES, story


def fine_margin_mm(spec_index: int, phantom: Phantom, step_mm: float) -> tuple[float, float]:
    """(margin, half its uncertainty) by brute force: a distance transform on a fine grid in the follow-up's frame."""
    made = phantom.spec.followups[spec_index]
    center = made.motion.inverse(np.array(made.zone.center_lps_mm))
    axis = np.arange(-28, 28, step_mm)
    points = center + np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    baseline = made.motion(points)
    zone = made.shape.depth_mm(baseline) > 0
    tumor = phantom.spec.tumor.depth_mm(baseline) > 0
    edge = tumor & ~ndimage.binary_erosion(tumor)
    inside = ndimage.distance_transform_edt(zone, sampling=step_mm)[edge].min()
    outside = ndimage.distance_transform_edt(~zone, sampling=step_mm)[edge].max()
    # Voxel centers of the tumor's edge lie up to a step inside it, those of the zone's edge up to one outside it.
    return (float(inside) if outside == 0 else -float(outside)), 1.2 * step_mm


def test_minimal_margins_agree_with_brute_force(incomplete_phantom: Phantom, progression_phantom: Phantom) -> None:
    for phantom, number in ((incomplete_phantom, 0), (progression_phantom, 0), (progression_phantom, 1)):
        expected, tolerance = fine_margin_mm(number, phantom, 0.5)
        assert phantom.followups[number].truth.minimal_margin_mm == pytest.approx(expected, abs=tolerance)


def test_least_margin_of_balls_is_exact() -> None:
    for shift, zone_radius in ((3.0, 15.0), (8.0, 12.0), (0.0, 14.0)):
        tumor, zone = Blob((shift, 0.0, 0.0), (9.0, 9.0, 9.0)), Blob((0.0, 0.0, 0.0), (zone_radius,) * 3)
        surfaces = [surface_points(b.depth_mm, b.center_lps_mm, reach_mm=30, count=40_000) for b in (tumor, zone)]
        margin, point = least_margin(*surfaces, zone.depth_mm)
        assert margin == pytest.approx(zone_radius - 9 - shift, abs=0.01)
        if shift:
            assert point == pytest.approx([9 + shift, 0, 0], abs=0.5)


def test_margin_does_not_depend_on_how_densely_the_surfaces_are_sampled(progression_phantom: Phantom) -> None:
    spec = progression_phantom.spec
    made = spec.followups[1]

    def zone(points: FloatArray) -> FloatArray:
        return made.shape.depth_mm(made.motion(points))

    found = []
    for count in (15_000, 60_000):
        shapes = (Dented(spec.tumor), made.shape)
        surfaces = [
            made.motion.inverse(surface_points(s.depth_mm, s.blob.center_lps_mm, reach_mm=30, count=count))
            for s in shapes
        ]
        found.append(least_margin(*surfaces, zone)[0])
    assert np.ptp(found) < 0.05
    assert found[-1] == pytest.approx(progression_phantom.followups[1].truth.minimal_margin_mm, abs=0.03)


@pytest.mark.parametrize("name", [name for name in STORIES if name not in ("no_simulation", "wrong_patient")])
def test_every_story_tells_what_it_says(name: str) -> None:
    spec = story(name)
    for number, made in enumerate(spec.followups):
        truth = truth_of(spec, number)
        assert 300 == len(truth.landmarks_followup_lps_mm) == len(truth.landmarks_baseline_lps_mm)
        assert not truth.zone.is_empty
        for cut in made.missed + made.nodules:
            assert cut.depth_mm(np.array(made.zone.center_lps_mm)) < -0.5, "the zone would not be star-shaped"
        if number == 0 and made.expected != "not_assessable":
            assert {
                "complete": truth.minimal_margin_mm > spec.required_margin_mm + 1,
                "narrow_margin": 1 < truth.minimal_margin_mm < spec.required_margin_mm - 1,
                "incomplete_coverage": truth.minimal_margin_mm < -2 and truth.uncovered_volume_ml > 0.3,
            }[made.expected]
        if made.expected == "local_progression":
            assert truth.nodules.volume_ml > 1
            assert (truth.nodules & truth.zone).is_empty


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_other_patients_of_the_stories_keep_their_outcomes(seed: int) -> None:
    margins = {name: truth_of(story(name, seed=seed), 0).minimal_margin_mm for name in ("complete", "narrow")}
    assert margins["complete"] > 6
    assert 1 < margins["narrow"] < 4
    assert truth_of(story("incomplete", seed=seed), 0).uncovered_volume_ml > 0.3


def test_volumes_and_coverage_agree_with_the_masks(incomplete_phantom: Phantom) -> None:
    truth = incomplete_phantom.followups[0].truth
    assert truth.tumor.volume_ml == pytest.approx(truth.tumor_volume_ml, rel=0.03)
    assert truth.zone.volume_ml == pytest.approx(truth.zone_volume_ml, rel=0.02)
    assert (truth.tumor - truth.zone).volume_ml == pytest.approx(truth.uncovered_volume_ml, abs=0.15)
    assert truth.covered_fraction == pytest.approx(1 - truth.uncovered_volume_ml / truth.tumor_volume_ml)


def test_landmarks_correspond_and_lie_in_the_liver_around_the_zone(progression_phantom: Phantom) -> None:
    for made, followup in zip(progression_phantom.spec.followups, progression_phantom.followups, strict=True):
        truth = followup.truth
        mapped = truth.baseline_from_followup(truth.landmarks_followup_lps_mm)
        assert np.abs(mapped - truth.landmarks_baseline_lps_mm).max() < 1e-5
        assert made_body(0).liver_depth_mm(truth.landmarks_baseline_lps_mm).min() > 0
        away = truth.landmarks_baseline_lps_mm - np.array(made.zone.center_lps_mm)
        assert np.linalg.norm(away, axis=1).max() <= 40
        motion = np.linalg.norm(truth.landmarks_followup_lps_mm - truth.landmarks_baseline_lps_mm, axis=1)
        assert 5 < motion.min()
        assert motion.max() < 20


@pytest.mark.parametrize("seed", range(4))
def test_motions_are_smooth_and_can_be_inverted(seed: int) -> None:
    motion = smooth_motion(seed, shift_mm=(2, -3, 8), tilt_deg=(2, -1, 1.5), pivot_lps_mm=(-80, 0, 0), amplitude_mm=3.0)
    points = volume_grid(np.full(3, -150.0), np.full(3, 150.0), 50.0)
    assert np.abs(motion(motion.inverse(points)) - points).max() < 1e-5
    columns = [(motion(points + e) - motion(points - e)) / 0.2 for e in np.eye(3) * 0.1]
    determinants = np.linalg.det(np.stack(columns, axis=-1))
    assert determinants.min() > 0.6
    assert determinants.max() < 1.6


def test_the_same_spec_makes_the_same_phantom(incomplete_phantom: Phantom) -> None:
    again = make_phantom(incomplete_phantom.spec)
    assert np.array_equal(again.plan.baseline.voxels, incomplete_phantom.plan.baseline.voxels)
    assert np.array_equal(again.followups[0].volume.voxels, incomplete_phantom.followups[0].volume.voxels)
    assert again.plan.baseline.geometry.same_grid(incomplete_phantom.plan.baseline.geometry)


def test_another_seed_is_another_person() -> None:
    points = volume_grid(np.array([-140.0, -80.0, -60.0]), np.array([60.0, 60.0, 70.0]), 6.0)
    mine, yours = (made_body(seed).liver_depth_mm(points) > 0 for seed in (0, 1))
    assert 0.7 < 2 * (mine & yours).sum() / (mine.sum() + yours.sum()) < 0.99


def mean_hu(followup: PhantomFollowUp, places: FloatArray) -> float:
    """Mean HU around baseline places, looked up where they lie in the follow-up."""
    index = followup.volume.geometry.index_of(followup.truth.baseline_from_followup.inverse(places))
    return float(ndimage.map_coordinates(followup.volume.voxels.astype(np.float32), index.T, order=1).mean())


@pytest.mark.parametrize("phase", ["unenhanced", "arterial", "portal_venous"])
def test_tissues_have_the_hu_of_their_phase(phase: str) -> None:
    spec = story("complete")
    made = replace(spec.followups[0], phase=phase, contrast_scale=1.0, core_hu=0.0)
    (followup,) = make_phantom(replace(spec, followups=(made,))).followups
    body = made_body(spec.seed)
    height = np.arange(-30.0, 40.0, 4.0)
    aorta = np.column_stack([np.full_like(height, 13.0), np.full_like(height, 42.0), height]) * body.scale
    assert mean_hu(followup, aorta) == pytest.approx(level_hu("aorta", made.phase), abs=8)
    near = volume_grid(np.array(made.zone.center_lps_mm) - 38, np.array(made.zone.center_lps_mm) + 38, 4.0)
    liver = near[(made.zone.depth_mm(near) < -6) & (body.liver_depth_mm(near) > 5)]
    assert mean_hu(followup, liver) == pytest.approx(level_hu("liver", made.phase), abs=8)
    zone = near[made.zone.depth_mm(near) > 4]
    assert mean_hu(followup, zone) == pytest.approx(made.zone_hu, abs=4)


def test_scans_have_grids_and_frames_of_their_own(progression_phantom: Phantom) -> None:
    geometries: list[Geometry] = [progression_phantom.plan.baseline.geometry]
    geometries += [followup.volume.geometry for followup in progression_phantom.followups]
    assert len({g.frame_uid for g in geometries}) == 3
    assert len({tuple(g.spacing_mm) for g in geometries}) == 3
    assert len({g.shape for g in geometries}) == 3


def test_noise_is_as_strong_as_asked_and_has_grains(incomplete_phantom: Phantom) -> None:
    noise = noise_hu(incomplete_phantom.plan.baseline.geometry, 12.0, 1)
    assert noise.std() == pytest.approx(12, abs=0.1)
    assert abs(noise.mean()) < 0.2
    assert np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1] > 0.1


def test_a_scan_of_another_region_shows_no_zone() -> None:
    spec = story("incomplete")
    (made,) = spec.followups
    away = replace(made.grid, center_lps_mm=(0.0, 0.0, 900.0))
    truth = truth_of(replace(spec, followups=(replace(made, grid=away),)), 0)
    assert truth.zone.is_empty
    assert truth.tumor.is_empty
    assert not truth_of(spec, 0).zone.is_empty


def test_an_unknown_story_is_refused() -> None:
    with pytest.raises(ValueError, match="no story is called fairy_tale"):
        story("fairy_tale")
