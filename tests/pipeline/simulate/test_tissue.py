"""Laws of tissues: three views of one state that must agree, in numpy and in the kernels."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from pipeline.geometry import upright_grid
from pipeline.simulate import kernels
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.tissue import Tissue, varied
from pipeline.simulate.tissues import GEL, LIVER, TISSUES, at_rest, heated, ice_capacity, ice_conductivity


@st.composite
def tissues(draw: st.DrawFn) -> Tissue:
    """Any tissue with two to four knots below its rest."""
    gaps = draw(st.lists(st.floats(0.5, 40.0), min_size=2, max_size=4))
    top = round(draw(st.floats(-5.0, 5.0)), 6)  # the quadrature below cannot divide what is hardly a number
    knots = tuple(top - sum(gaps[n + 1 :]) for n in range(len(gaps)))
    n = len(knots) + 1
    k = draw(st.lists(st.floats(0.02, 4.0), min_size=n, max_size=n))
    c = draw(st.lists(st.floats(0.5e6, 300e6), min_size=n, max_size=n))
    rest = top + draw(st.floats(1.0, 40.0))
    return Tissue("any", knots, tuple(k), tuple(c), knots[-1], knots[-2], rest_c=rest)


def lattice_of(tissue: Tissue) -> Lattice:
    grid = upright_grid((3, 3, 12), (1.0,) * 3, (0.0,) * 3, "made")
    return Lattice(grid, np.zeros(grid.shape, np.uint8), (tissue,))


@settings(deadline=None, max_examples=60)
@given(tissues(), st.lists(st.floats(-190.0, 90.0), min_size=2, max_size=8))
def test_temperature_enthalpy_and_potential_tell_the_same(tissue: Tissue, celsius: list[float]) -> None:
    law, t = tissue.law, np.sort(celsius)
    h = law.enthalpy_of(t)
    assert law.temperature_of(h) == pytest.approx(t, abs=1e-6)
    assert law.potential_from(h) == pytest.approx(law.potential_of(t), abs=1e-6)
    assert law.enthalpy_of(tissue.rest_c) == pytest.approx(0, abs=1e-3)
    assert law.potential_of(tissue.rest_c) == pytest.approx(0, abs=1e-9)
    assert (np.diff(h) >= -1e-6).all()
    assert (np.diff(law.potential_of(t)) >= -1e-9).all()


@settings(deadline=None, max_examples=20)
@given(tissues(), st.floats(-150.0, 60.0))
def test_enthalpy_and_potential_are_the_integrals_of_capacity_and_conductivity(tissue: Tissue, celsius: float) -> None:
    law, knots = tissue.law, np.array(tissue.knots_c)
    for values, found in (
        (tissue.capacity_j_m3k, law.enthalpy_of(celsius)),
        (tissue.conductivity_w_mk, law.potential_of(celsius)),
    ):
        ends = np.sort(np.array([celsius, tissue.rest_c, *knots]))
        parts = [quad(lambda t, v=values: v[int((knots <= t).sum())], a, b)[0] for a, b in pairwise(ends)]
        wanted = sum(
            p
            for p, a in zip(parts, ends, strict=False)
            if min(celsius, tissue.rest_c) <= a < max(celsius, tissue.rest_c)
        )
        assert float(found) == pytest.approx(np.sign(celsius - tissue.rest_c) * wanted, rel=1e-6, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(tissues(), st.lists(st.floats(-150.0, 60.0), min_size=12, max_size=12))
def test_the_kernels_tables_say_what_the_law_says(tissue: Tissue, celsius: list[float]) -> None:
    lattice, law = lattice_of(tissue), tissue.law
    h, laws = law.enthalpy_of(np.array(celsius)), lattice.laws()
    size = float(np.abs(law.enthalpy_of(np.array([-150.0, 60.0]))).max())
    for one in h:
        found = kernels.temperature_of(float(one), 0, laws)
        assert float(law.enthalpy_of(found)) == pytest.approx(one, abs=1e-5 * size)
    state = lattice.state(heats=False)
    lattice.inner(state.enthalpy)[1, 1] = h
    kernels.fill_potential(state.enthalpy, state.potential, lattice.cells(), laws)
    steepest = float((law.conductivity / law.capacity).max())
    wanted = law.potential_from(h)
    assert lattice.inner(state.potential)[1, 1] == pytest.approx(wanted, abs=1e-5 * size * steepest + 1e-3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conductivity_w_mk": (1.0, 1.0)}, "part 5 ranges"),
        ({"knots_c": (-100.0, -40.0, -1.0, -8.0)}, "ascend"),
        ({"perfusion_w_m3k": -1.0}, "perfusion not below"),
        ({"capacity_j_m3k": (1e6, 1e6, 1e6, 0.0, 1e6)}, "above 0"),
        ({"freezes_from_c": -2.0}, "at one of the temperatures"),
        ({"freezes_from_c": -8.0, "freezes_to_c": -1.0}, "end below where it begins"),
        ({"rest_c": -5.0}, "begin below body temperature"),
    ],
)
def test_a_tissue_that_cannot_be_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(LIVER, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("tissue", TISSUES.values(), ids=TISSUES)
def test_every_known_tissue_has_a_source_and_becomes_one_that_boils(tissue: Tissue) -> None:
    assert tissue.source
    assert tissue.name in TISSUES
    hot = heated(tissue)
    assert hot.knots_c[-2:] == (99.0, 101.0)
    warm = np.linspace(tissue.freezes_from_c, 98.9, 20)
    assert hot.law.enthalpy_of(warm) == pytest.approx(tissue.law.enthalpy_of(warm))
    boiled = float(hot.law.enthalpy_of(101.0) - hot.law.enthalpy_of(99.0))
    assert boiled > 1.7e9


def test_freezing_releases_the_latent_heat() -> None:
    law = LIVER.law
    released = float(law.enthalpy_of(-1.0) - law.enthalpy_of(-8.0))
    sensible = 7.0 * 0.5 * (LIVER.capacity_j_m3k[-1] + LIVER.capacity_j_m3k[-3])
    assert released - sensible == pytest.approx(159e6, rel=1e-6)


def test_ice_conducts_better_and_holds_less_heat_the_colder_it_is() -> None:
    assert list(LIVER.conductivity_w_mk[:3]) == sorted(LIVER.conductivity_w_mk[:3], reverse=True)
    assert list(LIVER.capacity_j_m3k[:3]) == sorted(LIVER.capacity_j_m3k[:3])
    # Handbook: 2.2 W/m/K and 2.05 kJ/kg/K at 0 °C, 3.5 W/m/K at -100 °C
    assert ice_conductivity(0.0) == pytest.approx(2.22, abs=0.05)
    assert ice_conductivity(-100.0) == pytest.approx(3.3, abs=0.2)
    assert ice_capacity(0.0) == pytest.approx(2050, rel=0.02)


def test_a_varied_tissue_differs_in_its_ice_and_its_blood_alone() -> None:
    other = varied(LIVER, perfusion=0.5, ice_conductivity=1.2)
    assert other.perfusion_w_m3k == pytest.approx(0.5 * LIVER.perfusion_w_m3k)
    assert np.array(other.conductivity_w_mk[:3]) / LIVER.conductivity_w_mk[:3] == pytest.approx(np.full(3, 1.2))
    assert other.conductivity_w_mk[3:] == LIVER.conductivity_w_mk[3:]
    assert other.capacity_j_m3k == LIVER.capacity_j_m3k


def test_rest_moves_zero_and_nothing_else() -> None:
    warm = at_rest(GEL, 39.0)
    t = np.array([-30.0, 0.0, 20.0])
    shift = GEL.law.enthalpy_of(t) - warm.law.enthalpy_of(t)
    assert shift == pytest.approx(np.full(3, 2.0 * 4.18e6))
