"""Frames of one acquisition to a regular grid: order, spacing, and what had to be mended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicom_node.decode.frames import Frame
from dicom_node.refusal import Refused
from pipeline.assessment import Reason
from pipeline.geometry import Geometry

#: Two slices closer than this lie at the same place.
SAME_PLACE_MM = 0.01
#: Positions off a straight, even line by less than this are rounding and table jitter, not another geometry.
JITTER_MM = 0.25
#: A gap of at most this many slice thicknesses leaves no tissue unseen; wider ones are not filled in.
SEEN_GAP_THICKNESSES = 1.1
#: Even slices may leave this much unseen between them, with a note: less than the place of a surface is known to, and
#: nodules are wider. 2D MR is customarily scanned so (a fifth of 5 mm).
UNSEEN_MM = 1.0


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in order along the normal and the regular grid they fill.

    frames: ascending along cross(row, column); geometry: the grid of the volume; resampled: whether the grid is not
    the slices' own (gantry tilt, uneven gaps); notes: what was mended.
    """

    frames: tuple[Frame, ...]
    geometry: Geometry
    resampled: bool
    notes: tuple[Reason, ...]


def stacked(frames: list[Frame]) -> Stack:
    """The frames, all parallel and at places of their own, as one stack.

    Raises Refused: one_slice, missing_slices, uneven_gaps, gaps_between_slices.
    """
    ordered = tuple(sorted(frames, key=lambda frame: frame.along_mm))
    if len(ordered) < 2:
        raise Refused("one_slice", "The series has one slice only; send the whole series.")
    first = ordered[0]
    along = np.array([frame.along_mm for frame in ordered])
    gaps = np.diff(along)
    positions = np.array([frame.position_lps_mm for frame in ordered])
    notes: list[Reason] = []
    even = bool(_off_even(along) <= min(JITTER_MM, 0.2 * float(np.median(gaps))))
    notes.extend(_check_even(ordered, float(gaps.mean())) if even else [_check_gaps(ordered, gaps)])
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    normal = first.normal_lps
    off_normal = positions - positions[0] - np.outer(along - along[0], normal)
    straight = bool(np.linalg.norm(off_normal, axis=1).max() <= JITTER_MM)
    if straight and even:
        return Stack(ordered, _grid(first, normal * (step @ normal), len(ordered)), False, tuple(notes))
    if not straight:
        off_line = (
            positions
            - positions[0]
            - np.outer((along - along[0]) / (along[-1] - along[0]), positions[-1] - positions[0])
        )
        if np.linalg.norm(off_line, axis=1).max() > max(JITTER_MM, 2 * max(first.spacing_mm)):
            raise Refused(
                "shifted_slices", "The slices do not lie on one straight line; send the original axial series."
            )
        angle = np.degrees(np.arccos(np.clip(abs(step @ normal) / np.linalg.norm(step), -1, 1)))
        notes.append(
            Reason(
                "gantry_tilt",
                f"The gantry was tilted by {angle:.1f} degrees; the slices were resampled to an upright grid.",
            )
        )
    spacing = float(np.median(gaps)) if even else _fine_gap(gaps)
    return Stack(
        ordered, _upright(first, positions, spacing / abs(step @ normal) * np.linalg.norm(step)), True, tuple(notes)
    )


def _off_even(along: NDArray[np.float64]) -> float:
    """Largest distance of a slice from an even spacing, in mm."""
    number = np.arange(len(along))
    return float(np.abs(along - np.polyval(np.polyfit(number, along, 1), number)).max())


