"""The simulated zone against exact solutions, an independent solve and published sizes; its time and memory.

Errors are of radii (or depths) of isotherms in percent, θ read linearly between cells as the product's levels are. The
line sink, Neumann's half space and ice at rest in perfused tissue have formulas; a probe with a surface is held against
a fine radial solve written for this purpose. Neumann's own case freezes at one temperature: there the edge in θ goes
from cell to cell by jerks, so the front is also read by how much of each cell is ice. Published sizes: where a device's
transfer of heat is not published it is fitted on one number of the paper, which counts for no goal; nothing else is
fitted, and no tissue. --quick: one place, one radius, Littrup's probes on cells of 2 mm; no radial solve, no times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import simulate_grid as grid
import simulate_published as published
import simulate_speed as speed
from document import goal, options, report
from simulate_exact import RoundProbe

PLACES = ((0.13, 0.31), (0.0, 0.0), (0.5, 0.5), (0.5, 0.0), (0.27, 0.44))
PROBES = (
    RoundProbe(0.75, -150.0, 2000.0),
    RoundProbe(1.2, -150.0, 1500.0),
    RoundProbe(1.7, -150.0, 3000.0),
    RoundProbe(1.2, -190.0, 2000.0),
    RoundProbe(0.75, -190.0, 3000.0),
)
Rows = list[dict[str, Any]]


def worst(rows: Sequence[dict[str, Any]], start: str, key: str = "worst_percent") -> float:
    """The greatest size in the rows whose case begins so."""
    return max(abs(row[key]) for row in rows if row["case"].startswith(start))


def exact(*, quick: bool) -> tuple[Rows, Rows]:
    """Line sinks, perfused ice, half spaces, energy."""
    rows = grid.line_sink(PLACES[:1] if quick else PLACES)
    if not quick:
        rows += grid.oblique_line_sink((1.0, 2.0, 4.0))
        rows += grid.line_sink(PLACES[:1], spacing_mm=2.0)
    rows += [grid.perfused(r, PLACES[0]) for r in ((12.0,) if quick else (8.0, 12.0, 18.0))]
    if not quick:
        rows += [grid.perfused(r, PLACES[0], freezes_c=(-1.0, -1.2)) for r in (8.0, 12.0, 18.0)]
    rows += grid.half_space(sharp=False) + grid.half_space(sharp=True)
    rows += [] if quick else grid.half_space(sharp=True, spacing_mm=0.25)
    rows += [grid.energy(labels=labels) for labels in (False, True)]
    fine = [row for row in rows if row["spacing_mm"] == 1.0]
    goals = [goal("line sink, 1 mm: isotherm radii, %", worst(fine, "line sink, at"), "<= 1")]
    if not quick:
        goals.append(goal("oblique line sink, 1 mm: isotherm radii, %", worst(fine, "line sink along"), "<= 1"))
    goals += [
        goal("perfused ice at rest, 1 mm: isotherm radii, %", worst(fine, "perfused"), "<= 2"),
        goal("half space, freezing range, 1 mm: depths, %", worst(fine, f"{_HALF} freezes from"), "<= 1"),
        goal("half space, one freezing temperature, 1 mm: front by each cell's ice, %", worst(fine, "front"), "<= 1"),
        goal("half space, one freezing temperature, 1 mm: depths, %", worst(fine, f"{_HALF} freezes at"), "<= 1"),
        goal("energy drawn against enthalpy lost, %", worst(fine, "energy"), "<= 0.5"),
    ]
    return rows, goals


_HALF = "half space below a wall at -80 °C,"


def radial() -> tuple[Rows, Rows]:
    """Probes with a surface."""
    places = PLACES
    rows = [row for n, probe in enumerate(PROBES) for row in grid.round_probe(probe, places[n], check=n == 0)]
    return rows, [goal("round probe, 1 mm: isotherm radii, %", worst(rows, "round probe"), "<= 1")]


def sizes(*, quick: bool) -> tuple[Rows, Rows]:
    """Published sizes."""
    rows = published.littrup(2.0 if quick else 1.0, 40.0)
    error = max(abs(row["error_percent"]) for row in rows[1:])
    goals = [goal("Littrup 2009, 2 to 4 probes predicted: 0 °C diameters, %", error, "<= 8")]
    if quick:
        return rows, goals
    rows += published.littrup(1.0, 30.0)
    for active_mm in (30.0, 40.0):
        found = published.liquid_nitrogen(1.0, active_mm)
        rows += found
        off = max(row["deviations"] for row in found[1:])
        name = f"liquid nitrogen, kidneys predicted, active {active_mm:g} mm: width off by standard deviations"
        goals.append(goal(name, off, "<= 1"))
    rows += published.liquid_nitrogen(1.0, 40.0, perfused=False)
    return rows + published.heat(), goals


def times() -> tuple[Rows, Rows]:
    """Seconds and memory."""
    uniform, labeled = (speed.row(labels=labels) for labels in (False, True))
    peaks = [row["peak_gib"] for row in (uniform, labeled)]
    goals = [
        goal("uniform tissue: seconds", uniform["wall_s"], "<= 6"),
        goal("label map: seconds", labeled["wall_s"], "<= 12"),
        goal("memory of a fresh process, GiB", None if None in peaks else max(peaks), "<= 1"),
        goal("Dice against a much finer time step", min(uniform["dice"], labeled["dice"]), ">= 0.999"),
    ]
    return [uniform, labeled], goals


def main() -> None:
    """Runs the benchmark."""
    chosen = options(__doc__)
    parts = [exact(quick=chosen.quick), sizes(quick=chosen.quick)]
    if not chosen.quick:
        parts += [radial(), times()]
    rows = [row for part, _ in parts for row in part]
    goals = [each for _, part in parts for each in part]
    report("simulate", rows, goals, as_json=chosen.json)


if __name__ == "__main__":
    main()
