"""The simulation on its grid, in the settings whose answer is known: each function gives rows of errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from simulate_exact import (
    Array,
    RoundProbe,
    circle,
    half_space_depths_mm,
    line_sink_radii_mm,
    radial_radii_mm,
    range_tissue,
    read_radius_mm,
    sharp_half_space_depths_mm,
    steady_flux_w_m,
    steady_radii_mm,
)

from pipeline.case import Point
from pipeline.geometry import upright_grid
from pipeline.simulate import kernels
from pipeline.simulate.arrays import Laws, Problem
from pipeline.simulate.heat import Course, Drive, HeatSettings, Interval, run
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.sinks import Line, make_sinks
from pipeline.simulate.tissue import Tissue
from pipeline.simulate.tissues import FAT, LIVER, TUMOR

ISOTHERMS_C = (0.0, -1.0, -8.0, -20.0, -40.0)
TIMES_S = (120.0, 300.0, 600.0)
FLUX_W_M = 700.0
#: Ice of 18 mm still grows after 8000 s.
AT_REST_S = 16_000.0
Row = dict[str, Any]
Radii = dict[float, float]


@dataclass(frozen=True, eq=False)
class Upright:
    """An endless line along k through an insulated slab, its place in parts of a cell off the middle."""

    tissue: Tissue
    spacing_mm: float
    half_width_mm: float
    offset: tuple[float, float]
    radius_mm: float = 0.75

    def run(self, drive: Drive, seconds: float, settings: HeatSettings | None = None) -> tuple[Course, Array]:
        """The course, and the index coordinates of a point of the line."""
        h, n = self.spacing_mm, 2 * round(self.half_width_mm / self.spacing_mm)
        grid = upright_grid((8, n, n), (h,) * 3, (0.0, 0.0, 0.0), "made")
        x, y = (((n - 1) / 2 + part) * h for part in self.offset)
        lattice = Lattice(grid, np.zeros(grid.shape, np.uint8), (self.tissue,), insulated=True)
        line = Line((x, y, -0.5 * h), (x, y, 7.5 * h), self.radius_mm)
        course = run(lattice, [line], [Interval(seconds, (drive,), freezes=True)], settings)
        return course, grid.index_of(np.array([x, y, 4 * h]))


def radii_mm(
    course: Course, center: Array, isotherms_c: Sequence[float], *, axis: Array | None = None, order: int = 1
) -> Radii:
    """Radii of the isotherms across an axis in index coordinates (k without one)."""
    theta = course.lattice.by_tissue(course.enthalpy, "potential_from").astype(float)
    law = course.lattice.laws_of_tissues[0]
    rays = circle(np.array([1.0, 0.0, 0.0]) if axis is None else axis)
    h = course.lattice.spacing_m * 1e3
    return {c: h * read_radius_mm(theta, center, rays, float(law.potential_of(c)), order=order) for c in isotherms_c}


def errors_percent(found: Radii, exact: Radii) -> Radii:
    """Of each isotherm that both have."""
    return {c: 100 * (found[c] / exact[c] - 1) for c in found if c in exact}


def worst(errors: Radii) -> float:
    """The greatest size; a radius that could not be read is the worst there is."""
    return max((abs(e) if np.isfinite(e) else np.inf) for e in errors.values())


def _row(case: str, spacing_mm: float, time_s: float | None, errors: Radii) -> Row:
    listed = ", ".join(f"{c:g}: {e:+.2f}" for c, e in errors.items())
    return {"case": case, "spacing_mm": spacing_mm, "time_s": time_s, "worst_percent": worst(errors), "errors": listed}


def line_sink(offsets: Sequence[tuple[float, float]], spacing_mm: float = 1.0) -> list[Row]:
    """One row a place and time; the same field also read by cubic splines."""
    tissue, rows = range_tissue(), []
    for offset in offsets:
        for seconds in TIMES_S:
            course, center = Upright(tissue, spacing_mm, 35.0, offset).run(Drive(flux_w_m=FLUX_W_M), seconds)
            exact = line_sink_radii_mm(tissue, FLUX_W_M, seconds, ISOTHERMS_C)
            errors, cubic = (
                errors_percent(radii_mm(course, center, ISOTHERMS_C, order=order), exact) for order in (1, 3)
            )
            row = _row(f"line sink, at {offset[0]:g}, {offset[1]:g}", spacing_mm, seconds, errors)
            rows.append({**row, "worst_percent_by_splines": worst(cubic)})
    return rows


def oblique_line_sink(direction: Point, spacing_mm: float = 1.0) -> list[Row]:
    """A line of 100 mm across the grid at an angle; the plane across its middle, which its ends do not reach."""
    tissue, rows = range_tissue(), []
    axis = np.array(direction) / np.linalg.norm(direction)
    size = np.abs(axis) * 100 + 2 * 30 * np.sqrt(1 - axis**2)
    shape = np.ceil(size / spacing_mm).astype(int)[::-1] + 4
    middle = np.array([0.17, 0.41, 0.29]) * spacing_mm
    origin = -(shape[::-1] - 1) / 2 * spacing_mm
    grid = upright_grid(tuple(int(n) for n in shape), (spacing_mm,) * 3, origin, "made")
    lattice = Lattice(grid, np.zeros(grid.shape, np.uint8), (tissue,))
    ends = (tuple(float(v) for v in middle + side * 47 * axis) for side in (-1, 1))
    line = Line(*ends, 0.75)  # type: ignore[arg-type]
    for seconds in TIMES_S:
        course = run(lattice, [line], [Interval(seconds, (Drive(flux_w_m=FLUX_W_M),), freezes=True)])
        found = radii_mm(course, grid.index_of(middle), ISOTHERMS_C, axis=axis[::-1])
        exact = line_sink_radii_mm(tissue, FLUX_W_M, seconds, ISOTHERMS_C)
        name = "line sink along " + ", ".join(f"{v:g}" for v in direction)
        rows.append(_row(name, spacing_mm, seconds, errors_percent(found, exact)))
    return rows


def round_probe(probe: RoundProbe, offset: tuple[float, float], *, check: bool = False) -> list[Row]:
    """A probe with a surface against the radial solve; check: also that solve against itself at half its steps."""
    tissue, isotherms = replace(LIVER, perfusion_w_m3k=0.0), (0.0, -8.0, -20.0, -40.0)
    exact = radial_radii_mm(tissue, probe, TIMES_S, isotherms)
    name = f"round probe {probe.radius_mm:g} mm, {probe.coolant_c:g} °C, {probe.transfer_w_m2k:g} W/m²/K"
    rows = []
    if check:
        finer = radial_radii_mm(tissue, probe, TIMES_S, isotherms, fine=2)
        for seconds, one, two in zip(TIMES_S, exact, finer, strict=True):
            rows.append(_row(f"radial solve, its steps halved: {name}", 0.04, seconds, errors_percent(one, two)))
    for seconds, radii in zip(TIMES_S, exact, strict=True):
        drive = Drive(probe.coolant_c, probe.transfer_w_m2k)
        course, center = Upright(tissue, 1.0, 35.0, offset, probe.radius_mm).run(drive, seconds)
        outside = [c for c in isotherms if radii[c] > 1.2 * probe.radius_mm]
        rows.append(_row(name, 1.0, seconds, errors_percent(radii_mm(course, center, outside), radii)))
    return rows


def perfused(
    radius_mm: float,
    offset: tuple[float, float],
    *,
    freezes_c: tuple[float, float] = (-1.0, -8.0),
    spacing_mm: float = 1.0,
) -> Row:
    """Ice at rest in tissue of 30 kW/m³/K; isotherms closer than three cells to the line are left out."""
    tissue = range_tissue(freezes_c, perfusion_w_m3k=30_000.0)
    flux = steady_flux_w_m(tissue, radius_mm)
    exact = steady_radii_mm(tissue, radius_mm, flux, (freezes_c[0], -8.0, -20.0, -40.0))
    shown = [c for c, r in exact.items() if r > 3 * spacing_mm]
    slab = Upright(tissue, spacing_mm, radius_mm + 16.0, offset)
    course, center = slab.run(Drive(flux_w_m=flux), AT_REST_S, HeatSettings(stasis=False))
    name = f"perfused ice at rest, {radius_mm:g} mm, freezes from {freezes_c[0]:g} to {freezes_c[1]:g} °C"
    return _row(name, spacing_mm, None, errors_percent(radii_mm(course, center, shown), exact))


def half_space(*, sharp: bool, spacing_mm: float = 1.0, wall_c: float = -80.0) -> list[Row]:
    """A wall kept at a temperature, and tissue below it. Public calls know no wall: here the kernels' own steps run on
    a lattice whose first layer is a vessel, that is kept at its H of zero, which stands for the wall's temperature."""
    tissue, h, n = range_tissue((-0.95, -1.05) if sharp else (-1.0, -8.0)), spacing_mm, round(90 / spacing_mm)
    exact_mm = sharp_half_space_depths_mm if sharp else half_space_depths_mm
    wall = Tissue("wall", (-290.0, -280.0), (1e5,) * 3, (1e6,) * 3, -280.0, -290.0, is_vessel=True, rest_c=wall_c)
    grid = upright_grid((n + 1, 2, 2), (h,) * 3, (0.0, 0.0, 0.0), "made")
    labels = np.zeros(grid.shape, np.uint8)
    labels[0] = 1
    lattice = Lattice(grid, labels, (tissue, replace(wall, rest_c=tissue.rest_c)), insulated=True)
    tables = [Lattice(grid, np.zeros(grid.shape, np.uint8), (each,)).laws() for each in (tissue, wall)]
    laws = Laws(*(np.concatenate(columns) for columns in zip(*tables, strict=True)))
    state, cells, sinks = lattice.state(heats=False), lattice.cells(), make_sinks((), lattice)
    problem = Problem(cells, laws, sinks, lattice.faces(cells.box))
    stable_s = 132 / (16 * max(np.divide(tissue.conductivity_w_mk, tissue.capacity_j_m3k)) / (h * 1e-3) ** 2)
    law, now, rows = tissue.law, 0.0, []
    for until in TIMES_S:
        while now < until - 1e-9:
            step = min(stable_s, max(0.4, 0.02 * now), until - now)
            kernels.super_step(problem, state, step, 11)
            kernels.settle(problem, state, True)
            now += step
        theta = law.potential_from(lattice.inner(state.enthalpy)[1:, 0, 0])
        depth = (np.arange(n) + 0.5) * h
        found = {c: float(np.interp(float(law.potential_of(c)), theta, depth)) for c in ISOTHERMS_C}
        exact = exact_mm(tissue, wall_c, until, ISOTHERMS_C)
        name = f"half space below a wall at {wall_c:g} °C, " + (
            "freezes at one temperature" if sharp else "freezes from -1 to -8 °C"
        )
        rows.append(_row(name, spacing_mm, until, errors_percent(found, exact)))
        if sharp:
            freezes = float(law.enthalpy_of(-0.95)), float(law.enthalpy_of(-1.05))
            frozen = np.interp(-lattice.inner(state.enthalpy)[1:, 0, 0], (-freezes[0], -freezes[1]), (0, 1))
            front = {-1.0: float(frozen.sum()) * h}
            rows.append(_row(f"front by the share of each cell's ice: {name}", h, until, errors_percent(front, exact)))
    return rows


