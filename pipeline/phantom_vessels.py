"""The vessels of the phantom's liver: two trees of tapered tubes, in the standard body's millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.geometry import FloatArray
from pipeline.phantom_shape import Depth


@dataclass(frozen=True, eq=False)
class Vessels:
    """Tapered tubes. starts_mm, ends_mm: (n, 3); radii_mm: (n, 2) at start and end; tissue: a key of `LEVELS_HU`."""

    tissue: str
    starts_mm: FloatArray
    ends_mm: FloatArray
    radii_mm: FloatArray

    def distance_mm(self, point_mm: FloatArray) -> float:
        """The distance from a point (3,) to the nearest wall, negative inside a vessel."""
        axes = self.ends_mm - self.starts_mm
        share = np.clip(((point_mm - self.starts_mm) * axes).sum(1) / (axes * axes).sum(1), 0, 1)
        away = np.linalg.norm(self.starts_mm + share[:, None] * axes - point_mm, axis=1)
        return float((away - self.radii_mm.max(1)).min())


@dataclass(frozen=True, eq=False)
class _Tube:
    start: FloatArray
    end: FloatArray
    radius: float


def liver_vessels(liver_depth_mm: Depth, rng: np.random.Generator) -> tuple[Vessels, ...]:
    """The portal and the hepatic tree of a liver, grown from the hilum and from the vena cava."""
    hilum, top = np.array([-36.0, 2.0, -12.0]), np.array([-20.0, 34.0, 58.0])
    portal = [_Tube(np.array([-6.0, 16.0, -48.0]), hilum, 6.3)]
    for end in ((-88.0, 14.0, -14.0), (-78.0, -30.0, 20.0), (-6.0, -44.0, 24.0)):
        _grow(portal, _Tube(hilum, np.array(end), 5.2), liver_depth_mm, rng, left=4)
    hepatic: list[_Tube] = []
    for end in ((-96.0, 26.0, 30.0), (-58.0, -28.0, 38.0), (-4.0, -36.0, 42.0)):
        _grow(hepatic, _Tube(top, np.array(end), 5.0), liver_depth_mm, rng, left=4)
    return tuple(
        Vessels(
            tissue,
            np.array([tube.start for tube in tree]),
            np.array([tube.end for tube in tree]),
            np.array([(tube.radius, 0.96 * tube.radius) for tube in tree]),
        )
        for tissue, tree in (("portal vein", portal), ("hepatic vein", hepatic))
    )


def _grow(tree: list[_Tube], branch: _Tube, liver_depth_mm: Depth, rng: np.random.Generator, *, left: int) -> None:
    """Adds a slightly bent branch and its daughters, which share its cross-section (Murray's law, exponent 3)."""
    start, end, radius = branch.start, branch.end, branch.radius
    middle = (start + end) / 2 + rng.standard_normal(3) * np.linalg.norm(end - start) * 0.08
    tree += [_Tube(start, middle, radius), _Tube(middle, end, radius * 0.96)]
    if left == 0:
        return
    share = rng.uniform(0.35, 0.65)
    length = max(16.0, float(np.linalg.norm(end - middle)) * 1.45)
    ahead = (end - middle) / np.linalg.norm(end - middle)
    for part in (share, 1 - share):
        # Of a few ways to go, the one that stays in the liver and away from the vessels already there.
        turns = ahead + rng.standard_normal((12, 3)) * 0.55
        tips = end + turns / np.linalg.norm(turns, axis=1, keepdims=True) * length * rng.uniform(0.75, 1.1)
        deep = liver_depth_mm(tips)
        crowd = np.linalg.norm(tips[:, None] - np.array([tube.end for tube in tree]), axis=-1).min(1)
        best = tips[int(np.argmax(np.minimum(deep, 8.0) + 0.6 * np.minimum(crowd, 20.0)))]
        _grow(tree, _Tube(end, best, max(0.9, radius * 0.95 * part ** (1 / 3))), liver_depth_mm, rng, left=left - 1)
