"""All that is measured of one lesion: its margin, how sure that is, and where in organ and body its thin place lies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.assessment import Margin, Reason, RegistrationQuality
from pipeline.case import Case, Lesion
from pipeline.coverage import measure_coverage
from pipeline.geometry import FloatArray
from pipeline.location import DEEP_MM, locate, midline_x_mm
from pipeline.margin import MarginMap, measure_margin
from pipeline.organ_edge import organ_depth_mm, organ_limited_mm
from pipeline.segment import Zone
from pipeline.surface import Surface, level_of_mask
from pipeline.transform import Transform, sample_distance
from pipeline.uncertainty import margin_sd_mm
from pipeline.volume import Mask

#: A tumor of 1 cm that touches the capsule has half of its surface within 5 mm of it. Of one that seems to lie nearly
#: whole at the edge, the organ's mask is doubted and its full margin asked for.
MOST_AT_EDGE = 0.75
#: A vessel this near to the zone's edge counts as touching it: about what registration and drawing may be off.
VESSEL_TOUCHES_MM = 2.0


@dataclass(frozen=True, eq=False)
class Measurement:
    """tumor: its surface on the follow-up. remarks: what a reader should know beside the verdict."""

    margin: Margin
    tumor: Surface
    remarks: tuple[Reason, ...]


def measure_lesion(
    case: Case, lesion: Lesion, zone: Zone, baseline_from_followup: Transform, quality: RegistrationQuality
) -> Measurement:
    """The margin on the follow-up between the tumor carried there and its zone."""
    level = level_of_mask(lesion.tumor)
    planned = level.surface()
    tumor = Surface(baseline_from_followup.inverse_points(planned.vertices_lps_mm), planned.faces)
    zone_level = level_of_mask(zone.mask)
    margins = measure_margin(tumor, zone_level)
    coverage = measure_coverage(level, tumor, zone_level, baseline_from_followup)
    value = margins.minimal_margin_mm
    half = 1.96 * margin_sd_mm(zone.intensities, zone.mask.geometry, quality.expected_error_mm or 0.0)
    x, y, z = tumor.vertices_lps_mm[margins.thinnest]
    margin = Margin(
        minimal_margin_mm=value,
        minimal_margin_interval_mm=(value - half, value + half),
        minimal_margin_point_lps_mm=(float(x), float(y), float(z)),
        tumor_volume_ml=coverage.tumor_ml,
        zone_volume_ml=zone.mask.volume_ml,
        covered_fraction=coverage.fraction,
        uncovered_volume_ml=coverage.uncovered_ml,
        surface_fraction_below_0mm=margins.surface_fraction_below(0.0),
        surface_fraction_below_5mm=margins.surface_fraction_below(5.0),
    )
    placed = _placed(margin, margins, planned.vertices_lps_mm, case, lesion)
    return Measurement(placed, tumor, _vessel(margins, planned.vertices_lps_mm, case.plan.vessel_mask, lesion))


def _placed(margin: Margin, margins: MarginMap, planned: FloatArray, case: Case, lesion: Lesion) -> Margin:
    """The margin with its place in organ and body. planned: (n, 3) the surface's points in the baseline."""
    depth = None
    if case.plan.organ_mask is not None and not case.plan.organ_mask.is_empty:
        reach = max(DEEP_MM, lesion.required_margin_mm)
        depth = organ_depth_mm(case.plan.organ_mask, lesion.tumor, planned, reach_mm=reach)
    location = locate(
        np.array(margin.minimal_margin_point_lps_mm),
        seen_from_lps_mm=margins.tumor.vertices_lps_mm.mean(0),
        midline_x_mm=midline_x_mm(case.followup.volume),
        depth_mm=None if depth is None else float(depth[margins.thinnest]),
    )
    if depth is None:
        return replace(margin, location=location)
    at_edge = replace(margins, distance_mm=depth).surface_fraction_below(lesion.required_margin_mm)
    limited = None
    if at_edge <= MOST_AT_EDGE:
        limited = float(organ_limited_mm(margins, depth, lesion.required_margin_mm).min())
    return replace(margin, location=location, organ_limited_margin_mm=limited, organ_limited_surface_fraction=at_edge)


def _vessel(margins: MarginMap, planned: FloatArray, vessels: Mask | None, lesion: Lesion) -> tuple[Reason, ...]:
    """A remark where the margin is thin and a vessel touches the zone's edge there."""
    if vessels is None or vessels.is_empty:
        return ()
    away = -sample_distance(vessels, planned)
    edge = np.maximum(margins.distance_mm, 0.0)
    thin = (margins.distance_mm < lesion.required_margin_mm) & (away <= edge + VESSEL_TOUCHES_MM)
    if not thin.any():
        return ()
    least = float(margins.distance_mm[thin].min())
    text = (
        f"A vessel of the plan runs at the ablation zone where the margin is thin ({least:.1f} mm of "
        f"{lesion.required_margin_mm:.1f} mm): blood flow there works against the ablation."
    )
    return (Reason("vessel_at_thin_margin", text),)
