"""The same steps as `kernels`, on whole tensors: for a GPU. Every cell in every stage, no active box."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.simulate.arrays import BENDS, HARMLESS_C, KELVIN, OFF, PRESCRIBED, Ints, Laws, Sinks
from pipeline.simulate.lattice import Lattice

Array = NDArray[np.float32]


class _Pieces(NamedTuple):
    """Laws as tables on the device: (tissues, BENDS) at the bends, (tissues, BENDS + 1) between them."""

    enthalpy: Tensor
    temperature: Tensor
    potential: Tensor
    conductivity: Tensor
    capacity: Tensor


class TorchEngine:
    """stasis: what was frozen once is never perfused again; dose_rate: see `arrays.Harm`, None where nothing heats."""

    def __init__(
        self,
        lattice: Lattice,
        sinks: Sinks,
        device: torch.device,
        *,
        stasis: bool,
        dose_rate: NDArray[np.float64] | None,
    ) -> None:
        laws, cells, faces = lattice.laws(), lattice.cells(), lattice.faces(lattice.cells().box)
        grid = tuple(int(n) for n in cells.size)
        self._shape, self._h2, self._h3 = grid, cells.spacing_m**2, cells.spacing_m**3
        self._insulated, self._device, self._stasis = bool(cells.insulated), device, stasis
        self._rate = None if dose_rate is None else tuple(float(x) for x in dose_rate)
        self._enthalpy, self._least, self._source, self._dose, self._greatest = (
            torch.zeros(grid, device=device) for _ in range(5)
        )
        self._flow = _on(lattice.state(heats=False).flow, device).view(grid)
        labels = torch.zeros(grid, dtype=torch.long, device=device)
        labels[1:-1, 1:-1, 1:-1] = torch.as_tensor(lattice.labels.astype(np.int64), device=device)
        self._labels = labels
        self._pieces = _Pieces(*(_on(getattr(laws, name), device) for name in _Pieces._fields))
        self._cell = _per_cell(laws, lattice, labels)
        self._inner = torch.zeros(grid, dtype=torch.bool, device=device)
        self._inner[1:-1, 1:-1, 1:-1] = True
        self._faces = tuple(
            torch.as_tensor(x, device=device) for x in (faces.cell, faces.tissue, faces.first, faces.second)
        )
        self._pinned = torch.as_tensor(faces.pinned, device=device)
        self._probes = _Probes(sinks, device)

    def heat(self, field_w_m3: Array) -> None:
        """Sets the heat source."""
        self._source[1:-1, 1:-1, 1:-1] = torch.as_tensor(field_w_m3, device=self._device)

    def enthalpy(self) -> Array:
        return self._copied(self._enthalpy)

    def enthalpy_at(self, cells: Ints) -> Array:
        return np.array(self._enthalpy.view(-1)[torch.as_tensor(cells, device=self._device)].cpu().numpy())

    def least(self) -> Array:
        return self._copied(self._least)

    def greatest(self) -> Array | None:
        return None if self._rate is None else self._copied(self._greatest)

    def dose(self) -> Array | None:
        return None if self._rate is None else self._copied(self._dose)

    def _copied(self, field: Tensor) -> Array:
        return np.array(field[1:-1, 1:-1, 1:-1].cpu().numpy())

    def step(self, sinks: Sinks, step_s: float, stages: int) -> float:
        """One super step; the heat that the probes drew, J. As `kernels.super_step`."""
        y, before = self._enthalpy, torch.zeros_like(self._enthalpy)
        probes = self._probes.driven(sinks)
        whole, drawn, drawn_before = 2.0 / (stages * stages + stages), self._zero(), self._zero()
        for n in range(1, stages + 1):
            mu, nu = ((2.0 * n - 1.0) / n, (1.0 - n) / n) if n > 1 else (1.0, 0.0)
            step = mu * whole * step_s
            theta = self._potential(y)
            rate = self._conduction(theta) - self._flow * torch.maximum(y, self._cell["thawed_enthalpy"])
            if self._rate is not None:
                rate = rate + self._source
            flat = rate.view(-1)
            self._cross_faces(y.view(-1), theta.view(-1), flat)
            flow = self._draw(probes, y.view(-1), theta.view(-1), flat)
            out = torch.where(self._inner, mu * y + nu * before + step * rate, 0.0)
            out.view(-1)[self._pinned] = 0.0
            drawn, drawn_before = mu * drawn + nu * drawn_before + step * flow, drawn
            y, before = out, y
        self._enthalpy = y
        return float(drawn)

    def settle(self, step_s: float) -> tuple[float, float]:
        """As `kernels.settle` and `kernels.harm_done`."""
        theta = self._potential(self._enthalpy)
        slope = torch.full_like(theta, 1e-6)
        for axis in range(3):
            inside = slice(1, -1)
            far, near = [inside] * 3, [inside] * 3
            far[axis], near[axis] = slice(2, None), slice(None, -2)
            slope[1:-1, 1:-1, 1:-1] += 0.5 * (theta[tuple(far)] - theta[tuple(near)]).abs()
        part = (0.5 + (theta - self._cell["thawed_potential"]) / slope).clamp(0.0, 1.0)
        alive = self._cell["perfusion"] * part * self._inner
        self._flow = torch.minimum(self._flow, alive) if self._stasis else alive
        self._least = torch.minimum(self._least, self._enthalpy)
        if self._rate is not None:
            self._harm(step_s)
        return min(0.0, float(self._enthalpy.min())), max(0.0, float(self._enthalpy.max()))

    def _harm(self, step_s: float) -> None:
        assert self._rate is not None
        log_frequency, energy, full = self._rate
        self._greatest = torch.maximum(self._greatest, self._enthalpy)
        celsius = self._temperature(self._enthalpy.view(-1), self._labels.view(-1)).view(self._shape)
        if log_frequency > 0:
            rate = torch.exp(log_frequency - energy / (celsius.double() + KELVIN)).clamp(max=1e6)
        else:
            base = torch.where(celsius >= 43.0, 0.5, 0.25).double()
            rate = (base ** (43.0 - celsius.double()) / 60.0).clamp(max=1e6)
        self._dose = self._dose + torch.where(celsius >= HARMLESS_C, rate.float() * step_s / full, 0.0)
        self._flow = torch.where(self._dose >= 1.0, 0.0, self._flow)

    def _zero(self) -> Tensor:
        return torch.zeros((), device=self._device, dtype=torch.float64)

    def _potential(self, y: Tensor) -> Tensor:
        theta = self._cell["intercept"] + self._cell["slope"] * y
        for n in range(BENDS):
            theta = theta + self._cell[f"bend{n}"] * (y - self._cell[f"enthalpy{n}"]).clamp(min=0.0)
        if self._insulated:
            for axis in range(3):
                theta.select(axis, 0).copy_(theta.select(axis, 1))
                theta.select(axis, -1).copy_(theta.select(axis, -2))
            return theta
        return theta * self._inner

    def _conduction(self, theta: Tensor) -> Tensor:
        out = torch.zeros_like(theta)
        middle = theta[1:-1, 1:-1, 1:-1]
        out[1:-1, 1:-1, 1:-1] = (
            theta[2:, 1:-1, 1:-1]
            + theta[:-2, 1:-1, 1:-1]
            + theta[1:-1, 2:, 1:-1]
            + theta[1:-1, :-2, 1:-1]
            + theta[1:-1, 1:-1, 2:]
            + theta[1:-1, 1:-1, :-2]
            - 6.0 * middle
        ) / self._h2
        return out

    def _temperature(self, y: Tensor, tissue: Tensor) -> Tensor:
        piece = (y[:, None] >= self._pieces.enthalpy[tissue]).sum(dim=1)
        at = (piece - 1).clamp(min=0)
        above = (y - self._pieces.enthalpy[tissue, at]) / self._pieces.capacity[tissue, piece]
        return self._pieces.temperature[tissue, at] + above

    def _cross_faces(self, y: Tensor, theta: Tensor, rate: Tensor) -> None:
        cell, tissue, first, second = self._faces
        if not len(first):
            return
        piece = (y[cell][:, None] >= self._pieces.enthalpy[tissue]).sum(dim=1)
        k, celsius = self._pieces.conductivity[tissue, piece], self._temperature(y[cell], tissue)
        across = 2.0 * k[first] * k[second] / (k[first] + k[second]) * (celsius[second] - celsius[first])
        flux = (across - (theta[cell[second]] - theta[cell[first]])) / self._h2
        rate.index_add_(0, cell[first], flux)
        rate.index_add_(0, cell[second], -flux)

    def _draw(self, probes: _Probes, y: Tensor, theta: Tensor, rate: Tensor) -> Tensor:
        """Takes off `rate` what the probes draw, W/m³; returns W."""
        if probes.is_off:
            return self._zero()
        values = theta[probes.cell]
        other = probes.other
        if len(other):
            celsius = self._temperature(y[probes.cell[other]], probes.tissue[other])
            values = values.clone()
            values[other] = self._potential_of(celsius, probes.own[probes.segment[other]])
        mean = torch.zeros(len(probes.length), device=self._device)
        mean.index_add_(0, probes.segment, probes.weight * values)
        flux = torch.where(probes.mode == PRESCRIBED, probes.flux, self._convective(mean, probes))
        drawn = torch.where(probes.mode == OFF, 0.0, flux) * probes.length
        rate.index_add_(0, probes.cell, -drawn[probes.segment] * probes.weight / self._h3)
        return drawn.double().sum()

    def _potential_of(self, celsius: Tensor, tissue: Tensor) -> Tensor:
        piece = (celsius[:, None] >= self._pieces.temperature[tissue]).sum(dim=1)
        at = (piece - 1).clamp(min=0)
        above = (celsius - self._pieces.temperature[tissue, at]) * self._pieces.conductivity[tissue, piece]
        return self._pieces.potential[tissue, at] + above

    def _convective(self, mean: Tensor, probes: _Probes) -> Tensor:
        """W/m; the surface's temperature lies in the piece at whose bends the balance changes sign."""
        bends, theta = self._pieces.temperature[probes.own], self._pieces.potential[probes.own]
        left = (mean[:, None] - theta) / probes.resistance[:, None]
        left = left - probes.transfer[:, None] * (bends - probes.coolant[:, None])
        piece = (left > 0).sum(dim=1)
        at = (piece - 1).clamp(min=0)
        rows = torch.arange(len(mean), device=self._device)
        k, t0, theta0 = self._pieces.conductivity[probes.own, piece], bends[rows, at], theta[rows, at]
        coupled = probes.resistance * probes.transfer
        surface = (mean - theta0 + k * t0 + coupled * probes.coolant) / (k + coupled)
        return probes.transfer * (surface - probes.coolant)


