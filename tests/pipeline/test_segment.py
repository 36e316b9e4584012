"""The zone on made images: found at fair contrast, refused at none, never held up by a wrong prior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.assessment import Reason
from pipeline.geometry import Geometry
from pipeline.segment import Surroundings, Zone, segment_zone
from pipeline.volume import Volume

SPACING = (2.5, 0.9, 0.9)


def made(
    *, contrast: float, noise: float, shift: float = 0.0, core_hu: float = 0.0, seed: int = 0
) -> tuple[Volume, Surroundings, NDArray[np.bool_]]:
    """A zone of radius 15 in a liver of 110 HU; the prior may be shifted along x."""
    shape = (32, 90, 90)
    matrix = np.zeros((4, 4))
    for k, axis in enumerate((2, 1, 0)):
        matrix[axis, k] = SPACING[k]
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    matrix[3, 3] = 1
    grid = Geometry(shape, matrix, "f")
    points = grid.grid_lps()
    radius = np.linalg.norm(points, axis=-1)
    clean = np.where(radius < 15, 110.0 - contrast, 110.0) + np.where(radius < 6, core_hu, 0.0)
    rng = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(rng.normal(size=shape), (0, 0.6, 0.6))
    image = ndimage.gaussian_filter(clean, (0.3, 0.7, 0.7)) + rough * noise / rough.std()
    prior = 17 - np.linalg.norm(points - (shift, 0, 0), axis=-1)
    around = Surroundings(prior.astype(np.float32), (9 - radius).astype(np.float32), None, 1.0)
    return Volume(image.astype(np.float32), grid, "ct_hu"), around, radius < 15


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize(("contrast", "noise", "least"), [(70, 14, 0.97), (50, 16, 0.96), (30, 14, 0.93)])
def test_dice(contrast: float, noise: float, least: float) -> None:
    image, around, truth = made(contrast=contrast, noise=noise)
    found = segment_zone(image, around)
    assert isinstance(found, Zone)
    assert dice(found.mask.voxels, truth) > least


@pytest.mark.parametrize("shift", [-7.0, 7.0])
def test_a_shifted_prior_does_not_pull_the_zone(shift: float) -> None:
    image, around, truth = made(contrast=60, noise=14, shift=shift)
    found = segment_zone(image, around)
    assert isinstance(found, Zone)
    assert dice(found.mask.voxels, truth) > 0.96


def test_no_zone_is_a_reason() -> None:
    image, around, _ = made(contrast=0, noise=14)
    found = segment_zone(image, around)
    assert isinstance(found, Reason)
    assert found.code in ("zone_not_found", "contrast_to_noise_too_low")


def test_too_little_contrast_is_a_reason_not_a_guess() -> None:
    image, around, _ = made(contrast=7, noise=22)
    found = segment_zone(image, around)
    assert isinstance(found, Reason)


def test_constant_and_invalid_images_are_reasons() -> None:
    image, around, _ = made(contrast=50, noise=14)
    for value in (0.0, np.nan):
        flat = Volume(np.full(image.geometry.shape, value, np.float32), image.geometry, "ct_hu")
        assert isinstance(segment_zone(flat, around), Reason)


def test_of_two_zones_the_planned_one_is_taken() -> None:
    """A second, darker hole in the organ 25 mm beside it belongs to another lesion, or is a cyst."""
    image, around, truth = made(contrast=60, noise=12)
    other = np.linalg.norm(image.geometry.grid_lps() - (29.0, 0.0, 0.0), axis=-1) < 9
    both = Volume(np.where(other, 20.0, image.voxels).astype(np.float32), image.geometry, "ct_hu")
    found = segment_zone(both, around)
    assert isinstance(found, Zone)
    assert dice(found.mask.voxels, truth) > 0.96
    assert (found.mask.voxels & other).sum() == 0


def test_a_zone_that_fills_the_organ_is_a_reason() -> None:
    """Where nothing that enhances is left around it, there is no organ to tell it from."""
    image, around, _ = made(contrast=60, noise=12)
    dark = np.where(np.linalg.norm(image.geometry.grid_lps(), axis=-1) < 60, 50.0, 110.0)
    rough = np.random.default_rng(1).normal(0, 12, dark.shape)
    found = segment_zone(Volume((dark + rough).astype(np.float32), image.geometry, "ct_hu"), around)
    assert isinstance(found, Reason)
    assert found.code == "zone_not_found"


def test_what_may_be_core_or_tumor_is_kept_apart() -> None:
    """A bright middle between zone and organ stays open, and what the zone would be without it is told."""
    image, around, truth = made(contrast=60, noise=10, core_hu=42)
    found = segment_zone(image, around)
    assert isinstance(found, Zone)
    assert found.if_core is not None
    assert dice(found.if_core.voxels, truth) > 0.96
    assert found.if_core.volume_ml > found.mask.volume_ml + 0.2
    plain = segment_zone(*made(contrast=60, noise=10)[:2])
    assert isinstance(plain, Zone)
    assert plain.if_core is None


def test_a_dense_core_is_filled_and_told_where_viable_tumor_would_be_brighter() -> None:
    image, around, truth = made(contrast=60, noise=10, core_hu=42)
    found = segment_zone(image, replace(around, tumor_to_organ=1.6))
    assert isinstance(found, Zone)
    assert dice(found.mask.voxels, truth) > 0.96
    assert found.bright_core_ml > 0.1


def test_a_hole_as_bright_as_viable_tumor_stays_open() -> None:
    image, around, _ = made(contrast=60, noise=10, core_hu=42)
    found = segment_zone(image, around)
    assert isinstance(found, Zone)
    assert found.bright_core_ml == 0.0
    hole = (around.tumor_mm > 5.0) & ~found.mask.voxels
    assert hole.sum() * image.geometry.voxel_volume_mm3 > 200


def test_tumor_as_dark_as_the_zone_is_told() -> None:
    image, around, _ = made(contrast=60, noise=12)
    for ratio, clear in ((1.0, True), (0.75, True), (0.5, False)):
        found = segment_zone(image, replace(around, tumor_to_organ=ratio))
        assert isinstance(found, Zone)
        assert found.intensities.tumor_is_distinguishable is clear
