"""Surfaces from masks, against spheres and ellipsoids by formula."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.geometry import FrameMismatch, Geometry, upright_grid
from pipeline.surface import Surface, level_of_mask, surface_of_mask
from pipeline.volume import Mask


def ellipsoid(spacing: tuple[float, float, float], radii: tuple[float, float, float]) -> Mask:
    """Radii along x, y, z; the middle of the grid lies at the origin."""
    shape = [int(np.ceil(2 * (r + 10) / s)) for r, s in zip(radii[::-1], spacing, strict=True)]
    first = -(np.array(shape[::-1]) - 1) / 2 * spacing[::-1]
    grid = upright_grid(shape, spacing, first, "frame")
    return Mask((np.square(grid.grid_lps() / radii).sum(-1)) < 1, grid)


def volume_ml(surface: Surface) -> float:
    a, b, c = (surface.vertices_lps_mm[surface.faces[:, n]] for n in range(3))
    return abs(float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum())) / 6000


@pytest.mark.parametrize(
    ("spacing", "tolerance_mm"), [((1.0, 0.8, 0.8), 0.12), ((2.5, 0.8, 0.8), 0.3), ((5.0, 1.0, 1.0), 1.2)]
)
def test_the_surface_of_an_ellipsoid_lies_on_it(spacing: tuple[float, float, float], tolerance_mm: float) -> None:
    radii = (12.0, 9.0, 14.0)
    surface = surface_of_mask(ellipsoid(spacing, radii))
    p = surface.vertices_lps_mm
    reach = np.linalg.norm(p / radii, axis=1)
    slope = np.linalg.norm(p / np.square(radii), axis=1)
    off_mm = reach * (reach - 1) / slope
    assert np.abs(off_mm).mean() < tolerance_mm / 2
    assert np.percentile(np.abs(off_mm), 95) < tolerance_mm
    assert volume_ml(surface) == pytest.approx(4 / 3 * np.pi * np.prod(radii) / 1000, rel=0.01 * spacing[0])


def test_every_voxel_center_keeps_its_side_but_for_the_last_smoothing() -> None:
    mask = ellipsoid((2.5, 0.8, 0.8), (8.0, 11.0, 9.0))
    found = level_of_mask(mask)
    level, grid = found.values, found.grid
    index = np.round(grid.index_of(mask.geometry.grid_lps())).astype(int)
    seen = ((index >= 0) & (index < grid.shape)).all(-1)
    inside = level[tuple(index[seen].T)] > 0
    assert (inside != mask.voxels[seen]).mean() < 2e-3
    assert not mask.voxels[~seen].any()


def test_one_voxel_and_one_slice_have_a_closed_surface() -> None:
    grid = upright_grid((9, 30, 30), (5.0, 1.0, 1.0), (0.0, 0.0, 0.0), "frame")
    for part in ((4, 15, 15), (4, slice(8, 20), slice(8, 20))):
        voxels = np.zeros(grid.shape, bool)
        voxels[part] = True
        surface = surface_of_mask(Mask(voxels, grid))
        assert 0 < volume_ml(surface) < 4 * voxels.sum() * 5 / 1000


def test_a_region_as_large_as_a_body_is_thinned_not_refused() -> None:
    grid = upright_grid((120, 300, 300), (2.0, 1.0, 1.0), (-150.0, -150.0, -120.0), "frame")
    mask = Mask(np.linalg.norm(grid.grid_lps(), axis=-1) < 100, grid)
    assert volume_ml(surface_of_mask(mask)) == pytest.approx(4 / 3 * np.pi * 1000, rel=0.03)


@pytest.mark.parametrize("spacing_mm", [0.3, 10.0])
def test_spacings_from_a_third_of_a_millimetre_to_a_centimetre(spacing_mm: float) -> None:
    radius = 12 * spacing_mm**0.5
    surface = surface_of_mask(ellipsoid((spacing_mm, min(1.0, spacing_mm), min(1.0, spacing_mm)), (radius,) * 3))
    assert volume_ml(surface) == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.03)


def test_a_level_on_a_grid_turned_about_its_first_cell_is_looked_up_there() -> None:
    """Such grids have one origin and one spacing, and hardly a cell in common."""
    mask = ellipsoid((1.0, 1.0, 1.0), (7.0, 10.0, 12.0))
    level, upright = level_of_mask(mask), mask.geometry
    first = level.grid.lps_of((0, 0, 0))
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    matrix = level.grid.lps_from_index.copy()
    matrix[:3, :3] = turn @ matrix[:3, :3]
    # The same cells of the room, turned back over the ellipsoid.
    matrix[:3, 3] = first - matrix[:3, :3] @ (0, 60, 0)
    other = Geometry((70, 130, 130), matrix, "frame")
    found = level.mask_on(other)
    assert found.volume_ml == pytest.approx(mask.volume_ml, rel=0.02)
    assert found.centroid_lps_mm == pytest.approx(mask.centroid_lps_mm, abs=0.2)
    assert np.array_equal(level.mask_on(upright).voxels, level.at(upright.grid_lps()) > 0)
    with pytest.raises(FrameMismatch):
        level.mask_on(Geometry(upright.shape, upright.lps_from_index, "another"))


def test_an_empty_mask_is_refused() -> None:
    grid = Geometry((4, 4, 4), np.eye(4), "frame")
    with pytest.raises(ValueError, match="empty"):
        surface_of_mask(Mask(np.zeros(grid.shape, bool), grid))
