"""The heat equation through a protocol: enthalpy on cubic cells, stepped by stages that reach far (RKL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.device import device_of
from pipeline.simulate.arrays import CONVECTIVE, OFF, PRESCRIBED, Ints, Sinks
from pipeline.simulate.dose import Dose
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.numba_engine import NumbaEngine
from pipeline.simulate.sinks import Line, beside, heating_w_m3, make_sinks, sigma_mm
from pipeline.simulate.tissue import BODY_C, Law
from pipeline.simulate.torch_engine import TorchEngine

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Drive:
    """What a probe does in an interval. coolant_c: the temperature it reaches inside, °C; transfer_w_m2k: from its
    surface to the coolant; ramp_s: time constant with which it starts at body temperature; flux_w_m: prescribed heat
    flow instead of a coolant, W/m; running_s: for how long it has done so when the interval begins.
    """

    coolant_c: float = BODY_C
    transfer_w_m2k: float = 0.0
    ramp_s: float = 0.0
    flux_w_m: float | None = None
    running_s: float = 0.0


@dataclass(frozen=True)
class Interval:
    """A stretch of the protocol. drives: one for each probe, None where it neither cools nor warms its surface;
    powers_w: what each gives to tissue by its field; limit_c: the fields are turned down so that the mean of
    the tissue beside each line (see `sinks.beside`) gets no hotter; nearer to the line it may; freezes: whether any
    freezes."""

    duration_s: float
    drives: tuple[Drive | None, ...]
    powers_w: tuple[float, ...] = ()
    limit_c: float | None = None
    freezes: bool = False


@dataclass(frozen=True)
class HeatSettings:
    """most_stages: of a super step, odd; longest_step_s: no step is longer; step_fraction: nor than this share of the
    time since the probes were switched, or shortest_step_s; stasis: what was frozen once is never perfused again;
    device: "auto" is CUDA where there is some, else numba on the CPU; "cpu" is torch on the CPU; dose: what heat
    coagulates by.
    """

    most_stages: int = 11
    longest_step_s: float = 5.0
    step_fraction: float = 0.02
    shortest_step_s: float = 0.4
    stasis: bool = True
    device: str = "auto"
    dose: Dose = field(default_factory=Dose)


@dataclass(frozen=True, eq=False)
class Course:
    """What a protocol did to each cell, (k, j, i) on the lattice. least_enthalpy: the least H up to the end of each
    freeze-thaw cycle, J/m³; greatest_enthalpy, dose (1: coagulated): only where something heated; enthalpy: at the end;
    drawn_j: heat that the probes drew.
    """

    lattice: Lattice
    least_enthalpy: tuple[Array, ...]
    greatest_enthalpy: Array | None
    dose: Array | None
    enthalpy: Array
    drawn_j: float
    steps: int


def run(
    lattice: Lattice, lines: Sequence[Line], intervals: Sequence[Interval], settings: HeatSettings | None = None
) -> Course:
    """The course of a protocol from rest. A cycle ends where the next freezing begins, and at the end.

    Raises ValueError where a line leaves the grid, or an interval drives another number of probes.
    """
    s = settings or HeatSettings()
    heats = any(power for interval in intervals for power in interval.powers_w)
    sinks = make_sinks(lines, lattice)
    engine = _engine(lattice, sinks, s, heats=heats)
    fields = [heating_w_m3(line, lattice) for line in lines] if heats else []
    around = [_Around.of(beside(line, lattice), lattice) for line in lines] if heats else []
    pace = _Pace(lattice, sinks, lines, s)
    low, high, drawn, steps = 0.0, 0.0, 0.0, 0
    freezes = ended = False
    given: Array | None = None
    snapshots: list[Array] = []
    for interval in intervals:
        if len(interval.drives) != len(lines):
            raise ValueError(f"an interval drives {len(interval.drives)} probes; there are {len(lines)}")
        if interval.freezes and ended:
            snapshots.append(engine.least())
        # Probes that are switched one after another freeze in one cycle: it ends when none does.
        ended = not interval.freezes and (ended or freezes)
        freezes = interval.freezes
        generators = _Generators(fields, around, interval) if heats else None
        elapsed = 0.0
        while elapsed < interval.duration_s - 1e-9:
            driven = _driven(sinks, lines, interval.drives, elapsed, lattice.rest_c)
            step_s, stages = pace.step(low, high, driven, elapsed)
            step_s = min(step_s, interval.duration_s - elapsed)
            if generators is not None and (field_w_m3 := generators.field(engine, step_s)) is not given:
                engine.heat(field_w_m3)
                given = field_w_m3
            drawn += engine.step(driven, step_s, stages)
            low, high = engine.settle(step_s)
            elapsed += step_s
            steps += 1
    snapshots.append(engine.least())
    return Course(lattice, tuple(snapshots), engine.greatest(), engine.dose(), engine.enthalpy(), drawn, steps)


class _Engine(Protocol):
    """What advances the fields; all of them are copies, (k, j, i) without the rim, but H at some of the cells (see
    `Lattice.numbers`)."""

    def heat(self, field_w_m3: Array) -> None: ...
    def step(self, sinks: Sinks, step_s: float, stages: int) -> float: ...
    def settle(self, step_s: float) -> tuple[float, float]: ...
    def enthalpy(self) -> Array: ...
    def enthalpy_at(self, cells: Ints) -> Array: ...
    def least(self) -> Array: ...
    def greatest(self) -> Array | None: ...
    def dose(self) -> Array | None: ...


def _engine(lattice: Lattice, sinks: Sinks, settings: HeatSettings, *, heats: bool) -> _Engine:
    rate = settings.dose.rate if heats else None
    if settings.device == "auto" and not torch.cuda.is_available():
        return NumbaEngine(lattice, sinks, stasis=settings.stasis, dose_rate=rate)
    return TorchEngine(lattice, sinks, device_of(settings.device), stasis=settings.stasis, dose_rate=rate)


def _driven(
    sinks: Sinks, lines: Sequence[Line], drives: Sequence[Drive | None], elapsed_s: float, rest_c: float
) -> Sinks:
    """The sinks as they are driven at a time within an interval."""
    mode = np.full(len(lines), OFF, np.int64)
    coolant, transfer, flux = (np.zeros(len(lines), np.float32) for _ in range(3))
    for n, (line, drive) in enumerate(zip(lines, drives, strict=True)):
        if drive is None:
            continue
        if drive.flux_w_m is not None:
            mode[n], flux[n] = PRESCRIBED, drive.flux_w_m
            continue
        since_s = drive.running_s + elapsed_s + 1.0
        reached = 1 - np.exp(-since_s / drive.ramp_s) if drive.ramp_s > 0 else 1.0
        mode[n] = CONVECTIVE
        coolant[n] = rest_c + reached * (drive.coolant_c - rest_c)
        transfer[n] = 2 * np.pi * line.radius_mm * 1e-3 * drive.transfer_w_m2k
    return sinks._replace(mode=mode, coolant_c=coolant, transfer=transfer, flux=flux)


#: What a kelvin costs before water boils: assumed, as of the soft tissues in `tissues` (3.6 to 4.0 MJ/m³/K). It sets
#: how fast a generator follows, not where it holds.
_WET_J_M3K = 3.8e6


@dataclass(frozen=True, eq=False)
class _Around:
    """The cells beside a line. where: (k, j, i) indices of them; cells: (n,) their numbers, one tissue after another;
    parts: each tissue's law and its part of them."""

    where: tuple[Ints, ...]
    cells: Ints
    parts: tuple[tuple[Law, slice], ...]

    @staticmethod
    def of(chosen: NDArray[np.bool_], lattice: Lattice) -> _Around:
        where = np.nonzero(chosen)
        labels = lattice.labels[where]
        order = np.argsort(labels, kind="stable")
        tissues, first = np.unique(labels[order], return_index=True)
        slices = [slice(a, b) for a, b in pairwise([*first.tolist(), len(labels)])]
        laws = lattice.laws_of_tissues
        parts = tuple((laws[n], part) for n, part in zip(tissues.tolist(), slices, strict=True))
        return _Around(where, lattice.numbers(np.stack(where, axis=1)[order]), parts)

    def mean_c(self, enthalpy: Array) -> float:
        """From H of `cells`."""
        return float(
            np.concatenate([law.temperature_of(np.asarray(enthalpy[part], float)) for law, part in self.parts]).mean()
        )


