"""Pairs of scans of made patients for the registration benchmarks, with masks, rigid start and known partners."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pipeline.assess import NEAR_MM, ORGAN_RIM_MM, REGION_MM, TUMOR_CUT_MM, ZONE_CUT_MM
from pipeline.bias_field import evened
from pipeline.contraction import drawn_in_mm
from pipeline.geometry import FloatArray
from pipeline.phantom import Phantom
from pipeline.rigid import rigid_start
from pipeline.sampling import box_of, extent_of
from pipeline.transform import Transform, grown, identity, sample_distance
from pipeline.volume import Mask, Volume
from pipeline.where import Where

Map = Callable[[FloatArray], FloatArray]
"""From (n, 3) points of the follow-up to points of the baseline, LPS mm."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two scans, where the cost looks, the rigid start, points whose partners are known, and the true contraction.

    start_s: what evening out the scans and the start took.
    """

    name: str
    followup: Volume
    baseline: Volume
    where: Where
    start: Transform
    start_s: float
    points: FloatArray
    partners: FloatArray
    zone: Mask
    contraction_mm: float


def pair(phantom: Phantom, *, name: str) -> Pair:
    """The pair of a phantom's first follow-up, with the true lesion cut out."""
    made, plan = phantom.followups[0], phantom.plan
    truth, lesion = made.truth, plan.lesions[0]
    region = box_of(lesion.tumor.points_lps_mm())
    started = time.perf_counter()
    followup, baseline = evened(made.volume), evened(plan.baseline)
    start = rigid_start(followup, baseline, region=region)
    start_s = time.perf_counter() - started
    frame = made.volume.geometry.frame_uid
    inner = box_of(truth.zone.points_lps_mm())
    box = inner.grown(REGION_MM).meet(extent_of(made.volume.geometry))
    grid = box.grown(15.0).grid(2.0, frame)
    base = box_of(start(box.corners())).grown(20.0).grid(2.0, plan.baseline.geometry.frame_uid)
    where = Where(
        box=box,
        near=(inner.grown(NEAR_MM).meet(extent_of(made.volume.geometry)),),
        organ_moving=None
        if plan.organ_mask is None
        else grown([plan.organ_mask], base, identity(base.frame_uid), by_mm=ORGAN_RIM_MM),
        cut_moving=grown([lesion.tumor], base, identity(base.frame_uid), by_mm=TUMOR_CUT_MM),
        cut_fixed=grown([truth.zone | truth.tumor], grid, identity(frame), by_mm=ZONE_CUT_MM),
        zones=(truth.zone,),
    )
    points, partners = near_points(phantom)
    drawn_in = true_contraction_mm(truth.zone, truth.baseline_from_followup)
    return Pair(name, followup, baseline, where, start, start_s, points, partners, truth.zone, drawn_in)


def true_contraction_mm(zone: Mask, baseline_from_followup: Map) -> float:
    """What `contraction_mm` would be of the true map: a turn and a shift do not change volume."""
    points = zone.points_lps_mm()[::20]
    sides = np.stack([baseline_from_followup(points + e) - baseline_from_followup(points - e) for e in np.eye(3) / 4])
    return drawn_in_mm(zone, float(np.abs(np.linalg.det(np.moveaxis(sides, 0, -1) * 2.0)).mean()))


def swapped(work: Pair) -> Pair:
    """The same pair the other way round, from a rigid start of its own: the baseline is registered to the follow-up."""
    back = rigid_start(work.baseline, work.followup, region=box_of(work.zone.points_lps_mm()))
    return replace(
        work,
        followup=work.baseline,
        baseline=work.followup,
        where=work.where.swapped(back, work.baseline.geometry),
        start=back,
        points=work.partners,
        partners=work.points,
    )


def near_points(phantom: Phantom) -> tuple[FloatArray, FloatArray]:
    """(300, 3) liver points within 20 mm of the zone's edge, zone included, and their partners in the baseline."""
    made = phantom.followups[0]
    zone, organ = made.truth.zone, phantom.plan.organ_mask
    assert organ is not None
    box = box_of(zone.points_lps_mm()).grown(20.0)
    tries = np.random.default_rng(5).uniform(box.low, box.high, (6000, 3))
    there = made.truth.baseline_from_followup(tries)
    inside = sample_distance(zone, tries) > -20.0
    inside &= (sample_distance(organ, there) > 1.0) & made.volume.geometry.contains(tries)
    return tries[inside][:300], there[inside][:300]
