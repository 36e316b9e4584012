"""The inner loops of the heat equation on a regular grid, for numba.

Every loop over cells reads a few slices and writes one, which is what lets the compiler use whole vector registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from pipeline.simulate.arrays import (
    BENDS,
    KELVIN,
    OFF,
    PRESCRIBED,
    Cells,
    Faces,
    Floats,
    Harm,
    Ints,
    Laws,
    Problem,
    Sinks,
    Stage,
    State,
)

_F = TypeVar("_F", bound=Callable[..., Any])
_FAST = {"nnan", "ninf", "nsz", "contract", "arcp", "reassoc"}


def compiled(function: _F) -> _F:
    """The function as machine code, kept on disk where there is a place for it. One thread: two that wait for one
    another seven thousand times are slower than one as soon as anything else runs on the machine.
    """
    options = {"nogil": True, "fastmath": _FAST, "error_model": "numpy"}
    try:
        return cast(_F, numba.njit(function, cache=True, **options))
    except RuntimeError:  # neither beside this file nor in the user's cache can anything be written
        return cast(_F, numba.njit(function, **options))


@compiled
def temperature_of(enthalpy: float, tissue: int, laws: Laws) -> float:
    """T of H."""
    n = 0
    while n < BENDS and enthalpy >= laws.enthalpy[tissue, n]:
        n += 1
    at = max(n - 1, 0)
    return float(laws.temperature[tissue, at] + (enthalpy - laws.enthalpy[tissue, at]) / laws.capacity[tissue, n])


@compiled
def potential_of(temperature: float, tissue: int, laws: Laws) -> tuple[float, float]:
    """θ of T, and the conductivity there."""
    n = 0
    while n < BENDS and temperature >= laws.temperature[tissue, n]:
        n += 1
    at = max(n - 1, 0)
    k = laws.conductivity[tissue, n]
    return laws.potential[tissue, at] + (temperature - laws.temperature[tissue, at]) * k, k


@compiled
def _fill_plane(k: int, y: Floats, theta: Floats, cells: Cells, laws: Laws) -> None:
    """θ of H for the cells of one plane of the box."""
    size, box = cells.size, cells.box
    zero = np.float32(0.0)
    for j in range(box[2], box[3]):
        row = (k - 1) * (size[1] - 2) + j - 1
        start = (k * size[1] + j) * size[2]
        for run in range(cells.first_run[row], cells.first_run[row + 1]):
            a, b = max(cells.runs[run, 0], box[4]), min(cells.runs[run, 1], box[5])
            if b <= a:
                continue
            t = cells.runs[run, 2]
            source, target = y[start + a : start + b], theta[start + a : start + b]
            base, slope = laws.intercept[t], laws.slope[t]
            h0, h1, h2, h3 = laws.enthalpy[t, 0], laws.enthalpy[t, 1], laws.enthalpy[t, 2], laws.enthalpy[t, 3]
            b0, b1, b2, b3 = laws.bend[t, 0], laws.bend[t, 1], laws.bend[t, 2], laws.bend[t, 3]
            for i in range(b - a):
                v = source[i]
                target[i] = (
                    base
                    + slope * v
                    + b0 * max(v - h0, zero)
                    + b1 * max(v - h1, zero)
                    + b2 * max(v - h2, zero)
                    + b3 * max(v - h3, zero)
                )


@compiled
def fill_potential(y: Floats, theta: Floats, cells: Cells, laws: Laws) -> None:
    """θ of H for all cells in the box and, where no heat crosses the grid's border, of the rim beside it."""
    for k in range(cells.box[0], cells.box[1]):
        _fill_plane(k, y, theta, cells, laws)
    if cells.insulated:
        _fill_rim(theta, cells.size)


@compiled
def _fill_rim(theta: Floats, size: Ints) -> None:
    whole = theta.reshape((size[0], size[1], size[2]))
    whole[0], whole[-1] = whole[1], whole[-2]
    whole[:, 0], whole[:, -1] = whole[:, 1], whole[:, -2]
    whole[:, :, 0], whole[:, :, -1] = whole[:, :, 1], whole[:, :, -2]


