"""Registration both ways at once, each scan fixed in turn; the mean of the two treats both scans alike.

Where the scans look different (another contrast phase, thicker slices), each way errs in its own direction. The mean
errs less than either, is nearly the same when the scans change roles, and half the difference tells how far off it may
be: see docs/decisions/0046-both-ways.md.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage

from pipeline.geometry import FloatArray, Geometry
from pipeline.register import Resolution, deform
from pipeline.sampling import refined
from pipeline.transform import SplineField, Transform
from pipeline.volume import Volume
from pipeline.where import Where

_FADE_MM = 10.0
_CLOSE_MM = 5.5
_BEYOND_MM = 50.0  # in which the displacement falls to zero: 10 mm of it then fold nothing


@dataclass(frozen=True, eq=False)
class BothWays:
    """Two transforms that should be each other's inverse."""

    there: Transform
    """baseline_from_followup, found with the follow-up fixed."""
    back: Transform
    """followup_from_baseline, found with the baseline fixed."""

    @cached_property
    def joined(self) -> Transform:
        """baseline_from_followup: half-way between `there` and the inverse of `back`.

        Beyond what both cover, `there` alone, and beyond that it fades to the rigid start. Raises ValueError
        where a spline is missing.
        """
        if self.there.field is None or self.back.field is None:
            raise ValueError("only transforms with a spline have a mean")
        coefficients, grid = torch.from_numpy(self.there.field.coefficients_mm.copy()), self.there.field.grid
        while grid.spacing_mm[0] > _CLOSE_MM:  # the inverse is no spline: fine control points meet it closely
            coefficients, grid = refined(coefficients, grid)
        points = grid.grid_lps()
        at_baseline = self.back.inverse_points(points)
        # The fixed scan's spline moves points before the rigid start does.
        rigid = np.linalg.inv(self.there.matrix)
        inverse = at_baseline @ rigid[:3, :3].T + rigid[:3, 3] - points
        apart = inverse - self.there.field.displacement_mm(points)
        known = np.minimum(_known(self.there.field.grid, points), _known(self.back.field.grid, at_baseline))
        half = 0.5 * apart * known[..., None]
        more = [ndimage.spline_filter(half[..., a], order=3, mode="mirror") for a in range(3)]
        return replace(self.there, field=_faded(coefficients.numpy() + np.stack(more), grid))

    def apart_mm(self, points_lps_mm: FloatArray) -> FloatArray:
        """(n, 3) from what `there` makes of points of the follow-up to what the inverse of `back` makes of them."""
        return np.asarray(self.back.inverse_points(points_lps_mm) - self.there(points_lps_mm))


def _known(control: Geometry, points_lps_mm: FloatArray) -> FloatArray:
    """(...,) from 0 at the edge of what a spline on these control points covers to 1 well inside, at (..., 3)."""
    index = control.index_of(points_lps_mm)
    inside = np.minimum(index - 1.0, np.array(control.shape) - 2.0 - index).min(-1)
    return np.asarray(np.clip(inside * float(control.spacing_mm[0]) / _FADE_MM, 0.0, 1.0))


def _faded(coefficients_mm: FloatArray, grid: Geometry) -> SplineField:
    """The spline of (3, k, j, i) coefficients carried on beyond its control points and brought to zero there: cut off,
    it would tear the map at the edge of what it covers."""
    more = int(np.ceil(_BEYOND_MM / float(grid.spacing_mm[0])))
    out = np.pad(coefficients_mm, [(0, 0), *[(more, more)] * 3], mode="edge")
    for axis, count in enumerate(grid.shape):
        n = np.arange(-more, count + more)
        beyond = np.maximum(np.maximum(-n, n - count + 1), 0) / (
            more - 2
        )  # three zeros at the end are zero at the edge
        shape = [1, 1, 1, 1]
        shape[axis + 1] = -1
        out = out * (0.5 + 0.5 * np.cos(np.pi * np.minimum(beyond, 1.0))).reshape(shape)
    matrix = grid.lps_from_index.copy()
    matrix[:3, 3] = grid.lps_of((-more, -more, -more))
    k, j, i = out.shape[1:]
    return SplineField(out, Geometry((k, j, i), matrix, grid.frame_uid))


def both_ways_from(start: Transform) -> BothWays:
    """Both ways of a rigid start (baseline_from_followup)."""
    return BothWays(replace(start, field=None), start.rigid_inverse())


def deform_both_ways(
    followup: Volume,
    baseline: Volume,
    ways: BothWays,
    *,
    where: Where,
    levels: tuple[Resolution, ...],
    device: str = "auto",
) -> BothWays:
    """Both ways refined by the levels given, side by side. where: with the follow-up fixed. device: see `device_of`."""
    other = where.swapped(ways.back, baseline.geometry)
    with ThreadPoolExecutor(2) as pool:
        there = pool.submit(deform, followup, baseline, ways.there, where=where, levels=levels, device=device)
        back = pool.submit(deform, baseline, followup, ways.back, where=other, levels=levels, device=device)
        return BothWays(there.result(), back.result())
