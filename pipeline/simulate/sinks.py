"""Probes as line sinks on the grid: any place, any direction, any radius, without a mesh of the needle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.case import Point
from pipeline.geometry import FloatArray
from pipeline.simulate.arrays import OFF, Sinks
from pipeline.simulate.lattice import Lattice

_EULER = 0.5772156649015329
_REACH = 3.0  # standard deviations of the kernel that are kept
#: Standard deviation of the kernel, in cells and in probe radii: wide enough that the grid shows no grain, narrow
#: enough that the effective radius stays outside the probe.
_SIGMA_CELLS, _SIGMA_RADII = 0.8, 0.8


#: Within so many cells of a line its power changes much across a cell: the mean of so many points along each axis.
_STEEP_CELLS, _POINTS = 3.0, 4
#: Where around an electrode tissue tells its generator how hot it is (our own choice).
_BESIDE_MM = (2.0, 5.0)


@dataclass(frozen=True)
class Line:
    """The active part of a probe. start, end: LPS mm; radius_mm: of the shaft; reach_mm: over which the power that it
    radiates falls to 1 / e, beside spreading (0: it radiates none).
    """

    start_lps_mm: Point
    end_lps_mm: Point
    radius_mm: float
    reach_mm: float = 0.0

    @property
    def ends(self) -> tuple[FloatArray, FloatArray]:
        """(3,) and (3,) LPS mm."""
        return np.array(self.start_lps_mm), np.array(self.end_lps_mm)

    @property
    def length_mm(self) -> float:
        return float(np.linalg.norm(np.subtract(self.end_lps_mm, self.start_lps_mm)))

    def distance_mm(self, points_lps_mm: FloatArray) -> FloatArray:
        """(...,) distance of (..., 3) points to it."""
        start, end = self.ends
        along = end - start
        share = np.clip((points_lps_mm - start) @ along / (along @ along), 0.0, 1.0)
        return np.asarray(np.linalg.norm(points_lps_mm - start - share[..., None] * along, axis=-1))


def sigma_mm(radius_mm: float, spacing_mm: float) -> float:
    """Standard deviation of the kernel over which a probe draws heat."""
    return max(_SIGMA_CELLS * spacing_mm, _SIGMA_RADII * radius_mm)


def effective_radius_mm(radius_mm: float, spacing_mm: float) -> float:
    """The radius at which the field of a true line sink has the value that the kernel's mean shows.

    For a Gaussian kernel in the plane the mean of ln r over the difference of two draws gives 2 sigma exp(-gamma / 2);
    the last factor is the lattice's: its second difference spreads a point source by spacing² / 12 along each axis.
    """
    sigma = sigma_mm(radius_mm, spacing_mm)
    return float(2 * sigma * np.exp(-_EULER / 2) * np.exp(-(spacing_mm**2) / (32 * sigma**2)))


def make_sinks(lines: Sequence[Line], lattice: Lattice) -> Sinks:
    """The kernels of all lines, every probe off. Raises ValueError where a line leaves the grid."""
    first, cell, weight, tissue = [0], [], [], []
    own, length, probe = [], [], []
    spacing = float(lattice.geometry.spacing_mm[0])
    size = np.array(lattice.labels.shape)
    for n, line in enumerate(lines):
        middles, step_mm = _segments(line, spacing)
        for middle in lattice.geometry.index_of(middles):
            index, share = _kernel(middle, sigma_mm(line.radius_mm, spacing) / spacing)
            if lattice.insulated:  # what would leave is sent back, as from a mirror
                index = np.where(index < 0, -1 - index, np.where(index >= size, 2 * size - 1 - index, index))
            if (index < 0).any() or (index >= size).any():
                raise ValueError("a probe's active part leaves the simulated grid")
            labels = lattice.labels[tuple(index.T)]
            cell.append(lattice.numbers(index))
            weight.append(share)
            tissue.append(labels)
            first.append(first[-1] + len(share))
            own.append(int(lattice.labels[tuple(np.clip(np.round(middle).astype(int), 0, size - 1))]))
            length.append(step_mm * 1e-3)
            probe.append(n)
    count = len(lines)
    radius = np.array([line.radius_mm for line in lines], float)
    outer = np.array([effective_radius_mm(line.radius_mm, spacing) for line in lines], float)
    return Sinks(
        np.array(first, np.int64),
        _joined(cell, np.int64),
        _joined(weight, np.float32),
        _joined(tissue, np.int64),
        np.array(own, np.int64),
        np.array(length, np.float32),
        np.array(probe, np.int64),
        np.full(count, OFF, np.int64),
        np.zeros(count, np.float32),
        np.zeros(count, np.float32),
        (np.log(outer / radius) / (2 * np.pi)).astype(np.float32),
        np.zeros(count, np.float32),
    )


def heating_w_m3(line: Line, lattice: Lattice) -> np.ndarray:
    """float32 (k, j, i): where each watt that the line gives to tissue goes, W/m³.

    The field of a straight electrode or antenna falls as 1 / r, so its power as 1 / r²; waves are absorbed on the way
    besides. Near the line a cell has the mean of many points in it. All of the power stays on the grid.
    """
    if line.reach_mm <= 0:
        return np.zeros(lattice.labels.shape, np.float32)
    spacing = float(lattice.geometry.spacing_mm[0])
    points = lattice.geometry.grid_lps()
    far_mm = line.distance_mm(points)
    density = _density(far_mm, line)
    near = far_mm < _STEEP_CELLS * spacing
    offsets = (np.stack(np.meshgrid(*[np.arange(_POINTS)] * 3, indexing="ij"), -1).reshape(-1, 3) + 0.5) / _POINTS - 0.5
    close = points[near]
    density[near] = np.mean([_density(line.distance_mm(close + spacing * o), line) for o in offsets], axis=0)
    return np.asarray(density / (density.sum() * lattice.spacing_m**3), np.float32)


def beside(line: Line, lattice: Lattice) -> np.ndarray:
    """(k, j, i) which cells lie around the middle half of the line, 2 to 5 mm from its surface: nearer by, what cools a
    shaft depends on the width of the cells."""
    points, (start, end) = lattice.geometry.grid_lps(), line.ends
    middle = Line(tuple(0.75 * start + 0.25 * end), tuple(0.25 * start + 0.75 * end), line.radius_mm)
    far_mm = middle.distance_mm(points) - line.radius_mm
    return np.asarray((far_mm >= _BESIDE_MM[0]) & (far_mm <= _BESIDE_MM[1]))


def _density(far_mm: FloatArray, line: Line) -> FloatArray:
    far_mm = np.maximum(far_mm, line.radius_mm)
    return np.asarray(np.exp(-far_mm / line.reach_mm) / far_mm**2)


def _joined(parts: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate(parts).astype(kind) if parts else np.zeros(0, kind)


def _segments(line: Line, spacing_mm: float) -> tuple[FloatArray, float]:
    """(n, 3) middles of equal pieces about a cell long, and their length."""
    count = max(1, int(np.ceil(line.length_mm / spacing_mm)))
    along = (np.arange(count) + 0.5) / count
    start, end = line.ends
    return start + along[:, None] * (end - start), line.length_mm / count


def _kernel(middle: FloatArray, sigma: float) -> tuple[np.ndarray, FloatArray]:
    """(n, 3) indices and (n,) shares (sum 1) of the cells around a point in index coordinates."""
    reach = _REACH * sigma + 0.5
    low, high = np.floor(middle - reach).astype(int), np.ceil(middle + reach).astype(int)
    index = np.stack(np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(low, high, strict=True)), indexing="ij"), -1)
    index = index.reshape(-1, 3)
    far = ((index - middle) ** 2).sum(axis=1)
    keep = far <= reach**2
    share = np.exp(-far[keep] / (2 * sigma**2))
    return index[keep], share / share.sum()