@compiled
def conduct(problem: Problem, state: State, y: Floats, out: Floats, stage: Stage) -> None:
    """One stage: ``out = mu * y + nu * out + step * rate(y)``, with conduction, perfusion and the heat source; fills θ
    on the way, plane by plane, while they are at hand.
    """
    cells, laws = problem.cells, problem.laws
    first, last = cells.box[0], cells.box[1]
    if cells.insulated:
        fill_potential(y, state.potential, cells, laws)
    else:
        _fill_plane(first, y, state.potential, cells, laws)
    for k in range(first, last):
        if k + 1 < last and not cells.insulated:
            _fill_plane(k + 1, y, state.potential, cells, laws)
        _conduct_plane(k, problem, state, y, out, stage)


@compiled
def _conduct_plane(k: int, problem: Problem, state: State, y: Floats, out: Floats, stage: Stage) -> None:
    cells, laws = problem.cells, problem.laws
    mu, nu, step = np.float32(stage.mu), np.float32(stage.nu), np.float32(stage.step_s)
    around = np.empty(cells.size[2], np.float32)
    size, box = cells.size, cells.box
    plane, line = size[1] * size[2], size[2]
    theta = state.potential
    step_h2, six = np.float32(step / (cells.spacing_m * cells.spacing_m)), np.float32(6.0)
    for j in range(box[2], box[3]):
        row = (k - 1) * (size[1] - 2) + j - 1
        start = (k * size[1] + j) * line
        for run in range(cells.first_run[row], cells.first_run[row + 1]):
            a, b = max(cells.runs[run, 0], box[4]), min(cells.runs[run, 1], box[5])
            if b <= a:
                continue
            thawed = laws.thawed_enthalpy[cells.runs[run, 2]]
            lo, hi = start + a, start + b
            here, left, right = theta[lo:hi], theta[lo - 1 : hi - 1], theta[lo + 1 : hi + 1]
            front, back = theta[lo - line : hi - line], theta[lo + line : hi + line]
            below, above = theta[lo - plane : hi - plane], theta[lo + plane : hi + plane]
            for i in range(b - a):
                around[i] = left[i] + right[i] + front[i] + back[i] + below[i] + above[i] - six * here[i]
            mine, target, flow = y[lo:hi], out[lo:hi], state.flow[lo:hi]
            for i in range(b - a):
                target[i] = mu * mine[i] + nu * target[i] + step_h2 * around[i] - step * flow[i] * max(mine[i], thawed)
            if state.heats:
                source = state.source[lo:hi]
                for i in range(b - a):
                    target[i] += step * source[i]


@compiled
def _look_at_faces(y: Floats, faces: Faces, laws: Laws) -> None:
    """T and conductivity of every cell at a face between two tissues."""
    for n in range(len(faces.cell)):
        tissue, enthalpy = faces.tissue[n], y[faces.cell[n]]
        piece = 0
        while piece < BENDS and enthalpy >= laws.enthalpy[tissue, piece]:
            piece += 1
        at = max(piece - 1, 0)
        above = (enthalpy - laws.enthalpy[tissue, at]) / laws.capacity[tissue, piece]
        faces.celsius[n] = laws.temperature[tissue, at] + above
        faces.conductivity[n] = laws.conductivity[tissue, piece]


@compiled
def cross_faces(problem: Problem, theta: Floats, y: Floats, out: Floats, step_s: float) -> None:
    """Sets right the flux between cells of two tissues: harmonic mean conductivity times the step in temperature."""
    faces = problem.faces
    if len(faces.cell):
        _look_at_faces(y, faces, problem.laws)
    step_h2, two = np.float32(step_s / (problem.cells.spacing_m * problem.cells.spacing_m)), np.float32(2.0)
    for n in range(len(faces.first)):
        a, b = faces.first[n], faces.second[n]
        k_a, k_b = faces.conductivity[a], faces.conductivity[b]
        cell_a, cell_b = faces.cell[a], faces.cell[b]
        right = two * k_a * k_b / (k_a + k_b) * (faces.celsius[b] - faces.celsius[a])
        flux = step_h2 * (right - (theta[cell_b] - theta[cell_a]))
        out[cell_a] += flux
        out[cell_b] -= flux


