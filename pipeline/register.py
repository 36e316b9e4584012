"""Registration of a follow-up to the baseline: a free-form deformation driven by mutual information, in torch.

The follow-up is the fixed image. The displacement is a cubic B-spline in the follow-up's frame, applied before the
rigid start; tumor and ablation zone are cut out of the cost in both images, since what was destroyed has no partner.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.contraction import Pull, pull_of
from pipeline.descent import Descent, descend
from pipeline.device import device_of
from pipeline.geometry import FloatArray, Geometry
from pipeline.sampling import (
    Box,
    Field,
    Lattice,
    extent_of,
    field_of,
    lattice_in,
    refined,
    smoothed,
    spline_basis,
    spline_grid,
    window_of,
)
from pipeline.similarity import equalised, negative_mutual_information, to_bins
from pipeline.transform import SplineField, Transform
from pipeline.volume import Mask, Volume


@dataclass(frozen=True)
class Resolution:
    """One resolution. image and control spacing, sample spacings in mm (whole region, near the lesion)."""

    image_mm: float
    control_mm: float
    sample_mm: float
    near_sample_mm: float
    steps: int
    rate_mm: float
    bending: float


BLOCK_MM = 8.0
#: What a pull costs (nats of mutual information per mm). Without contraction, made and real pairs gain up to 0.0003 by
#: their noise alone, and with it (10 % of the zone's diameter) 0.0004 to 0.0006: below that the pull stays zero.
PULL_PRIOR = 0.0003

#: Coarse to fine; each control spacing is half the one before, so that the spline is carried over exactly.
COARSE_LEVELS = (
    Resolution(4.0, 40.0, 6.0, 5.0, 60, 1.0, 0.5),
    Resolution(2.5, 20.0, 5.0, 3.5, 60, 0.6, 5.0),
)
FINE_LEVELS = (Resolution(1.5, 10.0, 5.0, 2.5, 80, 0.3, 15.0),)


@dataclass(frozen=True, eq=False)
class Where:
    """Where the cost looks. All regions in their own image's frame, any grid.

    organ: baseline region (organ plus rim) whose surroundings matter; None: everything in `box`.
    cut_baseline, cut_followup: what has no partner (tumor; ablation zone). near: follow-up boxes sampled densely.
    zones: ablation zones on the follow-up toward which tissue may have been drawn.
    half: 0 or 1 keeps every other block of `BLOCK_MM` only, so that two halves see independent noise; None keeps all.
    """

    box: Box
    near: tuple[Box, ...]
    organ: Mask | None
    cut_baseline: Mask
    cut_followup: Mask
    zones: tuple[Mask, ...] = ()
    half: int | None = None


def deform_in_halves(
    followup: Volume,
    baseline: Volume,
    starts: tuple[Transform, Transform],
    *,
    where: Where,
    levels: tuple[Resolution, ...],
    device: str = "auto",
) -> tuple[Transform, Transform]:
    """Two registrations from disjoint halves of the samples, side by side; their mean is better than either.

    starts: the same twice at first, later what the earlier levels found in either half.
    """

    def one(half: int) -> Transform:
        region = replace(where, half=half)
        return deform(followup, baseline, starts[half], where=region, levels=levels, device=device)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(one, (0, 1))
    return first, second


def mean_of(first: Transform, second: Transform) -> Transform:
    """The transform half-way between two that share matrix and control points. Raises ValueError without splines."""
    if first.field is None or second.field is None:
        raise ValueError("only transforms with a spline have a mean")
    middle = (first.field.coefficients_mm + second.field.coefficients_mm) / 2
    return replace(first, field=SplineField(middle, first.field.grid))


def deform(
    followup: Volume,
    baseline: Volume,
    start: Transform,
    *,
    where: Where,
    levels: tuple[Resolution, ...],
    device: str = "auto",
) -> Transform:
    """`start` refined by the levels given; a spline that `start` already has is continued at its spacing.

    Returns the map from follow-up to baseline points (LPS mm). Deterministic on the CPU. device: as `device_of`
    takes it.
    """
    there = device_of(device)
    grid, coefficients = _first_grid(start, where, levels[0])
    coefficients = coefficients.to(there)
    generator = torch.Generator().manual_seed(where.half or 0)
    for resolution in levels:
        while grid.spacing_mm[0] > 1.01 * resolution.control_mm:
            coefficients, grid = refined(coefficients, grid)
        cost = _Cost.of(followup, baseline, start, where, resolution, grid, there)
        coefficients, pulled_mm = cost.minimise(coefficients, generator)
        if where.zones:
            coefficients, grid = refined(coefficients, grid)
            for pull, size_mm in zip(cost.pulls, pulled_mm.tolist(), strict=True):
                coefficients = coefficients + size_mm * torch.from_numpy(pull.coefficients_mm(grid)).to(coefficients)
    field = SplineField(coefficients.double().cpu().numpy(), grid)
    return replace(start, field=field)


def _first_grid(start: Transform, where: Where, resolution: Resolution) -> tuple[Geometry, torch.Tensor]:
    if start.field is not None:
        return start.field.grid, torch.from_numpy(start.field.coefficients_mm.copy()).float()
    grid = spline_grid(where.box.grown(10.0), resolution.control_mm, start.from_frame_uid)
    return grid, torch.zeros(3, *grid.shape)


@dataclass(frozen=True, eq=False)
class _Cost:
    fixed: Field
    moving: Field
    fixed_weight: Field
    moving_weight: Field
    matrix: torch.Tensor
    lattices: tuple[Lattice, ...]
    grid: Geometry
    resolution: Resolution
    half: int | None
    pulls: tuple[Pull, ...]

    @staticmethod
    def of(  # noqa: PLR0913 - what makes a cost
        followup: Volume,
        baseline: Volume,
        start: Transform,
        where: Where,
        resolution: Resolution,
        grid: Geometry,
        device: torch.device,
    ) -> _Cost:
        rigid = replace(start, field=None)
        fixed_box = where.box.grown(15.0)
        fixed_part = followup.crop(_index_box(followup.geometry, fixed_box))
        corners = fixed_box.grown(25.0).corners()
        moving_part = baseline.crop(_index_box(baseline.geometry, Box(rigid(corners).min(0), rigid(corners).max(0))))
        fw, mw = window_of(followup), window_of(baseline)
        fixed_values, fixed_grid = smoothed(fixed_part, spacing_mm=resolution.image_mm, low=fw.low, high=fw.high)
        moving_values, moving_grid = smoothed(moving_part, spacing_mm=resolution.image_mm, low=mw.low, high=mw.high)
        lattices = [
            lattice_in(where.box, resolution.sample_mm),
            *(lattice_in(b, resolution.near_sample_mm) for b in where.near),
        ]
        moving_weight = _weight(where.organ, where.cut_baseline, moving_grid)
        fixed_weight = _weight(None, where.cut_followup, fixed_grid)
        # Which of the follow-up's gray values are the organ's: where the start puts the organ is near enough.
        likely = fixed_weight
        if where.organ is not None:
            likely = fixed_weight * _carried(where.organ, fixed_grid, rigid.matrix)
        fixed_values = equalised(fixed_values, fixed_values[likely > 0.5])
        moving_values = equalised(moving_values, moving_values[moving_weight > 0.5])
        return _Cost(
            field_of(fixed_values, fixed_grid, device),
            field_of(moving_values, moving_grid, device),
            field_of(fixed_weight, fixed_grid, device),
            field_of(moving_weight, moving_grid, device),
            torch.tensor(start.matrix, dtype=torch.float32).to(device),
            tuple(lattices),
            grid,
            resolution,
            where.half,
            tuple(pull_of(zone) for zone in where.zones),
        )

    def minimise(self, coefficients: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Control displacements (3, k, j, i) and the size of each pull, in mm, after Adam with a falling rate."""
        variable = coefficients.clone().requires_grad_(True)
        sizes = torch.zeros(len(self.pulls), device=coefficients.device, requires_grad=True)
        spacing_mm = float(self.grid.spacing_mm[0])

        def loss() -> torch.Tensor:
            bent = self.resolution.bending * bending_energy(variable, spacing_mm)
            return self.similarity(variable, sizes, generator) + bent + PULL_PRIOR * sizes.sum()

        how = Descent(self.resolution.steps, self.resolution.rate_mm, 0.05, (0.9, 0.98))
        descend((variable, sizes), loss, how, confine=lambda: sizes.clamp_(min=0.0))  # zones shrink
        return variable.detach(), sizes.detach()

    def similarity(self, coefficients: torch.Tensor, sizes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Minus the mutual information over freshly jittered samples."""
        parts = []
        for lattice in self.lattices:
            jitter = torch.rand(3, generator=generator).to(coefficients.device)
            p, u = self._displaced(coefficients, lattice.axes(jitter))
            use = torch.arange(len(p), device=p.device)
            if self.half is not None:
                use = use[(torch.floor(p / BLOCK_MM).long().sum(1) % 2) == self.half]
            weight = self.fixed_weight.at(p[use])
            here = weight > 0.05
            use = use[here]
            parts.append((p[use], u[use], weight[here]))
        p, u, weight = (torch.cat(x) for x in zip(*parts, strict=True))
        for pull, size in zip(self.pulls, sizes, strict=True):
            u = u + size * pull.at(p)
        y = (p + u) @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        with torch.no_grad():
            weight = weight * self.moving_weight.at(y)
            keep = weight > 0.05
        p, y, weight = p[keep], y[keep], weight[keep]
        fixed, moving = self.fixed.at(p), self.moving.at(y)
        return negative_mutual_information(to_bins(fixed, 0.0, 1.0), to_bins(moving, 0.0, 1.0), weight)

    def _displaced(self, coefficients: torch.Tensor, axes: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        spacing = float(self.grid.spacing_mm[0])
        origin = self.grid.lps_from_index[:3, 3]
        bx, by, bz = (
            spline_basis(axes[a], float(origin[a]), spacing, self.grid.shape[2 - a]).to(coefficients.dtype)
            for a in range(3)
        )
        u = torch.einsum("zk,ckji->czji", bz, coefficients)
        u = torch.einsum("yj,czji->czyi", by, u)
        u = torch.einsum("xi,czyi->czyx", bx, u)
        z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
        return torch.stack([x, y, z], -1).reshape(-1, 3), u.reshape(3, -1).T


def bending_energy(coefficients: torch.Tensor, spacing_mm: float) -> torch.Tensor:
    """Mean over the control points of the summed squared second derivatives, times 100 mm^2 (so: about 1 when the
    displacement turns by 1 mm over 10 mm)."""
    c = coefficients / spacing_mm**2
    total = torch.zeros((), dtype=c.dtype, device=c.device)
    for a in (1, 2, 3):
        total = total + torch.diff(c, n=2, dim=a).square().mean()
        for b in range(a + 1, 4):
            total = total + 2 * torch.diff(torch.diff(c, dim=a), dim=b).square().mean()
    return 3 * 1e4 * total / 100


def _weight(organ: Mask | None, cut: Mask | None, onto: Geometry) -> NDArray[np.float32]:
    """float32 weights on a grid: one inside the organ (everywhere without one), zero in the cut and outside."""
    weight = np.ones(onto.shape, np.float32) if organ is None else _carried(organ, onto)
    if cut is not None:
        weight *= 1 - _carried(cut, onto)
    for axis in range(3):  # nothing is known beyond the border voxels
        edge = [slice(None)] * 3
        for side in (0, -1):
            edge[axis] = slice(side, None) if side else slice(0, 1)
            weight[tuple(edge)] = 0
    return weight


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
