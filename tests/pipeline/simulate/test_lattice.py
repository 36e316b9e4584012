"""Tissue laid out for the kernels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline.geometry import upright_grid
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.tissue import Tissue
from pipeline.simulate.tissues import FAT, LIVER, TUMOR, VESSEL, at_rest

TISSUES = (LIVER, FAT, TUMOR, VESSEL)


def lattice_of(labels: np.ndarray, tissues: tuple[Tissue, ...] = TISSUES) -> Lattice:
    return Lattice(upright_grid(labels.shape, (1.0,) * 3, (0.0,) * 3, "made"), labels, tissues)


maps = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6), elements=st.integers(0, 3))


@settings(deadline=None)
@given(maps)
def test_runs_cover_every_cell_once_with_its_tissue(labels: np.ndarray) -> None:
    cells = lattice_of(labels).cells()
    seen = np.full(labels.shape, 255, np.uint8).reshape(-1, labels.shape[2])
    assert len(cells.first_run) == len(seen) + 1
    for row in range(len(seen)):
        for first, last, tissue in cells.runs[cells.first_run[row] : cells.first_run[row + 1]]:
            assert first < last
            assert (seen[row, first - 1 : last - 1] == 255).all()
            seen[row, first - 1 : last - 1] = tissue
    assert (seen.reshape(labels.shape) == labels).all()


@settings(deadline=None)
@given(maps)
def test_faces_are_those_between_two_tissues(labels: np.ndarray) -> None:
    lattice = lattice_of(labels)
    faces = lattice.faces(lattice.cells().box)
    padded = np.pad(labels, 1).ravel()
    pairs = {(int(faces.cell[a]), int(faces.cell[b])) for a, b in zip(faces.first, faces.second, strict=True)}
    steps = (1, labels.shape[2] + 2, (labels.shape[1] + 2) * (labels.shape[2] + 2))
    inside = {int(n) for n in np.flatnonzero(np.pad(np.ones(labels.shape, bool), 1))}
    wanted = {(n, n + s) for n in inside for s in steps if n + s in inside and padded[n] != padded[n + s]}
    assert pairs == wanted
    assert len(faces.first) == len(wanted)
    assert (padded[faces.cell] == faces.tissue).all()
    assert set(faces.pinned.tolist()) == {n for n in inside if padded[n] == 3}


def test_faces_outside_the_box_are_left_out() -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[3:] = 1
    lattice = lattice_of(labels)
    assert len(lattice.faces(np.array([1, 4, 1, 7, 1, 7])).first) == 0
    assert len(lattice.faces(np.array([1, 5, 2, 7, 1, 7])).first) == 5 * 6


def test_each_cell_is_read_by_its_own_law() -> None:
    labels = np.array([[[0, 1, 2]]], np.uint8)
    h = np.full((1, 1, 3), -2e8, np.float32)
    found = lattice_of(labels).by_tissue(h, "temperature_of")
    assert found[0, 0] == pytest.approx([float(t.law.temperature_of(-2e8)) for t in TISSUES[:3]], rel=1e-5)


def test_blood_takes_off_what_it_brings_by_kelvin() -> None:
    labels = np.zeros((2, 2, 2), np.uint8)
    lattice = lattice_of(labels)
    flow = lattice.inner(lattice.state(heats=False).flow)
    kelvin = 5.0
    assert flow[0, 0, 0] * LIVER.capacity_j_m3k[-1] * kelvin == pytest.approx(LIVER.perfusion_w_m3k * kelvin, rel=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    grid = upright_grid((2, 2, 2), (1.0, 1.0, 2.0), (0.0,) * 3, "made")
    with pytest.raises(ValueError, match="cubic"):
        Lattice(grid, np.zeros((2, 2, 2), np.uint8), TISSUES)
    grid = upright_grid((2, 2, 2), (1.0,) * 3, (0.0,) * 3, "made")
    with pytest.raises(ValueError, match="do not fit"):
        Lattice(grid, np.zeros((2, 2, 3), np.uint8), TISSUES)
    with pytest.raises(ValueError, match="names no tissue"):
        Lattice(grid, np.full((2, 2, 2), 4, np.uint8), TISSUES)
    with pytest.raises(ValueError, match="one temperature before"):
        Lattice(grid, np.zeros((2, 2, 2), np.uint8), (LIVER, at_rest(FAT, 30.0)))
    knots = (-120.0, *LIVER.knots_c)
    five = replace(LIVER, knots_c=knots, conductivity_w_mk=(2.0,) * 6, capacity_j_m3k=(2e6,) * 6)
    with pytest.raises(ValueError, match="at most 4"):
        Lattice(grid, np.zeros((2, 2, 2), np.uint8), (five,))