@compiled
def draw(problem: Problem, theta: Floats, y: Floats, out: Floats, step_s: float) -> float:
    """Takes off `out` what the probes draw in a stage; returns the heat flow, W."""
    sinks, laws = problem.sinks, problem.laws
    per_volume = step_s / problem.cells.spacing_m**3
    total = 0.0
    for s in range(len(sinks.length_m)):
        p = sinks.probe[s]
        if sinks.mode[p] == OFF:
            continue
        own = sinks.segment_tissue[s]
        if sinks.mode[p] == PRESCRIBED:
            flux = float(sinks.flux[p])
        else:
            mean = 0.0
            for n in range(sinks.first[s], sinks.first[s + 1]):
                cell, tissue = sinks.cell[n], sinks.tissue[n]
                if tissue == own:
                    value = float(theta[cell])
                else:
                    value = potential_of(temperature_of(y[cell], tissue, laws), own, laws)[0]
                mean += sinks.weight[n] * value
            flux = _convective_flux(mean, sinks, p, own, laws)
        drawn = flux * sinks.length_m[s]
        total += drawn
        for n in range(sinks.first[s], sinks.first[s + 1]):
            out[sinks.cell[n]] -= np.float32(per_volume * drawn) * sinks.weight[n]
    return total


@compiled
def _convective_flux(mean: float, sinks: Sinks, p: int, tissue: int, laws: Laws) -> float:
    """W/m that a probe draws: what flows down from the mean θ around it to its surface is what the coolant takes off.

    Newton's method on a function that bends at a few temperatures only: it ends in a few steps, exactly.
    """
    surface_c = float(sinks.coolant_c[p])
    for _ in range(BENDS + 3):
        theta, k = potential_of(surface_c, tissue, laws)
        left = (mean - theta) / sinks.resistance[p] - sinks.transfer[p] * (surface_c - sinks.coolant_c[p])
        change = left / (k / sinks.resistance[p] + sinks.transfer[p])
        surface_c += change
        if abs(change) < 1e-4:
            break
    return float(sinks.transfer[p] * (surface_c - sinks.coolant_c[p]))


@compiled
def super_step(problem: Problem, state: State, step_s: float, stages: int) -> float:
    """Advances H by one Runge–Kutta–Legendre step of first order (Meyer, Balsara & Aslam, J Comput Phys 2014;257:594)
    and returns the heat that the probes drew, J. `state.enthalpy` holds the result: the stages are odd in number, so
    it is copied back from the other array.
    """
    y, out = state.enthalpy, state.stage
    whole = 2.0 / (stages * stages + stages)
    drawn, drawn_before = 0.0, 0.0
    for n in range(1, stages + 1):
        mu, nu = (2.0 * n - 1.0) / n, (1.0 - n) / n
        step = mu * whole * step_s
        if n == 1:
            mu, nu, step = 1.0, 0.0, whole * step_s
        conduct(problem, state, y, out, Stage(mu, nu, step))
        cross_faces(problem, state.potential, y, out, step)
        flow = draw(problem, state.potential, y, out, step)
        for m in range(len(problem.faces.pinned)):  # vessels, also where a probe draws from them
            out[problem.faces.pinned[m]] = 0.0
        now = mu * drawn + nu * drawn_before + step * flow
        drawn_before, drawn = drawn, now
        y, out = out, y
    if stages % 2 == 1:
        _copy(state.stage, state.enthalpy, problem.cells)
    return drawn


@compiled
def _copy(source: Floats, target: Floats, cells: Cells) -> None:
    size, box = cells.size, cells.box
    for k in range(box[0], box[1]):
        for j in range(box[2], box[3]):
            start = (k * size[1] + j) * size[2]
            target[start + box[4] : start + box[5]] = source[start + box[4] : start + box[5]]


