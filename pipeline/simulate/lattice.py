"""Tissue on a regular grid, laid out for the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import FloatArray, Geometry, frozen
from pipeline.simulate.arrays import BENDS, Cells, Faces, Ints, Laws, State
from pipeline.simulate.tissue import Law, Tissue


@dataclass(frozen=True, eq=False)
class Lattice:
    """Which tissue lies where. geometry: cubic cells; labels: (k, j, i) numbers into `tissues`; insulated: whether no
    heat crosses the border of the grid (else it is kept at body temperature).

    Raises ValueError for cells that are no cubes and for a tissue with more than four changes of its properties.
    """

    geometry: Geometry
    labels: NDArray[np.uint8]
    tissues: tuple[Tissue, ...]
    insulated: bool = False

    def __post_init__(self) -> None:
        spacing = self.geometry.spacing_mm
        if np.ptp(spacing) > 1e-3 * spacing.max():
            raise ValueError("the simulation needs cubic cells")
        if self.labels.shape != self.geometry.shape:
            raise ValueError(f"labels {self.labels.shape} do not fit the grid {self.geometry.shape}")
        if int(self.labels.max()) >= len(self.tissues):
            raise ValueError("a label names no tissue")
        for tissue in self.tissues:
            if len(tissue.knots_c) > BENDS:
                raise ValueError(f"{tissue.name}: at most {BENDS} temperatures at which properties change")
            if tissue.rest_c != self.tissues[0].rest_c:
                raise ValueError("the tissues must have one temperature before the procedure")
        object.__setattr__(self, "labels", frozen(self.labels, np.uint8))

    @property
    def spacing_m(self) -> float:
        return float(self.geometry.spacing_mm[0]) * 1e-3

    @property
    def rest_c(self) -> float:
        """The temperature before the procedure, °C."""
        return self.tissues[0].rest_c

    @property
    def laws_of_tissues(self) -> tuple[Law, ...]:
        return tuple(tissue.law for tissue in self.tissues)

    def numbers(self, index: Ints) -> Ints:
        """(n,) where cells lie in the flat arrays with their rim, from (n, 3) indices."""
        shape = self.labels.shape
        return np.asarray(np.ravel_multi_index(tuple((index + 1).T), tuple(n + 2 for n in shape)), np.int64)

    def cells(self) -> Cells:
        """The rows as stretches of one tissue; the box is the whole grid."""
        shape = np.array(self.labels.shape)
        rows = self.labels.reshape(-1, shape[2])
        new = np.ones(rows.shape, bool)
        new[:, 1:] = rows[:, 1:] != rows[:, :-1]
        row, start = np.nonzero(new)
        stop = np.append(start[1:], shape[2])
        stop[np.append(np.diff(row) > 0, False)] = shape[2]
        runs = np.stack([start + 1, stop + 1, rows[row, start]], axis=1).astype(np.int64)
        first = np.concatenate([[0], np.cumsum(new.sum(axis=1))]).astype(np.int64)
        box = np.stack([np.ones(3, int), shape + 1], axis=1).ravel().astype(np.int64)
        return Cells((shape + 2).astype(np.int64), box, first, runs, self.insulated, self.spacing_m)

    def laws(self) -> Laws:
        """The tissues' laws as tables; missing bends are repeated where nothing changes."""
        rows = [_row(tissue) for tissue in self.tissues]
        columns = [np.array(column, np.float32) for column in zip(*rows, strict=True)]
        return Laws(*columns)

    def faces(self, box: NDArray[np.int64]) -> Faces:
        """The faces between tissues with both cells inside a box (see `Cells`), and the cells of vessels there."""
        labels = np.pad(self.labels.astype(np.int64), 1, constant_values=255)
        part = labels[box[0] : box[1], box[2] : box[3], box[4] : box[5]]
        number = np.arange(labels.size).reshape(labels.shape)[box[0] : box[1], box[2] : box[3], box[4] : box[5]]
        pairs = []
        for axis in range(3):
            near, far = [slice(None)] * 3, [slice(None)] * 3
            near[axis], far[axis] = slice(None, -1), slice(1, None)
            differ = part[tuple(near)] != part[tuple(far)]
            pairs.append(np.stack([number[tuple(near)][differ], number[tuple(far)][differ]]))
        joined = np.concatenate(pairs, axis=1)
        cell, place = np.unique(joined, return_inverse=True)
        first, second = place.reshape(2, -1).astype(np.int64)
        vessels = [n for n, tissue in enumerate(self.tissues) if tissue.is_vessel]
        pinned = number[np.isin(part, vessels)].astype(np.int64)
        room = (np.zeros(len(cell), np.float32), np.zeros(len(cell), np.float32))
        return Faces(cell.astype(np.int64), labels.ravel()[cell], first, second, *room, pinned)

    def state(self, *, heats: bool) -> State:
        """Everything at rest and perfused. heats: whether there is a heat source; it is still off."""
        shape = tuple(n + 2 for n in self.labels.shape)
        flow = np.zeros(shape, np.float32)
        flow[1:-1, 1:-1, 1:-1] = self.laws().perfusion[self.labels]
        zeros = [np.zeros(int(np.prod(shape)), np.float32) for _ in range(4)]
        source = np.zeros(int(np.prod(shape)) if heats else 0, np.float32)
        return State(zeros[0], zeros[1], zeros[2], flow.ravel(), zeros[3], source, heats)

    def inner(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(k, j, i) of a flat array with its rim."""
        shape = tuple(n + 2 for n in self.labels.shape)
        return values.reshape(shape)[1:-1, 1:-1, 1:-1]

    def by_tissue(self, values: NDArray[np.float32], of: str) -> NDArray[np.float32]:
        """(k, j, i) float32 `Law.<of>` of H, each cell by its own tissue's law."""
        out = np.empty(self.labels.shape, np.float32)
        for n, law in enumerate(self.laws_of_tissues):
            where = self.labels == n
            if where.any():
                out[where] = getattr(law, of)(values[where])
        return out


def _row(tissue: Tissue) -> Sequence[FloatArray | float]:
    law = tissue.law
    missing = BENDS - len(law.enthalpy)
    k, c = (_padded(values, missing) for values in (law.conductivity, law.capacity))
    slope = k / c
    top = law.enthalpy[-1] + np.arange(1, missing + 1) * 1e9
    enthalpy = np.concatenate([law.enthalpy, top])
    temperature, potential = law.temperature_of(enthalpy), law.potential_from(enthalpy)
    begins = law.enthalpy_of(tissue.freezes_from_c)
    return (
        enthalpy,
        temperature,
        potential,
        k,
        c,
        slope[0],
        potential[0] - slope[0] * enthalpy[0],
        np.diff(slope),
        float(begins),
        float(law.potential_of(tissue.freezes_from_c)),
        tissue.perfusion_w_m3k / float(law.capacity[np.searchsorted(law.temperature_c, tissue.rest_c)]),
    )


def _padded(values: FloatArray, missing: int) -> FloatArray:
    return np.concatenate([values, np.repeat(values[-1:], missing)])
