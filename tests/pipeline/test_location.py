"""Words for places."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.geometry import upright_grid
from pipeline.location import locate, midline_x_mm
from pipeline.volume import Volume

TUMOR = np.array([-80.0, 0.0, 0.0])  # in the patient's right half


@pytest.mark.parametrize(
    ("away", "words"),
    [
        ((-10, 0, 0), ("lateral",)),
        ((10, 0, 0), ("medial",)),
        ((0, -10, 0), ("anterior",)),
        ((0, 10, 0), ("posterior",)),
        ((0, 0, 10), ("cranial",)),
        ((1, 0, -10), ("caudal",)),
        ((8, 0, -10), ("caudal", "medial")),
        ((-6, 7, 8), ("cranial", "posterior", "lateral")),
    ],
)
def test_directions_as_seen_from_the_tumor(away: tuple[float, float, float], words: tuple[str, ...]) -> None:
    found = locate(TUMOR + away, seen_from_lps_mm=TUMOR, midline_x_mm=0.0, depth_mm=None)
    assert found.directions == words


def test_medial_is_toward_the_midline_on_both_sides() -> None:
    left = -TUMOR
    found = locate(left + np.array([-9, 0, 0]), seen_from_lps_mm=left, midline_x_mm=0.0, depth_mm=6.2)
    assert found.text == "medial, 6 mm from the capsule"


def test_at_the_midline_sides_are_left_and_right() -> None:
    middle = np.array([5.0, 0.0, 0.0])
    assert locate(middle + np.array([9, 0, 0]), seen_from_lps_mm=middle, midline_x_mm=0.0, depth_mm=0.1).text == (
        "left, at the capsule"
    )


@pytest.mark.parametrize("shift_mm", [0.0, 37.0])
def test_midline_of_a_body_off_the_middle_of_the_table(shift_mm: float) -> None:
    grid = upright_grid((10, 80, 100), (5.0, 5.0, 5.0), (-250.0, -200.0, 0.0), "frame")
    points = grid.grid_lps()
    body = np.hypot((points[..., 0] - shift_mm) / 160, points[..., 1] / 110) < 1
    volume = Volume(np.where(body, 40, -1000).astype(np.int16), grid, "ct_hu")
    assert midline_x_mm(volume) == pytest.approx(shift_mm, abs=6)
