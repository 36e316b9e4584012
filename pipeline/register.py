"""Registration of two scans one way: a free-form deformation driven by mutual information, in torch.

The displacement is a cubic B-spline in the fixed scan's frame, applied before the rigid start; tumor and ablation zone
are cut out of the cost in both scans, since what was destroyed has no partner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from pipeline.contraction import Pull, pull_of
from pipeline.descent import Descent, descend
from pipeline.device import device_of
from pipeline.geometry import Geometry
from pipeline.sampling import Lattice, lattice_in, refined, spline_bases, spline_grid
from pipeline.similarity import negative_mutual_information, to_bins
from pipeline.transform import SplineField, Transform
from pipeline.volume import Volume
from pipeline.where import Images, Where, images_for


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


#: What a pull costs (nats of mutual information per mm). Without contraction, made and real pairs gain up to 0.0003 by
#: their noise alone, and with it (10 % of the zone's diameter) 0.0004 to 0.0006: below that the pull stays zero.
PULL_PRIOR = 0.0003

#: Of what a sample is interpolated from, at least so much must count (not be cut out): from here its weight rises to 1.
#: A zone and its bright rim would otherwise be seen through the edge of the cut, up to a whole slice beyond it, and a
#: map that moves samples off the rim be rewarded: wholly so where the baseline is the fixed scan.
LEAST_COUNTED = 0.9

#: Coarse to fine; each control spacing is half the one before, so that the spline is carried over exactly.
COARSE_LEVELS = (
    Resolution(4.0, 40.0, 7.5, 6.3, 60, 1.0, 0.5),
    Resolution(2.5, 20.0, 6.3, 4.4, 60, 0.6, 5.0),
)
FINE_LEVELS = (Resolution(1.5, 10.0, 6.3, 3.15, 72, 0.3, 15.0),)


def deform(
    fixed: Volume,
    moving: Volume,
    start: Transform,
    *,
    where: Where,
    levels: tuple[Resolution, ...],
    device: str = "auto",
) -> Transform:
    """`start` refined by the levels given; a spline that `start` already has is continued at its spacing.

    Returns the map from fixed to moving points (LPS mm). Deterministic on the CPU. device: as `device_of` takes it.
    """
    there = device_of(device)
    grid, coefficients = _first_grid(start, where, levels[0])
    coefficients = coefficients.to(there)
    generator = torch.Generator().manual_seed(0)
    for resolution in levels:
        while grid.spacing_mm[0] > 1.01 * resolution.control_mm:
            coefficients, grid = refined(coefficients, grid)
        images = images_for(fixed, moving, start, where, image_mm=resolution.image_mm, device=there)
        cost = _Cost.of(images, where, resolution, grid)
        coefficients, pulled_mm = cost.minimise(coefficients, generator)
        if where.zones:
            coefficients, grid = refined(coefficients, grid)
            for pull, size_mm in zip(cost.pulls, (where.drawn * pulled_mm).tolist(), strict=True):
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
    images: Images
    lattices: tuple[Lattice, ...]
    grid: Geometry
    resolution: Resolution
    pulls: tuple[Pull, ...]
    drawn: float

    @staticmethod
    def of(images: Images, where: Where, resolution: Resolution, grid: Geometry) -> _Cost:
        lattices = [
            lattice_in(where.box, resolution.sample_mm),
            *(lattice_in(b, resolution.near_sample_mm) for b in where.near),
        ]
        pulls = tuple(pull_of(zone, images.matrix.device) for zone in where.zones)
        return _Cost(images, tuple(lattices), grid, resolution, pulls, where.drawn)

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
        images, parts = self.images, []
        for lattice in self.lattices:
            jitter = torch.rand(3, generator=generator).to(coefficients.device)
            p, u = lattice.points(jitter), self._displacement(coefficients, lattice.axes(jitter))
            weight = _unmixed(images.fixed_weight.at(p))
            here = weight > 0.05
            parts.append((p[here], u[here], weight[here]))
        p, u, weight = (torch.cat(x) for x in zip(*parts, strict=True))
        for pull, size in zip(self.pulls, sizes, strict=True):
            u = u + self.drawn * size * pull.at(p)
        y = (p + u) @ images.matrix[:3, :3].T + images.matrix[:3, 3]
        with torch.no_grad():
            weight = weight * _unmixed(images.moving_weight.at(y))
            keep = weight > 0.05
        p, y, weight = p[keep], y[keep], weight[keep]
        fixed, moving = images.fixed.at(p), images.moving.at(y)
        return negative_mutual_information(to_bins(fixed, 0.0, 1.0), to_bins(moving, 0.0, 1.0), weight)

    def _displacement(self, coefficients: torch.Tensor, axes: list[torch.Tensor]) -> torch.Tensor:
        bx, by, bz = spline_bases(axes, self.grid)
        u = torch.einsum("zk,ckji->czji", bz, coefficients)
        u = torch.einsum("yj,czji->czyi", by, u)
        u = torch.einsum("xi,czyi->czyx", bx, u)
        return u.reshape(3, -1).T


def _unmixed(weight: torch.Tensor) -> torch.Tensor:
    """(n,) weights of samples by the interpolated weights (n,) of the voxels around them."""
    return ((weight - LEAST_COUNTED) / (1.0 - LEAST_COUNTED)).clamp(min=0.0)


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
