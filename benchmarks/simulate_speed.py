"""The case whose time and memory are measured: an 80 mm cube, three oblique probes, 10-8-10 min.

As a script: runs it once, for `document.measured`; with the argument `labels` on a label map of four tissues.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from document import cuda_name, measured
from numpy.typing import NDArray

from pipeline.geometry import upright_grid
from pipeline.simulate.heat import Drive, HeatSettings, Interval, run
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.sinks import Line
from pipeline.simulate.tissues import FAT, LIVER, TUMOR, VESSEL

SIDE_MM = 80.0
ISOTHERMS_C = (0.0, -20.0, -40.0)
#: Steps a few times shorter than stability and the product's own pace ask for.
FINE = HeatSettings(most_stages=3, longest_step_s=0.6, step_fraction=0.003, shortest_step_s=0.02)
_TIPS = np.array([[-9.0, 0.0, -18.0], [9.0, 2.0, -16.0], [0.0, -10.0, -17.0]])
_DIRECTIONS = np.array([[0.3, 0.5, 0.8], [-0.2, 0.4, 0.9], [0.1, -0.5, 0.85]])
_ACTIVE_MM = 33.0


@dataclass(frozen=True, eq=False)
class Done:
    """One run. coldest_c: (k, j, i)."""

    wall_s: float
    steps: int
    coldest_c: NDArray[np.float32]

    def volumes_ml(self, spacing_mm: float) -> list[float]:
        """Of the isotherms, by voxels."""
        return [float((self.coldest_c <= c).sum() * spacing_mm**3 / 1000) for c in ISOTHERMS_C]


def simulated(spacing_mm: float, *, labels: bool, settings: HeatSettings | None = None) -> Done:
    """The case on cells of that size: perfused liver, or with a tumor, fat and a vessel in it."""
    n = round(SIDE_MM / spacing_mm)
    grid = upright_grid((n, n, n), (spacing_mm,) * 3, (-(SIDE_MM - spacing_mm) / 2,) * 3, "made")
    where = np.zeros(grid.shape, np.uint8)
    if labels:
        points = grid.grid_lps()
        where[points[..., 1] > 22] = 1
        where[np.linalg.norm(points, axis=-1) < 14] = 2
        where[np.hypot(points[..., 0] - 18, points[..., 2]) < 4] = 3
    lattice = Lattice(grid, where, (LIVER, FAT, TUMOR, VESSEL) if labels else (LIVER,))
    axes = _DIRECTIONS / np.linalg.norm(_DIRECTIONS, axis=1)[:, None]
    lines = [Line(tuple(a), tuple(a + _ACTIVE_MM * b), 0.75) for a, b in zip(_TIPS, axes, strict=True)]
    cold = (Drive(-150.0, 1500.0, 25.0),) * 3
    protocol = [Interval(600, cold, freezes=True), Interval(480, (None,) * 3), Interval(600, cold, freezes=True)]
    started = time.perf_counter()
    course = run(lattice, lines, protocol, settings)
    wall_s = time.perf_counter() - started
    return Done(wall_s, course.steps, lattice.by_tissue(course.least_enthalpy[-1], "temperature_of"))


def row(*, labels: bool, spacing_mm: float = 1.0) -> dict[str, Any]:
    """Time (the better of two, after one that compiles), memory of a fresh process, and the zones against those of a
    much finer time step."""
    simulated(2.0, labels=labels)
    better = min((simulated(spacing_mm, labels=labels) for _ in range(2)), key=lambda done: done.wall_s)
    fine = simulated(spacing_mm, labels=labels, settings=FINE)
    process = measured([sys.executable, __file__, *(["labels"] if labels else [])])
    volumes = better.volumes_ml(spacing_mm)
    return {
        "case": "speed, " + ("label map of 4 tissues" if labels else "uniform"),
        "spacing_mm": spacing_mm,
        "device": cuda_name() or "CPU",
        "wall_s": better.wall_s,
        "steps": better.steps,
        "peak_gib": process.peak_mib / 1024 if process.status == 0 else None,
        "volumes_ml": " / ".join(f"{v:.2f}" for v in volumes),
        "fine_steps": fine.steps,
        "dice": min(_dice(better.coldest_c <= c, fine.coldest_c <= c) for c in ISOTHERMS_C),
    }


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


if __name__ == "__main__":
    simulated(1.0, labels="labels" in sys.argv)
