"""The contrast phase of a CT, from the image alone: how bright are the aorta and the liver?

The aorta is the bright round tube in front and to the left of the spine; the liver the large even organ on the right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from pipeline.case import ContrastPhase
from pipeline.volume import Volume

Image = NDArray[np.float32]
Trail = list[tuple[int, "_Disc"]]

#: The look at the image is coarse: pixels within a slice, and the distance between the slices looked at.
_PIXEL_MM = 1.5
_SLICE_MM = 5.0
#: Radii to try: from a small woman's aorta to a wide one.
_RADII_MM = (7.5, 9.0, 10.5, 12.0, 13.5, 15.0)
#: Where to look for it, from the spine's center: patient left and anterior.
_LEFT_MM = (-12.0, 40.0)
_FRONT_MM = (10.0, 70.0)
#: Edges count up to this steepness only, so that lung and calcified walls do not outweigh a round contour.
_EDGE_HU = 40.0
#: What a found tube must show: length, mean roundness, evenness along it.
_TUBE_MM = 30.0
_ROUND = 0.2
_SPREAD_HU = 60.0
#: Unenhanced blood has 35 to 65 HU, by its hematocrit; enhanced blood stays above that for the length of a study.
BLOOD_UNENHANCED_HU = 75.0
#: From here on a dark liver does not make the aorta doubtful.
_BLOOD_SURELY_ENHANCED_HU = 100.0
#: Livers without contrast stay below this, but for iron and amiodarone; one with contrast that does is not filled yet,
#: or fatty.
LIVER_UNENHANCED_HU = 75.0
#: A liver from this on is enhanced even where no aorta shows it; iron or amiodarone can bring an unenhanced one close.
LIVER_SURELY_ENHANCED_HU = 100.0


@dataclass(frozen=True)
class PhaseEstimate:
    """What the image shows. aorta_hu, liver_hu: medians, None where not found; reason: one plain sentence.

    phase is ``enhanced`` where contrast is certain but not its phase, and ``unknown`` where nothing is certain.
    """

    phase: ContrastPhase
    aorta_hu: float | None
    liver_hu: float | None
    reason: str


@dataclass(frozen=True)
class _Disc:
    """A round thing in one slice: how round (0 to 1), row and column, radius, mean."""

    score: float
    row: int
    column: int
    hu: float


def estimate_phase(volume: Volume) -> PhaseEstimate:
    """The contrast phase that a CT shows; ``unknown`` with the reason where neither aorta nor liver is in view."""
    axes = volume.geometry.lps_from_index[:3, :3] / volume.geometry.spacing_mm
    if volume.quantity != "ct_hu" or min(abs(axes[2, 0]), abs(axes[1, 1]), abs(axes[0, 2])) < 0.8:
        return PhaseEstimate("unknown", None, None, "The image is no axial CT.")
    hu, slice_mm = _look(volume)
    spine = _spine(hu)
    if spine is None:
        return PhaseEstimate("unknown", None, None, "No spine is in view to find the aorta by.")
    return _judged(_aorta_hu(hu, slice_mm, spine), _liver_hu(hu, slice_mm, spine))


def _judged(aorta_hu: float | None, liver_hu: float | None) -> PhaseEstimate:
    """The phase of an aorta and a liver this bright.

    An aorta gains 300 to 336 HU and a liver 15 to 25 in the arterial phase, 117 to 125 and 59 to 63 in the portal
    venous one (Goshima et al., MDCT of the liver and hypervascular hepatocellular carcinomas, AJR 2006), over 40 and
    55 HU unenhanced; later both fall toward each other. Tube voltage raises both, so the aorta is judged against the
    liver.
    """

    def answer(phase: ContrastPhase) -> PhaseEstimate:
        organs = (("aorta", aorta_hu), ("liver", liver_hu))
        shown = [f"{name} {value:.0f} HU" for name, value in organs if value is not None]
        found = " and ".join(shown) or "no aorta and no liver"
        return PhaseEstimate(phase, aorta_hu, liver_hu, f"The image shows {found}.")

    if aorta_hu is None:
        return answer("enhanced" if liver_hu is not None and liver_hu >= LIVER_SURELY_ENHANCED_HU else "unknown")
    if aorta_hu < BLOOD_UNENHANCED_HU:
        return answer("unenhanced")  # whatever the liver: iron and amiodarone brighten it without contrast
    if liver_hu is None:
        return answer("arterial" if aorta_hu > 280 else "enhanced")
    if aorta_hu < _BLOOD_SURELY_ENHANCED_HU and liver_hu < LIVER_UNENHANCED_HU:
        return answer("unknown")
    ratio = aorta_hu / liver_hu
    if ratio >= 2.5 and aorta_hu >= 180:
        return answer("arterial")
    if liver_hu < LIVER_UNENHANCED_HU and aorta_hu >= 180:
        return answer("enhanced")  # late arterial or a fatty liver in the portal venous phase
    if ratio < 1.25 and aorta_hu < 130:
        return answer("delayed")
    return answer("portal_venous")


def _look(volume: Volume) -> tuple[Image, float]:
    """The volume made coarse, [k, j, i] upward, to posterior, to patient left; and the distance of its slices in mm."""
    axes = volume.geometry.lps_from_index[:3, :3]
    spacing = volume.geometry.spacing_mm
    every = max(1, round(_SLICE_MM / spacing[0]))
    zoom = spacing[1:] / _PIXEL_MM
    size = [max(1, round(1 / z)) for z in zoom]
    slices = []
    for k in range(0, volume.voxels.shape[0], every):
        # the mean of a slab is less noisy than one thin slice
        slab = volume.voxels[k : k + every].mean(axis=0, dtype=np.float32)
        slices.append(ndimage.zoom(ndimage.uniform_filter(slab, size), zoom, order=1))
    flips = tuple(n for n, direction in enumerate((axes[2, 0], axes[1, 1], axes[0, 2])) if direction < 0)
    return np.asarray(np.flip(np.stack(slices), flips), np.float32), float(every * spacing[0])


def _spine(hu: Image) -> NDArray[np.float64] | None:
    """(slices, 2) row and column of the spine's bone, a straight line through what each slice shows; None if absent."""
    seen = [(k, found) for k, image in enumerate(hu) if (found := _vertebra(image)) is not None]
    if len(seen) < 3:
        return None
    number = np.array([k for k, _ in seen], float)
    line = np.empty((len(hu), 2))
    for axis in range(2):
        values = np.array([center[axis] for _, center in seen])
        slope = float(np.clip(np.median(np.diff(values) / np.diff(number)), -1.5, 1.5))
        line[:, axis] = np.median(values - slope * number) + slope * np.arange(len(hu))
    return line


