"""The organ around the lesion, found from the baseline scan when the plan has no organ mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.assessment import Reason
from pipeline.sampling import smoothed, window_of
from pipeline.transform import identity, resample_distance
from pipeline.volume import Mask, Volume

GRID_MM = 3.0
#: What a scan that shows the liver at least in part can hold of it, ml: from a cut field of view to a large organ.
PLAUSIBLE_LIVER_ML = (200.0, 3500.0)
_RING_MM = (4.0, 15.0)


@dataclass(frozen=True, eq=False)
class FoundOrgan:
    """The organ region (None when none was plausible) in the baseline's frame, and how it was found (without a verb).

    note: what a reader should know of it.
    """

    mask: Mask | None
    how: str
    note: Reason | None = None


def find_organ(baseline: Volume, tumor: Mask, *, organ: str) -> FoundOrgan:
    """The parenchyma that surrounds the tumor, grown from a ring 4 to 15 mm around it, on a grid of about 3 mm.

    Only the liver is bounded enough by its own intensity to be found so; for other organs no mask is returned.
    """
    if organ != "liver":
        return FoundOrgan(None, f"none, as none is grown for {organ}; the lesion's surroundings stand for it")
    window = window_of(baseline)
    values, grid = smoothed(baseline, spacing_mm=GRID_MM, low=window.low, high=window.high)
    distance = resample_distance(tumor, grid, identity(grid.frame_uid))
    ring = (distance < -_RING_MM[0]) & (distance > -_RING_MM[1])
    if ring.sum() < 50:
        return FoundOrgan(None, "none, as the tumor has no surroundings inside the baseline scan to grow it from")
    middle, spread = _mode(values[ring])
    alike = (np.abs(values - middle) < 2.5 * spread) | (distance > -_RING_MM[0])
    ball = _ball(2.01 * GRID_MM, grid.spacing_mm)
    opened = ndimage.binary_opening(alike, ball)
    labels, count = ndimage.label(opened)
    if not count:
        return FoundOrgan(None, "none, as no tissue like the tumor's surroundings holds together")
    hits = np.bincount(labels[ring], minlength=count + 1)
    hits[0] = 0
    region = labels == int(np.argmax(hits))
    region = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(region, 4), ball))[4:-4, 4:-4, 4:-4]
    mask = Mask(region, grid)
    low, high = PLAUSIBLE_LIVER_ML
    if not low <= mask.volume_ml <= high or hits.max() < 0.4 * ring.sum():
        return FoundOrgan(
            None,
            f"none, as the region grown from the tumor's surroundings measures {mask.volume_ml:.0f} ml, which is not a "
            "liver; the lesion's surroundings stand for it",
        )
    return FoundOrgan(mask, f"grown from the tumor's surroundings in the baseline scan, {mask.volume_ml:.0f} ml")


def _mode(values: NDArray[np.float32]) -> tuple[float, float]:
    """Robust center and spread (median, 1.4826 MAD), once re-estimated without what is far away."""
    middle, spread = float(np.median(values)), 0.0
    for _ in range(2):
        near = values if spread == 0.0 else values[np.abs(values - middle) < 3 * spread]
        middle = float(np.median(near))
        spread = max(8.0, 1.4826 * float(np.median(np.abs(near - middle))))
    return middle, spread


def _ball(radius_mm: float, spacing_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    reach = np.floor(radius_mm / spacing_mm).astype(int)
    k, j, i = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
    return np.asarray((k * spacing_mm[0]) ** 2 + (j * spacing_mm[1]) ** 2 + (i * spacing_mm[2]) ** 2 <= radius_mm**2)
