"""Three patient planes through the point that matters: image values and region outlines, ready to be drawn.

The planes are axial, coronal and sagittal of the patient, whatever way the follow-up was scanned, and square in
millimetres; so every picture has the true proportions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.results.focus import Focus, focus_of
from dicom_node.results.legend import Region
from pipeline.assessment import LesionAssessment
from pipeline.case import FollowUp, Organ
from pipeline.geometry import FloatArray
from pipeline.surface import Level
from pipeline.volume import Mask, Volume, signed_distance_mm

PlaneName = Literal["axial", "coronal", "sagittal"]

#: LPS direction to the right and downward in the picture, as radiologists read them, and the letters at its edges
#: (left, right, top, bottom).
_VIEWS: Mapping[PlaneName, tuple[tuple[int, int, int], tuple[int, int, int], str]] = {
    "axial": ((1, 0, 0), (0, 1, 0), "RLAP"),
    "coronal": ((1, 0, 0), (0, 0, -1), "RLHF"),
    "sagittal": ((0, 1, 0), (0, 0, -1), "APHF"),
}
_AXIS: Mapping[PlaneName, int] = {"axial": 2, "coronal": 1, "sagittal": 0}

#: Display windows in HU, lower and upper end, as on a reading workstation; other organs are read like the abdomen.
_WINDOWS_HU: Mapping[Organ, tuple[float, float]] = {
    "liver": (-140.0, 160.0),
    "kidney": (-160.0, 240.0),
    "soft_tissue": (-160.0, 240.0),
    "lung": (-1350.0, 150.0),
    "bone": (-450.0, 1050.0),
}
_PIXELS = 420
_OUTLINE_PIXELS = 168
_AROUND_MM = 22.0
_LEAST_SIDE_MM = 70.0

#: Outlines are drawn from distances smoothed by so many voxels, but never by more than so many millimetres.
_SMOOTHING_VOXELS, _SMOOTHING_MM = 0.7, 1.0
_SOFT_TISSUE_HU = (-50.0, 400.0)


@dataclass(frozen=True, eq=False)
class Plane:
    """One square picture. gray: uint8 (n, n); signed_mm: (m, m) of each region, positive inside, the edge at zero.

    marked_mm: the point to look at, from the upper left corner, to the right and down; None where there is none.
    """

    name: PlaneName
    gray: NDArray[np.uint8]
    signed_mm: Mapping[str, NDArray[np.float32]]
    cut: Cut
    window: str
    marked_mm: tuple[float, float] | None

    @property
    def side_mm(self) -> float:
        return self.cut.side

    @property
    def place(self) -> str:
        return self.cut.place

    @property
    def letters(self) -> str:
        """Where the patient lies at the left, right, top and bottom edge."""
        return _VIEWS[self.name][2]


def planes_of(lesion: LesionAssessment, followup: FollowUp, organ: Organ) -> tuple[Plane, ...]:
    """Axial, coronal and sagittal plane through the point to look at; else zone, tumor, or the scan's middle."""
    volume = followup.volume
    regions: dict[Region, Mask] = {}
    names: tuple[Region, ...] = ("zone", "tumor", "uncovered")
    for name in names:
        mask: Mask | None = getattr(lesion, name)
        if mask is not None and not mask.is_empty:
            regions[name] = _cropped(mask)
    focus = focus_of(lesion)
    point, center, side = _frame(focus, regions, volume)
    levels: dict[str, Level] = {name: Level(_smooth_distance_mm(part), part.geometry) for name, part in regions.items()}
    planes = planes_through(volume, organ, levels, [Cut(name, point, center, side) for name in _VIEWS])
    return tuple(
        replace(
            plane,
            signed_mm=_with_uncovered(plane.signed_mm),
            marked_mm=None if focus is None else plane.cut.in_picture(point),
        )
        for plane in planes
    )


def planes_around(volume: Volume, organ: Organ, levels: Mapping[str, Level], held: FloatArray) -> tuple[Plane, ...]:
    """Axial, coronal and sagittal plane through the first of (n, 3) points, wide enough for all of them.

    levels: what to outline, each outside its grid taken to go on as at its border.
    """
    low, high = held.min(axis=0), held.max(axis=0)
    side = max(_LEAST_SIDE_MM, float((high - low).max()) + _AROUND_MM)
    return planes_through(volume, organ, levels, [Cut(name, held[0], (low + high) / 2, side) for name in _VIEWS])


def planes_through(volume: Volume, organ: Organ, levels: Mapping[str, Level], cuts: Sequence[Cut]) -> tuple[Plane, ...]:
    """The image and the levels in each of the cuts, all with one window."""
    values = [_sampled(volume.voxels, volume.geometry.index_of(cut.points(_PIXELS)), np.nan) for cut in cuts]
    window = _window(values, volume, organ)
    told = f"W {window[1] - window[0]:.0f}  L {sum(window) / 2:.0f}"
    return tuple(
        Plane(cut.name, _gray(shown, *window), _outlines(levels, cut), cut, told, None)
        for cut, shown in zip(cuts, values, strict=True)
    )


