"""What the kernels work on: tables and arrays for numba, SI units; `lattice` and `sinks` make them.

All grids are flat float32 arrays of (K + 2) x (J + 2) x (I + 2) cells: one rim cell around, whose θ the caller owns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# The compiled kernels hold these numbers; numba keeps them until kernels.py itself changes. What may be chosen
# otherwise is handed to them (`Harm`).
OFF, CONVECTIVE, PRESCRIBED = 0, 1, 2
#: Temperatures at which a tissue's properties may change.
BENDS = 4
KELVIN = 273.15
#: Below it heat does no harm that a treatment's time could show (our own choice).
HARMLESS_C = 39.0


class Cells(NamedTuple):
    """Where the cells are. size: (3,) cells along k, j, i with the rim; box: (6,) first and last (exclusive) active
    cell along each; runs: (n, 3) first and last column and tissue of each stretch of one tissue in a row; first_run:
    (rows + 1,) into `runs`; insulated: whether no heat crosses the border of the grid."""

    size: Ints
    box: Ints
    first_run: Ints
    runs: Ints
    insulated: bool
    spacing_m: float


class Laws(NamedTuple):
    """The tissues' laws, one row a tissue: H at the bends (J/m³), T there (°C), θ there (W/m), conductivity and
    capacity between them (one more), slope and intercept of θ(H) below all bends and by how much the slope changes at
    each, H and θ where freezing begins, and what perfusion takes off H each second."""

    enthalpy: Floats
    temperature: Floats
    potential: Floats
    conductivity: Floats
    capacity: Floats
    slope: Floats
    intercept: Floats
    bend: Floats
    thawed_enthalpy: Floats
    thawed_potential: Floats
    perfusion: Floats


class Sinks(NamedTuple):
    """The probes as line sinks. Segments: first: (n + 1,) into cell, weight, tissue (of each cell a segment draws
    from); segment_tissue, length_m, probe: (n,). Probes: mode, coolant_c, transfer (2 pi r h, W/m/K), resistance
    (ln(r_e / r_p) / 2 pi), flux (W/m, prescribed)."""

    first: Ints
    cell: Ints
    weight: Floats
    tissue: Ints
    segment_tissue: Ints
    length_m: Floats
    probe: Ints
    mode: Ints
    coolant_c: Floats
    transfer: Floats
    resistance: Floats
    flux: Floats


class Faces(NamedTuple):
    """Faces between two tissues, whose flux θ alone does not tell. cell, tissue: (n,) every cell with such a face;
    first, second: (m,) into `cell`, for each face; celsius, conductivity: (n,) room for what `cross_faces` works out;
    pinned: cells kept at rest."""

    cell: Ints
    tissue: Ints
    first: Ints
    second: Ints
    celsius: Floats
    conductivity: Floats
    pinned: Ints


class State(NamedTuple):
    """What changes: H (J/m³), a second array for the stages, θ, what perfusion takes off H each second, the least H
    that each cell has had, W/m³ of a heat source, and whether there is one."""

    enthalpy: Floats
    stage: Floats
    potential: Floats
    flow: Floats
    least: Floats
    source: Floats
    heats: bool


class Harm(NamedTuple):
    """What heat does to cells: the dose (1: as much as it takes), and the greatest H. rate: (tissue-independent) how
    the dose grows: Arrhenius' frequency (1/s, as its logarithm), energy over the gas constant (K), and what counts as
    a full dose; or, with a first entry of 0, cumulative equivalent minutes at 43 °C, the third entry the full dose.
    harmless_c: below it the dose does not grow.
    """

    dose: Floats
    greatest: Floats
    rate: NDArray[np.float64]
    harmless_c: float = HARMLESS_C


class Problem(NamedTuple):
    """Everything that does not change within a step."""

    cells: Cells
    laws: Laws
    sinks: Sinks
    faces: Faces


class Stage(NamedTuple):
    """One stage of a super step: what this and the last stage's result are weighted by, and seconds of rate."""

    mu: float
    nu: float
    step_s: float
