"""Headers of one series to its acquisitions, and an acquisition to a `Volume`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node.decode.files import Header, quiet
from dicom_node.decode.frames import Frame, frames_of
from dicom_node.decode.pixels import AIR_HU, stored_values
from dicom_node.decode.split import Part, split
from dicom_node.decode.stack import Stack, stacked
from dicom_node.decode.straighten import straightened
from dicom_node.refusal import Refused
from pipeline.assessment import Reason
from pipeline.geometry import Geometry
from pipeline.volume import Quantity, Volume

#: A slice refused for one of these leaves a hole or a doubt in its series, so the series is refused for it.
SPOILING = (
    "truncated_file",
    "broken_header",
    "no_pixel_data",
    "secondary_capture",
    "not_ct_or_mr",
    "not_an_image",
    "no_position",
    "no_pixel_spacing",
    "rescale_slope_zero",
)


#: A color picture is never a slice: it is left out, and a hole that it leaves is found by the slices' places.
_PICTURE = "not_grayscale"


@dataclass(frozen=True, eq=False)
class Acquisition:
    """One volume's worth of a series, in order and placed, its pixels not read yet."""

    label: str
    """What sets it apart within the series, e.g. ``AcquisitionNumber 2``; empty for the only one."""
    stack: Stack

    @property
    def frames(self) -> tuple[Frame, ...]:
        return self.stack.frames

    @property
    def header(self) -> Header:
        """The first slice's header, standing for all."""
        return self.stack.frames[0].header

    @property
    def geometry(self) -> Geometry:
        return self.stack.geometry

    @property
    def quantity(self) -> Quantity:
        return "ct_hu" if self.header.text("Modality") == "CT" else "mr_signal"

    @property
    def slices_are_sources(self) -> bool:
        """Whether slice k of the volume is image k of the sources: not after resampling, nor where a multi-frame object
        holds its frames in another order or holds more than this volume.
        """
        sources = self.source_headers
        own = len(sources) == len(self.frames) or [f.number for f in self.frames] == list(
            range(_frame_count(sources[0]))
        )
        return own and not self.stack.resampled

    @property
    def source_headers(self) -> tuple[Header, ...]:
        """One header a slice in the volume's order; a single one for an enhanced multi-frame object."""
        unique = {id(frame.header): frame.header for frame in self.frames}
        return tuple(unique.values())


@dataclass(frozen=True, eq=False)
class Series:
    """What one series holds. acquisitions: the readable ones; refused: the others and single files, with the reason."""

    uid: str
    acquisitions: tuple[Acquisition, ...]
    refused: tuple[Refused, ...]


def read_series(headers: Sequence[Header]) -> Series:
    """The acquisitions of one series; nothing is fatal here, the reasons are listed.

    Localizers are split off by their orientation or image type. Slices of one place are told apart by what sets their
    acquisitions apart, or dropped where their pixels are the same.
    """
    uid = headers[0].text("SeriesInstanceUID") if headers else ""
    refused: list[Refused] = []
    frames: list[Frame] = []
    with quiet():
        try:
            unique = _without_repeats(headers)
        except Refused as problem:
            return Series(uid, (), (problem,))
        for header in unique:
            try:
                frames.extend(frames_of(header))
            except Refused as problem:
                refused.append(problem)
        if frames and any(problem.code in SPOILING for problem in refused):
            return Series(uid, (), tuple(p for p in refused if p.code in SPOILING))
        acquisitions: list[Acquisition] = []
        for part in split(frames):
            try:
                acquisitions.append(_acquisition(part))
            except Refused as problem:
                refused.append(problem)
    return Series(uid, tuple(acquisitions), tuple(refused))


def _acquisition(part: Part) -> Acquisition:
    if part.problem is not None:
        raise part.problem
    stack = stacked(list(part.frames))
    return Acquisition(part.label, Stack(stack.frames, stack.geometry, stack.resampled, part.notes + stack.notes))


def _without_repeats(headers: Sequence[Header]) -> list[Header]:
    """Each SOP instance once; same copies are dropped. Raises Refused ``conflicting_duplicates``."""
    kept: dict[str, Header] = {}
    for header in headers:
        uid = header.text("SOPInstanceUID") or str(header.path)
        other = kept.setdefault(uid, header)
        if other is not header and not _same_image(other, header):
            text = f"{other.name} and {header.name} claim to be the same image but differ; remove one."
            raise Refused("conflicting_duplicates", text)
    return list(kept.values())


