"""Images and regions: voxels that know where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.geometry import Geometry, GeometryMismatch, frozen

#: Farther than any edge in a scan.
NO_EDGE_MM = 1e4
_NEARBY_MM = 40.0

Quantity = Literal["ct_hu", "mr_signal"]


@dataclass(frozen=True, eq=False)
class Volume:
    """A scalar image. voxels: ``[k, j, i]``, read-only, int16 or float32; quantity: what a value means."""

    voxels: NDArray[Any]
    geometry: Geometry
    quantity: Quantity

    def __post_init__(self) -> None:
        if self.voxels.shape != self.geometry.shape:
            raise GeometryMismatch(f"voxels {self.voxels.shape} do not fit the grid {self.geometry.shape}")
        object.__setattr__(self, "voxels", frozen(self.voxels))

    @property
    def is_blank(self) -> bool:
        """Whether nothing can be seen on it: no finite value, or one and the same everywhere."""
        finite = self.voxels[np.isfinite(self.voxels)]
        return not finite.size or bool(finite.min() == finite.max())

    @property
    def blank_slices(self) -> int:
        """How many slices between others that show something hold one value only."""
        rows = self.voxels.reshape(len(self.voxels), -1)
        shown = np.flatnonzero(rows.min(axis=1) != rows.max(axis=1))
        return int(shown[-1] - shown[0] + 1 - len(shown)) if len(shown) else 0

    def crop(self, box: tuple[slice, slice, slice]) -> Volume:
        """The part inside an index box (see `Geometry.box_around`); voxels are a view."""
        return Volume(self.voxels[box], _crop(self.geometry, box), self.quantity)


@dataclass(frozen=True, eq=False)
class Mask:
    """A region. voxels: boolean ``[k, j, i]``, read-only. ``-``, ``&``, ``|`` need one shared grid."""

    voxels: NDArray[np.bool_]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.voxels.shape != self.geometry.shape:
            raise GeometryMismatch(f"voxels {self.voxels.shape} do not fit the grid {self.geometry.shape}")
        object.__setattr__(self, "voxels", frozen(self.voxels, bool))

    def _partner(self, other: Mask) -> NDArray[np.bool_]:
        if not self.geometry.same_grid(other.geometry):
            raise GeometryMismatch("the two masks do not lie on the same grid")
        return other.voxels

    def __and__(self, other: Mask) -> Mask:
        return Mask(self.voxels & self._partner(other), self.geometry)

    def __or__(self, other: Mask) -> Mask:
        return Mask(self.voxels | self._partner(other), self.geometry)

    def __sub__(self, other: Mask) -> Mask:
        return Mask(self.voxels & ~self._partner(other), self.geometry)

    @property
    def is_empty(self) -> bool:
        return not bool(self.voxels.any())

    @property
    def volume_ml(self) -> float:
        return float(self.voxels.sum() * self.geometry.voxel_volume_mm3 / 1000.0)

    @property
    def centroid_lps_mm(self) -> NDArray[np.float64]:
        """(3,) center of mass. Raises ValueError for an empty mask."""
        return np.asarray(self.points_lps_mm().mean(axis=0), np.float64)

    def points_lps_mm(self) -> NDArray[np.float64]:
        """(n, 3) LPS of every voxel inside. Raises ValueError for an empty mask."""
        index = np.argwhere(self.voxels)
        if not len(index):
            raise ValueError("the mask is empty")
        return self.geometry.lps_of(index)

    @cached_property
    def distance_nearby(self) -> tuple[NDArray[np.float32], Geometry]:
        """Signed distance (mm, positive inside) within 40 mm of the region, and its grid; kept once made.

        Where the mask's own grid ends before that, its border voxels go on: a region that the scan cuts off has no edge
        there. Raises ValueError for an empty mask.
        """
        part = self.crop(self.geometry.box_around(self.points_lps_mm(), pad_mm=_NEARBY_MM))
        (region,) = ndimage.find_objects(part.voxels.view(np.uint8))
        wanted = np.ceil(_NEARBY_MM / part.geometry.spacing_mm).astype(int)
        before = np.maximum(wanted - [s.start for s in region], 0)
        after = np.maximum(wanted - [n - s.stop for s, n in zip(region, part.voxels.shape, strict=True)], 0)
        voxels = np.pad(part.voxels, np.stack([before, after], 1), mode="edge")
        matrix = part.geometry.lps_from_index.copy()
        matrix[:3, 3] = part.geometry.lps_of(-before)
        grid = Geometry(voxels.shape, matrix, part.geometry.frame_uid)
        return frozen(signed_distance_mm(Mask(voxels, grid))), grid

    def crop(self, box: tuple[slice, slice, slice]) -> Mask:
        """The part inside an index box; voxels are a view."""
        return Mask(self.voxels[box], _crop(self.geometry, box))

    def embedded_in(self, geometry: Geometry) -> Mask:
        """The same region on a larger grid that this one was cropped from. Raises GeometryMismatch if it was not."""
        start = geometry.index_of(self.geometry.lps_of((0.0, 0.0, 0.0)))
        first = np.round(start).astype(int)
        stop = first + np.array(self.geometry.shape)
        if np.abs(start - first).max() > 1e-3 or (first < 0).any() or (stop > np.array(geometry.shape)).any():
            raise GeometryMismatch("the mask is not a crop of that grid")
        voxels = np.zeros(geometry.shape, bool)
        voxels[tuple(slice(a, b) for a, b in zip(first, stop, strict=True))] = self.voxels
        return Mask(voxels, geometry)


def _crop(geometry: Geometry, box: tuple[slice, slice, slice]) -> Geometry:
    start = [s.indices(n)[0] for s, n in zip(box, geometry.shape, strict=True)]
    stop = [s.indices(n)[1] for s, n in zip(box, geometry.shape, strict=True)]
    return geometry.crop(start, stop)


def signed_distance_mm(mask: Mask) -> NDArray[np.float32]:
    """float32 ``[k, j, i]`` distance to the region's edge, positive inside, zero half-way between voxel centers.

    Without an edge on the grid: `NO_EDGE_MM`, a number that can be interpolated, with the sign of what fills the grid.
    """
    spacing = mask.geometry.spacing_mm
    if mask.is_empty or mask.voxels.all():
        return np.full(mask.geometry.shape, -NO_EDGE_MM if mask.is_empty else NO_EDGE_MM, np.float32)
    inside = ndimage.distance_transform_edt(mask.voxels, sampling=spacing)
    outside = ndimage.distance_transform_edt(~mask.voxels, sampling=spacing)
    half = float(spacing.min()) / 2
    return np.asarray(np.where(mask.voxels, inside - half, half - outside), np.float32)
