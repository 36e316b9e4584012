"""What comes out of an assessment: values only, in the follow-up's frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.case import Outcome, Point
from pipeline.geometry import FloatArray
from pipeline.location import Location
from pipeline.transform import Transform
from pipeline.volume import Mask

FindingKind = Literal["residual_tumor", "new_enhancement", "zone_growth", "uncovered_tumor"]

#: Most urgent first; the outcome of a study is the most urgent of its lesions'.
URGENCY: tuple[Outcome, ...] = (
    "local_progression",
    "incomplete_coverage",
    "not_assessable",
    "narrow_margin",
    "complete",
)


@dataclass(frozen=True)
class Reason:
    """Why: a stable code (lower_snake_case) and one plain sentence."""

    code: str
    text: str


@dataclass(frozen=True)
class RegistrationQuality:
    """Whether the registration may be trusted. expected_error_mm: mean over the tumor's surface; None when refused
    early."""

    accepted: bool
    expected_error_mm: float | None
    minimum_jacobian: float | None
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, eq=False)
class Registration:
    """Maps a follow-up LPS point to the baseline LPS point (None when no transform could be found at all)."""

    baseline_from_followup: Transform | None
    quality: RegistrationQuality


@dataclass(frozen=True)
class ScarcePlace:
    """Where most is missing of the margin that is required, no more being required than there is organ.

    margin_mm: as measured there; required_mm: required there; location: as seen from the tumor's middle.
    """

    point_lps_mm: Point
    margin_mm: float
    required_mm: float
    location: Location


@dataclass(frozen=True)
class Margin:
    """The signed ablative margin of one lesion: least distance from tumor surface to zone surface, positive inside.

    Fractions of the tumor surface are weighted by area; the interval is 95 %. organ_limited_margin_mm: the least margin
    with what the organ's edge makes impossible credited, None where the plan has no organ mask or one that is doubted.
    """

    minimal_margin_mm: float
    minimal_margin_interval_mm: tuple[float, float]
    minimal_margin_point_lps_mm: Point
    tumor_volume_ml: float
    zone_volume_ml: float
    covered_fraction: float
    uncovered_volume_ml: float
    surface_fraction_below_0mm: float
    surface_fraction_below_5mm: float
    organ_limited_margin_mm: float | None = None
    organ_limited_surface_fraction: float | None = None
    """Share of the tumor's surface nearer to the organ's edge than the required margin."""
    scarcest: ScarcePlace | None = None
    """What decides with an organ mask; None where `organ_limited_margin_mm` is."""
    location: Location | None = None
    """Where the point of the least margin lies, as seen from the tumor's middle."""
    probability_below_0mm: float | None = None
    probability_below_required: float | None = None
    """That the true least margin, the organ's edge credited, is less than what is asked for."""

    @property
    def judged_mm(self) -> float:
        """What is held against the required margin."""
        return self.minimal_margin_mm if self.organ_limited_margin_mm is None else self.organ_limited_margin_mm


@dataclass(frozen=True)
class SimulatedZoneComparison:
    """The planned zone mapped onto the follow-up, against the segmented one. predicted: the plan brought none; it was
    simulated from applicators and protocol."""

    volume_ml: float
    dice: float
    minimal_margin_mm: float
    predicted: bool = False


@dataclass(frozen=True, eq=False)
class SurfaceError:
    """The registration's expected error at points all over the tumor's surface.

    points_lps_mm: (n, 3), in the follow-up's frame; each_mm: (n,) at those.
    """

    points_lps_mm: FloatArray
    each_mm: FloatArray
    at_minimal_margin_mm: float


@dataclass(frozen=True, eq=False)
class Finding:
    """Something a reader must look at; the point and the region are in the follow-up's frame."""

    kind: FindingKind
    centroid_lps_mm: Point
    volume_ml: float
    longest_diameter_mm: float


@dataclass(frozen=True, eq=False)
class LesionAssessment:
    """One lesion's answer. Masks lie on the follow-up's own grid; None where not assessable."""

    lesion_id: str
    outcome: Outcome
    required_margin_mm: float
    reasons: tuple[Reason, ...] = ()
    margin: Margin | None = None
    simulated_zone: SimulatedZoneComparison | None = None
    findings: tuple[Finding, ...] = ()
    zone: Mask | None = None
    tumor: Mask | None = None
    uncovered: Mask | None = None
    registration_error: SurfaceError | None = None
    tissue_contraction_mm: float | None = None
    """How far the zone's edge has moved inward with its tissue since the baseline, as the registration found it."""


@dataclass(frozen=True, eq=False)
class Assessment:
    """The answer for one follow-up."""

    outcome: Outcome
    needs_review: bool
    reasons: tuple[Reason, ...]
    days_since_procedure: int
    registration: Registration
    lesions: tuple[LesionAssessment, ...]
    timing_s: Mapping[str, float] = field(default_factory=dict)
