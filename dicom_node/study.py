"""A decoded case with what the results need to refer to: identities, the source images, how the series was chosen."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom import Dataset

from pipeline.assessment import Reason
from pipeline.case import Case, Plan
from pipeline.geometry import Geometry


@dataclass(frozen=True)
class SeriesChoice:
    """Which series of the follow-up study is assessed, and why."""

    series_instance_uid: str
    series_description: str
    phase: str
    reason: str
    """One plain sentence."""
    considered: tuple[str, ...] = ()
    """One line for every other series or acquisition: what it is and why it was not taken."""


@dataclass(frozen=True, eq=False)
class SourceImages:
    """What a result refers to as its images. headers: without pixel data, as `StudyCase.source_images`; geometry: of
    the volume read from them; match_grid: as `StudyCase.sources_match_grid`."""

    headers: tuple[Dataset, ...]
    geometry: Geometry
    match_grid: bool = True


@dataclass(frozen=True, eq=False)
class PlannedStudy:
    """A plan and the DICOM identity of its baseline, without any follow-up.

    sources: the baseline's images, None where nothing says which they are; has_baseline: False where an empty grid
    stands for the baseline scan.
    """

    plan: Plan
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    sources: SourceImages | None
    has_baseline: bool
    notes: tuple[Reason, ...] = ()


@dataclass(frozen=True, eq=False)
class StudyCase:
    """A `Case` and the DICOM identity of its follow-up.

    source_images: the chosen follow-up series' headers without pixel data, ordered as the volume's slices; a single
    item for an enhanced multi-frame object. sources_match_grid: False when the volume was resampled (gantry tilt), so
    that its slices are no longer those of the source images.
    """

    case: Case
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    baseline_study_instance_uid: str
    baseline_series_instance_uid: str
    choice: SeriesChoice
    source_images: tuple[Dataset, ...]
    sources_match_grid: bool = True
    notes: tuple[Reason, ...] = ()
    """Repairs made while decoding, and facts about the input that a reader should know."""

    @property
    def sources(self) -> SourceImages:
        """The follow-up's images."""
        return SourceImages(self.source_images, self.case.followup.volume.geometry, self.sources_match_grid)
