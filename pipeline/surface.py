"""Surfaces of regions at sub-voxel precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from pipeline.geometry import FloatArray, FrameMismatch, Geometry
from pipeline.volume import Mask, signed_distance_mm

Array = NDArray[np.float32]

FINE_MM = 1.0
_PAD_MM = 6.0
_MOST_POINTS = 6_000_000
#: Smoothing lengths (mm) and how often each is applied; chosen on made ellipsoids and bumpy shapes of 1, 2.5 and 5 mm
#: slices, checked on others (benchmarks/margin.py).
_SWEEPS = ((1.5, 8), (1.0, 4))
_LAST_MM = 0.5
_SIGN_MM = 0.02


@dataclass(frozen=True, eq=False)
class Surface:
    """A triangle mesh. vertices_lps_mm: (n, 3); faces: (m, 3) vertex numbers."""

    vertices_lps_mm: FloatArray
    faces: NDArray[np.int64]

    def vertex_areas_mm2(self) -> FloatArray:
        """(n,) a third of the area of the triangles around each vertex."""
        a, b, c = (self.vertices_lps_mm[self.faces[:, n]] for n in range(3))
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
        out = np.bincount(self.faces.ravel(), np.repeat(area / 3, 3), minlength=len(self.vertices_lps_mm))
        return np.asarray(out, np.float64)

    def area_fraction(self, where: NDArray[np.bool_]) -> float:
        """How much of the surface's area lies around the vertices chosen by (n,) `where`, from 0 to 1."""
        area = self.vertex_areas_mm2()
        return float(area[where].sum() / area.sum())


@dataclass(frozen=True, eq=False)
class Level:
    """A function that is positive inside a region and zero at its edge. values: (k, j, i) float32 on the grid."""

    values: Array
    grid: Geometry

    def surface(self) -> Surface:
        """The edge, closed at the border of the grid."""
        return surface_at_zero(self.values, self.grid)

    def mask(self) -> Mask:
        """The inside on the level's own grid."""
        return Mask(self.values > 0, self.grid)

    def mask_on(self, grid: Geometry) -> Mask:
        """The inside on a grid that reaches as far as the inside does. Raises FrameMismatch where its frame is
        another."""
        if grid.frame_uid != self.grid.frame_uid:
            raise FrameMismatch("the level and the grid lie in different frames of reference")
        own = self.mask()
        if own.is_empty:
            return Mask(np.zeros(grid.shape, bool), grid)
        inside = own.points_lps_mm()
        first = grid.index_of(self.grid.lps_of((0, 0, 0)))
        steps, wanted = self.grid.lps_from_index[:3, :3], grid.lps_from_index[:3, :3]
        if np.abs(first - np.round(first)).max() < 1e-3 and np.allclose(steps, wanted, atol=1e-6):
            return own.crop(own.geometry.box_around(inside, pad_mm=0.0)).embedded_in(grid)
        voxels = np.zeros(grid.shape, bool)
        box = grid.box_around(inside, pad_mm=float(self.grid.spacing_mm.max()))
        part = grid.crop([s.start for s in box], [s.stop for s in box])
        voxels[box] = self.at(part.grid_lps()) > 0
        return Mask(voxels, grid)

    def at(self, points_lps_mm: FloatArray) -> Array:
        """(...,) values at (..., 3) points; outside the grid the least value."""
        index = np.moveaxis(self.grid.index_of(points_lps_mm), -1, 0)
        least = float(min(self.values.min(), -1e-3))
        return np.asarray(ndimage.map_coordinates(self.values, index, order=1, mode="constant", cval=least))


def surface_of_mask(mask: Mask) -> Surface:
    """The region's edge: the zero level of `level_of_mask`. Raises ValueError for an empty mask."""
    return level_of_mask(mask).surface()


