"""The point of a lesion that a reader must see first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dicom_node.results.legend import FINDING_NAMES, millimeters
from pipeline.assessment import Finding, LesionAssessment
from pipeline.case import Point


@dataclass(frozen=True)
class Focus:
    """Where to look, what is written beside the ring, what the ring stands for, and its radius if it has a size."""

    point_lps_mm: Point
    label: str
    meaning: str
    radius_mm: float | None = None


def focus_of(lesion: LesionAssessment) -> Focus | None:
    """The largest suspicious finding where that decided the verdict; where a narrow margin did, the point where most of
    the required margin is missing; else the point of the least margin, else None."""
    margin = lesion.margin
    suspicious = suspicious_finding(lesion)
    if suspicious is not None and (margin is None or _decides(lesion)):
        name = FINDING_NAMES[suspicious.kind]
        around = 0.6 * suspicious.longest_diameter_mm
        return Focus(suspicious.centroid_lps_mm, f"{name}\n{suspicious.volume_ml:.1f} ml", "the finding", around)
    if margin is None or not np.isfinite((*margin.minimal_margin_point_lps_mm, margin.minimal_margin_mm)).all():
        return None
    place = margin.scarcest
    if place is not None and any(reason.code == "margin_below_required" for reason in lesion.reasons):
        meaning = "the point where most of the required margin is missing"
        return Focus(place.point_lps_mm, millimeters(place.margin_mm), meaning)
    return Focus(
        margin.minimal_margin_point_lps_mm, millimeters(margin.minimal_margin_mm), "the point of the least margin"
    )


def suspicious_finding(lesion: LesionAssessment) -> Finding | None:
    """The largest finding of enhancing or growing tissue; uncovered tumor is what the margin already says."""
    found = [finding for finding in lesion.findings if finding.kind != "uncovered_tumor"]
    return max(found, key=lambda finding: finding.volume_ml, default=None)


def _decides(lesion: LesionAssessment) -> bool:
    if lesion.outcome == "local_progression":
        return True
    covered = lesion.margin is not None and lesion.margin.minimal_margin_mm >= 0
    return lesion.outcome == "incomplete_coverage" and covered