class _Generators:
    """The power of an interval, W/m³, turned down so far that the tissue beside each line stays at the limit.

    What it lost in the last step it will lose in the next: it is given that, and what it lacks. Merely switched off
    above the limit, the power of one long step could heat far beyond it. The mean around a line is judged, not the
    hottest cell: that depends on where the cells lie.
    """

    def __init__(self, fields: Sequence[Array], around: Sequence[_Around], interval: Interval) -> None:
        powers_w = interval.powers_w or (0.0,) * len(fields)
        self._field = np.asarray(sum(p * f for p, f in zip(powers_w, fields, strict=True)), np.float32)
        self._around = [cells for cells, power in zip(around, powers_w, strict=True) if power > 0]
        self._peak = max((float(self._field[cells.where].mean()) for cells in self._around), default=0.0)
        self._limit_c = interval.limit_c
        self._given, self._over, self._step_s = 0.0, 0.0, 0.0

    def field(self, engine: _Engine, step_s: float) -> Array:
        """(k, j, i) for the next step, from H now; the same array as long as nothing is turned down."""
        if self._limit_c is None or self._peak <= 0:
            return self._field
        hottest_c = max(around.mean_c(engine.enthalpy_at(around.cells)) for around in self._around)
        over = _WET_J_M3K * (hottest_c - self._limit_c)
        lost = max(0.0, self._given - (over - self._over)) * step_s / self._step_s if self._step_s else 0.0
        share = min(1.0, max(0.0, (lost - over) / (self._peak * step_s)))
        self._given, self._over, self._step_s = share * self._peak * step_s, over, step_s
        return self._field if share == 1.0 else share * self._field


