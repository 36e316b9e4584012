"""Tissues as the heat equation sees them: conductivity and heat capacity by temperature, perfusion, freezing range."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.geometry import FloatArray

BODY_C = 37.0


@dataclass(frozen=True)
class Tissue:
    """A tissue whose properties are constant between temperatures.

    knots_c: (n,) ascending temperatures, °C; conductivity_w_mk, capacity_j_m3k: (n + 1,) W/m/K and J/m³/K below the
    first knot, between the knots, and above the last; latent heat is part of the capacity of its range.
    freezes_from_c, freezes_to_c: where freezing begins and ends, two of the knots. perfusion_w_m3k: heat that blood
    brings per kelvin below body temperature, W/m³/K. Metabolic heat needs no number of its own: at rest it is what
    keeps perfused tissue at body temperature, and it stops where perfusion does. is_vessel: kept at body temperature
    by the blood that runs through it. rest_c: temperature before the procedure. source: where the numbers come from.
    """

    name: str
    knots_c: tuple[float, ...]
    conductivity_w_mk: tuple[float, ...]
    capacity_j_m3k: tuple[float, ...]
    freezes_from_c: float
    freezes_to_c: float
    perfusion_w_m3k: float = 0.0
    is_vessel: bool = False
    rest_c: float = BODY_C
    source: str = ""

    def __post_init__(self) -> None:
        n = len(self.knots_c)
        if len(self.conductivity_w_mk) != n + 1 or len(self.capacity_j_m3k) != n + 1:
            raise ValueError(f"{self.name}: {n} temperatures part {n + 1} ranges; give as many values")
        if any(b <= a for a, b in zip(self.knots_c, self.knots_c[1:], strict=False)):
            raise ValueError(f"{self.name}: the temperatures must ascend")
        if min(self.conductivity_w_mk) <= 0 or min(self.capacity_j_m3k) <= 0 or self.perfusion_w_m3k < 0:
            raise ValueError(f"{self.name}: conductivity and capacity must be above 0, perfusion not below")
        if self.freezes_from_c not in self.knots_c or self.freezes_to_c not in self.knots_c:
            raise ValueError(f"{self.name}: the freezing range must begin and end at one of the temperatures")
        if not self.freezes_to_c < self.freezes_from_c < self.rest_c:
            raise ValueError(f"{self.name}: freezing must end below where it begins, and begin below body temperature")

    @property
    def law(self) -> Law:
        return Law.of(self)


@dataclass(frozen=True, eq=False)
class Law:
    """Temperature T (°C), enthalpy H (J/m³) and Kirchhoff's potential θ = ∫k dT (W/m) of one tissue, each a piecewise
    linear function of the others; H and θ are zero at the tissue's temperature before the procedure.

    temperature_c, enthalpy, potential: (n,) at the knots; conductivity, capacity: (n + 1,) between them.
    """

    temperature_c: FloatArray
    enthalpy: FloatArray
    potential: FloatArray
    conductivity: FloatArray
    capacity: FloatArray

    @staticmethod
    def of(tissue: Tissue) -> Law:
        knots = np.array(tissue.knots_c)
        k, c = np.array(tissue.conductivity_w_mk), np.array(tissue.capacity_j_m3k)
        rest = tissue.rest_c
        return Law(knots, _integral(knots, c, rest), _integral(knots, k, rest), k, c)

    def enthalpy_of(self, temperature_c: FloatArray | float) -> FloatArray:
        """H of temperatures, J/m³."""
        return _linear(temperature_c, self.temperature_c, self.enthalpy, self.capacity)

    def potential_of(self, temperature_c: FloatArray | float) -> FloatArray:
        """θ of temperatures, W/m."""
        return _linear(temperature_c, self.temperature_c, self.potential, self.conductivity)

    def temperature_of(self, enthalpy: FloatArray | float) -> FloatArray:
        """Temperatures of H, °C."""
        return _linear(enthalpy, self.enthalpy, self.temperature_c, 1 / self.capacity)

    def potential_from(self, enthalpy: FloatArray | float) -> FloatArray:
        """θ of H."""
        return _linear(enthalpy, self.enthalpy, self.potential, self.conductivity / self.capacity)


def _integral(knots: FloatArray, slopes: FloatArray, rest_c: float) -> FloatArray:
    """(n,) the integral from `rest_c` to each knot of a function that is constant between the knots."""
    points = np.concatenate([knots, [rest_c]])
    order = np.argsort(points, kind="stable")
    values = slopes[np.searchsorted(knots, points[order][:-1], side="right")]
    total = np.concatenate([[0.0], np.cumsum(np.diff(points[order]) * values)])
    out = np.empty(len(points))
    out[order] = total
    return np.asarray(out[:-1] - out[-1])


def _linear(x: FloatArray | float, knots: FloatArray, values: FloatArray, slopes: FloatArray) -> FloatArray:
    x = np.asarray(x, float)
    piece = np.searchsorted(knots, x, side="right")
    at = np.maximum(piece - 1, 0)
    return np.asarray(values[at] + slopes[piece] * (x - knots[at]))


def varied(tissue: Tissue, *, perfusion: float = 1.0, ice_conductivity: float = 1.0) -> Tissue:
    """The tissue with its perfusion and the conductivity of its ice multiplied by factors."""
    k = [
        value * (ice_conductivity if n <= tissue.knots_c.index(tissue.freezes_to_c) else 1.0)
        for n, value in enumerate(tissue.conductivity_w_mk)
    ]
    return replace(tissue, conductivity_w_mk=tuple(k), perfusion_w_m3k=tissue.perfusion_w_m3k * perfusion)