class _Probes:
    """The sinks on the device, what belongs to probes spread over their segments."""

    def __init__(self, sinks: Sinks, device: torch.device) -> None:
        count = torch.as_tensor(sinks.first[1:] - sinks.first[:-1])
        self.segment = torch.repeat_interleave(count).to(device)
        self.cell = torch.as_tensor(sinks.cell, device=device)
        self.tissue = torch.as_tensor(sinks.tissue, device=device)
        self.weight, self.length = _on(sinks.weight, device), _on(sinks.length_m, device)
        self.own, self.probe = (torch.as_tensor(x, device=device) for x in (sinks.segment_tissue, sinks.probe))
        self.other = torch.nonzero(self.tissue != self.own[self.segment]).ravel()
        self._device = device
        self.driven(sinks)

    def driven(self, sinks: Sinks) -> _Probes:
        """Itself, as the probes are driven now."""
        self.mode = torch.as_tensor(sinks.mode, device=self._device)[self.probe]
        self.coolant, self.transfer, self.resistance, self.flux = (
            _on(values, self._device)[self.probe]
            for values in (sinks.coolant_c, sinks.transfer, sinks.resistance, sinks.flux)
        )
        self.is_off = bool((sinks.mode == OFF).all())
        return self


def _on(values: object, device: torch.device) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).clone().to(device)


def _per_cell(laws: Laws, lattice: Lattice, labels: Tensor) -> dict[str, Tensor]:
    """What the potential and perfusion need, for every cell; one value where all is one tissue."""
    device, present = labels.device, np.unique(lattice.labels)
    where: Tensor | int = int(present[0]) if len(present) == 1 else labels
    names = ("slope", "intercept", "thawed_enthalpy", "thawed_potential", "perfusion")
    out = {name: _on(getattr(laws, name), device)[where] for name in names}
    bend, enthalpy = _on(laws.bend, device), _on(laws.enthalpy, device)
    for n in range(BENDS):
        out[f"bend{n}"], out[f"enthalpy{n}"] = bend[:, n][where], enthalpy[:, n][where]
    return out
