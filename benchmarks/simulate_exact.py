"""Exact solutions of freezing, a fine radial solve, and how radii are read off the grid: what ours is held against.

Nothing here uses the simulation's own equations: laws, similarity solutions and the radial solve are written again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_banded
from scipy.ndimage import map_coordinates
from scipy.optimize import brentq, fsolve
from scipy.special import erf, erfc, exp1, k0, k1

from pipeline.simulate.tissue import Tissue

Array = NDArray[np.float64]
_FAR_C = 600.0


@dataclass(frozen=True, eq=False)
class Bends:
    """A tissue's H (J/m³) and θ (W/m) at its knots and far beyond both ends, zero at rest; linear between."""

    celsius: Array
    enthalpy: Array
    potential: Array

    @staticmethod
    def of(tissue: Tissue) -> Bends:
        celsius = np.array([-_FAR_C, *tissue.knots_c, _FAR_C])

        def integral(slopes: Sequence[float]) -> Array:
            total = np.concatenate([[0.0], np.cumsum(np.diff(celsius) * np.array(slopes))])
            return np.asarray(total - np.interp(tissue.rest_c, celsius, total))

        return Bends(celsius, integral(tissue.capacity_j_m3k), integral(tissue.conductivity_w_mk))

    def potential_at(self, celsius: float) -> float:
        """θ of a temperature."""
        return float(np.interp(celsius, self.celsius, self.potential))


def range_tissue(freezes_c: tuple[float, float] = (-1.0, -8.0), perfusion_w_m3k: float = 0.0) -> Tissue:
    """Three ranges with constant properties, so that similarity solutions exist; 250 MJ/m³ of latent heat."""
    start, end = freezes_c
    capacity = (1.8e6, 2.7e6 + 250e6 / (start - end), 3.6e6)
    return Tissue("made", (end, start), (2.0, 1.25, 0.5), capacity, start, end, perfusion_w_m3k)


def line_sink_radii_mm(
    tissue: Tissue, flux_w_m: float, seconds: float, isotherms_c: Sequence[float]
) -> dict[float, float]:
    """Radii around a line that draws W/m from uniform tissue: in each range T = a + b E1(r² / 4 alpha t), the fluxes
    equal at both ends of the freezing range (Paterson, Proc Glasgow Math Assoc 1952;1:42, with a range)."""
    (end, start), rest = tissue.knots_c, tissue.rest_c
    (ks, km, ku), (a_s, am, au) = tissue.conductivity_w_mk, _diffusivities(tissue)
    bs = -flux_w_m / (4 * np.pi * ks)

    def factors(x1: float, x2: float) -> tuple[float, float]:
        middle = (start - end) / (exp1(x2**2 / am) - exp1(x1**2 / am))
        return float(middle), float((start - rest) / exp1(x2**2 / au))

    def jumps(v: Array) -> list[float]:
        x1, x2 = np.exp(v)
        bm, bu = factors(x1, x2)
        inner = ks * bs * np.exp(-(x1**2) / a_s) - km * bm * np.exp(-(x1**2) / am)
        return [inner, km * bm * np.exp(-(x2**2) / am) - ku * bu * np.exp(-(x2**2) / au)]

    x1, x2 = _root(jumps)
    bm, bu = factors(x1, x2)

    def celsius(x: float) -> float:
        if x > x2:
            return float(rest + bu * exp1(x**2 / au))
        if x > x1:
            return float(start + bm * (exp1(x**2 / am) - exp1(x2**2 / am)))
        return float(end + bs * (exp1(x**2 / a_s) - exp1(x1**2 / a_s)))

    return {c: 2e3 * float(np.sqrt(seconds)) * _place(celsius, c, 1e-7, 1e-2) for c in isotherms_c}


def half_space_depths_mm(
    tissue: Tissue, wall_c: float, seconds: float, isotherms_c: Sequence[float]
) -> dict[float, float]:
    """Depths below a cold wall: Neumann's solution, two phases parted by the freezing range."""
    (end, start), rest = tissue.knots_c, tissue.rest_c
    (ks, km, ku), (a_s, am, au) = tissue.conductivity_w_mk, _diffusivities(tissue)

    def factors(x1: float, x2: float) -> tuple[float, float, float]:
        inner = (end - wall_c) / erf(x1 / np.sqrt(a_s))
        middle = (start - end) / (erf(x2 / np.sqrt(am)) - erf(x1 / np.sqrt(am)))
        return float(inner), float(middle), float((rest - start) / erfc(x2 / np.sqrt(au)))

    def flux(k: float, b: float, x: float, alpha: float) -> float:
        return float(k * b * np.exp(-(x**2) / alpha) / np.sqrt(alpha))

    def jumps(v: Array) -> list[float]:
        x1, x2 = np.exp(v)
        bs, bm, bu = factors(x1, x2)
        first = flux(ks, bs, x1, a_s) / flux(km, bm, x1, am) - 1
        return [first, flux(km, bm, x2, am) / flux(ku, bu, x2, au) - 1]

    x1, x2 = _root(jumps)
    bs, bm, bu = factors(x1, x2)

    def celsius(x: float) -> float:
        if x > x2:
            return float(rest - bu * erfc(x / np.sqrt(au)))
        if x > x1:
            return float(end + bm * (erf(x / np.sqrt(am)) - erf(x1 / np.sqrt(am))))
        return float(wall_c + bs * erf(x / np.sqrt(a_s)))

    return {c: 2e3 * float(np.sqrt(seconds)) * _place(celsius, c, 1e-9, 1e-2) for c in isotherms_c}


