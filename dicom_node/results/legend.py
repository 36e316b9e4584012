"""How regions and verdicts are named, drawn and said, in every picture and report alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pipeline.assessment import Assessment, FindingKind, LesionAssessment, Margin, RegistrationQuality
from pipeline.case import Energy, Outcome

Region = Literal["zone", "tumor", "uncovered"]


@dataclass(frozen=True)
class Look:
    """A region's name and its color; lines differ as well as colors, for readers who cannot tell red from green."""

    label: str
    color: str


LOOKS: Mapping[Region, Look] = MappingProxyType(
    {
        "zone": Look("Ablation zone", "#3f9bff"),
        "tumor": Look("Index tumor", "#ffd60a"),
        "uncovered": Look("Uncovered tumor", "#ff3b30"),
    }
)

VERDICTS: Mapping[Outcome, str] = MappingProxyType(
    {
        "complete": "Complete coverage",
        "narrow_margin": "Covered, but with a narrow margin",
        "incomplete_coverage": "Tumor not completely covered",
        "local_progression": "Local progression suspected",
        "not_assessable": "Not assessable",
    }
)

VERDICT_COLORS: Mapping[Outcome, str] = MappingProxyType(
    {
        "complete": "#1b7f4b",
        "narrow_margin": "#b26a00",
        "incomplete_coverage": "#b3261e",
        "local_progression": "#b3261e",
        "not_assessable": "#4a5560",
    }
)

ENERGY_NAMES: Mapping[Energy, str] = MappingProxyType(
    {
        "cryoablation": "cryoablation",
        "radiofrequency": "radiofrequency ablation",
        "microwave": "microwave ablation",
    }
)

FINDING_NAMES: Mapping[FindingKind, str] = MappingProxyType(
    {
        "residual_tumor": "Residual enhancing tumor",
        "new_enhancement": "New enhancement",
        "zone_growth": "Growth of the zone",
        "uncovered_tumor": "Uncovered tumor",
    }
)


def millimeters(value: float | None) -> str:
    """A signed length with one decimal and a true minus sign; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.1f} mm".replace("-", "−")


def percent(share: float | None) -> str:
    """A probability in whole percent, never claimed as certain; a dash where there is none."""
    if share is None or not math.isfinite(share):
        return "–"
    return "<1 %" if share < 0.01 else ">99 %" if share > 0.99 else f"{100 * share:.0f} %"


def probability_sentence(margin: Margin) -> str:
    """How likely the true margin is below what matters."""
    below, required = percent(margin.probability_below_0mm), percent(margin.probability_below_required)
    return f"Probability that the true minimal margin is below 0 mm: {below}; below what is required: {required}."


def interval(lesion: LesionAssessment, *, short: bool = False) -> str:
    """The 95 % interval of the minimal margin; empty where there is none."""
    low, high = (math.nan, math.nan) if lesion.margin is None else lesion.margin.minimal_margin_interval_mm
    if not math.isfinite(low + high):
        return ""
    numbers = f"{low:.1f} to {high:.1f}".replace("-", "−")
    return numbers if short else f"95 % interval {numbers} mm"


def headline_number(assessment: Assessment) -> str:
    """The least of the minimal margins with its interval, and whose it is; or that none could be measured."""
    margins = [(lesion.margin.minimal_margin_mm, lesion) for lesion in assessment.lesions if lesion.margin is not None]
    measured = [pair for pair in margins if math.isfinite(pair[0])]
    if not measured:
        return "No margin could be measured"
    number, least = min(measured, key=lambda pair: pair[0])
    within = f" ({interval(least)})" if interval(least) else ""
    where = f", lesion {least.lesion_id}" if len(assessment.lesions) > 1 else ""
    return f"Minimal margin {millimeters(number)}{within}{where}"


def sentence(assessment: Assessment) -> str:
    """The verdict with its number and its time, as one plain sentence."""
    days = assessment.days_since_procedure
    return f"{VERDICTS[assessment.outcome]}, {days} days after ablation. {headline_number(assessment)}."


def registration_sentence(quality: RegistrationQuality) -> str:
    """How far the registration to the baseline may be trusted, in one sentence."""
    if not quality.accepted:
        why = " ".join(reason.text for reason in quality.reasons)
        return f"The registration to the baseline was not accepted. {why}".strip()
    if quality.expected_error_mm is None:
        return "The registration to the baseline was accepted."
    return f"The registration to the baseline was accepted; expected error {quality.expected_error_mm:.1f} mm."
