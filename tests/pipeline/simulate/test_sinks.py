"""Probes as line sinks: their kernels, and the radius that the mean over a kernel stands for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import exp1

from pipeline.geometry import upright_grid
from pipeline.simulate.heat import Drive, Interval, run
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.sinks import Line, effective_radius_mm, heating_w_m3, make_sinks
from pipeline.simulate.tissue import Tissue
from pipeline.simulate.tissues import LIVER

#: One conductivity and one capacity at all temperatures.
PLAIN = Tissue("plain", (-290.0, -280.0), (2.0,) * 3, (1.8e6,) * 3, -280.0, -290.0)


def box(n: int, spacing_mm: float = 1.0, *, insulated: bool = False, tissue: Tissue = LIVER) -> Lattice:
    grid = upright_grid((n, n, n), (spacing_mm,) * 3, (-(n - 1) * spacing_mm / 2,) * 3, "made")
    return Lattice(grid, np.zeros(grid.shape, np.uint8), (tissue,), insulated=insulated)


coordinate = st.floats(-6.0, 6.0)


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(coordinate, coordinate, coordinate), st.tuples(coordinate, coordinate, coordinate), st.floats(0.3, 2.0)
)
def test_a_probe_draws_all_its_heat_where_it_lies(
    start: tuple[float, float, float], end: tuple[float, float, float], radius_mm: float
) -> None:
    line, lattice = Line(start, end, radius_mm), box(26)
    sinks = make_sinks([line], lattice)
    count = len(sinks.length_m)
    shares = np.add.reduceat(sinks.weight, sinks.first[:-1])
    assert shares == pytest.approx(np.ones(count), abs=1e-5)
    assert 1e3 * float(sinks.length_m.sum()) == pytest.approx(line.length_mm, abs=1e-4)
    index = np.stack(np.unravel_index(sinks.cell, (28, 28, 28)), axis=-1) - 1
    center = np.average(lattice.geometry.lps_of(index), axis=0, weights=sinks.weight)
    assert center == pytest.approx(np.add(start, end) / 2, abs=0.1)


def test_what_would_leave_an_insulated_box_is_sent_back() -> None:
    line = Line((0.0, 0.0, -6.0), (0.0, 0.0, 5.9), 0.75)
    with pytest.raises(ValueError, match="leaves the simulated grid"):
        make_sinks([line], box(12))
    sinks = make_sinks([line], box(12, insulated=True))
    drawn = np.zeros((14, 14, 14))
    np.add.at(drawn.reshape(-1), sinks.cell, sinks.weight)
    along = drawn[1:-1].sum(axis=(1, 2))
    assert along.sum() == pytest.approx(12, abs=1e-4)
    assert along == pytest.approx(np.ones(12), abs=0.1)


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.5, 0.5), (0.13, 0.31)])
@pytest.mark.parametrize("radius_mm", [0.75, 1.2, 1.7])
def test_the_mean_over_a_kernel_is_the_field_at_the_effective_radius(
    place: tuple[float, float], radius_mm: float
) -> None:
    """In one plain material a line sink has the field E1(r² / 4 alpha t)."""
    n, seconds, flux_w_m = 60, 140.0, 50.0
    grid = upright_grid((6, n, n), (1.0,) * 3, (-(n - 1) / 2, -(n - 1) / 2, 0.0), "made")
    lattice = Lattice(grid, np.zeros(grid.shape, np.uint8), (PLAIN,), insulated=True)
    line = Line((*place, -0.5), (*place, 5.5), radius_mm)
    course = run(lattice, [line], [Interval(seconds, (Drive(flux_w_m=flux_w_m),))])
    sinks = make_sinks([line], lattice)
    theta = lattice.by_tissue(course.enthalpy, "potential_from")
    mean = float((np.pad(theta, 1).ravel()[sinks.cell] * sinks.weight).sum() / sinks.weight.sum())
    wanted_m = 1e-3 * effective_radius_mm(radius_mm, 1.0)
    wanted = -flux_w_m / (4 * np.pi) * exp1(wanted_m**2 / (4 * 2.0 / 1.8e6 * seconds))
    # So much off in θ is as much off in the logarithm of the radius; the kernel ends at three standard deviations.
    assert 2 * np.pi * abs(mean - wanted) / flux_w_m < 0.025


def test_the_effective_radius_lies_outside_the_probe() -> None:
    for radius_mm in (0.5, 0.75, 1.2, 1.7, 3.0):
        for spacing_mm in (0.5, 1.0, 2.0):
            assert effective_radius_mm(radius_mm, spacing_mm) > 1.1 * radius_mm


def test_power_stays_on_the_grid_and_falls_outward() -> None:
    lattice = box(40)
    field = heating_w_m3(Line((0.0, 0.0, -8.0), (0.0, 0.0, 8.0), 0.75, reach_mm=20.0), lattice)
    assert float(field.sum()) * 1e-9 == pytest.approx(1.0, rel=1e-4)
    ray = field[20, 20, 20:]
    assert (np.diff(ray) < 0).all()
    r = np.hypot(0.5, 0.5 + np.arange(20))[4:]
    assert ray[4:] / ray[4] == pytest.approx((r[0] / r) ** 2 * np.exp((r[0] - r) / 20.0), rel=1e-3)
    shifted = heating_w_m3(Line((0.5, 0.5, -8.0), (0.5, 0.5, 8.0), 0.75, reach_mm=20.0), lattice)
    near = [float(f[20, 17:24, 17:24].sum() / f[20].sum()) for f in (field, shifted)]
    assert near[1] == pytest.approx(near[0], rel=0.02)
    assert not heating_w_m3(Line((0.0, 0.0, -8.0), (0.0, 0.0, 8.0), 0.75), lattice).any()
