"""The least margin on voxel masks against exact shapes: ours beside the ways other tools take.

Ellipsoids and bumpy shapes of random size, place and turn, margins from -8 to +15 mm, every second pair on a turned
grid; masks hold the voxels whose center lies inside. Truth comes from the formulas. The peers' unsigned distances get
their sign from the zone's mask, which is more than they give by themselves. Errors are measured minus true least
margin: bias is their mean, mae that of their sizes; family is the voxel size in mm. --quick: six pairs a spacing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from document import goal, options, report
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.geometry import Geometry
from pipeline.itk import image_from
from pipeline.margin import measure_margin
from pipeline.phantom_shape import Blob, signed_margins_mm, surface_points
from pipeline.surface import level_of_mask, surface_of_mask
from pipeline.volume import Mask

#: Slices, rows, columns in mm, and the mean absolute error wanted there.
SPACINGS = (((1.0, 0.7, 0.7), 0.12), ((1.0, 0.8, 0.8), 0.12), ((2.5, 0.8, 0.8), 0.2), ((5.0, 1.0, 1.0), 0.5))
LEAST_MM, MOST_MM = -8.0, 15.0
FIRST_SEED = 1000  # the method was chosen on seeds below 100


@dataclass(frozen=True, eq=False)
class Pair:
    """A tumor and a zone on one grid, and the least margin by formula."""

    tumor: Mask
    zone: Mask
    margin_mm: float


def made(seed: int, spacing_mm: tuple[float, float, float]) -> Pair:
    """A pair drawn from the seed; drawn again until its margin lies in the range."""
    rng = np.random.default_rng([seed, *(round(10 * s) for s in spacing_mm)])
    while True:
        tumor, zone = _shapes(rng, bumpy=seed % 2 == 1)
        if max(zone.radii_mm) > 36:
            continue
        points = [
            surface_points(b.depth_mm, b.center_lps_mm, reach_mm=2 * max(b.radii_mm), count=n)
            for b, n in ((tumor, 8_000), (zone, 25_000))
        ]
        margin_mm = float(signed_margins_mm(points[0], points[1], zone.depth_mm).min())
        if LEAST_MM <= margin_mm <= MOST_MM:
            break
    turn = Rotation.from_euler("xyz", rng.uniform(-25, 25, 3), degrees=True) if seed % 4 >= 2 else Rotation.identity()
    half_mm = (max(np.abs(p).max() for p in points) + 8) * (1.3 if seed % 4 >= 2 else 1.0)
    grid = _grid(turn.as_matrix(), half_mm, spacing_mm, rng.uniform(-0.5, 0.5, 3))
    where = grid.grid_lps()
    return Pair(Mask(tumor.depth_mm(where) > 0, grid), Mask(zone.depth_mm(where) > 0, grid), margin_mm)


def _shapes(rng: np.random.Generator, *, bumpy: bool) -> tuple[Blob, Blob]:
    radii = rng.uniform(6, 15) * rng.uniform(0.75, 1.3, 3)
    offset = rng.normal(size=3)
    offset *= rng.uniform(0, 5) / np.linalg.norm(offset)
    wanted = rng.uniform(LEAST_MM, MOST_MM)
    outer = (radii.mean() + wanted + np.linalg.norm(offset)) * rng.uniform(0.9, 1.2, 3) + 0.6 * (radii - radii.mean())
    outer = np.maximum(5.0, outer)
    center = rng.uniform(-0.5, 0.5, 3)

    def blob(at: NDArray[np.float64], r: NDArray[np.float64], bump: float) -> Blob:
        turn = rng.uniform(-90, 90, 3)
        x, y, z = (tuple(map(float, v)) for v in (at, r, turn))
        return Blob(x, y, z, bump * float(r.min()) if bumpy else 0.0, int(rng.integers(1 << 30)))  # type: ignore[arg-type]

    return blob(center, radii, 0.1), blob(center + offset, outer, 0.08)


def _grid(
    turn: NDArray[np.float64], half_mm: float, spacing_mm: tuple[float, float, float], shift_mm: NDArray[np.float64]
) -> Geometry:
    shape = [int(np.ceil(2 * half_mm / s)) for s in spacing_mm]
    matrix = np.eye(4)
    matrix[:3, :3] = turn[:, ::-1] * spacing_mm
    matrix[:3, 3] = shift_mm - matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Geometry((shape[0], shape[1], shape[2]), matrix, "made")


def ours(pair: Pair) -> float:
    """The product's own way from two masks."""
    return measure_margin(surface_of_mask(pair.tumor), level_of_mask(pair.zone)).minimal_margin_mm


