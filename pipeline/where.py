"""Where a registration looks: two scans at one resolution, and what of them counts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.geometry import FloatArray, Geometry
from pipeline.sampling import Box, Field, box_of, extent_of, field_of, smoothed, window_of
from pipeline.similarity import equalised
from pipeline.transform import Transform, grown
from pipeline.volume import Mask, Volume

_THIN = (slice(None, None, 2),) * 3


@dataclass(frozen=True, eq=False)
class Where:
    """Where the cost looks. Regions lie in the fixed or the moving scan's frame, on any grid.

    box, near: boxes of the fixed scan, sampled thinly and densely. organ_fixed, organ_moving: a region (organ plus
    rim) outside of which nothing counts; one of the two is enough. cut_fixed, cut_moving: what has no partner
    (ablation zone; tumor). zones: ablation zones on the fixed scan. drawn: 1 where tissue lies nearer to the zone on
    the fixed scan than on the moving one, -1 the other way round.
    """

    box: Box
    near: tuple[Box, ...]
    cut_fixed: Mask
    cut_moving: Mask
    organ_fixed: Mask | None = None
    organ_moving: Mask | None = None
    zones: tuple[Mask, ...] = ()
    drawn: float = 1.0

    def swapped(self, fixed_from_moving: Transform, moving: Geometry) -> Where:
        """The same with the scans' roles exchanged; the boxes follow the rigid part, the zones the whole transform."""
        rigid = replace(fixed_from_moving, field=None)
        whole = extent_of(moving)

        def carried(box: Box) -> Box:
            return box_of(rigid.inverse_points(box.corners())).meet(whole)

        def carried_zone(zone: Mask) -> Mask:
            points = zone.points_lps_mm()
            around = box_of(fixed_from_moving.inverse_points(points[:: max(1, len(points) // 5000)])).grown(4.0)
            return grown([zone], around.meet(whole).grid(2.0, moving.frame_uid), fixed_from_moving, by_mm=0.0)

        box = carried(self.box)
        zones = tuple(carried_zone(z) for z in self.zones)
        return Where(
            box=box,
            near=tuple(carried(b).meet(box) for b in self.near),
            cut_fixed=self.cut_moving,
            cut_moving=self.cut_fixed,
            organ_fixed=self.organ_moving,
            organ_moving=self.organ_fixed,
            zones=tuple(z for z in zones if not z.is_empty),
            drawn=-self.drawn,
        )


@dataclass(frozen=True, eq=False)
class Images:
    """Two scans on a scale from 0 to 1 that gives room to the organ's gray values, and how much each place counts.

    matrix: (4, 4) LPS millimetres, moving from fixed: the rigid start.
    """

    fixed: Field
    moving: Field
    fixed_weight: Field
    moving_weight: Field
    matrix: torch.Tensor


def images_for(
    fixed: Volume, moving: Volume, start: Transform, where: Where, *, image_mm: float, device: torch.device
) -> Images:
    """The two scans around `where.box`, brought to `image_mm`. start: moving from fixed; only its rigid part counts."""
    rigid = replace(start, field=None)
    fixed_box = where.box.grown(15.0)
    corners = rigid(fixed_box.grown(25.0).corners())
    fixed_part = fixed.crop(_index_box(fixed.geometry, fixed_box))
    moving_part = moving.crop(_index_box(moving.geometry, box_of(corners)))
    fw, mw = window_of(fixed), window_of(moving)
    fixed_values, fixed_grid = smoothed(fixed_part, spacing_mm=image_mm, low=fw.low, high=fw.high)
    moving_values, moving_grid = smoothed(moving_part, spacing_mm=image_mm, low=mw.low, high=mw.high)
    fixed_weight = _weight(where.organ_fixed, where.cut_fixed, fixed_grid)
    moving_weight = _weight(where.organ_moving, where.cut_moving, moving_grid)
    fixed_organ = _organ_sample(fixed_weight, fixed_grid, where.organ_moving, rigid)
    moving_organ = _organ_sample(moving_weight, moving_grid, where.organ_fixed, rigid.rigid_inverse())
    return Images(
        field_of(equalised(fixed_values, fixed_values[_THIN][fixed_organ]), fixed_grid, device),
        field_of(equalised(moving_values, moving_values[_THIN][moving_organ]), moving_grid, device),
        field_of(fixed_weight, fixed_grid, device),
        field_of(moving_weight, moving_grid, device),
        torch.tensor(start.matrix, dtype=torch.float32).to(device),
    )


def _weight(organ: Mask | None, cut: Mask, onto: Geometry) -> NDArray[np.float32]:
    """float32 weights on a grid: one inside the organ (everywhere without one), zero in the cut and outside."""
    weight = np.ones(onto.shape, np.float32) if organ is None else _carried(organ, onto)
    weight *= 1 - _carried(cut, onto)
    for axis in range(3):  # nothing is known beyond the border voxels
        edge = [slice(None)] * 3
        for side in (0, -1):
            edge[axis] = slice(side, None) if side else slice(0, 1)
            weight[tuple(edge)] = 0
    return weight


def _organ_sample(
    weight: NDArray[np.float32], grid: Geometry, organ: Mask | None, organ_from_grid: Transform
) -> NDArray[np.bool_]:
    """Of every second voxel along each axis (`_THIN`), whether it counts and lies in the organ as the other scan has
    it; where the rigid start puts it is near enough."""
    counts = weight[_THIN]
    if organ is not None:
        thin = Geometry(counts.shape, grid.lps_from_index @ np.diag([2.0, 2.0, 2.0, 1.0]), grid.frame_uid)
        counts = counts * _carried(organ, thin, organ_from_grid.matrix)
    return np.asarray(counts > 0.5)


def _carried(mask: Mask, onto: Geometry, mask_from_onto: FloatArray | None = None) -> NDArray[np.float32]:
    across = np.eye(4) if mask_from_onto is None else mask_from_onto
    index = mask.geometry.index_from_lps @ across @ onto.lps_from_index
    out = ndimage.affine_transform(
        mask.voxels.astype(np.float32), index[:3, :3], offset=index[:3, 3], output_shape=onto.shape, order=1, cval=0.0
    )
    return np.asarray(out, np.float32)


def _index_box(geometry: Geometry, box: Box) -> tuple[slice, slice, slice]:
    inner = box.meet(extent_of(geometry))
    return geometry.box_around(inner.corners(), pad_mm=2.0)
