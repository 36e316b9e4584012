"""Harm by heat against its closed form at constant temperature."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.geometry import upright_grid
from pipeline.simulate import kernels
from pipeline.simulate.arrays import HARMLESS_C, Harm, Problem
from pipeline.simulate.dose import Dose
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.sinks import make_sinks
from pipeline.simulate.tissues import LIVER, heated


def dose_of(
    law: Dose, celsius: float, seconds: float, steps: int, *, harmless_c: float = HARMLESS_C
) -> tuple[float, float]:
    """What the kernels sum up for cells kept at a temperature, and how much of the blood flow is left."""
    tissue = heated(LIVER)
    grid = upright_grid((2, 2, 2), (1.0,) * 3, (0.0,) * 3, "made")
    lattice = Lattice(grid, np.zeros(grid.shape, np.uint8), (tissue,))
    state = lattice.state(heats=True)
    lattice.inner(state.enthalpy)[...] = float(tissue.law.enthalpy_of(celsius))
    cells = lattice.cells()
    problem = Problem(cells, lattice.laws(), make_sinks((), lattice), lattice.faces(cells.box))
    harm = Harm(np.zeros_like(state.least), np.zeros_like(state.least), law.rate, harmless_c)
    full = lattice.inner(state.flow)[0, 0, 0]
    for _ in range(steps):
        kernels.harm_done(problem, state, harm, seconds / steps)
    return float(lattice.inner(harm.dose)[0, 0, 0]), float(lattice.inner(state.flow)[0, 0, 0] / full)


@pytest.mark.parametrize(("celsius", "seconds"), [(50.0, 600.0), (55.0, 120.0), (60.0, 10.0)])
def test_arrhenius_integral_at_constant_temperature(celsius: float, seconds: float) -> None:
    integral = 7.39e39 * np.exp(-2.577e5 / (8.314462618 * (celsius + 273.15))) * seconds
    assert dose_of(Dose("arrhenius"), celsius, seconds, 40)[0] == pytest.approx(integral / 4.6, rel=2e-3)


@pytest.mark.parametrize(("celsius", "minutes"), [(43.0, 240.0), (46.0, 30.0), (42.0, 960.0), (50.0, 240.0 / 128)])
def test_240_equivalent_minutes_are_a_full_dose(celsius: float, minutes: float) -> None:
    assert dose_of(Dose("cem43"), celsius, 60 * minutes, 60)[0] == pytest.approx(1.0, rel=2e-3)


@pytest.mark.parametrize("law", [Dose("arrhenius"), Dose("cem43")])
def test_body_temperature_harms_nothing_and_a_full_dose_ends_perfusion(law: Dose) -> None:
    assert dose_of(law, 37.0, 36_000.0, 4) == (0.0, 1.0)
    assert dose_of(law, 50.0, 60.0, 4, harmless_c=50.5) == (0.0, 1.0)
    dose, flow = dose_of(law, 65.0, 60.0, 40)
    assert dose > 1
    assert flow == 0.0
    dose, flow = dose_of(law, 48.0, 20.0, 10)
    assert 0 < dose < 1
    assert flow == 1.0