def sharp_half_space_depths_mm(
    tissue: Tissue, wall_c: float, seconds: float, isotherms_c: Sequence[float]
) -> dict[float, float]:
    """The same for a freezing range so narrow that all its heat is latent: Neumann's own solution."""
    (end, start), rest = tissue.knots_c, tissue.rest_c
    (ks, _, ku), (a_s, _, au) = tissue.conductivity_w_mk, _diffusivities(tissue)
    freezes, latent = 0.5 * (end + start), tissue.capacity_j_m3k[1] * (start - end)

    def balance(x: float) -> float:
        drawn = ks * (freezes - wall_c) * np.exp(-(x**2) / a_s) / (np.sqrt(a_s) * erf(x / np.sqrt(a_s)))
        brought = ku * (rest - freezes) * np.exp(-(x**2) / au) / (np.sqrt(au) * erfc(x / np.sqrt(au)))
        return float(drawn - brought - np.sqrt(np.pi) * latent * x)

    front = _place(balance, 0.0, 1e-7, 5e-3)

    def celsius(x: float) -> float:
        if x > front:
            return float(rest - (rest - freezes) * erfc(x / np.sqrt(au)) / erfc(front / np.sqrt(au)))
        return float(wall_c + (freezes - wall_c) * erf(x / np.sqrt(a_s)) / erf(front / np.sqrt(a_s)))

    return {c: 2e3 * float(np.sqrt(seconds)) * _place(celsius, c, 1e-9, 1e-2) for c in isotherms_c}


def steady_flux_w_m(tissue: Tissue, radius_mm: float) -> float:
    """What a line must draw for ice of that radius (to where freezing begins) to rest in perfused tissue: K0 outside.

    Exact for any freezing range: at rest no latent heat flows."""
    m = np.sqrt(tissue.perfusion_w_m3k / tissue.conductivity_w_mk[-1])
    x = m * radius_mm * 1e-3
    warm = tissue.rest_c - tissue.freezes_from_c
    return float(2 * np.pi * x * tissue.conductivity_w_mk[-1] * warm * k1(x) / k0(x))


def steady_radii_mm(
    tissue: Tissue, radius_mm: float, flux_w_m: float, isotherms_c: Sequence[float]
) -> dict[float, float]:
    """Radii inside that ice: θ is linear in ln r."""
    bends = Bends.of(tissue)
    edge = bends.potential_at(tissue.freezes_from_c)
    below = {c: bends.potential_at(c) - edge for c in isotherms_c}
    return {c: radius_mm * float(np.exp(2 * np.pi * theta / flux_w_m)) for c, theta in below.items()}


@dataclass(frozen=True)
class RoundProbe:
    """An endless probe with a surface: radius, what cools it inside, and how well."""

    radius_mm: float
    coolant_c: float
    transfer_w_m2k: float


