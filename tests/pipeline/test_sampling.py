"""Look-up of values at points, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.geometry import Geometry
from pipeline.sampling import field_of

CPU = torch.device("cpu")


def oblique(shape: tuple[int, int, int]) -> Geometry:
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([2.5, 0.8, 0.7])
    matrix[:3, 3] = (-120.0, 40.0, 310.0)
    return Geometry(shape, matrix, "frame")


@pytest.mark.parametrize("shape", [(9, 20, 24), (1, 20, 24)])
@pytest.mark.parametrize("beyond", ["border", "zeros"])
def test_values_lie_where_their_voxels_lie(shape: tuple[int, int, int], beyond: str) -> None:
    rng = np.random.default_rng(0)
    grid, values = oblique(shape), rng.normal(size=(2, *shape)).astype(np.float32)
    index = rng.uniform(-0.9, np.array(shape) - 0.1, (500, 3))
    if shape[0] == 1 and beyond == "zeros":
        index[:, 0] = 0.0  # between slices that are not there nothing is defined
    points = torch.from_numpy(grid.lps_of(index)).float()
    found = field_of(values, grid, CPU).channels_at(points, beyond=beyond).numpy()
    mode = "nearest" if beyond == "border" else "constant"
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1), (1, 1)), mode="edge" if beyond == "border" else "constant")
    for channel, inside in zip(found, padded, strict=True):
        assert np.allclose(channel, ndimage.map_coordinates(inside, index.T + 1, order=1, mode=mode), atol=2e-3)
    assert np.array_equal(field_of(values[0], grid, CPU).at(points).numpy(), field_of(values, grid, CPU).at(points))


def test_a_gradient_follows_the_slope() -> None:
    grid = oblique((9, 20, 24))
    slope = np.array([0.3, -1.2, 0.5])
    points = torch.from_numpy(grid.lps_of(np.random.default_rng(1).uniform(1, 7, (50, 3)))).float().requires_grad_(True)
    values = field_of(grid.grid_lps() @ slope, grid, CPU).at(points)
    (found,) = torch.autograd.grad(values.sum(), points)
    assert np.allclose(found.numpy(), slope, atol=1e-3)