@compiled
def settle(problem: Problem, state: State, stasis: bool) -> tuple[float, float]:
    """After a step: θ, the least H of each cell, and how much of each cell is still perfused; returns least and
    greatest H.

    A cell through which the edge of the ice runs is perfused in part: as much of it as lies on the warm side of the
    plane that θ and its slope there describe. With stasis, what was frozen once is never perfused again.
    """
    cells, laws = problem.cells, problem.laws
    size, box = cells.size, cells.box
    plane, line = size[1] * size[2], size[2]
    theta, zero, one = state.potential, np.float32(0.0), np.float32(1.0)
    low, high = np.float32(0.0), np.float32(0.0)
    half, tiny = np.float32(0.5), np.float32(1e-6)
    fill_potential(state.enthalpy, theta, cells, laws)
    for k in range(box[0], box[1]):
        part = np.empty(size[2], np.float32)
        for j in range(box[2], box[3]):
            row = (k - 1) * (size[1] - 2) + j - 1
            start = (k * size[1] + j) * line
            for run in range(cells.first_run[row], cells.first_run[row + 1]):
                a, b = max(cells.runs[run, 0], box[4]), min(cells.runs[run, 1], box[5])
                if b <= a:
                    continue
                t = cells.runs[run, 2]
                lo, hi = start + a, start + b
                mine, least = state.enthalpy[lo:hi], state.least[lo:hi]
                for i in range(b - a):
                    low, high = min(low, mine[i]), max(high, mine[i])
                for i in range(b - a):
                    least[i] = min(least[i], mine[i])
                rate = laws.perfusion[t]
                if rate == 0.0:
                    continue
                begins = laws.thawed_potential[t]
                here, left, right = theta[lo:hi], theta[lo - 1 : hi - 1], theta[lo + 1 : hi + 1]
                front, back = theta[lo - line : hi - line], theta[lo + line : hi + line]
                below, above = theta[lo - plane : hi - plane], theta[lo + plane : hi + plane]
                for i in range(b - a):
                    slope = half * (abs(right[i] - left[i]) + abs(back[i] - front[i]) + abs(above[i] - below[i])) + tiny
                    part[i] = min(one, max(zero, half + (here[i] - begins) / slope))
                flow = state.flow[lo:hi]
                if stasis:
                    for i in range(b - a):
                        flow[i] = min(flow[i], rate * part[i])
                else:
                    for i in range(b - a):
                        flow[i] = rate * part[i]
    return float(low), float(high)


@compiled
def harm_done(problem: Problem, state: State, harm: Harm, step_s: float) -> None:
    """Adds what a step's temperatures did to the dose; where it is full, perfusion has stopped."""
    cells, laws = problem.cells, problem.laws
    size, box = cells.size, cells.box
    log_frequency, energy, full = harm.rate[0], harm.rate[1], harm.rate[2]
    for k in range(box[0], box[1]):
        for j in range(box[2], box[3]):
            row = (k - 1) * (size[1] - 2) + j - 1
            start = (k * size[1] + j) * size[2]
            for run in range(cells.first_run[row], cells.first_run[row + 1]):
                lo, hi = start + max(cells.runs[run, 0], box[4]), start + min(cells.runs[run, 1], box[5])
                t = cells.runs[run, 2]
                mine, greatest = state.enthalpy[lo:hi], harm.greatest[lo:hi]
                dose, flow = harm.dose[lo:hi], state.flow[lo:hi]
                for i in range(hi - lo):
                    greatest[i] = max(greatest[i], mine[i])
                    celsius = temperature_of(mine[i], t, laws)
                    if celsius >= harm.harmless_c:
                        dose[i] += _dose_rate(celsius, log_frequency, energy) * step_s / full
                        if dose[i] >= 1.0:
                            flow[i] = 0.0


@compiled
def _dose_rate(celsius: float, log_frequency: float, energy: float) -> float:
    """How fast the dose grows, in its own unit a second; bounded, so that it can be summed."""
    if log_frequency > 0:
        return float(min(np.exp(log_frequency - energy / (celsius + KELVIN)), 1e6))
    base = 0.5 if celsius >= 43.0 else 0.25
    return float(min(base ** (43.0 - celsius) / 60.0, 1e6))
