"""Images and spline lattices as torch tensors: what registration evaluates thousands of times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.geometry import FloatArray, Geometry, upright_grid
from pipeline.volume import Volume

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """The intensities that carry anatomy: [low, high], in the volume's own unit."""

    low: float
    high: float


def window_of(volume: Volume) -> Window:
    """Soft tissue for CT (HU); the 1st to 99th percentile of the non-zero signal for MR."""
    if volume.quantity == "ct_hu":
        return Window(-150.0, 250.0)
    sample = volume.voxels[::2, ::4, ::4].astype(np.float32)
    body = sample[sample > 0.05 * np.percentile(sample, 99)]
    low, high = np.percentile(body if body.size else sample, [1, 99])
    return Window(float(min(low, 0.0)), float(max(high, low + 1.0)))


@dataclass(frozen=True, eq=False)
class Field:
    """Fields for trilinear look-up at LPS points. values: (1, c, k, j, i) float32; unit_from_lps: as `unit_from_lps`
    gives it."""

    values: torch.Tensor
    unit_from_lps: torch.Tensor

    def at(self, points: torch.Tensor) -> torch.Tensor:
        """(n,) values of the first channel at (n, 3) LPS points; the border value is continued."""
        return self.channels_at(points, beyond="border")[0]

    def channels_at(self, points: torch.Tensor, *, beyond: str) -> torch.Tensor:
        """(c, n) values at (n, 3) LPS points; beyond the grid: "border" (the border value is continued) or "zeros"."""
        matrix = self.unit_from_lps.to(points)
        unit = torch.addmm(matrix[:3, 3], points, matrix[:3, :3].T)
        out = torch.nn.functional.grid_sample(
            self.values, unit[None, None, None], mode="bilinear", padding_mode=beyond, align_corners=True
        )
        return out[0, :, 0, 0]


def field_of(values: NDArray[np.generic], geometry: Geometry, device: torch.device) -> Field:
    """A `Field` of (k, j, i) or (c, k, j, i) values on a geometry."""
    tensor = torch.from_numpy(np.ascontiguousarray(values, np.float32)).view(1, -1, *geometry.shape).to(device)
    return Field(tensor, torch.from_numpy(unit_from_lps(geometry)).float().to(device))


def unit_from_lps(geometry: Geometry) -> FloatArray:
    """(4, 4) from LPS millimetres to torch's coordinates (i, j, k): -1 and 1 in the middle of the first and the last
    voxel."""
    unit = np.diag([*(2.0 / np.maximum(np.array(geometry.shape) - 1, 1)), 1.0])
    unit[:3, 3] = -1.0
    return np.asarray((unit @ geometry.index_from_lps)[[2, 1, 0, 3]])


def smoothed(volume: Volume, *, spacing_mm: float, low: float, high: float) -> tuple[NDArray[np.float32], Geometry]:
    """The volume clipped to [low, high] and resampled to about `spacing_mm` in all axes.

    Axes that become coarser are averaged over whole voxels first and then smoothed so that the result is blurred by
    about half its own spacing; axes already coarser than `spacing_mm` are kept. NaN counts as `low`.
    """
    old = volume.geometry.spacing_mm
    target = np.maximum(old, spacing_mm)
    values, geometry = _averaged(volume, np.maximum(1, np.floor(target / old + 1e-6)).astype(int), low, high)
    averaged = geometry.spacing_mm
    blur = np.where(target > 1.05 * old, 0.5 * target, 0.0)
    had = np.where(averaged > 1.05 * old, averaged / np.sqrt(12), 0.0)
    values = ndimage.gaussian_filter(values, np.sqrt(np.maximum(blur**2 - had**2, 0)) / averaged, truncate=3)
    onto = geometry.resampled(target)
    first = geometry.index_of(onto.lps_of((0.0, 0.0, 0.0)))
    out = ndimage.affine_transform(
        values, onto.spacing_mm / averaged, offset=first, output_shape=onto.shape, order=1, mode="nearest"
    )
    return np.asarray(out, np.float32), onto


