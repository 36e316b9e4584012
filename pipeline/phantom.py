"""A made liver patient with exact answers: plan, baseline and follow-ups, for the demo, tests and a site's own check.

Everything is drawn in the baseline's coordinates by formula; a follow-up is drawn by mapping each of its points to the
baseline with a known motion, so that masks, margins and corresponding points are exact and not measured on voxels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from pipeline.case import Applicator, Case, FollowUp, Lesion, Outcome, Plan, Point, ProtocolPhase
from pipeline.geometry import FloatArray, Geometry, frozen
from pipeline.phantom_body import Body, Phase, Plane, Scan, Sheet, blended, level_hu, made_body, noise_hu, render
from pipeline.phantom_shape import Blob, Dented, Motion, least_margin, surface_points, volume_grid
from pipeline.phantom_spec import FollowUpSpec, Grid, PhantomSpec
from pipeline.volume import Mask, Volume


@dataclass(frozen=True, eq=False)
class Truth:
    """What is exactly so at one follow-up; masks on its grid, points and margin in its frame.

    landmarks: (300, 3) each, points of the liver within 40 mm of the zone's center and where they lie in the baseline.
    """

    expected: Outcome
    baseline_from_followup: Motion
    zone: Mask
    tumor: Mask
    nodules: Mask
    minimal_margin_mm: float
    minimal_margin_point_lps_mm: Point
    tumor_volume_ml: float
    zone_volume_ml: float
    covered_fraction: float
    uncovered_volume_ml: float
    landmarks_followup_lps_mm: FloatArray
    landmarks_baseline_lps_mm: FloatArray


@dataclass(frozen=True, eq=False)
class PhantomFollowUp:
    """One follow-up as made; patient_id: the name that its scan bears."""

    followup: FollowUp
    patient_id: str
    truth: Truth

    @property
    def volume(self) -> Volume:
        return self.followup.volume


@dataclass(frozen=True, eq=False)
class Phantom:
    """A made patient: the plan with its baseline, and follow-ups in time order with the truth about each."""

    spec: PhantomSpec
    plan: Plan
    followups: tuple[PhantomFollowUp, ...]

    def case(self, number: int = 0) -> Case:
        """The case of one follow-up, without what earlier ones found."""
        return Case(self.plan, self.followups[number].followup)


def make_phantom(spec: PhantomSpec) -> Phantom:
    """Draws the patient. Some two seconds for a small one, under a minute and 600 MB for a full-size one."""
    body = made_body(spec.seed)
    geometry = spec.baseline_grid.geometry(frame_uid(spec, 0))
    scan = _scan(spec.baseline_grid, "portal_venous", 1.0, 1.0)

    def overlay(points: Plane, hu: Plane, liver: Plane) -> Plane:  # noqa: ARG001
        box = _around(points, spec.tumor)
        hu[box] = blended(hu[box], spec.tumor.depth_mm(points[box]), _tumor_hu(spec, scan), scan.edge_mm)
        return hu

    clean = render(geometry, body, scan, baseline_from=lambda points: points, overlay=overlay)
    baseline = _volume(clean, geometry, spec.baseline_noise_hu, spec.seed * 100)
    organ = Mask(body.liver_depth_mm(geometry.grid_lps().astype(np.float32)) > 0, geometry)
    zone = None if spec.simulated_zone is None else _mask(spec.simulated_zone, geometry)
    lesion = Lesion(
        "L1", spec.required_margin_mm, _mask(spec.tumor, geometry), zone, _applicators(spec.tumor), PROTOCOL
    )
    plan = Plan(f"{spec.patient_id}-plan", "liver", "cryoablation", spec.procedure_date, baseline, (lesion,), organ)
    return Phantom(spec, plan, tuple(_followup(spec, number) for number in range(len(spec.followups))))


#: Two freezes with a passive thaw between them, the usual liver cryoablation.
PROTOCOL = (ProtocolPhase("freeze", 600.0), ProtocolPhase("thaw", 480.0), ProtocolPhase("freeze", 600.0))


def frame_uid(spec: PhantomSpec, scan: int) -> str:
    """The frame of reference of a scan: 0 the baseline, then the follow-ups; always the same for the same phantom."""
    digest = hashlib.sha256(
        f"marginwatch phantom {spec.name} {spec.seed} {spec.patient_id} {spec.baseline_grid.shape} {scan}".encode()
    )
    return f"2.25.{int(digest.hexdigest()[:30], 16)}"


def truth_of(spec: PhantomSpec, number: int) -> Truth:
    """The truth about a follow-up, worked out from the formulas alone."""
    made = spec.followups[number]
    motion, shape = made.motion, made.shape
    geometry = made.grid.geometry(frame_uid(spec, number + 1))

    def zone(points: FloatArray) -> FloatArray:
        return shape.depth_mm(motion(points))

    def tumor(points: FloatArray) -> FloatArray:
        return spec.tumor.depth_mm(motion(points))

    tumor_surface = motion.inverse(_surface(Dented(spec.tumor), 15_000))
    zone_surface = motion.inverse(_surface(shape, 40_000))
    margin_mm, margin_point = least_margin(tumor_surface, zone_surface, zone)
    fine = volume_grid(tumor_surface.min(0) - 1, tumor_surface.max(0) + 1, 0.5)
    in_tumor = fine[tumor(fine) > 0]
    covered = float((zone(in_tumor) > 0).mean())
    coarse = volume_grid(zone_surface.min(0) - 1, zone_surface.max(0) + 1, 0.8)
    landmarks = _landmarks(spec, made)
    nodules = np.zeros(geometry.shape, bool)
    for nodule in made.nodules:
        nodules |= _mask(nodule, geometry, motion).voxels
    tumor_ml = len(in_tumor) * 0.5**3 / 1000
    return Truth(
        expected=made.expected,
        baseline_from_followup=motion,
        zone=_mask(shape, geometry, motion),
        tumor=_mask(spec.tumor, geometry, motion),
        nodules=Mask(nodules, geometry),
        minimal_margin_mm=margin_mm,
        minimal_margin_point_lps_mm=_point(margin_point),
        tumor_volume_ml=tumor_ml,
        zone_volume_ml=float((zone(coarse) > 0).sum()) * 0.8**3 / 1000,
        covered_fraction=covered,
        uncovered_volume_ml=tumor_ml * (1 - covered),
        landmarks_followup_lps_mm=frozen(motion.inverse(landmarks)),
        landmarks_baseline_lps_mm=frozen(landmarks),
    )


def _followup(spec: PhantomSpec, number: int) -> PhantomFollowUp:
    made = spec.followups[number]
    own_body = made.other_body_seed is None
    body = made_body(spec.seed) if own_body else _other_body(made.other_body_seed or 0)
    geometry = made.grid.geometry(frame_uid(spec, number + 1))
    scan = _scan(made.grid, made.phase, made.contrast_scale, made.vessel_scale)
    liver_hu = level_hu("liver", made.phase, made.contrast_scale)

    def lesion(points: Plane, hu: Plane, liver: Plane) -> Plane:
        zone = made.shape.depth_mm(points)
        hu = blended(hu, spec.tumor.depth_mm(points), _tumor_hu(spec, scan), scan.edge_mm)
        rim = np.minimum(zone + made.rim_mm, liver)
        hu = blended(hu, rim, liver_hu + (made.rim_hu if made.phase != "unenhanced" else 0.0), scan.edge_mm)
        core = made.zone.scaled(0.5).depth_mm(points)
        hu = blended(hu, zone, made.zone_hu + made.core_hu * np.clip(core / 4 + 0.5, 0, 1), scan.edge_mm)
        for nodule in made.nodules:
            value = level_hu("nodule", made.phase, made.contrast_scale)
            hu = blended(hu, nodule.depth_mm(points), value, scan.edge_mm)
        return hu

    def overlay(points: Plane, hu: Plane, liver: Plane) -> Plane:
        box = _around(points, spec.tumor, made.zone, *made.nodules)
        if hu[box].size:
            hu[box] = lesion(points[box], hu[box], liver[box])
        return hu

    clean = render(geometry, body, scan, baseline_from=made.motion, overlay=overlay)
    volume = _volume(clean, geometry, made.noise_hu, spec.seed * 100 + number + 1)
    if made.mr_like:
        volume = _mr_like(volume, spec.seed)
    acquired = spec.procedure_date + timedelta(days=made.days_since_procedure)
    return PhantomFollowUp(
        FollowUp(acquired, volume, made.phase), made.patient_id or spec.patient_id, truth_of(spec, number)
    )


def _other_body(seed: int) -> Body:
    body = made_body(seed)
    return Body(body.scale * (0.82, 0.86, 0.78), body.lobes, body.organs, body.vessels, body.texture)


def _scan(grid: Grid, phase: Phase, contrast_scale: float, vessel_scale: float) -> Scan:
    edge_mm = max(1.1, grid.spacing_mm[1])
    return Scan(phase, contrast_scale, vessel_scale, edge_mm, sub_slices=2 if grid.spacing_mm[0] < 4 else 3)


def _volume(clean: Plane, geometry: Geometry, sd_hu: float, seed: int) -> Volume:
    clean += noise_hu(geometry, sd_hu, seed)
    return Volume(np.clip(np.round(clean), -1024, 3071).astype(np.int16), geometry, "ct_hu")


def _mr_like(volume: Volume, seed: int) -> Volume:
    """The scan in other grays: fat bright, blood brighter than liver, bone dark, and a slow slope over all."""
    hu = volume.voxels.astype(np.float32)
    signal = np.interp(hu, [-1000, -150, -80, 0, 60, 110, 170, 300, 1000], [0, 60, 420, 120, 180, 260, 340, 200, 20])
    rng = np.random.default_rng([seed, 19])
    for axis in range(3):
        along = np.linspace(-1, 1, hu.shape[axis]) * np.pi / 2 + rng.uniform(-1, 1)
        shape = [1, 1, 1]
        shape[axis] = -1
        signal *= 1 + 0.15 * np.sin(along).reshape(shape)
    return Volume(signal.astype(np.float32), volume.geometry, "mr_signal")


def _tumor_hu(spec: PhantomSpec, scan: Scan) -> float:
    liver, tumor = (level_hu(t, scan.phase, scan.contrast_scale) for t in ("liver", "tumor"))
    return liver + spec.tumor_scale * (tumor - liver)


def _around(points: Plane, *blobs: Blob) -> tuple[slice, slice]:
    centers = np.array([blob.center_lps_mm for blob in blobs])
    reach = np.array([[max(blob.radii_mm) + 2 * blob.bump_mm + 5] for blob in blobs])
    return Sheet(points).box((centers - reach).min(0), (centers + reach).max(0))


def _mask(shape: Blob | Dented, geometry: Geometry, motion: Motion | None = None) -> Mask:
    """The region on a grid; only the box that holds it is looked at."""
    blob = shape.blob if isinstance(shape, Dented) else shape
    reach = max(blob.radii_mm) + 2 * blob.bump_mm
    center = np.array(blob.center_lps_mm)
    corners = center + np.array(np.meshgrid(*[(-reach, reach)] * 3)).reshape(3, -1).T
    box = geometry.box_around(corners if motion is None else motion.inverse(corners), pad_mm=8.0)
    voxels = np.zeros(geometry.shape, bool)
    if min(s.stop - s.start for s in box) < 1:  # a scan of another region
        return Mask(voxels, geometry)
    points = geometry.crop([s.start for s in box], [s.stop for s in box]).grid_lps()
    voxels[box] = shape.depth_mm(points if motion is None else motion(points)) > 0
    return Mask(voxels, geometry)


def _surface(shape: Dented, count: int) -> FloatArray:
    reach = 1.5 * max(shape.blob.radii_mm)
    return surface_points(shape.depth_mm, shape.blob.center_lps_mm, reach_mm=reach, count=count)


def _landmarks(spec: PhantomSpec, made: FollowUpSpec) -> FloatArray:
    rng = np.random.default_rng([spec.seed, 300])
    tries = rng.uniform(-40, 40, (6000, 3))
    tries = tries[np.linalg.norm(tries, axis=1) < 40] + np.array(made.zone.center_lps_mm)
    inside = made_body(spec.seed).liver_depth_mm(tries) > 2
    seen = made.grid.geometry("0").contains(made.motion.inverse(tries))
    return np.asarray(tries[inside & seen & spec.baseline_grid.geometry("0").contains(tries)][:300])


def _applicators(tumor: Blob) -> tuple[Applicator, ...]:
    """Two parallel probes, 16 mm apart, from the right front; their active parts lie around the tumor's center."""
    center, shaft = np.array(tumor.center_lps_mm), np.array([-0.55, -0.71, 0.44])
    shaft /= np.linalg.norm(shaft)
    beside = np.cross(shaft, (0.0, 0.0, 1.0))
    beside /= np.linalg.norm(beside)
    tips = [center - 18.0 * shaft + side * beside for side in (-8.0, 8.0)]
    return tuple(Applicator("IceForce", _point(tip), _point(tip + 105.0 * shaft)) for tip in tips)


def _point(values: Any) -> Point:
    return float(values[0]), float(values[1]), float(values[2])
