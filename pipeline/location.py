"""Where a point lies, in the words a radiologist uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.geometry import FloatArray
from pipeline.volume import Volume

#: A direction is named when it makes up at least this share of the unit vector (about 66 degrees off at most).
_NAMED = 0.4
#: Beyond this the depth in the organ is not told.
DEEP_MM = 20.0
#: Nearer to the midline than this, medial and lateral mean nothing.
_MIDLINE_MM = 20.0


@dataclass(frozen=True)
class Location:
    """directions: most telling first, of anterior, posterior, medial, lateral, left, right, cranial, caudal.

    distance_to_capsule_mm: below the organ's surface up to `DEEP_MM`, negative outside; None without an organ mask.
    """

    directions: tuple[str, ...]
    distance_to_capsule_mm: float | None

    @property
    def text(self) -> str:
        """E.g. "caudal and medial, 6 mm from the capsule"."""
        words = " and ".join(self.directions)
        if self.distance_to_capsule_mm is None:
            return words
        if self.distance_to_capsule_mm < 0.5:
            return f"{words}, at the capsule"
        if self.distance_to_capsule_mm >= DEEP_MM:
            return f"{words}, at least {DEEP_MM:.0f} mm from the capsule"
        return f"{words}, {self.distance_to_capsule_mm:.0f} mm from the capsule"


def locate(
    point_lps_mm: FloatArray, *, seen_from_lps_mm: FloatArray, midline_x_mm: float, depth_mm: float | None
) -> Location:
    """Where a point (3,) lies as seen from another (the tumor's center), and how deep in its organ."""
    away = np.asarray(point_lps_mm, float) - np.asarray(seen_from_lps_mm, float)
    length = float(np.linalg.norm(away))
    x, y, z = away / length if length > 0 else np.array([0.0, 0.0, 1.0])
    side = float(seen_from_lps_mm[0]) - midline_x_mm
    by_midline = "lateral" if x * side > 0 else "medial"
    across = ("left" if x > 0 else "right") if abs(side) < _MIDLINE_MM else by_midline
    named = [
        (abs(x), across),
        (abs(y), "posterior" if y > 0 else "anterior"),
        (abs(z), "cranial" if z > 0 else "caudal"),
    ]
    named.sort(key=lambda n: -n[0])
    return Location(tuple(word for share, word in named if share >= _NAMED), depth_mm)


def midline_x_mm(volume: Volume) -> float:
    """The body's middle from left to right (LPS x, mm): half-way between the outermost voxels that are no air.

    Fat and everything denser counts on CT, everything above a tenth of the bright signal on MR; the middle of the grid
    where there is nothing.
    """
    step = np.maximum(1, np.round(6.0 / volume.geometry.spacing_mm)).astype(int)
    values = volume.voxels[:: step[0], :: step[1], :: step[2]].astype(np.float32)
    limit = -250.0 if volume.quantity == "ct_hu" else 0.1 * float(np.percentile(values, 99))
    index = np.argwhere(values > limit) * step
    if not len(index):
        index = np.array([[0, 0, 0], np.array(volume.geometry.shape) - 1])
    x = volume.geometry.lps_of(index)[:, 0]
    low, high = np.percentile(x, [2, 98])
    return float((low + high) / 2)