def _frame(focus: Focus | None, regions: Mapping[Region, Mask], volume: Volume) -> tuple[FloatArray, FloatArray, float]:
    """The point to cut through, the middle of the pictures, and their side in mm."""
    held = [mask.geometry.corners_lps() for mask in regions.values()]
    if focus is not None:
        held.append(np.array([focus.point_lps_mm]))
    if not held:
        middle = volume.geometry.lps_of((np.array(volume.geometry.shape) - 1) / 2)
        return middle, middle, float((volume.geometry.spacing_mm * volume.geometry.shape).max())
    corners = np.concatenate(held)
    low, high = corners.min(axis=0), corners.max(axis=0)
    side = max(_LEAST_SIDE_MM, float((high - low).max()) + 2 * _AROUND_MM)
    if focus is not None:
        return np.array(focus.point_lps_mm), (low + high) / 2, side
    first = regions.get("zone") or next(iter(regions.values()))
    return first.centroid_lps_mm, (low + high) / 2, side


@dataclass(frozen=True, eq=False)
class Cut:
    """A square in space: through `point`, centered as near to `center` as its plane allows."""

    name: PlaneName
    point: FloatArray
    center: FloatArray
    side: float

    @property
    def _middle(self) -> FloatArray:
        axis = _AXIS[self.name]
        return np.where(np.arange(3) == axis, self.point, self.center)

    @property
    def place(self) -> str:
        axis = _AXIS[self.name]
        return f"{'xyz'[axis]} {self.point[axis]:.1f} mm".replace("-", "−")

    def points(self, pixels: int) -> FloatArray:
        """(pixels, pixels, 3) LPS of the pixel centers."""
        right, down = (np.array(direction, float) for direction in _VIEWS[self.name][:2])
        steps = ((np.arange(pixels) + 0.5) / pixels - 0.5) * self.side
        return np.asarray(self._middle + steps[:, None, None] * down + steps[None, :, None] * right)

    def in_picture(self, point: FloatArray) -> tuple[float, float]:
        """Millimetres from the upper left corner, to the right and down."""
        right, down = (np.array(direction, float) for direction in _VIEWS[self.name][:2])
        offset = point - self._middle
        return float(offset @ right) + self.side / 2, float(offset @ down) + self.side / 2


def outline_of(mask: Mask) -> Level:
    """What to draw the edge of a region by, without the steps of its voxels."""
    part = _cropped(mask)
    return Level(_smooth_distance_mm(part), part.geometry)


def _outlines(levels: Mapping[str, Level], cut: Cut) -> dict[str, NDArray[np.float32]]:
    points = cut.points(_OUTLINE_PIXELS)
    return {name: _sampled(level.values, level.grid.index_of(points), None) for name, level in levels.items()}


def _with_uncovered(found: Mapping[str, NDArray[np.float32]]) -> Mapping[str, NDArray[np.float32]]:
    if len(found) < 3:
        return found
    # between the two outlines as drawn, wherever the mask says that tumor is uncovered
    between = np.minimum(found["tumor"], -found["zone"])
    return {**found, "uncovered": np.asarray(np.minimum(between, found["uncovered"] + 1.5), np.float32)}


def _smooth_distance_mm(mask: Mask) -> NDArray[np.float32]:
    """Distance to the mask's edge without the steps of the voxels; its inside keeps the mask's volume."""
    sigma = np.minimum(_SMOOTHING_VOXELS, _SMOOTHING_MM / mask.geometry.spacing_mm)
    smooth = ndimage.gaussian_filter(signed_distance_mm(mask), sigma)
    outermost = smooth.size - int(np.count_nonzero(mask.voxels))
    ordered = np.partition(smooth.ravel(), (outermost - 1, outermost))
    return np.asarray(smooth - ordered[outermost - 1 : outermost + 1].mean(), np.float32)


def _sampled(values: NDArray[np.generic], index: FloatArray, outside: float | None) -> NDArray[np.float32]:
    """float32 values at fractional [k, j, i] indices; `outside`, or the nearest value where that is None."""
    out = np.empty(index.shape[:-1], np.float32)
    mode = "nearest" if outside is None else "constant"
    ndimage.map_coordinates(
        values, np.moveaxis(index, -1, 0), out, order=1, mode=mode, cval=0.0 if outside is None else outside
    )
    return out


def _window(planes: Sequence[NDArray[np.float32]], volume: Volume, organ: Organ) -> tuple[float, float]:
    """Lower and upper end of what is shown, one for all planes.

    For CT the organ's usual window, moved up where contrast agent has made the tissue too bright for it; for MR, which
    has no units, the bulk of the values.
    """
    values = np.concatenate([plane[np.isfinite(plane)] for plane in planes])
    if volume.quantity == "mr_signal":
        low, high = (float(x) for x in np.percentile(values, (1.0, 99.7))) if values.size else (0.0, 1.0)
        return low, max(high, low + 1.0)
    low, high = _WINDOWS_HU[organ]
    soft = values[(values > _SOFT_TISSUE_HU[0]) & (values < _SOFT_TISSUE_HU[1])]
    if soft.size:
        excess = float(np.percentile(soft, 90)) - (low + 0.8 * (high - low))
        shift = max(0.0, 10.0 * np.ceil(excess / 10.0))
        low, high = low + shift, high + shift
    return low, high


def _gray(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (np.nan_to_num(values, nan=low) - low) / (high - low)
    return np.asarray(np.clip(scaled, 0.0, 1.0) * 255, np.uint8)


def _cropped(mask: Mask) -> Mask:
    """The mask in the smallest box with three voxels of rim, so that its edge is never the edge of the array."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(mask.voxels.any(axis=others))
        box.append(slice(max(0, int(filled[0]) - 3), int(filled[-1]) + 4))
    return mask.crop((box[0], box[1], box[2]))