class _Pace:
    """The longest stable step for what temperatures were reached."""

    def __init__(self, lattice: Lattice, sinks: Sinks, lines: Sequence[Line], settings: HeatSettings) -> None:
        present = np.unique(lattice.labels)
        self._laws: list[Law] = [lattice.laws_of_tissues[n] for n in present]
        self._h = lattice.spacing_m
        self._settings = settings
        spacing = self._h * 1e3
        self._overlap = np.array([1 / (4 * np.pi * (sigma_mm(line.radius_mm, spacing) * 1e-3) ** 2) for line in lines])
        self._resistance = sinks.resistance

    def step(self, low: float, high: float, sinks: Sinks, elapsed_s: float) -> tuple[float, int]:
        """Seconds, and in how many stages. The fastest mode decays with 12 k / C / h² (or what faces between tissues
        make of it) plus what the probes couple; s stages are stable up to (s² + s) / rate.
        """
        k_and_c = [
            (law.conductivity[n], law.capacity[n])
            for law in self._laws
            for n in range(len(law.capacity))
            if _is_reached(law, n, low, high)
        ]
        k, c = np.array(k_and_c).T
        # No face between two tissues conducts more than the harmonic mean of the two.
        across = 2 * k[:, None] * k[None, :] / (k[:, None] + k[None, :]) if len(self._laws) > 1 else k[:, None]
        diffusivity = float((across / c[:, None]).max())
        on = (sinks.mode == CONVECTIVE) & (sinks.transfer > 0)
        probes = float((self._overlap / np.maximum(self._resistance, 1e-9))[on].max(initial=0.0))
        rate = diffusivity * (12 / self._h**2 + probes)
        s = self._settings
        wanted = min(s.longest_step_s, max(s.shortest_step_s, s.step_fraction * elapsed_s))
        stages = 3
        while stages < s.most_stages and (stages * stages + stages) / rate < wanted:
            stages += 2
        return min(wanted, (stages * stages + stages) / rate), stages


def _is_reached(law: Law, piece: int, low: float, high: float) -> bool:
    """Whether any cell may be in a piece of a law, with room for what the next step brings."""
    room = 2.5e6
    above = law.enthalpy[piece - 1] if piece > 0 else -np.inf
    below = law.enthalpy[piece] if piece < len(law.enthalpy) else np.inf
    return bool(low - room <= below and high + room >= above)
