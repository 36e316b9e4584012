"""Frames of one series to the volumes they make: apart by orientation, then by whatever sets acquisitions apart."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from dicom_node.decode.frames import Frame
from dicom_node.decode.pixels import stored_values
from dicom_node.decode.stack import JITTER_MM, SAME_PLACE_MM
from dicom_node.refusal import Refused
from pipeline.assessment import Reason

#: Direction cosines of one volume agree to this (0.25 degrees).
_PARALLEL = 0.004


@dataclass(frozen=True, eq=False)
class Part:
    """Frames of one volume, in no order. problem: why they cannot be one, with nothing left to tell them apart by."""

    label: str
    frames: tuple[Frame, ...]
    notes: tuple[Reason, ...] = ()
    problem: Refused | None = None


def split(frames: Sequence[Frame]) -> list[Part]:
    """The volumes of one series."""
    groups = _parallel_groups(frames)
    parts = [part for group in groups for part in _by_marks(tuple(group), ())]
    return [done for part in parts for done in _without_doubles(part)]


def _parallel_groups(frames: Sequence[Frame]) -> list[list[Frame]]:
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if _one_grid(group[0], frame):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _one_grid(a: Frame, b: Frame) -> bool:
    return (
        a.frame_uid == b.frame_uid
        and a.shape == b.shape
        and ("LOCALIZER" in a.image_type) == ("LOCALIZER" in b.image_type)
        and bool(np.allclose(a.spacing_mm, b.spacing_mm, rtol=1e-3))
        and bool(np.abs(a.row_lps - b.row_lps).max() < _PARALLEL)
        and bool(np.abs(a.column_lps - b.column_lps).max() < _PARALLEL)
    )


def _by_marks(frames: tuple[Frame, ...], marks: tuple[str, ...]) -> list[Part]:
    """Split by the first mark that helps, and the pieces again, until each place holds one frame."""
    places = _places(frames)
    crowded = len(frames) - places
    if crowded or not _even(frames):
        for mark in frames[0].marks:
            groups: dict[Hashable, list[Frame]] = {}
            for frame in frames:
                groups.setdefault(frame.marks.get(mark), []).append(frame)
            if len(groups) > 1 and _helps(list(groups.values()), places, crowded):
                return [
                    part
                    for value, group in groups.items()
                    for part in _by_marks(tuple(group), (*marks, f"{mark} {_shown(value)}"))
                ]
    return [Part(", ".join(marks), frames)]


def _helps(groups: list[list[Frame]], places: int, crowded: int) -> bool:
    """Whether splitting so makes volumes. Not where every slice, or every table stop, is an acquisition of its own."""
    counts = [_places(group) for group in groups]
    if max(counts) < 0.5 * places:
        return False
    if crowded:
        return sum(len(group) for group in groups) - sum(counts) < crowded
    return all(len(group) >= 3 and _even(group) for group in groups) and _overlap(groups)


def _overlap(groups: list[list[Frame]]) -> bool:
    """Whether all pieces cover the same stretch of the patient, by half at least."""
    spans = [(min(f.along_mm for f in g), max(f.along_mm for f in g)) for g in groups]
    shared = min(high for _, high in spans) - max(low for low, _ in spans)
    return shared > 0.5 * min(high - low for low, high in spans)


def _places(frames: Sequence[Frame]) -> int:
    along = np.sort([frame.along_mm for frame in frames])
    return 1 + int((np.diff(along) > SAME_PLACE_MM).sum())


def _even(frames: Sequence[Frame]) -> bool:
    gaps = np.diff(np.sort([frame.along_mm for frame in frames]))
    return len(gaps) == 0 or bool(gaps.max() - gaps.min() <= JITTER_MM)


def _shown(value: Hashable) -> str:
    return "\\".join(str(v) for v in value) if isinstance(value, tuple) else str(value)


def _without_doubles(part: Part) -> list[Part]:
    """Frames of the same place: copies are dropped; complete repeats are told apart by time; else a problem."""
    ordered = sorted(part.frames, key=lambda frame: (frame.along_mm, frame.taken))
    towers: list[list[Frame]] = []
    for frame in ordered:
        if towers and frame.along_mm - towers[-1][0].along_mm <= SAME_PLACE_MM:
            towers[-1].append(frame)
        else:
            towers.append([frame])
    doubled = [tower for tower in towers if len(tower) > 1]
    if not doubled:
        return [part]
    try:
        copies = all(_same_pixels(tower) for tower in doubled)
    except Refused as problem:
        return [Part(part.label, part.frames, problem=problem)]
    if copies:
        dropped = len(ordered) - len(towers)
        note = Reason("duplicates_dropped", f"{dropped} slices were stored twice with the same pixels; one was kept.")
        return [Part(part.label, tuple(tower[0] for tower in towers), (note,))]
    repeats = {len(tower) for tower in towers}
    if len(repeats) == 1 and len(towers) > 1 and all(_times_differ(tower) for tower in towers):
        times = sorted(towers, key=lambda tower: tower[0].along_mm)
        label = f"{part.label}, " if part.label else ""
        return [Part(f"{label}time {n + 1}", tuple(tower[n] for tower in times)) for n in range(repeats.pop())]
    where = doubled[0][0].along_mm
    text = f"Several different images lie at one place ({where:.1f} mm) and nothing tells them apart; send one."
    return [Part(part.label, part.frames, problem=Refused("duplicate_slices", text))]


def _times_differ(tower: list[Frame]) -> bool:
    return len({frame.taken[0] for frame in tower}) == len(tower)


def _same_pixels(tower: list[Frame]) -> bool:
    first = tower[0].rescale(stored_values(tower[0].header)[tower[0].number])
    return all(
        bool(np.array_equal(first, other.rescale(stored_values(other.header)[other.number]))) for other in tower[1:]
    )
