"""The heat equation in torch against the same in numba: two ways of writing one thing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.geometry import upright_grid
from pipeline.simulate.heat import Course, Drive, HeatSettings, Interval, run
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.sinks import Line
from pipeline.simulate.tissues import FAT, LIVER, TUMOR, VESSEL, heated

COLD, WARM = Drive(-150.0, 1800.0, 25.0), Drive(30.0, 1800.0, 25.0)
PROTOCOL = (Interval(90, (COLD,), freezes=True), Interval(40, (WARM,)), Interval(60, (COLD,), freezes=True))
LINE = Line((-4.0, 1.0, -7.0), (-1.0, 4.0, 8.0), 0.75, reach_mm=15.0)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]


def lattice_of(*, labels: bool, insulated: bool, hot: bool = False) -> Lattice:
    where = np.zeros((18, 20, 22), np.uint8)
    if labels:
        where[:, 13:] = 1
        where[6:11, 7:11, 8:13] = 2
        where[:, :, 18:20] = 3
    first = -(np.array(where.shape[::-1]) - 1.0)
    tissues = (LIVER, FAT, TUMOR, VESSEL)
    tissues = tuple(heated(tissue) for tissue in tissues) if hot else tissues
    return Lattice(upright_grid(where.shape, (2.0,) * 3, first, "made"), where, tissues, insulated)


def in_numba(lattice: Lattice, protocol: tuple[Interval, ...], monkeypatch: pytest.MonkeyPatch) -> Course:
    """As "auto" does where there is no CUDA."""
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: False)
        return run(lattice, [LINE], protocol)


def celsius(lattice: Lattice, enthalpy: NDArray[np.float32]) -> NDArray[np.float32]:
    return lattice.by_tissue(enthalpy, "temperature_of")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("insulated", [True, False])
@pytest.mark.parametrize("labels", [True, False])
def test_cold_is_the_same_in_both(device: str, labels: bool, insulated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lattice = lattice_of(labels=labels, insulated=insulated)
    one = in_numba(lattice, PROTOCOL, monkeypatch)
    other = run(lattice, [LINE], PROTOCOL, HeatSettings(device=device))
    assert len(one.least_enthalpy) == len(other.least_enthalpy) == 2
    for a, b in zip((*one.least_enthalpy, one.enthalpy), (*other.least_enthalpy, other.enthalpy), strict=True):
        assert np.abs(celsius(lattice, a) - celsius(lattice, b)).max() < 0.3
    assert other.drawn_j == pytest.approx(one.drawn_j, rel=2e-3)
    assert (other.dose, other.greatest_enthalpy) == (None, None)


@pytest.mark.parametrize("device", DEVICES)
def test_heat_is_the_same_in_both(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lattice = lattice_of(labels=True, insulated=False, hot=True)
    protocol = (Interval(90, (Drive(15.0, 3000.0, 5.0),), (30.0,), 100.5), Interval(60, (None,)))
    one = in_numba(lattice, protocol, monkeypatch)
    other = run(lattice, [LINE], protocol, HeatSettings(device=device))
    assert one.dose is not None
    assert other.dose is not None
    assert one.greatest_enthalpy is not None
    assert other.greatest_enthalpy is not None
    assert 10 < (one.dose >= 1).sum()
    assert abs(int((one.dose >= 1).sum()) - int((other.dose >= 1).sum())) <= 2
    assert np.abs(celsius(lattice, one.greatest_enthalpy) - celsius(lattice, other.greatest_enthalpy)).max() < 0.5


@pytest.mark.parametrize("device", DEVICES)
def test_energy_is_kept(device: str) -> None:
    made = lattice_of(labels=True, insulated=True)
    tissues = tuple(replace(tissue, perfusion_w_m3k=0.0, is_vessel=False) for tissue in made.tissues)
    lattice = replace(made, tissues=tissues)
    course = run(lattice, [LINE], PROTOCOL, HeatSettings(device=device))
    lost_j = -float(course.enthalpy.astype(float).sum()) * lattice.spacing_m**3
    assert lost_j == pytest.approx(course.drawn_j, rel=1e-3)
