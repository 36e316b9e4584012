"""What changed at the edge of the zone: new enhancing tissue, growth against an earlier zone, tumor left uncovered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from pipeline.assessment import Finding, FindingKind
from pipeline.geometry import Geometry
from pipeline.volume import Volume

Array = NDArray[np.float32]

FINE_MM = 1.0  # slices thicker than this are interpolated before thickness is judged


@dataclass(frozen=True)
class ProgressionSettings:
    """Lengths in mm, volumes in ml. The edge shell left out is where blur mixes zone and organ.

    vessel_gain: how much brighter than in the baseline a vessel may get between two scans without being news.
    Benign enhancement after ablation is a thin, even rim; what is nodular is not (Ahmed et al., Radiology
    2014;273:241-260): hence a least thickness.
    """

    reach_mm: float = 15.0
    least_radius_mm: float = 2.5
    least_nodule_ml: float = 0.2
    noise_factor: float = 3.0
    vessel_gain: float = 1.4
    least_contrast_fraction: float = 0.12
    growth_mm: float = 3.0
    least_growth_ml: float = 0.3
    least_uncovered_ml: float = 0.02


@dataclass(frozen=True, eq=False)
class Scene:
    """The lesion's surroundings on one grid. Distances in mm, positive inside; `baseline` NaN where unknown.

    organ, baseline_organ: the organ's typical intensity in either image; zone: the zone's.
    """

    image: Volume
    baseline: Array
    zone_mm: Array
    tumor_mm: Array
    organ_mm: Array | None
    zone: float
    organ: float
    baseline_organ: float


def find_nodules(scene: Scene, *, kind: FindingKind, settings: ProgressionSettings | None = None) -> list[Finding]:
    """Compact tissue in or at the edge of the zone that enhances more than the organ and did so less before.

    A vessel is bright in the baseline too; only what rose against the baseline (both relative to their organ) counts,
    except inside the index tumor's own place, where bright tissue is viable whatever the baseline showed.
    """
    s = settings or ProgressionSettings()
    spacing = scene.image.geometry.spacing_mm
    smooth_now = _smooth(scene.image.voxels.astype(np.float32), spacing) - scene.organ
    known = np.isfinite(scene.baseline)
    before = np.where(known, scene.baseline, scene.baseline_organ)
    scale = scene.organ / scene.baseline_organ if scene.baseline_organ else 1.0
    smooth_before = (_smooth(before.astype(np.float32), spacing) - scene.baseline_organ) * scale
    shell = (scene.zone_mm < -4.0) & (scene.zone_mm > -25.0) & (scene.tumor_mm < -3.0) & known
    if scene.organ_mm is not None:
        shell &= scene.organ_mm > 3.0
    spread = _spread((smooth_now - smooth_before)[shell]) if shell.any() else abs(scene.organ - scene.zone)
    limit = max(s.noise_factor * spread, s.least_contrast_fraction * abs(scene.organ - scene.zone), 1e-3)
    rise = np.where(scene.tumor_mm > 0, smooth_now, smooth_now - np.maximum(smooth_before, 0.0) * s.vessel_gain)
    place = (scene.zone_mm > -s.reach_mm) & known
    if scene.organ_mm is not None:
        place &= scene.organ_mm > 1.0
    grid = scene.image.geometry
    fine = grid.resampled(np.minimum(grid.spacing_mm, FINE_MM))
    rise, place = _finer(np.minimum(rise, smooth_now), grid, fine), _finer(place, grid, fine) > 0.5
    bright = _upper_halves(rise, place, limit)
    return _compact(bright, fine, kind, least_radius_mm=s.least_radius_mm, least_ml=s.least_nodule_ml)


def _finer(values: NDArray[np.generic], grid: Geometry, fine: Geometry) -> Array:
    """Linear interpolation between thick slices: one bright slice must not look as thick as a slice is."""
    first, step = grid.index_of(fine.lps_of((0.0, 0.0, 0.0))), fine.spacing_mm / grid.spacing_mm
    out = ndimage.affine_transform(
        values.astype(np.float32), step, offset=first, output_shape=fine.shape, order=1, mode="nearest"
    )
    return np.asarray(out, np.float32)


def _upper_halves(rise: Array, place: NDArray[np.bool_], limit: float) -> NDArray[np.bool_]:
    """Connected parts above the limit, each cut at half its own height, so that blur does not thicken a thin rim."""
    labels, count = ndimage.label(place & (rise > limit))
    if not count:
        return np.zeros(rise.shape, bool)
    tops = ndimage.maximum(rise, labels, np.arange(count + 1))
    return np.asarray((labels > 0) & (rise > 0.5 * np.asarray(tops)[labels]))


def _spread(values: Array) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def find_growth(zone_mm: Array, earlier_zone_mm: Array, grid: Geometry) -> list[Finding]:
    """Parts of the zone that lie beyond the earlier zone by more than the growth allowed."""
    s = ProgressionSettings()
    beyond = (zone_mm > 0) & (earlier_zone_mm < -s.growth_mm)
    return _compact(beyond, grid, "zone_growth", least_radius_mm=1.0, least_ml=s.least_growth_ml)


def find_uncovered(tumor_mm: Array, zone_mm: Array, grid: Geometry, *, enhancing: bool) -> list[Finding]:
    """Index tumor outside the zone, one finding a connected part. enhancing: it still takes up contrast."""
    s = ProgressionSettings()
    kind: FindingKind = "residual_tumor" if enhancing else "uncovered_tumor"
    return _compact((tumor_mm > 0) & (zone_mm < 0), grid, kind, least_radius_mm=0.0, least_ml=s.least_uncovered_ml)


def _compact(
    region: NDArray[np.bool_], grid: Geometry, kind: FindingKind, *, least_radius_mm: float, least_ml: float
) -> list[Finding]:
    """Connected parts that hold a ball of the least radius and the least volume, largest first."""
    if not region.any():
        return []
    depth = ndimage.distance_transform_edt(np.pad(region, 1), sampling=grid.spacing_mm)[1:-1, 1:-1, 1:-1]
    core = depth > least_radius_mm
    if least_radius_mm > 0:
        away = ndimage.distance_transform_edt(~core, sampling=grid.spacing_mm) if core.any() else np.inf
        region = region & (away <= least_radius_mm + 1.5)
    labels, count = ndimage.label(region)
    findings = []
    for n in range(1, count + 1):
        index = np.argwhere(labels == n)
        volume_ml = len(index) * grid.voxel_volume_mm3 / 1000.0
        if volume_ml < least_ml:
            continue
        points = grid.lps_of(index)
        middle = points.mean(0)
        findings.append(
            Finding(kind, (float(middle[0]), float(middle[1]), float(middle[2])), volume_ml, longest_mm(points, grid))
        )
    return sorted(findings, key=lambda f: -f.volume_ml)


def longest_mm(points: NDArray[np.float64], grid: Geometry) -> float:
    """Longest distance between any two of (n, 3) voxel centers, plus one voxel's width."""
    width = float(grid.spacing_mm.min())
    if len(points) > 50:
        try:
            points = points[ConvexHull(points).vertices]
        except QhullError:  # flat: one slice
            points = points[:: max(1, len(points) // 1000)]
    return width + (float(pdist(points).max()) if len(points) > 1 else 0.0)


def _smooth(values: Array, spacing_mm: NDArray[np.float64]) -> Array:
    return np.asarray(ndimage.gaussian_filter(values, 1.5 / spacing_mm, truncate=3), np.float32)