def _same_image(one: Header, two: Header) -> bool:
    if one.path.stat().st_size == two.path.stat().st_size and one.path.read_bytes() == two.path.read_bytes():
        return True
    a, b = stored_values(one), stored_values(two)
    same_place = one.dataset.get("ImagePositionPatient") == two.dataset.get("ImagePositionPatient")
    return same_place and a.shape == b.shape and bool((a == b).all())


def _frame_count(header: Header) -> int:
    return int(header.text("NumberOfFrames") or 1)


def read_volume(acquisition: Acquisition, *, every: int = 1) -> Volume:
    """The acquisition's voxels: Hounsfield units for CT, signal for MR; int16 where exact, else float32.

    every: read only each n-th slice (for a look at the contrast; never for measuring).
    Raises Refused as `stored_values`, and ``mixed_sizes``.
    """
    frames = acquisition.frames[::every]
    with quiet():
        voxels = _voxels(frames)
    geometry = acquisition.geometry
    if acquisition.stack.resampled:
        outside = AIR_HU if acquisition.quantity == "ct_hu" else 0
        if every > 1:
            thinned = np.linspace(0, geometry.shape[0] - 1, max(2, geometry.shape[0] // every)).round().astype(int)
            geometry = _every(geometry, int(thinned[1] - thinned[0]))
        voxels = straightened(voxels, frames, geometry, outside=outside)
    elif every > 1:
        geometry = _every(geometry, every)
    return Volume(voxels, geometry, acquisition.quantity)


def _every(geometry: Geometry, every: int) -> Geometry:
    matrix = geometry.lps_from_index.copy()
    matrix[:3, 0] *= every
    return Geometry(((geometry.shape[0] + every - 1) // every, *geometry.shape[1:]), matrix, geometry.frame_uid)


def _voxels(frames: Sequence[Frame]) -> NDArray[Any]:
    """(slices, rows, columns) rescaled values in the frames' order; one array, filled slice by slice."""
    voxels: NDArray[Any] = np.empty((len(frames), *frames[0].shape), np.int16)
    wanted: dict[int, list[int]] = {}
    for k, frame in enumerate(frames):
        wanted.setdefault(id(frame.header), []).append(k)
    for slices in wanted.values():
        stored = stored_values(frames[slices[0]].header)
        for k in slices:
            frame = frames[k]
            if frame.number >= len(stored) or stored.shape[1:] != frame.shape:
                name = frame.header.name
                raise Refused("truncated_file", f"{name} holds fewer pixels than it claims; export it again.")
            values = frame.rescale(stored[frame.number])
            if values.dtype == np.float32 and voxels.dtype != np.float32:
                voxels = voxels.astype(np.float32)
            voxels[k] = values
    return voxels


def refusal_of(series: Series, what: str) -> Refused:
    """The one refusal that stands for a series of which nothing could be read; the most frequent reason, color pictures
    only where there is nothing else.
    """
    if not series.refused:
        return Refused("no_images", f"{what} holds no images; send the whole series.")
    problems = [problem for problem in series.refused if problem.code != _PICTURE] or series.refused
    counted = Counter(problem.code for problem in problems)
    code = max(counted, key=lambda c: counted[c])
    return next(problem for problem in problems if problem.code == code)


def notes_of(series: Series, acquisition: Acquisition) -> tuple[Reason, ...]:
    """What a reader should know of how the acquisition was read."""
    notes = list(acquisition.stack.notes)
    pictures = sum(problem.code == _PICTURE for problem in series.refused)
    if pictures:
        what = "1 color picture lay" if pictures == 1 else f"{pictures} color pictures lay"
        text = f"{what} among the slices of the series and {'was' if pictures == 1 else 'were'} left out."
        notes.append(Reason("color_pictures_left_out", text))
    skipped = {problem.code for problem in series.refused if problem.code not in ("one_slice", _PICTURE)}
    if skipped:
        count = len(series.refused) - pictures
        text = f"{count} item{'s' if count > 1 else ''} of the series could not be used ({', '.join(sorted(skipped))})."
        notes.append(Reason("files_left_out", text))
    if acquisition.header.text("LossyImageCompression") == "01":
        notes.append(
            Reason("lossy_compression", "The images were compressed with loss; small differences may be lost.")
        )
    return tuple(notes)
