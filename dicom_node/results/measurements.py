"""The measurement groups of the structured report: one for each region and each finding of a lesion.

What was measured on a region refers to its segment (TID 1411); a lesion that could not be assessed gets a group
without a region (TID 1501), with its verdict and the reasons.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes as public
from pydicom.sr.coding import Code

from dicom_node import codes
from dicom_node.results.identifiers import MODEL, Identifiers
from dicom_node.results.legend import FINDING_NAMES
from dicom_node.results.segmentation import Segment
from pipeline.assessment import Finding, LesionAssessment, Margin
from pipeline.case import Plan

_REGION_FINDINGS: dict[str, Code] = {
    "zone": codes.ABLATION_ZONE,
    "tumor": codes.NEOPLASM,
    "uncovered": codes.UNCOVERED_TUMOR,
}


@dataclass(frozen=True, eq=False)
class Setting:
    """What all groups of one report share. segmentation: None where there was nothing to segment."""

    plan: Plan
    days_since_procedure: int
    series_instance_uid: str
    segmentation: Dataset | None
    segments: Sequence[Segment]
    identifiers: Identifiers


def groups_of(lesion: LesionAssessment, setting: Setting) -> Iterator[sr.Template]:
    """The groups of one lesion: its verdict with the margin first, then its other regions, then its findings."""
    segments = [segment for segment in setting.segments if segment.lesion_id == lesion.lesion_id]
    main = next((segment for segment in segments if segment.region == "tumor"), None) or next(iter(segments), None)
    verdict = _verdict(lesion)
    yield _group(lesion, setting, main, verdict, codes.NEOPLASM if main is None else None, evaluated=True)
    for segment in segments:
        if segment is not main:
            volume = [_measured(codes.VOLUME, segment.mask.volume_ml, codes.CUBIC_CENTIMETER)]
            yield _group(lesion, setting, segment, volume, None)
    for finding in lesion.findings:
        group = _group(lesion, setting, None, _size(finding), codes.FINDINGS[finding.kind])
        group[0].ContentSequence.append(comment(f"{FINDING_NAMES[finding.kind]} at {_place(finding)}"))
        yield group


def comment(text: str) -> sr.TextContentItem:
    """A sentence for the reader."""
    return sr.TextContentItem(codes.COMMENT, text, relationship_type=sr.RelationshipTypeValues.CONTAINS)


def _group(
    lesion: LesionAssessment,
    setting: Setting,
    segment: Segment | None,
    measurements: Sequence[sr.Measurement | None],
    finding: Code | None,
    *,
    evaluated: bool = False,
) -> sr.Template:
    shared = {
        "tracking_identifier": sr.TrackingIdentifier(
            setting.identifiers.tracking_uid(lesion.lesion_id), lesion.lesion_id
        ),
        "time_point_context": _time_point(setting),
        "algorithm_id": sr.AlgorithmIdentification(
            MODEL, setting.identifiers.software_version, family=public.DCM.ArtificialIntelligence
        ),
        "finding_sites": [sr.FindingSite(codes.ORGANS[setting.plan.organ])],
        "measurements": [item for item in measurements if item is not None] or None,
        "qualitative_evaluations": [sr.QualitativeEvaluation(codes.OUTCOME, codes.OUTCOMES[lesion.outcome])]
        if evaluated
        else None,
    }
    if segment is None or setting.segmentation is None:
        group = sr.MeasurementsAndQualitativeEvaluations(finding_type=finding, **shared)
    else:
        group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            finding_type=_REGION_FINDINGS[segment.region],
            referenced_segment=sr.ReferencedSegment(
                setting.segmentation.SOPClassUID,
                setting.segmentation.SOPInstanceUID,
                segment.number,
                source_series=sr.SourceSeriesForSegmentation(setting.series_instance_uid),
            ),
            **shared,
        )
    for reason in lesion.reasons if evaluated else ():
        group[0].ContentSequence.append(comment(reason.text))
    return group


def _time_point(setting: Setting) -> sr.TimePointContext:
    days = setting.days_since_procedure
    return sr.TimePointContext(
        time_point=f"{days} days after ablation",
        time_point_type=codes.POSTTREATMENT,
        temporal_offset_from_event=sr.LongitudinalTemporalOffsetFromEvent(
            days, codes.DAYS, codes.ENERGIES[setting.plan.energy]
        ),
    )


def _verdict(lesion: LesionAssessment) -> list[sr.Measurement | None]:
    required = _measured(codes.REQUIRED_MARGIN, lesion.required_margin_mm, codes.MILLIMETER)
    margin: Margin | None = lesion.margin
    if margin is None:
        return [required]
    (low, high), limited = margin.minimal_margin_interval_mm, margin.organ_limited_margin_mm
    return [
        _measured(codes.MINIMAL_MARGIN, margin.minimal_margin_mm, codes.MILLIMETER, codes.MINIMUM),
        _measured(codes.MINIMAL_MARGIN_LOW, low, codes.MILLIMETER),
        _measured(codes.MINIMAL_MARGIN_HIGH, high, codes.MILLIMETER),
        None if limited is None else _measured(codes.ORGAN_LIMITED_MARGIN, limited, codes.MILLIMETER),
        _probability(codes.PROBABILITY_BELOW_0MM, margin.probability_below_0mm),
        _probability(codes.PROBABILITY_BELOW_REQUIRED, margin.probability_below_required),
        required,
        _measured(codes.VOLUME, margin.tumor_volume_ml, codes.CUBIC_CENTIMETER),
        _measured(codes.UNCOVERED_VOLUME, margin.uncovered_volume_ml, codes.CUBIC_CENTIMETER),
        _measured(codes.COVERED_TUMOR, 100 * margin.covered_fraction, codes.PERCENT),
        _measured(codes.SURFACE_BELOW_0MM, 100 * margin.surface_fraction_below_0mm, codes.PERCENT),
        _measured(codes.SURFACE_BELOW_5MM, 100 * margin.surface_fraction_below_5mm, codes.PERCENT),
    ]


def _probability(name: Code, share: float | None) -> sr.Measurement | None:
    return None if share is None else _measured(name, 100 * share, codes.PERCENT)


def _size(finding: Finding) -> list[sr.Measurement | None]:
    return [
        _measured(codes.VOLUME, finding.volume_ml, codes.CUBIC_CENTIMETER),
        _measured(codes.LONGEST_DIAMETER, finding.longest_diameter_mm, codes.MILLIMETER),
    ]


def _place(finding: Finding) -> str:
    return "LPS ({:.1f}, {:.1f}, {:.1f}) mm".format(*finding.centroid_lps_mm)


def _measured(name: Code, value: float, unit: Code, derivation: Code | None = None) -> sr.Measurement | None:
    """The measurement, or None for a value that is not finite."""
    if not math.isfinite(value):
        return None
    return sr.Measurement(name, round(float(value), 3), unit, derivation=derivation)
