"""Families of phantoms that differ in what makes registration hard; each is drawn anew for every seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.case import Outcome, Point
from pipeline.geometry import FloatArray
from pipeline.phantom_body import Body, made_body
from pipeline.phantom_shape import Blob, Contraction, Motion, smooth_motion
from pipeline.phantom_spec import FollowUpSpec, Grid, PhantomSpec

#: Pairs of one patient. What differs is in the name.
FAMILIES = (
    "same_phase", "other_phase", "thick_slices", "unenhanced", "mr_like", "contraction", "far_motion", "near_capsule"
)  # fmt: skip
#: Pairs of one patient that differ in everything at once.
VARIED = "varied"
#: Pairs of one patient from easy to hopeless: what expected errors are held against.
GRADED = "graded"
#: Pairs of two regions of one body, which must be refused.
ANOTHER_REGION = "another_region"

_BASELINE = Grid((72, 320, 320), (2.5, 0.8, 0.8), (-50.0, -5.0, 5.0))
_FOLLOWUP = Grid((64, 310, 310), (2.8, 0.83, 0.83), (-47.0, -8.0, 2.0))
_THICK = Grid((36, 310, 310), (5.0, 0.83, 0.83), (-47.0, -8.0, 2.0))
_FULL = (
    Grid((120, 512, 512), (1.5, 0.74, 0.74), (0.0, 0.0, 0.0)),
    Grid((120, 512, 512), (1.5, 0.76, 0.76), (2.0, -3.0, -4.0)),
)


def family(name: str, seed: int, *, full: bool = False) -> PhantomSpec:
    """The phantom of a family (`FAMILIES`, `VARIED`, `GRADED`, `ANOTHER_REGION`) and a seed; tumor and margin vary too.

    full: 512 x 512 x 120 voxels instead of a field of view around the liver. Raises ValueError for an unknown name
    and for a `VARIED` or `GRADED` one in full size.
    """
    known = (*FAMILIES, VARIED, GRADED, ANOTHER_REGION)
    if name not in known:
        raise ValueError(f"no family is called {name}; there are {', '.join(known)}")
    if full and name in (VARIED, GRADED):
        raise ValueError(f"{name} has fields of view of its own, around the tumor; take another family in full size")
    rng = np.random.default_rng([seed, 23])
    at_edge = name == "near_capsule" or (name == VARIED and seed % 4 == 0)
    tumor = _tumor(made_body(seed), rng, near_capsule=at_edge)
    followup = _followup(name, tumor, rng)
    baseline = _FULL[0] if full else _BASELINE
    if full:
        followup = replace(followup, grid=_FULL[1])
    if name == VARIED:
        baseline = Grid((60, 210, 210), baseline.spacing_mm, tumor.center_lps_mm)
    if name == GRADED:
        return _graded(seed, tumor, followup)
    planned = tumor.radii_mm[0] + 8.0
    zone = Blob(tumor.center_lps_mm, (planned, planned, planned), bump_mm=0.5, bump_seed=seed + 50)
    return PhantomSpec(name, seed, tumor, baseline, (followup,), simulated_zone=zone)


def _tumor(body: Body, rng: np.random.Generator, *, near_capsule: bool) -> Blob:
    """A tumor of 12 to 28 mm well inside the liver, or one that touches its capsule."""
    radii = rng.uniform(6.0, 14.0) * rng.uniform(0.85, 1.15, 3)
    reach = float(radii.mean())
    wanted = (reach - 2.0, reach + 3.0) if near_capsule else (reach + 10.0, 60.0)
    tries = rng.uniform((-130, -70, -45), (-40, 50, 50), (4000, 3))
    deep = body.liver_depth_mm(tries)
    center = tries[np.flatnonzero((deep > wanted[0]) & (deep < wanted[1]))[0]]
    return Blob(_point(center), _point(radii), _point(rng.uniform(-30, 30, 3)), 0.5, int(rng.integers(1 << 30)))


def _followup(name: str, tumor: Blob, rng: np.random.Generator) -> FollowUpSpec:
    margin = rng.uniform(-4.0, 10.0)
    shift = rng.uniform(-2.0, 2.0, 3)
    radii = np.asarray(tumor.radii_mm) + margin + float(np.linalg.norm(shift))
    center = np.asarray(tumor.center_lps_mm) + shift
    zone = Blob(_point(center), _point(np.maximum(radii, 6.0)), tumor.rotation_deg, 0.5, int(rng.integers(1 << 30)))
    motion = _motion(tumor, rng, most_mm=25.0 if name == "far_motion" else 14.0)
    if name == "contraction" or (name == VARIED and rng.random() < 0.4):
        radius = float(np.mean(zone.radii_mm))
        at = _point(motion.inverse(center))
        motion = replace(motion, contraction=Contraction(at, 0.9 * radius, float(rng.uniform(0.04, 0.10))))
    expected: Outcome = "incomplete_coverage" if margin < 0 else "narrow_margin" if margin < 5 else "complete"
    out = FollowUpSpec(
        days_since_procedure=33,
        expected="not_assessable" if name == ANOTHER_REGION else expected,
        zone=zone,
        motion=motion,
        grid=_THICK if name == "thick_slices" else _FOLLOWUP,
        contrast_scale=float(rng.uniform(0.85, 1.05)),
        noise_hu=float(rng.uniform(10, 15)),
    )
    if name == VARIED:
        return _varied(out, rng)
    if name == "other_phase":
        return replace(out, phase="arterial")
    if name == "unenhanced":
        return replace(out, phase="unenhanced")
    if name == "mr_like":
        return replace(out, mr_like=True)
    if name == ANOTHER_REGION:
        x, y, z = out.grid.center_lps_mm
        return replace(out, grid=replace(out.grid, center_lps_mm=(x, y, z - 210.0)))
    return out


def _varied(followup: FollowUpSpec, rng: np.random.Generator) -> FollowUpSpec:
    """Noise, contrast, slices and length of the scan drawn as hospitals differ; one in five is arterial.

    Both scans show 17 cm around the lesion in the slice and 11 to 15 cm along the body: what registration looks at, and
    quick to make.
    """
    slice_mm = float(rng.choice((1.0, 1.5, 2.0, 2.5, 3.0, 5.0)))
    count = round(float(rng.uniform(110.0, 150.0)) / slice_mm)
    x, y, z = followup.motion.inverse(np.array(followup.zone.center_lps_mm)) + rng.uniform(-12.0, 12.0, 3)
    return replace(
        followup,
        grid=Grid((count, 200, 200), (slice_mm, *followup.grid.spacing_mm[1:]), (float(x), float(y), float(z))),
        noise_hu=float(np.exp(rng.uniform(np.log(7.0), np.log(28.0)))),
        contrast_scale=float(rng.uniform(0.6, 1.05)),
        vessel_scale=float(rng.uniform(0.6, 1.0)),
        phase="arterial" if rng.random() < 0.2 else "portal_venous",
    )


def _graded(seed: int, tumor: Blob, followup: FollowUpSpec) -> PhantomSpec:
    """As hard as the seed says, from 0 (same scanner, thin slices, little noise) to 1: see `difficulty`.

    Both scans show 17 cm around the lesion in the slice and 11 to 16 cm along the body.
    """
    hard, rng = difficulty(seed), np.random.default_rng([seed, 29])
    slice_mm, baseline_mm = (float(np.interp(hard, (0.0, 1.0), ends)) for ends in ((1.0, 5.0), (1.0, 3.0)))
    x, y, z = followup.motion.inverse(np.array(followup.zone.center_lps_mm)) + rng.uniform(-12.0, 12.0, 3) * hard
    length_mm = 160.0 - 50.0 * hard
    motion = _motion(tumor, rng, most_mm=4.0 + 20.0 * hard, amplitude_mm=1.0 + 4.0 * hard)
    radius = float(np.mean(followup.zone.radii_mm))
    at = _point(motion.inverse(np.array(followup.zone.center_lps_mm)))
    made = replace(
        followup,
        grid=Grid((round(length_mm / slice_mm), 200, 200), (slice_mm, 0.83, 0.83), (float(x), float(y), float(z))),
        noise_hu=float(5.0 * 6.0**hard),
        contrast_scale=1.0 - 0.35 * hard,
        vessel_scale=1.0 - 0.5 * hard,
        phase="arterial" if hard > 0.6 else "portal_venous",
        motion=replace(motion, contraction=Contraction(at, 0.9 * radius, 0.1 * hard)) if hard > 0 else motion,
    )
    baseline = Grid((round(150.0 / baseline_mm), 210, 210), (baseline_mm, 0.8, 0.8), tumor.center_lps_mm)
    planned = tumor.radii_mm[0] + 8.0
    zone = Blob(tumor.center_lps_mm, (planned, planned, planned), bump_mm=0.5, bump_seed=seed + 50)
    return PhantomSpec(
        GRADED, seed, tumor, baseline, (made,), simulated_zone=zone, baseline_noise_hu=float(5.0 * 4.0**hard)
    )


def difficulty(seed: int) -> float:
    """From 0 to 1: how hard the follow-up of a `GRADED` patient is to register; neighboring seeds differ most."""
    return (seed * 5 % 12) / 11


def _motion(tumor: Blob, rng: np.random.Generator, *, most_mm: float, amplitude_mm: float = 3.5) -> Motion:
    """Breath and position: `most_mm` at most, mainly along the body."""
    shift = rng.uniform((-0.2, -0.25, 0.4), (0.2, 0.25, 0.8)) * most_mm * rng.choice((-1.0, 1.0))
    tilt = rng.uniform(-3.0, 3.0, 3)
    return smooth_motion(
        int(rng.integers(1 << 30)),
        shift_mm=_point(shift),
        tilt_deg=_point(tilt),
        pivot_lps_mm=tumor.center_lps_mm,
        amplitude_mm=amplitude_mm,
    )


def _point(values: FloatArray) -> Point:
    return float(values[0]), float(values[1]), float(values[2])