def _check_even(frames: tuple[Frame, ...], gap_mm: float) -> list[Reason]:
    """A note where even slices leave a little tissue unseen between them. Raises Refused gaps_between_slices.

    Slices that do not say how thick they are count as touching.
    """
    known = [frame.thickness_mm for frame in frames if frame.thickness_mm]
    thickness = float(np.median(known)) if known else gap_mm
    if gap_mm <= thickness * SEEN_GAP_THICKNESSES + SAME_PLACE_MM:
        return []
    unseen = gap_mm - thickness
    told = f"The slices lie {gap_mm:.2f} mm apart and are {thickness:.2f} mm thick"
    if unseen > UNSEEN_MM + SAME_PLACE_MM:
        raise Refused(
            "gaps_between_slices",
            f"{told}, so {unseen:.1f} mm between them were not scanned; send a reconstruction without gaps.",
        )
    return [Reason("gaps_between_slices", f"{told}; the {unseen:.1f} mm between them were not seen.")]


def _check_gaps(frames: tuple[Frame, ...], gaps: NDArray[np.float64]) -> Reason:
    """A note where uneven gaps leave no tissue unseen. Raises Refused missing_slices, uneven_gaps."""
    usual = float(np.median(gaps))
    for n, gap in enumerate(gaps):
        one, two = frames[n], frames[n + 1]
        missing = round(gap / usual) - 1
        beside = np.concatenate([gaps[max(0, n - 1) : n], gaps[n + 1 : n + 2]])
        lone = missing >= 1 and abs(gap / usual - missing - 1) < 0.1 and np.abs(beside - usual).max() < JITTER_MM
        if lone:
            raise Refused(
                "missing_slices",
                f"{missing} slice{'s are' if missing > 1 else ' is'} missing in the series between "
                f"{one.along_mm:.1f} and {two.along_mm:.1f} mm; send the whole series again.",
            )
        thickness = max(one.thickness_mm or 0.0, two.thickness_mm or 0.0) or usual
        if gap > thickness * SEEN_GAP_THICKNESSES:
            raise Refused(
                "uneven_gaps",
                f"The slices lie {gaps.min():.2f} to {gaps.max():.2f} mm apart, more than their thickness of "
                f"{thickness:.2f} mm; send an evenly spaced reconstruction.",
            )
    return Reason(
        "uneven_gaps",
        f"The slices lie {gaps.min():.2f} to {gaps.max():.2f} mm apart; they were interpolated to an even spacing.",
    )


def _fine_gap(gaps: NDArray[np.float64]) -> float:
    """The spacing for unevenly spaced slices: that of the finer half, so that little is lost and nothing invented."""
    return float(max(np.median(np.sort(gaps)[: (len(gaps) + 1) // 2]), 0.5))


def _grid(first: Frame, step_lps_mm: NDArray[np.float64], slices: int) -> Geometry:
    matrix = np.eye(4)
    matrix[:3, 0] = step_lps_mm
    matrix[:3, 1] = first.column_lps * first.spacing_mm[0]
    matrix[:3, 2] = first.row_lps * first.spacing_mm[1]
    matrix[:3, 3] = first.position_lps_mm
    return Geometry((slices, *first.shape), matrix, first.frame_uid)


def _upright(first: Frame, positions: NDArray[np.float64], spacing_mm: float) -> Geometry:
    """The right-angled grid along the line of the slice positions that holds every slice's corners."""
    along = positions[-1] - positions[0]
    k = along / np.linalg.norm(along)
    i = first.row_lps - (first.row_lps @ k) * k
    i /= np.linalg.norm(i)
    j = np.cross(k, i)
    extent = np.array([first.column_lps * first.spacing_mm[0], first.row_lps * first.spacing_mm[1]])
    corners = [
        p + a * (first.shape[0] - 1) * extent[0] + b * (first.shape[1] - 1) * extent[1]
        for p in (positions[0], positions[-1])
        for a in (0, 1)
        for b in (0, 1)
    ]
    axes = np.stack([k, j, i])
    steps = np.array([spacing_mm, *first.spacing_mm])
    placed = np.array(corners) @ axes.T
    low = placed.min(0)
    shape = np.floor((placed.max(0) - low) / steps + 1e-6).astype(int) + 1
    matrix = np.eye(4)
    matrix[:3, :3] = axes.T * steps
    matrix[:3, 3] = low @ axes
    return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), matrix, first.frame_uid)
