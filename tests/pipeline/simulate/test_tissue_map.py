"""Which tissue lies where: regions of the plan first, then what the image shows."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from pipeline.case import Organ
from pipeline.geometry import Geometry, upright_grid
from pipeline.simulate.tissue_map import NAMES, grid_around, label_map
from pipeline.simulate.tissues import TISSUES
from pipeline.volume import Mask, Volume


def grid(n: int = 30, spacing_mm: float = 2.0) -> Geometry:
    return upright_grid((n, n, n), (spacing_mm,) * 3, (-(n - 1) * spacing_mm / 2,) * 3, "frame")


def ball(radius_mm: float, center: tuple[float, float, float] = (0.0, 0.0, 0.0), spacing_mm: float = 1.0) -> Mask:
    fine = grid(round(60 / spacing_mm), spacing_mm)
    return Mask(np.linalg.norm(fine.grid_lps() - center, axis=-1) < radius_mm, fine)


def names_of(labels: np.ndarray) -> set[str]:
    return {NAMES[n] for n in np.unique(labels)}


def test_every_name_is_a_tissue() -> None:
    assert set(NAMES) <= set(TISSUES)
    assert set(get_args(Organ)) <= set(NAMES)


def test_a_grid_around_points_has_room() -> None:
    points = np.array([[0.0, 1.0, 2.0], [10.0, -3.0, 7.5]])
    found = grid_around(points, room_mm=9.0, spacing_mm=1.5, frame_uid="frame")
    assert found.spacing_mm == pytest.approx((1.5, 1.5, 1.5))
    corners = found.lps_of(np.array([[0, 0, 0], np.array(found.shape) - 1]))
    assert (corners[0] <= points.min(axis=0) - 9.0 + 1e-6).all()
    assert (corners[1] >= points.max(axis=0) + 9.0 - 1e-6).all()
    assert (corners[1] <= points.max(axis=0) + 9.0 + 1.5).all()


def test_without_regions_all_is_the_organ() -> None:
    assert names_of(label_map(grid(), "kidney")) == {"kidney"}


def test_regions_go_organ_tumor_vessel() -> None:
    labels = label_map(
        grid(), "liver", organ_mask=ball(20.0), tumors=[ball(8.0)], vessel_mask=ball(5.0, (10.0, 0.0, 0.0))
    )
    r = np.linalg.norm(grid().grid_lps(), axis=-1)
    beside = np.linalg.norm(grid().grid_lps() - (10.0, 0.0, 0.0), axis=-1)
    away = beside > 7
    assert (labels[(r > 22)] == NAMES.index("soft_tissue")).all()
    assert (labels[(r > 10) & (r < 18) & away] == NAMES.index("liver")).all()
    assert (labels[(r < 6.5) & away] == NAMES.index("tumor")).all()
    assert (labels[beside < 2.5] == NAMES.index("vessel")).all()


def test_thin_vessels_follow_the_tissue_around_them() -> None:
    fine = grid(60, 1.0)
    away = np.hypot(*np.moveaxis(fine.grid_lps()[..., :2], -1, 0))
    for radius_mm, kept in ((1.0, False), (4.0, True)):
        labels = label_map(grid(60, 1.0), "liver", vessel_mask=Mask(away < radius_mm, fine))
        assert ("vessel" in names_of(labels)) == kept


def bright(**values: float) -> Volume:
    """A CT of 50 HU with a slab of each value, 8 mm thick."""
    fine = grid(60, 1.0)
    x = fine.grid_lps()[..., 0]
    voxels = np.full(fine.shape, 50, np.int16)
    for number, value in enumerate(values.values()):
        voxels[(x > -28 + 14 * number) & (x < -20 + 14 * number)] = value
    return Volume(voxels, fine, "ct_hu")


def test_ct_tells_fat_gas_lung_and_bone() -> None:
    image = bright(fat=-100, gas=-1000, lung=-750, bone=700)
    labels = label_map(grid(60, 1.0), "soft_tissue", image=image)
    for number, name in enumerate(("fat", "gas", "lung", "bone")):
        middle = -24.0 + 14 * number
        column = np.abs(grid(60, 1.0).grid_lps()[..., 0] - middle) < 1.6
        assert names_of(labels[column]) == {name}


def test_inside_the_organ_mask_the_image_tells_nothing() -> None:
    labels = label_map(
        grid(60, 1.0), "liver", image=bright(fat=-100, gas=-1000, lung=-750, bone=700), organ_mask=ball(12.0)
    )
    r = np.linalg.norm(grid(60, 1.0).grid_lps(), axis=-1)
    assert names_of(labels[r < 11]) == {"liver"}
    assert {"fat", "bone"} <= names_of(labels[r > 14])


def test_mr_tells_no_tissue() -> None:
    image = bright(fat=-100, bone=700)
    labels = label_map(grid(), "liver", image=Volume(image.voxels, image.geometry, "mr_signal"))
    assert names_of(labels) == {"liver"}


def test_specks_are_noise() -> None:
    fine = grid(60, 1.0)
    voxels = np.full(fine.shape, 50, np.int16)
    voxels[28:33, 28:33, 28:33] = -100  # 0.125 ml
    assert names_of(label_map(fine, "soft_tissue", image=Volume(voxels, fine, "ct_hu"))) == {"soft_tissue"}
    voxels[20:40, 20:40, 20:40] = -100
    assert "fat" in names_of(label_map(fine, "soft_tissue", image=Volume(voxels, fine, "ct_hu")))