def _vertebra(image: Image) -> tuple[float, float] | None:
    """Row and column of the bone in the middle of the back of the body, or None."""
    labels, count = ndimage.label(image > -300)
    if not count:
        return None
    body = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    rows, columns = np.nonzero(body)
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    if (bottom - top) * _PIXEL_MM < 100 or (right - left) * _PIXEL_MM < 100:
        return None
    window = np.zeros_like(body)
    middle, width = float(np.median(columns)), 0.15 * (right - left)
    window[int(top + 0.45 * (bottom - top)) : bottom + 1, max(0, int(middle - width)) : int(middle + width)] = True
    bone = ndimage.binary_opening(ndimage.binary_fill_holes(body) & (image > 180)) & window
    labels, count = ndimage.label(ndimage.binary_closing(bone, iterations=3))
    if not count:
        return None
    sizes = ndimage.sum_labels(bone, labels, np.arange(1, count + 1))
    if sizes.max() * _PIXEL_MM**2 < 150:
        return None
    rows, columns = np.nonzero(bone & (labels == 1 + int(np.argmax(sizes))))
    return float(rows.mean()), float(columns.mean())


def _aorta_hu(hu: Image, slice_mm: float, spine: NDArray[np.float64]) -> float | None:
    """Median brightness inside the roundest tube along the spine, or None."""
    discs = [_discs(image, row, column) for image, (row, column) in zip(hu, spine, strict=True)]
    trail = _best_trail(discs, slice_mm)
    if not trail:
        return None
    length = (trail[-1][0] - trail[0][0] + 1) * slice_mm
    values = np.array([disc.hu for _, disc in trail])
    roundness = float(np.mean([disc.score for _, disc in trail]))
    spread = float(np.percentile(values, 90) - np.percentile(values, 10))
    middle = float(np.median(values))
    if length < _TUBE_MM or len(trail) < 4 or roundness < _ROUND or spread > max(_SPREAD_HU, 0.3 * middle):
        return None
    return middle


