"""Where voxels lie: shape, the matrix from index to LPS millimetres, and the frame of reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


class GeometryMismatch(ValueError):
    """Two objects that must share one grid do not."""


class FrameMismatch(ValueError):
    """Two objects that must share one frame of reference do not."""


def frozen(array: ArrayLike, dtype: Any = None) -> NDArray[Any]:
    """A read-only array; copied only when the array given could still be written through another name."""
    out = np.asarray(array, dtype=dtype)
    if out.flags.writeable:
        if not out.flags.owndata or out is array:
            out = out.view()
        out.flags.writeable = False
    return out


@dataclass(frozen=True, eq=False)
class Geometry:
    """A regular grid in space.

    shape: (slices, rows, columns), numpy order ``[k, j, i]``.
    lps_from_index: (4, 4); maps a homogeneous index ``(k, j, i, 1)`` to LPS millimetres.
    frame_uid: DICOM Frame of Reference UID; points of different frames are never compared.
    Raises ValueError for an empty or singular grid.
    """

    shape: tuple[int, int, int]
    lps_from_index: FloatArray
    frame_uid: str

    def __post_init__(self) -> None:
        matrix = np.array(self.lps_from_index, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise ValueError("lps_from_index must be a finite (4, 4) matrix")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"a grid needs three axes of at least one voxel, not {self.shape}")
        if abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
            raise ValueError("lps_from_index is singular: two axes of the grid are parallel or a spacing is zero")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "lps_from_index", frozen(matrix))

    @property
    def spacing_mm(self) -> FloatArray:
        """(3,) millimetres between voxel centers along k, j, i."""
        return np.asarray(np.linalg.norm(self.lps_from_index[:3, :3], axis=0), dtype=np.float64)

    @property
    def voxel_volume_mm3(self) -> float:
        return float(abs(np.linalg.det(self.lps_from_index[:3, :3])))

    @property
    def index_from_lps(self) -> FloatArray:
        """(4, 4) inverse of `lps_from_index`."""
        return np.asarray(np.linalg.inv(self.lps_from_index), dtype=np.float64)

    def lps_of(self, index: ArrayLike) -> FloatArray:
        """(..., 3) LPS millimetres of (..., 3) indices in [k, j, i] order, fractions allowed."""
        return np.asarray(np.asarray(index, float) @ self.lps_from_index[:3, :3].T + self.lps_from_index[:3, 3])

    def index_of(self, points_lps_mm: ArrayLike) -> FloatArray:
        """(..., 3) fractional [k, j, i] indices of (..., 3) LPS points."""
        inverse = self.index_from_lps
        return np.asarray(np.asarray(points_lps_mm, float) @ inverse[:3, :3].T + inverse[:3, 3])

    def contains(self, points_lps_mm: ArrayLike) -> NDArray[np.bool_]:
        """(...,) whether each point lies within the outer voxels, out to their faces."""
        index = self.index_of(points_lps_mm)
        return np.asarray(((index >= -0.5) & (index <= np.array(self.shape) - 0.5)).all(-1))

    def crop(self, start: ArrayLike, stop: ArrayLike) -> Geometry:
        """The grid of ``array[start:stop]``; indices in [k, j, i] order, inside this grid."""
        low, high = np.asarray(start, int), np.asarray(stop, int)
        if (low < 0).any() or (high > np.array(self.shape)).any() or (high <= low).any():
            raise ValueError(f"crop {low.tolist()}:{high.tolist()} does not fit in {self.shape}")
        matrix = self.lps_from_index.copy()
        matrix[:3, 3] = self.lps_of(low)
        size = high - low
        return Geometry((int(size[0]), int(size[1]), int(size[2])), matrix, self.frame_uid)

    def box_around(self, points_lps_mm: ArrayLike, *, pad_mm: float) -> tuple[slice, slice, slice]:
        """Slices of the smallest index box that holds all points plus `pad_mm`, clipped to the grid (may be empty)."""
        index = self.index_of(points_lps_mm).reshape(-1, 3)
        pad = pad_mm / self.spacing_mm
        low = np.clip(np.floor(index.min(0) - pad), 0, self.shape).astype(int)
        high = np.clip(np.ceil(index.max(0) + pad) + 1, 0, self.shape).astype(int)
        return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])

    def corners_lps(self) -> FloatArray:
        """(8, 3) LPS millimetres of the outermost voxel centers, the first voxel's first."""
        ends = np.meshgrid(*((0, n - 1) for n in self.shape), indexing="ij")
        return self.lps_of(np.stack(ends, axis=-1).reshape(-1, 3))

    def holding(self, others: Sequence[Geometry]) -> Geometry:
        """This grid with as many more of its own cells on each side as the voxel centers of others need. Raises
        FrameMismatch for a grid in another frame."""
        if any(grid.frame_uid != self.frame_uid for grid in others):
            raise FrameMismatch("a grid cannot hold one of another frame of reference")
        index = self.index_of(np.concatenate([grid.corners_lps() for grid in (self, *others)]))
        low = np.floor(index.min(axis=0) + 1e-6).astype(int)
        size = np.ceil(index.max(axis=0) - 1e-6).astype(int) + 1 - low
        matrix = self.lps_from_index.copy()
        matrix[:3, 3] = self.lps_of(low)
        return Geometry((int(size[0]), int(size[1]), int(size[2])), matrix, self.frame_uid)

    def resampled(self, spacing_mm: ArrayLike) -> Geometry:
        """A grid over the same extent with another spacing (k, j, i), same axes; the outer voxel faces are kept."""
        new = np.asarray(spacing_mm, float)
        old = self.spacing_mm
        shape = np.maximum(1, np.round(np.array(self.shape) * old / new)).astype(int)
        matrix = self.lps_from_index.copy()
        matrix[:3, :3] = self.lps_from_index[:3, :3] / old * new
        first = (new / old - 1) / 2
        matrix[:3, 3] = self.lps_of(first)
        return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), matrix, self.frame_uid)

    def grid_lps(self) -> FloatArray:
        """(k, j, i, 3) LPS millimetres of every voxel center; memory grows with the grid, so crop first."""
        index = np.stack(np.meshgrid(*(np.arange(n) for n in self.shape), indexing="ij"), axis=-1)
        return self.lps_of(index)

    def same_grid(self, other: Geometry, *, tolerance_mm: float = 1e-3) -> bool:
        """Whether both are the same grid in the same frame (corner voxels agree within the tolerance)."""
        if self.shape != other.shape or self.frame_uid != other.frame_uid:
            return False
        corners = np.array([[0, 0, 0], np.array(self.shape) - 1])
        return bool(np.abs(self.lps_of(corners) - other.lps_of(corners)).max() <= tolerance_mm) and bool(
            np.abs(self.lps_from_index - other.lps_from_index).max() <= tolerance_mm
        )


def upright_grid(shape: ArrayLike, spacing_mm: ArrayLike, first_lps_mm: ArrayLike, frame_uid: str) -> Geometry:
    """A grid whose k, j, i run along LPS z, y, x. shape, spacing_mm: in [k, j, i] order; first_lps_mm: first voxel."""
    k, j, i = (int(n) for n in np.asarray(shape))
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0], [0, 1, 2]] = spacing_mm
    matrix[:3, 3] = first_lps_mm
    matrix[3, 3] = 1.0
    return Geometry((k, j, i), matrix, frame_uid)
