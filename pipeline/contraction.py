"""Tissue drawn toward an ablation zone as it shrinks: the shape of that pull, whose size the registration finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from pipeline.geometry import FloatArray, Geometry
from pipeline.sampling import Field, box_of, field_of
from pipeline.transform import Transform, identity, resample_distance
from pipeline.volume import Mask

_REACH_MM, _FADE_MM = 40.0, 15.0
_STEP_MM = 2.5


@dataclass(frozen=True, eq=False)
class Pull:
    """A displacement of 1 mm at the zone's edge, along its normal. field: of its LPS components, on `grid`.

    Inside it falls to zero at the middle, as where all shrinks alike; outside with the square of the distance from the
    middle, as where tissue keeps its volume; beyond 25 to 40 mm it fades out.
    """

    field: Field
    grid: Geometry

    def at(self, points: torch.Tensor) -> torch.Tensor:
        """(n, 3) displacement at (n, 3) LPS points; zero outside the grid."""
        return self.field.channels_at(points, beyond="zeros").T

    def coefficients_mm(self, control: Geometry) -> FloatArray:
        """(3, k, j, i) cubic B-spline coefficients on control points, whose spline is this displacement."""
        index = np.moveaxis(self.grid.index_of(control.grid_lps()), -1, 0)
        sampled = [
            ndimage.map_coordinates(v, index, order=1, mode="constant") for v in self.field.values[0].cpu().numpy()
        ]
        return np.stack([ndimage.spline_filter(s.astype(np.float64), order=3, mode="mirror") for s in sampled])


def pull_of(zone: Mask, device: torch.device) -> Pull:
    """The pull of a zone (in the follow-up's frame), its field on a device. Raises ValueError for an empty zone."""
    frame = zone.geometry.frame_uid
    grid = box_of(zone.points_lps_mm()).grown(_REACH_MM).grid(_STEP_MM, frame)
    depth = ndimage.gaussian_filter(resample_distance(zone, grid, identity(frame)), 1.0)
    radius = max(1.0, float(depth.max()))
    slope = np.stack(np.gradient(depth, _STEP_MM)[::-1])
    normal = -slope / np.maximum(np.linalg.norm(slope, axis=0), 0.3)
    outside = (radius / (radius + np.maximum(-depth, 0.0))) ** 2 * np.clip((_REACH_MM + depth) / _FADE_MM, 0.0, 1.0)
    size = np.where(depth > 0, 1.0 - depth / radius, outside)
    return Pull(field_of(normal * size, grid, device), grid)


def contraction_mm(baseline_from_followup: Transform, zone: Mask) -> float:
    """How far the zone's edge has moved inward since the baseline (mm, mean; negative: outward).

    From the volume that the zone's tissue has lost, as if it were a ball. Raises ValueError for an empty zone.
    """
    points = zone.points_lps_mm()
    points = points[:: max(1, len(points) // 2000)]
    rigid = float(np.linalg.det(baseline_from_followup.matrix[:3, :3]))
    return drawn_in_mm(zone, float(baseline_from_followup.jacobian_determinants(points).mean()) / rigid)


def drawn_in_mm(zone: Mask, gain: float) -> float:
    """How far the edge of a ball of the zone's volume has moved inward (mm) that once was `gain` times as large."""
    radius_mm = float((3 * zone.volume_ml * 1000 / (4 * np.pi)) ** (1 / 3))
    return float(np.cbrt(gain) - 1.0) * radius_mm
