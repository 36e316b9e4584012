"""Shading of MR, against a shading that was put there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.bias_field import evened
from pipeline.geometry import upright_grid
from pipeline.volume import Volume

GRID = upright_grid((24, 64, 64), (6.0, 4.0, 4.0), (-128.0, -128.0, -72.0), "frame")


def shaded(strength: float) -> tuple[Volume, NDArray[np.bool_], NDArray[np.bool_]]:
    """An ellipsoid body with an organ and noise, shaded from side to side; and where body and organ are."""
    points = GRID.grid_lps()
    body = ((points / (110.0, 90.0, 200.0)) ** 2).sum(-1) < 1
    organ = ((points - (30.0, 0.0, 0.0)) ** 2).sum(-1) < 45.0**2
    signal = np.where(body, 300.0, 0.0) + np.where(organ, 150.0, 0.0)
    signal *= 1 + strength * np.sin(points[..., 0] / 90.0)
    noise = np.random.default_rng(4).normal(0, 8, GRID.shape)
    return Volume((signal + noise).clip(0).astype(np.float32), GRID, "mr_signal"), body & ~organ, organ


def spread(volume: Volume, where: NDArray[np.bool_]) -> float:
    values = volume.voxels[where]
    return float(values.std() / values.mean())


def test_shading_goes_and_contrast_stays() -> None:
    volume, tissue, organ = shaded(0.3)
    found = evened(volume)
    assert spread(found, tissue) < 0.4 * spread(volume, tissue)
    assert 1.4 < np.median(found.voxels[organ]) / np.median(found.voxels[tissue]) < 1.6


def test_ct_and_empty_images_stay_as_they_are() -> None:
    volume, _, _ = shaded(0.3)
    ct = Volume(volume.voxels, GRID, "ct_hu")
    assert evened(ct) is ct
    empty = Volume(np.zeros(GRID.shape, np.float32), GRID, "mr_signal")
    assert evened(empty) is empty