def level_of_mask(mask: Mask) -> Level:
    """A smooth level, positive inside: about `FINE_MM` between its points, however thick the slices are.

    A mask says on which side of the edge each voxel center lies and no more. Among all edges that keep every center on
    its side, the level is drawn toward the one that bends most evenly: smoothing that leaves quadratics alone, so that
    round shapes neither shrink nor lose their caps between slices, in turn with setting back the centers that crossed.
    Raises ValueError for an empty mask.
    """
    part, fine_mm = _with_air(mask)
    spacing = part.geometry.spacing_mm
    steps = np.maximum(1, np.floor(spacing / fine_mm + 0.5001)).astype(int)  # 1.5 mm with its rounding errors: 2
    fine = spacing / steps
    shape = (np.array(part.voxels.shape) - 1) * steps + 1
    # Zero lies half-way between two centers, whichever axis parts them.
    distance = signed_distance_mm(part)
    level = ndimage.affine_transform(distance, 1 / steps, output_shape=tuple(shape), order=1, output=np.float32)
    centers = level[:: steps[0], :: steps[1], :: steps[2]]
    longest = float(spacing.max()) * 0.35
    for length_mm, times in _SWEEPS:
        for _ in range(times):
            level[...] = _quadratic_kept(level, max(length_mm, longest if length_mm > 1 else 0.0) / fine)
            centers[...] = np.where(part.voxels, np.maximum(centers, _SIGN_MM), np.minimum(centers, -_SIGN_MM))
    last = _quadratic_kept(level, _LAST_MM / fine)
    matrix = part.geometry.lps_from_index.copy()
    matrix[:3, :3] = matrix[:3, :3] / steps
    grid = Geometry((int(shape[0]), int(shape[1]), int(shape[2])), matrix, part.geometry.frame_uid)
    return Level(last if last.max() > 0 else level, grid)


def _quadratic_kept(values: Array, sigma: FloatArray) -> Array:
    """Gaussian smoothing sharpened to third order, which leaves polynomials up to the fifth degree as they are."""
    rest, smooth = values.copy(), np.empty_like(values)
    for _ in range(3):
        ndimage.gaussian_filter(rest, sigma, mode="nearest", truncate=3, output=smooth)
        rest -= smooth
    return np.subtract(values, rest, out=smooth)


def _with_air(mask: Mask) -> tuple[Mask, float]:
    """The box around a region with some air on all sides, and how far apart (mm) the level's points may lie.

    Of a region too large for `FINE_MM`, only every second (fourth, ...) voxel is looked at.
    """
    if mask.is_empty:
        raise ValueError("the mask is empty")
    # By whole voxels: through millimetres the box would depend on rounding, and with it the level a little.
    (box,) = ndimage.find_objects(mask.voxels.view(np.uint8))
    part = mask.crop(box)
    fine_mm = FINE_MM
    # Thin regions are never that large.
    while np.prod(np.array(part.voxels.shape) * np.maximum(1, part.geometry.spacing_mm / fine_mm)) > _MOST_POINTS:
        fine_mm *= 2
        matrix = part.geometry.lps_from_index.copy()
        matrix[:3, :3] *= 2
        voxels = part.voxels[::2, ::2, ::2]
        part = Mask(voxels, Geometry(voxels.shape, matrix, mask.geometry.frame_uid))
    by = np.maximum(2, np.ceil(_PAD_MM / part.geometry.spacing_mm)).astype(int)
    matrix = part.geometry.lps_from_index.copy()
    matrix[:3, 3] = part.geometry.lps_of(-by)
    voxels = np.pad(part.voxels, [(int(n), int(n)) for n in by])
    return Mask(voxels, Geometry(voxels.shape, matrix, mask.geometry.frame_uid)), fine_mm


def surface_at_zero(field: NDArray[np.float32], geometry: Geometry) -> Surface:
    """Marching cubes at zero of a (k, j, i) field that is positive inside; closed at the border of the grid."""
    closed = np.pad(field, 1, constant_values=min(float(field.min()), -1e-3))
    vertices, faces, _, _ = marching_cubes(closed, 0.0)
    return Surface(geometry.lps_of(vertices.astype(np.float64) - 1), faces.astype(np.int64))