def energy(*, labels: bool, spacing_mm: float = 1.0) -> Row:
    """Two oblique probes freeze, thaw and freeze in an insulated box without perfusion: what H has lost against what
    they drew."""
    n = round(56 / spacing_mm)
    grid = upright_grid((n, n, n), (spacing_mm,) * 3, (-(n - 1) * spacing_mm / 2,) * 3, "made")
    where = np.zeros(grid.shape, np.uint8)
    if labels:
        points = grid.grid_lps()
        where[points[..., 1] > 8.3] = 1
        where[np.linalg.norm(points - (3.0, -4.0, 2.0), axis=-1) < 9] = 2
    tissues = tuple(replace(tissue, perfusion_w_m3k=0.0) for tissue in (LIVER, FAT, TUMOR))
    lattice = Lattice(grid, where, tissues, insulated=True)
    lines = [Line((-6.0, 1.0, -12.0), (-3.0, 6.0, 14.0), 0.75), Line((7.0, -2.0, -13.0), (4.0, 3.0, 12.0), 1.2)]
    cold, warm = Drive(-150.0, 1800.0, 25.0), Drive(30.0, 1800.0, 25.0)
    protocol = [
        Interval(300, (cold, cold), freezes=True),
        Interval(150, (warm, None)),
        Interval(300, (cold, cold), freezes=True),
    ]
    course = run(lattice, lines, protocol)
    lost_j = -float(course.enthalpy.astype(float).sum()) * lattice.spacing_m**3
    error = 100 * (lost_j / course.drawn_j - 1)
    name = "energy, " + ("label map of 3 tissues" if labels else "uniform")
    return {
        "case": name,
        "spacing_mm": spacing_mm,
        "worst_percent": abs(error),
        "errors": f"{lost_j:.0f} J lost, {course.drawn_j:.0f} J drawn",
    }
