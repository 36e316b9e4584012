"""The fields on the CPU, advanced by `kernels` in the box that heat has reached."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import kernels
from pipeline.simulate.arrays import Cells, Harm, Ints, Problem, Sinks, State
from pipeline.simulate.lattice import Lattice

Array = NDArray[np.float32]

#: Heat below which a cell counts as at rest, J/m³: about 0.03 K.
_QUIET = 1.2e5
_ROOM, _GROWTH, _LOOK = 6, 4, 3


class NumbaEngine:
    """stasis: what was frozen once is never perfused again; dose_rate: see `arrays.Harm`, None where nothing heats."""

    def __init__(self, lattice: Lattice, sinks: Sinks, *, stasis: bool, dose_rate: NDArray[np.float64] | None) -> None:
        self._lattice, self._stasis, self._heats = lattice, stasis, dose_rate is not None
        self._state = lattice.state(heats=self._heats)
        zeros = np.zeros_like(self._state.least)
        self._harm = None if dose_rate is None else Harm(zeros, zeros.copy(), dose_rate)
        cells = lattice.cells()
        if not self._heats:
            cells = cells._replace(box=_first_box(cells, sinks))
        self._problem = Problem(cells, lattice.laws(), sinks, lattice.faces(cells.box))

    def heat(self, field_w_m3: Array) -> None:
        """Sets the heat source."""
        self._lattice.inner(self._state.source)[...] = field_w_m3

    def step(self, sinks: Sinks, step_s: float, stages: int) -> float:
        """Advances by one super step; returns the heat that the probes drew, J."""
        return kernels.super_step(self._problem._replace(sinks=sinks), self._state, step_s, stages)

    def settle(self, step_s: float) -> tuple[float, float]:
        """Perfusion, least H and dose after a step of so long; returns least and greatest H."""
        low, high = kernels.settle(self._problem, self._state, self._stasis)
        if self._harm is not None:
            kernels.harm_done(self._problem, self._state, self._harm, step_s)
        elif _grown(self._problem.cells, self._state):
            self._problem = self._problem._replace(faces=self._lattice.faces(self._problem.cells.box))
        return low, high

    def enthalpy(self) -> Array:
        return self._lattice.inner(self._state.enthalpy).copy()

    def enthalpy_at(self, cells: Ints) -> Array:
        return self._state.enthalpy[cells]

    def least(self) -> Array:
        return self._lattice.inner(self._state.least).copy()

    def greatest(self) -> Array | None:
        return None if self._harm is None else self._lattice.inner(self._harm.greatest).copy()

    def dose(self) -> Array | None:
        return None if self._harm is None else self._lattice.inner(self._harm.dose).copy()


def _first_box(cells: Cells, sinks: Sinks) -> NDArray[np.int64]:
    """The box around the probes' kernels, with room."""
    if not len(sinks.cell):
        return cells.box.copy()
    index = np.stack(np.unravel_index(sinks.cell, tuple(cells.size)))
    box = np.stack([index.min(axis=1) - _ROOM, index.max(axis=1) + 1 + _ROOM], axis=1)
    return np.asarray(np.clip(box, 1, (cells.size - 1)[:, None]).ravel(), np.int64)


def _grown(cells: Cells, state: State) -> bool:
    """Moves the sides of the box outward where heat comes near them; whether any moved."""
    before = cells.box.copy()
    box, size = cells.box, cells.size
    whole = state.enthalpy.reshape(tuple(size))
    inside = [slice(box[2 * axis], box[2 * axis + 1]) for axis in range(3)]
    for axis in range(3):
        low, high = int(before[2 * axis]), int(before[2 * axis + 1])
        for end, at in ((0, min(low + _LOOK, high - 1)), (1, max(high - 1 - _LOOK, low))):
            face = whole[tuple(at if n == axis else inside[n] for n in range(3))]
            if max(float(face.max()), -float(face.min())) > _QUIET:
                grown = (max(1, low - _GROWTH), min(int(size[axis]) - 1, high + _GROWTH))
                box[2 * axis + end] = grown[end]
    return bool((cells.box != before).any())
