"""Which series of a study to assess, by what the images are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicom_node.decode.contrast import contrast_told
from dicom_node.decode.dates import seconds_after_injection
from dicom_node.decode.files import Header
from dicom_node.decode.series import Acquisition, Series, read_series, read_volume, refusal_of
from dicom_node.refusal import Refused
from dicom_node.study import SeriesChoice
from pipeline.case import ContrastPhase, Organ
from pipeline.enhancement import estimate_phase
from pipeline.volume import Volume

#: Best phase first. Liver zones are judged on portal venous images, where parenchyma is brightest against the zone
#: (Ahmed et al., Radiology 2014, doi:10.1148/radiol.14132958); kidneys in the nephrographic phase, at 100 s that of
#: the portal venous one (ECIO-ESOI 2020, doi:10.1186/s13244-020-00884-5); elsewhere any enhanced image serves.
PHASES: Mapping[Organ, tuple[ContrastPhase, ...]] = {
    "liver": ("portal_venous", "delayed", "enhanced", "arterial", "unknown", "unenhanced"),
    "kidney": ("portal_venous", "delayed", "enhanced", "arterial", "unknown", "unenhanced"),
    "lung": ("portal_venous", "enhanced", "delayed", "arterial", "unknown", "unenhanced"),
    "bone": ("portal_venous", "delayed", "enhanced", "arterial", "unknown", "unenhanced"),
    "soft_tissue": ("portal_venous", "delayed", "enhanced", "arterial", "unknown", "unenhanced"),
}
#: Image Type values of pictures made from images.
_MADE_UP = (
    "LOCALIZER", "MIP", "MINIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "SCREEN SAVE", "DOSE", "DOSE_INFO", "REPORT",
    "PERFUSION", "SUBTRACT", "SUBTRACTION", "SUB", "ADC", "FIELD_MAP", "VOLUME_RENDERING", "CSA 3D EDITOR", "CPR",
)  # fmt: skip
#: Slices further from the axial plane than this are no axial series.
_AXIAL_COSINE = float(np.cos(np.radians(30)))
#: In fewer slices than this nothing lies between its neighbors, and no edge can be placed.
_LEAST_SLICES = 3
#: T1 images, the only ones on which gadolinium brightens what enhances, have shorter echoes than this.
_LONGEST_T1_ECHO_MS = 30.0
#: A look at the contrast needs no thinner slices than this.
_LOOK_MM = 5.0
#: Noise, scaled to one slice thickness, above this many times the least of the same phase: a sharp kernel.
_SHARP = 2.0


@dataclass(frozen=True, eq=False)
class Wanted:
    """What the series must show. like: an image of the baseline; extent_mm: along the slices; normal_lps: the
    baseline's slice direction.
    """

    organ: Organ
    like: Header
    extent_mm: float
    normal_lps: NDArray[np.float64]

    @property
    def modality(self) -> str:
        return self.like.text("Modality")


@dataclass(frozen=True, eq=False)
class Candidate:
    """One acquisition that could be assessed, and the phase it shows."""

    series: Series
    acquisition: Acquisition
    phase: ContrastPhase
    reason: str
    noise: float
    volume: Volume | None
    """All its voxels, where the look at the contrast needed them all anyway."""

    @property
    def spacing_mm(self) -> float:
        return float(self.acquisition.geometry.spacing_mm[0])


@dataclass(frozen=True, eq=False)
class Chosen:
    """The acquisition to assess. volume: its voxels."""

    series: Series
    acquisition: Acquisition
    volume: Volume
    phase: ContrastPhase
    choice: SeriesChoice


def choose(headers: Sequence[Header], wanted: Wanted) -> Chosen:
    """The acquisition of the study that serves the assessment best, with the reason.

    Raises Refused: the reason that its only series cannot be read, or ``no_usable_series``.
    """
    grouped: dict[str, list[Header]] = {}
    for header in headers:
        grouped.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    lines: list[str] = []
    candidates: list[Candidate] = []
    problems: list[Refused] = []
    fit: list[tuple[Series, Acquisition]] = []
    for group in grouped.values():
        series = read_series(group)
        if not series.acquisitions:
            problem = refusal_of(series, "The series")
            if group[0].text("Modality") == wanted.modality:
                problems.append(problem)
            lines.append(f"{_name(group[0])}: {problem.text}")
        for acquisition in series.acquisitions:
            unfit = why_unfit(acquisition, wanted)
            if unfit:
                lines.append(f"{title(acquisition)}: {unfit}")
            else:
                fit.append((series, acquisition))
    for series, acquisition in fit:
        try:
            check_slices(acquisition)
            candidates.append(_looked_at(series, acquisition, wanted.organ, only=len(fit) == 1))
        except Refused as problem:
            problems.append(problem)
            lines.append(f"{title(acquisition)}: {problem.text}")
    if not candidates:
        raise _nothing(problems, lines)
    best = min(candidates, key=lambda candidate: _rank(candidate, candidates, wanted))
    for other in candidates:
        if other is not best:
            lines.append(f"{title(other.acquisition)}: {other.phase.replace('_', ' ')}, {_lost(other, best)}")
    return _chosen(best, candidates, lines)


def why_unfit(acquisition: Acquisition, wanted: Wanted) -> str:
    """Why this acquisition cannot be assessed, as the end of a sentence; empty where it can."""
    header, geometry = acquisition.header, acquisition.geometry
    if header.text("Modality") != wanted.modality:
        return f"is {header.text('Modality')}, the baseline is {wanted.modality}."
    kind = [part.upper() for part in acquisition.frames[0].image_type]
    made_up = [part for part in kind if part in _MADE_UP]
    if made_up or kind[:2] == ["DERIVED", "SECONDARY"]:
        return f"is a derived series ({', '.join(made_up) or 'secondary'})."
    normal = acquisition.frames[0].normal_lps
    if abs(normal[2]) < _AXIAL_COSINE and abs(normal @ wanted.normal_lps) < _AXIAL_COSINE:
        return "is not axial."
    extent = geometry.spacing_mm[0] * geometry.shape[0]
    if extent < wanted.extent_mm:
        needed = f"the lesion, its required margin and some tissue around it need {wanted.extent_mm:.0f} mm"
        return f"covers {extent:.0f} mm only; {needed}."
    return ""


def check_slices(acquisition: Acquisition) -> None:
    """Raises Refused ``too_few_slices`` for fewer than three: nothing can be judged in them."""
    count = min(len(acquisition.frames), acquisition.geometry.shape[0])
    if count < _LEAST_SLICES:
        raise Refused("too_few_slices", f"{title(acquisition)} has {count} slices only; send the whole series.")


def _looked_at(series: Series, acquisition: Acquisition, organ: Organ, *, only: bool) -> Candidate:
    spacing = float(acquisition.geometry.spacing_mm[0])
    every = 1 if only else max(1, int(_LOOK_MM // spacing))
    volume = read_volume(acquisition, every=every)
    phase, reason = contrast_phase(acquisition, volume, organ)
    if phase == "enhanced" and _starts_a_run(series, acquisition):
        phase, reason = "unknown", "It is the first of several volumes in time, maybe from before the contrast came."
    return Candidate(series, acquisition, phase, reason, _noise(volume), volume if every == 1 else None)


def contrast_phase(acquisition: Acquisition, volume: Volume, organ: Organ) -> tuple[ContrastPhase, str]:
    """The phase and how it is known: from the image for CT; where that fails, and for MR, from the contrast tags.

    Tags are copied between series, so they tell at most ``enhanced``, and for CT only in the liver, whose brightness is
    looked at again around the lesion (`pipeline.lesion.segment`).
    """
    if volume.quantity == "ct_hu":
        estimate = estimate_phase(volume)
        if estimate.phase != "unknown":
            return estimate.phase, estimate.reason
    told, reason = contrast_told(acquisition)
    if told is False:
        return "unenhanced", reason
    if told is None:
        return "unknown", f"Neither its tags nor its image tell the contrast phase. {reason}"
    if volume.quantity == "ct_hu" and organ != "liver":
        return "unknown", f"{reason} No aorta is in view that would bear them out."
    if volume.quantity == "mr_signal" and _echo_ms(acquisition) > _LONGEST_T1_ECHO_MS:
        return "unknown", f"{reason} But it is not T1-weighted, so it does not show what enhances."
    return "enhanced", reason


def _echo_ms(acquisition: Acquisition) -> float:
    """The echo time, 0 where it is not told."""
    marks = acquisition.frames[0].marks
    try:
        return float(str(marks.get("EffectiveEchoTime") or marks.get("EchoTime") or 0))
    except ValueError:
        return 0.0


def _starts_a_run(series: Series, acquisition: Acquisition) -> bool:
    """Whether an MR volume is the first of its series in time: the one before the contrast arrives, as a rule."""
    first = acquisition.frames[0]
    if acquisition.quantity != "mr_signal" or seconds_after_injection(first.header) is not None:
        return False
    alike = [
        frame.taken[0]
        for frame in (other.frames[0] for other in series.acquisitions)
        if frame.image_type == first.image_type and frame.marks["EchoTime"] == first.marks["EchoTime"]
    ]
    return first.taken[0] == min(alike) < max(alike)


def _phase_by_time(acquisition: Acquisition) -> ContrastPhase:
    """The phase by the time since the injection: enough to prefer one enhanced series to another, no proof."""
    delay = seconds_after_injection(acquisition.header)
    if delay is None:
        return "enhanced"
    return "arterial" if delay < 50 else "portal_venous" if delay < 110 else "delayed"


def _noise(volume: Volume) -> float:
    """Noise of soft tissue scaled to a slice of 1 mm, in HU; 0 for MR, where it says nothing of the kernel."""
    if volume.quantity != "ct_hu":
        return 0.0
    part = volume.voxels[:: max(1, volume.voxels.shape[0] // 8)].astype(np.float32)
    rough = part[:, 1:-1, 1:-1] - 0.25 * (
        part[:, :-2, 1:-1] + part[:, 2:, 1:-1] + part[:, 1:-1, :-2] + part[:, 1:-1, 2:]
    )
    tissue = (part[:, 1:-1, 1:-1] > -20) & (part[:, 1:-1, 1:-1] < 200)
    if not tissue.any():
        return 0.0
    return float(np.median(np.abs(rough[tissue])) * np.sqrt(volume.geometry.spacing_mm[0]))


def _rank(candidate: Candidate, candidates: Sequence[Candidate], wanted: Wanted) -> tuple[float, ...]:
    """Smaller is better: phase, the baseline's MR weighting, phase by time where only contrast is certain, no sharp
    kernel, coverage, thin slices, small pixels.
    """
    same = [c for c in candidates if c.phase == candidate.phase]
    sharp = candidate.noise > _SHARP * min(c.noise for c in same)
    longest = max(_extent(c) for c in same)
    short = _extent(candidate) < 0.6 * longest
    phases = PHASES[wanted.organ]
    by_time = _phase_by_time(candidate.acquisition) if candidate.phase == "enhanced" else candidate.phase
    return (
        phases.index(candidate.phase),
        float(_other_weighting(candidate.acquisition.header, wanted.like)),
        phases.index(by_time),
        float(sharp),
        float(short),
        round(candidate.spacing_mm, 2),
        round(float(candidate.acquisition.geometry.spacing_mm[1]), 3),
    )


def _other_weighting(header: Header, like: Header) -> bool:
    """Whether an MR series' echo or repetition time is twice or half the baseline's."""
    for keyword in ("EchoTime", "RepetitionTime"):
        try:
            ratio = float(header.text(keyword)) / float(like.text(keyword))
        except (ValueError, ZeroDivisionError):
            continue
        if not 0.5 < ratio < 2.0:
            return True
    return False


def _extent(candidate: Candidate) -> float:
    return candidate.spacing_mm * candidate.acquisition.geometry.shape[0]


def _lost(other: Candidate, best: Candidate) -> str:
    if other.phase != best.phase:
        return f"{best.phase.replace('_', ' ')} serves better."
    if other.spacing_mm > best.spacing_mm + 0.01:
        return f"slices of {other.spacing_mm:.1f} mm are thicker."
    return "the same phase, but noisier, shorter or coarser."


def _chosen(best: Candidate, candidates: Sequence[Candidate], lines: Sequence[str]) -> Chosen:
    volume = best.volume if best.volume is not None else read_volume(best.acquisition)
    header = best.acquisition.header
    how = "the only series fit for it" if len(candidates) == 1 else f"the best of {len(candidates)} series fit for it"
    choice = SeriesChoice(
        series_instance_uid=header.text("SeriesInstanceUID"),
        series_description=header.text("SeriesDescription"),
        phase=best.phase,
        reason=f"{title(best.acquisition)} is {how}: {best.phase.replace('_', ' ')}, slices of "
        f"{best.spacing_mm:.1f} mm. {best.reason}",
        considered=tuple(lines),
    )
    return Chosen(best.series, best.acquisition, volume, best.phase, choice)


def _nothing(problems: Sequence[Refused], lines: Sequence[str]) -> Refused:
    if len(problems) == 1 or (problems and len({p.code for p in problems}) == 1):
        return problems[0]
    told = " ".join(lines[:4])
    return Refused("no_usable_series", f"No series of the study can be assessed. {told}".strip())


def title(acquisition: Acquisition) -> str:
    """How a series is named to people: number, description, acquisition."""
    label = f", {acquisition.label}" if acquisition.label else ""
    return f"{_name(acquisition.header)}{label}"


def _name(header: Header) -> str:
    number, description = header.text("SeriesNumber"), header.text("SeriesDescription")
    return f"Series {number}" + (f" ({description})" if description else "") if number else description or "A series"
