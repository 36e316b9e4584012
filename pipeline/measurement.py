"""All that is measured of one lesion: its margin, how sure that is, and where in organ and body its thin place lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.assessment import Margin, Reason, ScarcePlace, SurfaceError
from pipeline.carried import CarriedTumor
from pipeline.case import Case, Lesion, Point
from pipeline.coverage import measure_coverage
from pipeline.geometry import FloatArray
from pipeline.location import DEEP_MM, Location, locate, midline_x_mm
from pipeline.margin import MarginMap, measure_margin
from pipeline.organ_edge import closed_organ, depth_below_mm, organ_limited_mm, required_here_mm
from pipeline.organ_edge_seen import BEYOND_MM, edge_unseen
from pipeline.segment import Zone
from pipeline.surface import Surface, level_of_mask
from pipeline.transform import sample_distance
from pipeline.uncertainty import EdgeError, margin_uncertainty
from pipeline.volume import Mask

#: Less of the tumor's surface is not worth a sentence; this project's own choice.
LEAST_TOLD = 0.01
#: A vessel this near to the zone's edge counts as touching it: about what registration and drawing may be off.
VESSEL_TOUCHES_MM = 2.0


@dataclass(frozen=True, eq=False)
class Measurement:
    """tumor: its surface on the follow-up. remarks: what a reader should know beside the verdict."""

    margin: Margin
    tumor: Surface
    registration_error: SurfaceError
    remarks: tuple[Reason, ...]


def measure_lesion(case: Case, lesion: Lesion, zone: Zone, carried: CarriedTumor) -> Measurement:
    """The margin on the follow-up between the lesion's tumor, carried there, and its zone."""
    tumor, planned, errors = carried.here, carried.planned, carried.errors
    zone_level = level_of_mask(zone.mask)
    margins = measure_margin(tumor, zone_level)
    coverage = measure_coverage(carried.level, tumor, zone_level, carried.baseline_from_followup)
    at = margins.thinnest
    edge = _organ_edge(case, lesion, margins, planned.vertices_lps_mm)
    drawn = EdgeError.of(zone, lesion.tumor)
    unsure = margin_uncertainty(margins, errors, drawn, required_mm=edge.required_mm)
    low, high = unsure.interval_mm
    remarks = edge.remarks + _vessel(margins, planned.vertices_lps_mm, case.plan.vessel_mask, lesion)
    if zone.if_core is not None:
        filled = measure_margin(tumor, level_of_mask(zone.if_core))
        if_core = margin_uncertainty(filled, errors, drawn, required_mm=edge.required_mm)
        high = max(high, if_core.interval_mm[1])
        remarks += (_perhaps_core(zone.if_core.volume_ml - zone.mask.volume_ml, filled.minimal_margin_mm),)
    vertices = tumor.vertices_lps_mm
    middle, midline = vertices.mean(0), midline_x_mm(case.followup.volume)

    def location(n: int) -> Location:
        depth = None if edge.depth_mm is None else float(edge.depth_mm[n])
        return locate(vertices[n], seen_from_lps_mm=middle, midline_x_mm=midline, depth_mm=depth)

    scarcest = None
    if edge.scarcest is not None:
        n = edge.scarcest
        there = float(margins.distance_mm[n]), float(edge.required_mm[n])
        scarcest = ScarcePlace(_point(vertices[n]), *there, location(n))
    margin = Margin(
        minimal_margin_mm=margins.minimal_margin_mm,
        minimal_margin_interval_mm=(low, high),
        minimal_margin_point_lps_mm=_point(vertices[at]),
        tumor_volume_ml=coverage.tumor_ml,
        zone_volume_ml=zone.mask.volume_ml,
        covered_fraction=coverage.fraction,
        uncovered_volume_ml=coverage.uncovered_ml,
        surface_fraction_below_0mm=margins.surface_fraction_below(0.0),
        surface_fraction_below_5mm=margins.surface_fraction_below(5.0),
        probability_below_0mm=unsure.probability_below_0mm,
        probability_below_required=unsure.probability_below_required,
        organ_limited_margin_mm=edge.limited_mm,
        organ_limited_surface_fraction=edge.surface_fraction,
        scarcest=scarcest,
        location=location(at),
    )
    at_thinnest = float(errors.expected_mm(tumor.vertices_lps_mm[[at]])[0])
    error = SurfaceError(carried.places_lps_mm, carried.expected_error_mm, at_thinnest)
    return Measurement(margin, tumor, error, remarks)


@dataclass(frozen=True, eq=False)
class _OrganEdge:
    """What the organ's edge makes of the required margin. required_mm: (n,) asked for at each point of the surface;
    scarcest: the number of the point where most of it is missing."""

    required_mm: FloatArray
    depth_mm: FloatArray | None = None
    limited_mm: float | None = None
    surface_fraction: float | None = None
    scarcest: int | None = None
    remarks: tuple[Reason, ...] = ()


def _organ_edge(case: Case, lesion: Lesion, margins: MarginMap, planned: FloatArray) -> _OrganEdge:
    """planned: (n, 3) the surface's points in the baseline."""
    required = lesion.required_margin_mm
    if case.plan.organ_mask is None:
        return _OrganEdge(np.full(len(planned), required))
    tumors = [x.tumor for x in case.plan.lesions]
    baseline, reach = case.plan.baseline, max(DEEP_MM, required)
    whole = closed_organ(case.plan.organ_mask, tumors, planned, scan=baseline.geometry, reach_mm=reach + BEYOND_MM[1])
    depth = depth_below_mm(whole, planned, reach_mm=reach)
    near, unseen = depth < required, np.zeros(len(planned), bool)
    unseen[near] = edge_unseen(baseline, whole, tumors, planned[near], reach_mm=required)
    seen_mm = np.where(unseen, reach, depth)
    limited = organ_limited_mm(margins, seen_mm, required)
    scarcest = int(np.argmin(limited))
    return _OrganEdge(
        required_mm=required_here_mm(seen_mm, required),
        depth_mm=depth,
        limited_mm=float(limited[scarcest]),
        surface_fraction=margins.tumor.area_fraction(seen_mm < required),
        scarcest=scarcest,
        remarks=_not_seen(margins.tumor.area_fraction(unseen)),
    )


def _not_seen(surface_fraction: float) -> tuple[Reason, ...]:
    """A remark where an edge of the organ mask does not count, since the baseline does not show it."""
    if surface_fraction < LEAST_TOLD:
        return ()
    text = (
        f"At {surface_fraction:.0%} of the tumor's surface the plan's organ mask ends nearby, but what lies beyond is "
        "as bright as the organ in the baseline: the full margin is required there; check the mask."
    )
    return (Reason("organ_edge_not_seen", text),)


def _point(place_lps_mm: FloatArray) -> Point:
    x, y, z = (float(v) for v in place_lps_mm)
    return x, y, z


def _perhaps_core(volume_ml: float, margin_mm: float) -> Reason:
    text = (
        f"{volume_ml:.2f} ml inside the zone are brighter than it but darker than the organ: taken for tumor, though "
        f"they may be coagulated core. The margin would then be {margin_mm:.1f} mm; the interval allows for both."
    )
    return Reason("tumor_or_core_in_zone", text)


def _vessel(margins: MarginMap, planned: FloatArray, vessels: Mask | None, lesion: Lesion) -> tuple[Reason, ...]:
    """A remark where the margin is thin and a vessel touches the zone's edge there."""
    if vessels is None:
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