def radial_radii_mm(
    tissue: Tissue, probe: RoundProbe, times_s: Sequence[float], isotherms_c: Sequence[float], *, fine: int = 1
) -> list[dict[float, float]]:
    """Radii around a round probe, by finite volumes in r: cells of 0.04 mm at the probe, growing by 0.4 %, implicit
    steps of 0.2 s. fine: both divided by it."""
    bends = Bends.of(tissue)
    growth, first, far = 1 + 0.004 / fine, 0.04e-3 / fine, 70e-3
    rp = probe.radius_mm * 1e-3
    count = int(np.ceil(np.log(1 + (far - rp) * (growth - 1) / first) / np.log(growth)))
    edges = rp + first * (growth ** np.arange(count + 1) - 1) / (growth - 1)
    middles, area = 0.5 * (edges[1:] + edges[:-1]), np.pi * np.diff(edges**2)
    between = 2 * np.pi / np.log(middles[1:] / middles[:-1])  # the flux of ln r, exact at rest
    # At the surface: what comes through the half cell is what the coolant takes.
    half, through = np.log(middles[0] / rp) / (2 * np.pi), 2 * np.pi * rp * probe.transfer_w_m2k
    at_middle = bends.potential + half * through * (bends.celsius - probe.coolant_c)

    def surface(theta: float) -> tuple[float, float]:
        """W/m to the probe, and its derivative by θ."""
        piece = int(np.clip(np.searchsorted(at_middle, theta) - 1, 0, len(at_middle) - 2))
        slope = (bends.celsius[piece + 1] - bends.celsius[piece]) / (at_middle[piece + 1] - at_middle[piece])
        celsius = bends.celsius[piece] + slope * (theta - at_middle[piece])
        return float(through * (celsius - probe.coolant_c)), float(through * slope)

    slopes = np.diff(bends.potential) / np.diff(bends.enthalpy)
    step, enthalpy, now = 0.2 / fine, np.zeros(count), 0.0
    found = []
    for until in times_s:
        for _ in range(round((until - now) / step)):
            before = enthalpy.copy()
            for _ in range(12):
                piece = np.clip(np.searchsorted(bends.enthalpy, enthalpy, side="right") - 1, 0, len(slopes) - 1)
                slope = slopes[piece]
                theta = bends.potential[piece] + slope * (enthalpy - bends.enthalpy[piece])
                flow = between * np.diff(theta)
                drawn, drawn_slope = surface(theta[0])
                gain = np.concatenate([flow, [0.0]]) - np.concatenate([[drawn], flow])
                left = enthalpy - before - step / area * gain
                bands = np.zeros((3, count))
                bands[0, 1:] = -step / area[:-1] * between * slope[1:]
                bands[2, :-1] = -step / area[1:] * between * slope[:-1]
                out = np.concatenate([between, [0.0]]) + np.concatenate([[drawn_slope], between])
                bands[1] = 1 + step / area * out * slope
                change = solve_banded((1, 1), bands, -left)
                enthalpy = enthalpy + change
                if np.abs(change).max() < 10.0:
                    break
        now = until
        theta = np.interp(enthalpy, bends.enthalpy, bends.potential)
        found.append({c: 1e3 * float(np.interp(bends.potential_at(c), theta, middles)) for c in isotherms_c})
    return found


def read_radius_mm(potential: Array, start: Array, rays: Array, level: float, *, order: int = 1) -> float:
    """Mean distance, in cells, along (n, 3) unit rays from a point to where a field first rises over a level.

    potential: (k, j, i); start, rays: in index coordinates. The field is interpolated between the cells (order 1:
    linearly, as the product's levels are) and the crossing between two samples is solved linearly.
    """
    reach = np.arange(0.5, 0.75 * max(potential.shape), 0.02)
    found = []
    for ray in rays:
        points = start[:, None] + ray[:, None] * reach
        inside = ((points >= 0) & (points <= np.array(potential.shape)[:, None] - 1)).all(axis=0)
        values = map_coordinates(potential, points[:, inside], order=order, mode="nearest") - level
        n = int(np.argmax(values > 0))
        if n == 0:
            return float("nan")
        found.append(reach[n] - 0.02 * values[n] / (values[n] - values[n - 1]))
    return float(np.mean(found))


def circle(axis: Array, count: int = 72) -> Array:
    """(count, 3) unit vectors across an axis."""
    axis = axis / np.linalg.norm(axis)
    first = np.cross(axis, np.eye(3)[int(np.argmin(np.abs(axis)))])
    first /= np.linalg.norm(first)
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)[:, None]
    return np.asarray(np.cos(angle) * first + np.sin(angle) * np.cross(axis, first))


def _diffusivities(tissue: Tissue) -> tuple[float, float, float]:
    frozen, middle, unfrozen = np.divide(tissue.conductivity_w_mk, tissue.capacity_j_m3k)
    return float(frozen), float(middle), float(unfrozen)


def _root(jumps: Callable[[Array], list[float]]) -> tuple[float, float]:
    """The pair of similarity coordinates, first below second, at which both jumps vanish."""
    for inner, gap in product(np.geomspace(5e-5, 8e-4, 12), (1.1, 1.03, 1.01, 1.003, 1.001)):
        with np.errstate(all="ignore"):
            found, _, state, _ = fsolve(jumps, np.log((inner, inner * gap)), full_output=True, xtol=1e-13)
        x1, x2 = np.exp(found)
        if state == 1 and x1 < x2:
            return float(x1), float(x2)
    raise ArithmeticError("no similarity solution found")


def _place(celsius: Callable[[float], float], value: float, low: float, high: float) -> float:
    return float(brentq(lambda x: celsius(x) - value, low, high, xtol=1e-14))