def border_voxels(pair: Pair) -> float:
    """From border voxel to border voxel, as most margin tools take it."""
    tumor, zone = pair.tumor.voxels, pair.zone.voxels
    away = ndimage.distance_transform_edt(~_border(zone), sampling=pair.zone.geometry.spacing_mm)
    at = _border(tumor)
    return float(np.where(zone[at], away[at], -away[at]).min())


def maurer(pair: Pair) -> float:
    """SimpleITK's signed Maurer map of the zone at the tumor's border voxels."""
    image = sitk.Cast(image_from(pair.zone), sitk.sitkUInt8)
    away = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return float(sitk.GetArrayFromImage(away)[_border(pair.tumor.voxels)].min())


def monai(pair: Pair) -> float:
    """MONAI's surface distance from the tumor's edge to the zone's."""
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    spacing = tuple(float(s) for s in pair.zone.geometry.spacing_mm)
    tumor, zone = get_mask_edges(pair.tumor.voxels, pair.zone.voxels, crop=False)
    away = np.asarray(get_surface_distance(np.asarray(tumor), np.asarray(zone), "euclidean", spacing))
    inside = pair.zone.voxels[np.asarray(tumor, bool)]
    return float(np.where(inside, away, -away).min())


def _border(voxels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(voxels & ~ndimage.binary_erosion(voxels))


METHODS: dict[str, Callable[[Pair], float]] = {
    "ours": ours,
    "border voxels": border_voxels,
    "SimpleITK signed Maurer": maurer,
    "MONAI surface distance": monai,
}


def row(method: str, family: str, pairs: list[Pair]) -> dict[str, Any]:
    """The errors and the time of one method on one family."""
    errors, seconds = [], []
    for pair in pairs:
        started = time.perf_counter()
        errors.append(METHODS[method](pair) - pair.margin_mm)
        seconds.append(time.perf_counter() - started)
    size = np.abs(errors)
    return {
        "method": method,
        "family": family,
        "pairs": len(pairs),
        "bias_mm": float(np.mean(errors)),
        "mae_mm": float(size.mean()),
        "p95_mm": float(np.percentile(size, 95)),
        "max_mm": float(size.max()),
        "ms": 1000 * float(np.median(seconds)),
        "max_ms": 1000 * float(np.max(seconds)),
    }


def main() -> None:
    """Runs the benchmark."""
    chosen = options(__doc__)
    count = 6 if chosen.quick else 40
    rows, goals = [], []
    for spacing, wanted in SPACINGS[1:3] if chosen.quick else SPACINGS:
        family = "x".join(f"{s:g}" for s in reversed(spacing))
        pairs = [made(FIRST_SEED + n, spacing) for n in range(count)]
        found = [row(method, family, pairs) for method in METHODS]
        best_peer = min(r["mae_mm"] for r in found[1:])
        rows += found
        goals += [
            goal(f"{family}: size of the bias, mm", abs(found[0]["bias_mm"]), "<= 0.1"),
            goal(f"{family}: mean absolute error, mm", found[0]["mae_mm"], f"<= {wanted}"),
            goal(f"{family}: mean absolute error over the best peer's", found[0]["mae_mm"] / best_peer, "<= 1"),
            goal(f"{family}: seconds a lesion, median", found[0]["ms"] / 1000, "<= 1"),
            goal(f"{family}: seconds a lesion, slowest", found[0]["max_ms"] / 1000, "<= 1"),
        ]
    report("margin", rows, goals, as_json=chosen.json)


if __name__ == "__main__":
    main()
