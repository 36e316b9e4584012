"""How much of a tumor lies inside the zone, measured finer than the scan's voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.sampling import box_of
from pipeline.surface import Level, Surface
from pipeline.transform import Transform

Array = NDArray[np.float32]

#: About as many points are looked at, however small the tumor is.
POINTS = 200_000


@dataclass(frozen=True)
class Coverage:
    """Volumes on the follow-up, in ml."""

    tumor_ml: float
    uncovered_ml: float

    @property
    def fraction(self) -> float:
        """Covered share of the tumor, 0 to 1."""
        return 1.0 - self.uncovered_ml / self.tumor_ml


def measure_coverage(tumor: Level, surface: Surface, zone: Level, baseline_from_followup: Transform) -> Coverage:
    """The tumor's volume on the follow-up and what of it lies outside the zone.

    tumor: in the baseline's frame; surface: its edge carried onto the follow-up; zone: in the follow-up's frame.
    """
    box = box_of(surface.vertices_lps_mm).grown(1.0)
    volume_mm3 = float(np.prod(box.high - box.low))
    grid = box.grid(float(np.clip((volume_mm3 / POINTS) ** (1 / 3), 0.1, 1.0)), zone.grid.frame_uid)
    points = grid.grid_lps()
    in_tumor = inside(tumor.at(baseline_from_followup(points)))
    level = zone.at(points[in_tumor])
    voxel_ml = grid.voxel_volume_mm3 / 1000.0
    return Coverage(float(in_tumor.sum()) * voxel_ml, float((level <= 0).sum()) * voxel_ml)


def inside(depth_mm: Array) -> NDArray[np.bool_]:
    """Points inside a region, at least the deepest one."""
    return np.asarray(depth_mm > min(0.0, float(depth_mm.max()) - 1e-6))
