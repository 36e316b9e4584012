"""Devices fitted to the isotherm that their maker states for gel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.case import IsothermSize
from pipeline.geometry import upright_grid
from pipeline.probe import CryoProbe
from pipeline.simulate.device_fit import fitted
from pipeline.simulate.heat import Drive, Interval, run
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.sinks import Line
from pipeline.simulate.tissues import GEL

#: A shorter wait than makers state, so that the test is quick.
STATED = IsothermSize(temperature_c=-20.0, after_s=240.0, diameter_mm=12.0)


def section_diameter_mm(probe: CryoProbe, size: IsothermSize) -> float:
    """Of the isotherm around that probe in gel, from its area on cells of 1 mm, by another way than the fit's."""
    grid = upright_grid((50, 44, 44), (1.0,) * 3, (-21.5, -21.5, -24.5), "gel")
    lattice = Lattice(grid, np.zeros(grid.shape, np.uint8), (GEL,))
    half = probe.active_length_mm / 2
    line = Line((0.2, 0.1, -half), (0.2, 0.1, half), probe.radius_mm)
    drive = Drive(probe.coolant_c, probe.transfer_w_m2k, probe.ramp_s)
    course = run(lattice, [line], [Interval(size.after_s, (drive,))])
    cold = lattice.by_tissue(course.least_enthalpy[-1], "temperature_of")
    area = float((cold < size.temperature_c).sum(axis=(1, 2)).max())
    return 2 * float(np.sqrt(area / np.pi))


def test_a_fitted_probe_makes_the_stated_isotherm(argon: CryoProbe) -> None:
    made = fitted(argon, STATED)
    assert made.transfer_w_m2k != argon.transfer_w_m2k
    assert replace(made, transfer_w_m2k=argon.transfer_w_m2k, provenance=argon.provenance) == argon
    assert "12 mm after 240 s" in made.provenance
    assert section_diameter_mm(made, STATED) == pytest.approx(STATED.diameter_mm, abs=0.6)
    larger = fitted(argon, replace(STATED, diameter_mm=13.0))
    assert larger.transfer_w_m2k > made.transfer_w_m2k


def test_a_stated_length_sets_the_active_length(argon: CryoProbe) -> None:
    long, short = (fitted(argon, replace(STATED, length_mm=mm)) for mm in (32.0, 24.0))
    assert long.active_length_mm - short.active_length_mm == pytest.approx(8.0, abs=2.5)


def test_an_isotherm_that_no_heat_transfer_makes_is_refused(argon: CryoProbe) -> None:
    with pytest.raises(ValueError, match="makes at most"):
        fitted(argon, replace(STATED, diameter_mm=45.0))


def test_a_length_too_short_for_its_diameter_is_refused(argon: CryoProbe) -> None:
    with pytest.raises(ValueError, match=r"active over \d mm, makes at most"):
        fitted(argon, replace(STATED, diameter_mm=13.5, length_mm=11.0))


def test_a_length_that_no_active_part_makes_is_refused(argon: CryoProbe) -> None:
    with pytest.raises(ValueError, match=r"states a length of 118 mm; .* Leave length_mm out"):
        fitted(argon, replace(STATED, diameter_mm=10.0, length_mm=118.0))