def _averaged(volume: Volume, factor: NDArray[np.int_], low: float, high: float) -> tuple[Array, Geometry]:
    """Means over blocks of `factor` voxels; what does not fill a block at the far end is left out."""
    counts = np.maximum(1, np.array(volume.geometry.shape) // factor)
    factor = np.minimum(factor, volume.geometry.shape)
    out = np.empty(tuple(counts), np.float32)
    for k in range(counts[0]):
        slab = volume.voxels[k * factor[0] : (k + 1) * factor[0], : counts[1] * factor[1], : counts[2] * factor[2]]
        part = np.clip(np.nan_to_num(slab.astype(np.float32), nan=low), low, high)
        out[k] = part.reshape(-1, counts[1], factor[1], counts[2], factor[2]).mean((0, 2, 4))
    matrix = volume.geometry.lps_from_index.copy()
    matrix[:3, 3] = volume.geometry.lps_of((factor - 1) / 2)
    matrix[:3, :3] = matrix[:3, :3] * factor
    shape = (int(counts[0]), int(counts[1]), int(counts[2]))
    return out, Geometry(shape, matrix, volume.geometry.frame_uid)


@dataclass(frozen=True, eq=False)
class Box:
    """An axis-aligned box in LPS millimetres: (3,) low and high corner."""

    low: FloatArray
    high: FloatArray

    def grown(self, by_mm: float) -> Box:
        return Box(self.low - by_mm, self.high + by_mm)

    def meet(self, other: Box) -> Box:
        return Box(np.maximum(self.low, other.low), np.maximum(np.minimum(self.high, other.high), self.low + 1.0))

    def corners(self) -> FloatArray:
        """(8, 3) LPS millimetres."""
        return np.stack(np.meshgrid(*np.stack([self.low, self.high], 1), indexing="ij"), -1).reshape(-1, 3)

    def grid(self, spacing_mm: float, frame_uid: str) -> Geometry:
        """An isotropic upright grid whose first voxel is the low corner and whose last lies within a spacing of the
        high one."""
        counts = np.maximum(2, np.ceil((self.high - self.low) / spacing_mm)).astype(int)
        return upright_grid(counts[::-1], spacing_mm, self.low, frame_uid)


def box_of(points_lps_mm: FloatArray) -> Box:
    """The box around (n, 3) points."""
    return Box(points_lps_mm.min(0), points_lps_mm.max(0))


def extent_of(geometry: Geometry) -> Box:
    """The box around a whole grid."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in geometry.shape], indexing="ij"), -1).reshape(-1, 3)
    return box_of(geometry.lps_of(corners))


@dataclass(frozen=True)
class Lattice:
    """Regular sample points in a box, LPS axes. counts and spacing along x, y, z."""

    origin: tuple[float, float, float]
    counts: tuple[int, int, int]
    spacing_mm: float

    def axes(self, jitter: torch.Tensor) -> list[torch.Tensor]:
        """Three 1-D lists of coordinates, shifted by `jitter` (3,) in units of the spacing."""
        return [
            self.origin[a] + (torch.arange(self.counts[a], device=jitter.device) + jitter[a]) * self.spacing_mm
            for a in range(3)
        ]

    def points(self, jitter: torch.Tensor) -> torch.Tensor:
        """(n, 3) all sample points, x the fastest; jitter: as for `axes`."""
        x, y, z = self.axes(jitter)
        z, y, x = torch.meshgrid(z, y, x, indexing="ij")
        return torch.stack([x, y, z], -1).reshape(-1, 3)


def lattice_in(box: Box, spacing_mm: float) -> Lattice:
    """Sample points that fill the box."""
    counts = np.maximum(1, np.ceil((box.high - box.low) / spacing_mm)).astype(int)
    x, y, z = (float(v) for v in box.low)
    return Lattice((x, y, z), (int(counts[0]), int(counts[1]), int(counts[2])), spacing_mm)


def spline_grid(box: Box, spacing_mm: float, frame_uid: str) -> Geometry:
    """Control points of a cubic B-spline whose domain holds the box; [k, j, i] runs along LPS z, y, x."""
    cells = np.maximum(1, np.ceil((box.high - box.low) / spacing_mm)).astype(int)
    middle = (box.high + box.low) / 2
    return upright_grid(cells[::-1] + 3, spacing_mm, middle - (cells / 2 + 1) * spacing_mm, frame_uid)


def cubic_weights(t: torch.Tensor) -> torch.Tensor:
    """(n, 4) weights of a cubic B-spline's four nearest points, for (n,) places from 0 to 1 between the middle two."""
    one = 1 - t
    return torch.stack([one**3, 3 * t**3 - 6 * t**2 + 4, 3 * one**3 - 6 * one**2 + 4, t**3], 1) / 6


def spline_basis(coordinates: torch.Tensor, origin_mm: float, spacing_mm: float, count: int) -> torch.Tensor:
    """(n, count) cubic B-spline weights of `count` control points at (n,) coordinates along one axis."""
    position = (coordinates - origin_mm) / spacing_mm
    base = position.floor().clamp(1, count - 3)
    t = (position - base).clamp(0, 1)
    weights = cubic_weights(t)
    out = torch.zeros(len(coordinates), count, dtype=coordinates.dtype, device=coordinates.device)
    return out.scatter_add_(1, base.long()[:, None] + torch.arange(-1, 3, device=coordinates.device), weights)


def spline_bases(axes: Sequence[torch.Tensor], grid: Geometry) -> list[torch.Tensor]:
    """`spline_basis` along x, y and z: the weights of a grid's control points at three lists of coordinates."""
    spacing_mm = float(grid.spacing_mm[0])
    return [
        spline_basis(axes[a], float(grid.lps_from_index[a, 3]), spacing_mm, grid.shape[2 - a]).to(axes[a].dtype)
        for a in range(3)
    ]


def refined(coefficients: torch.Tensor, grid: Geometry) -> tuple[torch.Tensor, Geometry]:
    """The very same spline on control points at half the spacing (subdivision of the cubic B-spline)."""
    out = coefficients
    for axis in (1, 2, 3):
        moved = out.movedim(axis, 0)
        even = (moved[:-2] + 6 * moved[1:-1] + moved[2:]) / 8
        odd = (moved[:-1] + moved[1:]) / 2
        fine = torch.empty((2 * moved.shape[0] - 3, *moved.shape[1:]), dtype=out.dtype, device=out.device)
        fine[0::2] = odd
        fine[1::2] = even
        out = fine.movedim(0, axis)
    matrix = grid.lps_from_index.copy()
    matrix[:3, 3] = grid.lps_of((0.5, 0.5, 0.5))
    matrix[:3, :3] = grid.lps_from_index[:3, :3] / 2
    shape = out.shape[1:]
    return out.contiguous(), Geometry((shape[0], shape[1], shape[2]), matrix, grid.frame_uid)