def _discs(image: Image, row: float, column: float) -> list[_Disc]:
    """The roundest bright things in front and to the left of the spine in one slice, at most eight."""
    pad = 15
    top, bottom = int(row - _FRONT_MM[1] / _PIXEL_MM) - pad, int(row - _FRONT_MM[0] / _PIXEL_MM) + pad
    left, right = int(column + _LEFT_MM[0] / _PIXEL_MM) - pad, int(column + _LEFT_MM[1] / _PIXEL_MM) + pad
    top, left = max(top, 0), max(left, 0)
    window = image[top:bottom, left:right]
    if min(window.shape) < 2 * pad:
        return []
    score, mean = _roundness(window)
    inner = np.zeros(window.shape, bool)
    inner[pad:-pad, pad:-pad] = True
    inner &= (mean > 15) & (mean < 700) & (score > 0.1) & (score == ndimage.maximum_filter(score, 5))
    found = [_Disc(float(score[a, b]), a + top, b + left, float(mean[a, b])) for a, b in np.argwhere(inner)]
    return sorted(found, key=lambda disc: -disc.score)[:8]


def _roundness(window: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much each pixel is the center of a bright even disc, over all radii, and the mean inside that disc."""
    down, across = np.gradient(ndimage.gaussian_filter(window.astype(np.float64), 0.7))
    steep = np.hypot(down, across) + 1e-6
    limited = np.minimum(steep, _EDGE_HU) / steep / _EDGE_HU
    best = np.full(window.shape, -np.inf)
    mean = np.zeros(window.shape)
    for radius_mm in _RADII_MM:
        inward_down, inward_across, disc = _kernels(radius_mm)
        edge = signal.fftconvolve(down * limited, inward_down, mode="same")
        edge += signal.fftconvolve(across * limited, inward_across, mode="same")
        inside = signal.fftconvolve(window, disc, mode="same")
        variance = signal.fftconvolve(window.astype(np.float64) ** 2, disc, mode="same") - inside**2
        score = edge - np.sqrt(np.maximum(variance, 0)) / (1.5 * _EDGE_HU)
        better = score > best
        best[better], mean[better] = score[better], inside[better]
    return best, mean


def _kernels(radius_mm: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Convolution kernels: inward slope down and across, averaged over a ring; mean over the disc inside it."""
    half = int(np.ceil((radius_mm + 1.5) / _PIXEL_MM))
    y, x = np.mgrid[-half : half + 1, -half : half + 1] * _PIXEL_MM
    distance = np.hypot(x, y)
    ring = np.exp(-0.5 * ((distance - radius_mm) / 1.2) ** 2) / np.maximum(distance, 1e-6)
    ring[half, half] = 0
    ring /= (ring * distance).sum()
    disc = (distance <= radius_mm - 2.0).astype(float)
    return y * ring, x * ring, disc / disc.sum()  # convolution turns the kernel round, so outward here is inward there


def _best_trail(discs: list[list[_Disc]], slice_mm: float) -> Trail:
    """The discs, one a slice with single gaps allowed, of the best even tube (dynamic programming)."""
    totals: list[list[tuple[float, tuple[int, int] | None]]] = []
    for k, row in enumerate(discs):
        totals.append([])
        for disc in row:
            best: tuple[float, tuple[int, int] | None] = (disc.score, None)
            for back in (k - 1, k - 2):
                for n, other in enumerate(discs[back] if back >= 0 else ()):
                    shift = np.hypot(disc.row - other.row, disc.column - other.column) * _PIXEL_MM
                    lean = shift / (slice_mm * (k - back))
                    total = totals[back][n][0] + disc.score - 0.3 * lean - abs(disc.hu - other.hu) / 100
                    if lean <= 1.0 and total > best[0]:
                        best = (float(total), (back, n))
            totals[k].append(best)
    ends = [(total[0], (k, n)) for k, row in enumerate(totals) for n, total in enumerate(row)]
    trail: Trail = []
    step = max(ends)[1] if ends else None
    while step is not None:
        trail.append((step[0], discs[step[0]][step[1]]))
        step = totals[step[0]][step[1]][1]
    return trail[::-1]


def _liver_hu(hu: Image, slice_mm: float, spine: NDArray[np.float64]) -> float | None:
    """The most frequent brightness of the large even organ on the patient's right, or None."""
    inside = (hu > 0) & (hu < 220)
    for k, (row, column) in enumerate(spine):
        inside[k, :, max(0, int(column - 10 / _PIXEL_MM)) :] = False
        inside[k, max(0, int(row)) :] = False
    core = np.stack([ndimage.distance_transform_edt(part) > 9 / _PIXEL_MM for part in inside])
    labels, count = ndimage.label(core)
    if not count:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    if sizes.max() * _PIXEL_MM**2 * slice_mm / 1000 < 60:
        return None
    values = hu[labels == 1 + int(np.argmax(sizes))]
    counts, edges = np.histogram(values, bins=np.arange(0, 222, 2))
    smooth = ndimage.gaussian_filter1d(counts.astype(float), 3)
    return float(edges[int(np.argmax(smooth))] + 1)
