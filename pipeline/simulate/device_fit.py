"""A cryoprobe's heat transfer from the size of an isotherm that its maker states for gel."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy import optimize

from pipeline.case import IsothermSize
from pipeline.geometry import upright_grid
from pipeline.probe import CryoProbe
from pipeline.simulate.heat import Drive, Interval, run
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.sinks import Line
from pipeline.simulate.tissues import GEL, at_rest

_CELL_MM = 2.0
_LEAST_W_M2K, _MOST_W_M2K = 100.0, 20_000.0
_ACTIVE_MM, _MOST_FITS = (3.0, 110.0), 4
#: The edge of the ice in gel is where freezing begins: at 0 °C gel is not cold yet.
_JUST_FROZEN_C = 0.05


@lru_cache(maxsize=64)
def fitted(probe: CryoProbe, size: IsothermSize) -> CryoProbe:
    """The probe with the heat transfer, and where a length is given the active length, that make the stated isotherm.

    Raises ValueError where no heat transfer makes it so wide or so narrow, and no active length so long or so short.
    """
    made = replace(probe, transfer_w_m2k=_transfer(probe, size))
    if size.length_mm is not None:
        made = _as_long(made, size, size.length_mm)
    stated = f"isotherm {size.temperature_c:g} °C of {size.diameter_mm:g} mm after {size.after_s:g} s"
    return replace(made, provenance=f"heat transfer fitted to the plan's {stated}; else: {probe.provenance}")


def _as_long(probe: CryoProbe, size: IsothermSize, length_mm: float) -> CryoProbe:
    """The fitted probe with the active length that makes an isotherm of that length too."""
    for _ in range(_MOST_FITS):
        longer_mm = length_mm - _gel_size(probe, size)[1]
        if abs(longer_mm) < 0.5:
            return probe
        active_mm = float(np.clip(probe.active_length_mm + longer_mm, *_ACTIVE_MM))
        probe = replace(probe, active_length_mm=active_mm)
        probe = replace(probe, transfer_w_m2k=_transfer(probe, size))
    made_mm = _gel_size(probe, size)[1]
    if abs(made_mm - length_mm) > _CELL_MM:
        raise ValueError(
            f"states a length of {length_mm:g} mm; with the diameter it states an active part of "
            f"{probe.active_length_mm:.0f} mm makes {made_mm:.0f} mm. Leave length_mm out, or check both"
        )
    return probe


def _transfer(probe: CryoProbe, size: IsothermSize) -> float:
    def missing(log_transfer: float) -> float:
        tried = replace(probe, transfer_w_m2k=float(np.exp(log_transfer)))
        return _gel_size(tried, size)[0] - size.diameter_mm

    low, high = float(np.log(_LEAST_W_M2K)), float(np.log(_MOST_W_M2K))
    least, most = missing(low), missing(high)
    if least > 0 or most < 0:
        limit = f"at most {size.diameter_mm + most:.1f}" if most < 0 else f"at least {size.diameter_mm + least:.1f}"
        raise ValueError(
            f"states {size.diameter_mm:g} mm at {size.temperature_c:g} °C after {size.after_s:g} s; a shaft of "
            f"{2 * probe.radius_mm:g} mm at {probe.coolant_c:g} °C, active over {probe.active_length_mm:.0f} mm, makes "
            f"{limit} mm in gel of {size.medium_c:g} °C. Check temperature, time and diameter, or leave isotherm_size "
            "out"
        )
    return float(np.exp(optimize.brentq(missing, low, high, xtol=0.01)))


def _gel_size(probe: CryoProbe, size: IsothermSize) -> tuple[float, float]:
    """Diameter and length (mm) of the isotherm around one probe in gel."""
    room = size.diameter_mm / 2 + 22.0
    half = np.array([probe.active_length_mm / 2 + room, room, room])
    shape = 2 * np.ceil(half / _CELL_MM).astype(int) + 1
    first = -(shape - 1) / 2 * _CELL_MM
    grid = upright_grid(shape, (_CELL_MM,) * 3, first[::-1], "gel")
    lattice = Lattice(grid, np.zeros(grid.shape, np.uint8), (at_rest(GEL, size.medium_c),))
    end = probe.active_length_mm / 2
    line = Line((0.0, 0.0, -end), (0.0, 0.0, end), probe.radius_mm)
    drive = Drive(probe.coolant_c, probe.transfer_w_m2k, probe.ramp_s)
    course = run(lattice, [line], [Interval(size.after_s, (drive,), freezes=True)])
    law = lattice.laws_of_tissues[0]
    edge = float(law.potential_of(min(size.temperature_c, GEL.freezes_from_c - _JUST_FROZEN_C)))
    inside = edge - lattice.by_tissue(course.least_enthalpy[-1], "potential_from")
    middle = tuple(n // 2 for n in grid.shape)
    return _extent(inside[middle[0], middle[1], :]), _extent(inside[:, middle[1], middle[2]])


def _extent(values: np.ndarray) -> float:
    """How far (mm) a row of values is above zero, its ends by linear interpolation."""
    where = np.flatnonzero(values > 0)
    if not len(where) or where[0] == 0 or where[-1] == len(values) - 1:
        return 0.0
    a, b = where[0], where[-1]
    low = a - values[a] / (values[a] - values[a - 1])
    high = b + values[b] / (values[b] - values[b + 1])
    return float(high - low) * _CELL_MM
