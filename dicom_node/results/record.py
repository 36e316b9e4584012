"""The result as one document: what `assessment.json` holds."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from typing import Any

from dicom_node.notice import RADIOLOGIST_DECIDES
from dicom_node.study import StudyCase
from pipeline.assessment import Assessment, Finding, LesionAssessment, Margin, Reason, ScarcePlace, SurfaceError

SCHEMA = "marginwatch/assessment/1"


def software_version() -> str:
    """The version of this software as installed."""
    return version("marginwatch")


def record_of(
    assessment: Assessment,
    study: StudyCase,
    *,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The `assessment.json` document without its timing; every number in it is finite or null.

    settings: everything set that the result depends on.
    """
    quality = assessment.registration.quality
    document = {
        "schema": SCHEMA,
        "notice": RADIOLOGIST_DECIDES,
        "patient_id": study.patient_id,
        "plan_id": study.case.plan.plan_id,
        "study_instance_uid": study.study_instance_uid,
        "series_instance_uid": study.series_instance_uid,
        "days_since_procedure": assessment.days_since_procedure,
        "acquired": study.case.followup.acquired.isoformat(),
        "organ": study.case.plan.organ,
        "energy": study.case.plan.energy,
        "outcome": assessment.outcome,
        "needs_review": assessment.needs_review,
        "reasons": reasons_record(assessment.reasons),
        "registration": {
            "accepted": quality.accepted,
            "expected_error_mm": quality.expected_error_mm,
            "minimum_jacobian": quality.minimum_jacobian,
            "reasons": reasons_record(quality.reasons),
        },
        "lesions": [_lesion(lesion) for lesion in assessment.lesions],
        "series_choice": {
            "series_instance_uid": study.choice.series_instance_uid,
            "description": study.choice.series_description,
            "phase": study.choice.phase,
            "reason": study.choice.reason,
            "considered": list(study.choice.considered),
        },
        "notes": reasons_record(study.notes),
        "baseline": {
            "study_instance_uid": study.baseline_study_instance_uid,
            "series_instance_uid": study.baseline_series_instance_uid,
        },
        "provenance": {
            "software_version": software_version(),
            "weights_sha256": None,
            "settings_sha256": settings_sha256(settings),
        },
    }
    return finite(document)


def finite(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same document with numpy scalars as plain numbers, six decimals, and null for what is not a number."""
    found: dict[str, Any] = _finite(dict(document))
    return found


def settings_sha256(settings: Mapping[str, Any]) -> str:
    """The hash of the settings as canonical JSON."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def reasons_record(reasons: Sequence[Reason]) -> list[dict[str, str]]:
    """Reasons as they stand in a document."""
    return [{"code": reason.code, "text": reason.text} for reason in reasons]


def _lesion(lesion: LesionAssessment) -> dict[str, Any]:
    simulated = lesion.simulated_zone
    return {
        "lesion_id": lesion.lesion_id,
        "outcome": lesion.outcome,
        "reasons": reasons_record(lesion.reasons),
        "required_margin_mm": lesion.required_margin_mm,
        **_margin(lesion.margin),
        "registration_error_mm": _error(lesion.registration_error),
        "tissue_contraction_mm": lesion.tissue_contraction_mm,
        "simulated_zone": None
        if simulated is None
        else {
            "volume_ml": simulated.volume_ml,
            "dice": simulated.dice,
            "minimal_margin_mm": simulated.minimal_margin_mm,
            "predicted": simulated.predicted,
        },
        "findings": [_finding(finding) for finding in lesion.findings],
    }


def _margin(margin: Margin | None) -> dict[str, Any]:
    values = {field.name: getattr(margin, field.name, None) for field in fields(Margin)}
    place, scarce = values.pop("location"), values.pop("scarcest")
    values["minimal_margin_location"] = None if place is None else place.text
    values["minimal_margin_depth_in_organ_mm"] = None if place is None else place.distance_to_capsule_mm
    values["organ_limited_place"] = None if scarce is None else _scarce(scarce)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _scarce(place: ScarcePlace) -> dict[str, Any]:
    return {
        "point_lps_mm": list(place.point_lps_mm),
        "margin_mm": place.margin_mm,
        "required_mm": place.required_mm,
        "location": place.location.text,
        "depth_in_organ_mm": place.location.distance_to_capsule_mm,
    }


def _error(error: SurfaceError | None) -> dict[str, float] | None:
    """What the registration may be off at the tumor's surface."""
    if error is None:
        return None
    return {
        "mean": float(error.each_mm.mean()),
        "maximum": float(error.each_mm.max()),
        "at_minimal_margin": error.at_minimal_margin_mm,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "centroid_lps_mm": list(finding.centroid_lps_mm),
        "volume_ml": finding.volume_ml,
        "longest_diameter_mm": finding.longest_diameter_mm,
    }


def _finite(value: Any) -> Any:
    """The same document with numpy scalars as plain numbers, six decimals, and null for what is not a number."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        items = [_finite(item) for item in value]
        return None if any(item is None for item in items) else items
    if isinstance(value, (str, bool)) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "item"):
        return _finite(value.item())
    return round(float(value), 6) if math.isfinite(value) else None
