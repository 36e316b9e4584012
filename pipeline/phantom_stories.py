"""Ready-made phantoms, one for each thing that can happen to a patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from pipeline.case import Outcome, Point
from pipeline.geometry import FloatArray
from pipeline.phantom_body import made_body
from pipeline.phantom_shape import Blob, Motion, directions, smooth_motion
from pipeline.phantom_spec import FollowUpSpec, Grid, PhantomSpec

Size = Literal["small", "full"]
#: A voxel of the small size averages over five of the full one's.
_NOISE_HU: dict[Size, float] = {"small": 7.0, "full": 13.0}


def story(name: str, *, seed: int = 0, size: Size = "small") -> PhantomSpec:
    """The spec of a story (one of `STORIES`) about the patient of a seed. Raises ValueError for an unknown name."""
    if name not in STORIES:
        raise ValueError(f"no story is called {name}; there are {', '.join(STORIES)}")
    tumor = _tumor(seed)
    larger = Blob(tumor.center_lps_mm, (12.5, 11.5, 13.0), tumor.rotation_deg, 0.6, tumor.bump_seed)
    if name in ("incomplete", "heat_sink"):
        tumor = larger
    return PhantomSpec(
        name=name,
        seed=seed,
        tumor=tumor,
        baseline_grid=_grid(size, 0),
        followups=_TELLERS[name](tumor, seed, size),
        baseline_noise_hu=_NOISE_HU[size],
        simulated_zone=None if name == "no_simulation" else _zone(tumor, (21.5, 20.5, 22.0), (0, 0, 0), seed + 50),
    )


def _complete(tumor: Blob, seed: int, size: Size) -> tuple[FollowUpSpec, ...]:
    return (_spec(seed, size, "complete", _zone(tumor, (20.5, 20.0, 21.0), (0.5, -0.5, 0.5), seed)),)


def _narrow(tumor: Blob, seed: int, size: Size) -> tuple[FollowUpSpec, ...]:
    return (_spec(seed, size, "narrow_margin", _zone(tumor, (15.0, 14.0, 15.0), (1.8, 1.0, -1.0), seed)),)


def _incomplete(tumor: Blob, seed: int, size: Size) -> tuple[FollowUpSpec, ...]:
    return (_spec(seed, size, "incomplete_coverage", _zone(tumor, (17.5, 16.5, 18.0), (9.0, -2.0, 3.0), seed)),)


def _heat_sink(tumor: Blob, seed: int, size: Size) -> tuple[FollowUpSpec, ...]:
    """A zone of the right size with a bay in it, as a large vessel leaves one."""
    missed = Blob(_moved(tumor, (-17.0, 6.0, 4.0)), (12.0, 10.0, 10.0))
    zone = _zone(tumor, (20.0, 19.0, 20.0), (0, 0, 0), seed)
    return (replace(_spec(seed, size, "incomplete_coverage", zone), missed=(missed,)),)


def _progression(tumor: Blob, seed: int, size: Size) -> tuple[FollowUpSpec, ...]:
    """Clean at five weeks; at six months the zone has shrunk and a nodule enhances at its edge."""
    # Where no vessel runs, so that what is bright there is new.
    body = made_body(seed)
    places = [_moved(tumor, _point(16.0 * d)) for d in directions(40)]
    nodule = Blob(max(places, key=body.vessel_distance_mm), (7.5, 7.0, 7.5), bump_mm=0.4, bump_seed=seed + 9)
    later = _zone(tumor, (15.0, 14.5, 15.5), (0.5, -0.5, 0.5), seed)
    return (
        *_complete(tumor, seed, size),
        replace(_spec(seed, size, "local_progression", later, number=1), nodules=(nodule,)),
    )


def _shrinking(tumor: Blob, seed: int, size: Size) -> tuple[FollowUpSpec, ...]:
    """Clean at five weeks; at six months the zone has shrunk and nothing enhances: still complete."""
    later = _zone(tumor, (14.5, 14.0, 15.0), (0.5, -0.5, 0.5), seed)
    return (*_complete(tumor, seed, size), _spec(seed, size, "complete", later, number=1))


def _unenhanced(tumor: Blob, seed: int, size: Size) -> tuple[FollowUpSpec, ...]:
    zone = _zone(tumor, (20.5, 20.0, 21.0), (0.5, -0.5, 0.5), seed)
    return (replace(_spec(seed, size, "not_assessable", zone), phase="unenhanced"),)


def _wrong_patient(tumor: Blob, seed: int, size: Size) -> tuple[FollowUpSpec, ...]:
    """Somebody else's scan, under that person's own name."""
    (followup,) = _wrong_body(tumor, seed, size)
    return (replace(followup, patient_id="PHANTOM-0002"),)


def _wrong_body(tumor: Blob, seed: int, size: Size) -> tuple[FollowUpSpec, ...]:
    """Somebody else's scan under this patient's name: two patients' scans were mixed up."""
    zone = _zone(tumor, (20.5, 20.0, 21.0), (0.5, -0.5, 0.5), seed)
    return (replace(_spec(seed, size, "not_assessable", zone), other_body_seed=seed + 1000),)


_TELLERS: dict[str, Callable[[Blob, int, Size], tuple[FollowUpSpec, ...]]] = {
    "complete": _complete,
    "narrow": _narrow,
    "incomplete": _incomplete,
    "heat_sink": _heat_sink,
    "progression": _progression,
    "shrinking": _shrinking,
    "no_simulation": _complete,
    "unenhanced": _unenhanced,
    "wrong_patient": _wrong_patient,
    "wrong_body": _wrong_body,
}
STORIES: tuple[str, ...] = tuple(_TELLERS)


def _tumor(seed: int) -> Blob:
    x, y, z = np.random.default_rng([seed, 3]).uniform(-4, 4, 3)
    return Blob((-84.0 + x, -6.0 + y, 6.0 + z), (10.0, 9.0, 10.5), (10.0, 20.0, 0.0), bump_mm=0.6, bump_seed=seed + 1)


def _zone(tumor: Blob, radii_mm: Point, shift_mm: Point, bump_seed: int) -> Blob:
    return Blob(_moved(tumor, shift_mm), radii_mm, (0.0, 15.0, 0.0), bump_mm=0.5, bump_seed=bump_seed + 30)


def _moved(tumor: Blob, shift_mm: Point) -> Point:
    return _point(np.array(tumor.center_lps_mm) + shift_mm)


def _point(values: FloatArray) -> Point:
    return float(values[0]), float(values[1]), float(values[2])


def _grid(size: Size, scan: int) -> Grid:
    """Grids of the baseline (0) and the follow-ups; each scan is planned anew, so none matches another."""
    if size == "small":
        return (
            Grid((48, 168, 232), (2.5, 1.6, 1.6), (0.0, 0.0, 8.0)),
            Grid((44, 164, 226), (2.7, 1.65, 1.65), (-2.0, 3.0, 0.0)),
            Grid((50, 172, 236), (2.4, 1.55, 1.55), (2.0, -2.0, 12.0)),
        )[scan]
    return (
        Grid((100, 512, 512), (2.5, 0.74, 0.74), (0.0, 0.0, 0.0)),
        Grid((84, 512, 512), (3.0, 0.78, 0.78), (2.0, -3.0, -4.0)),
        Grid((104, 512, 512), (2.5, 0.72, 0.72), (-2.0, 2.0, 3.0)),
    )[scan]


def _motion(tumor: Blob, seed: int, number: int) -> Motion:
    """Another breath and another position on the table: 6 to 14 mm near the tumor."""
    if number == 0:
        shift, tilt = (2.0, -3.5, 8.0), (1.5, -1.0, 1.5)
    else:
        shift, tilt = (-2.0, 3.0, -7.0), (-1.0, 1.0, 1.0)
    return smooth_motion(
        seed * 10 + number, shift_mm=shift, tilt_deg=tilt, pivot_lps_mm=tumor.center_lps_mm, amplitude_mm=3.0
    )


def _spec(seed: int, size: Size, expected: Outcome, zone: Blob, *, number: int = 0) -> FollowUpSpec:
    return FollowUpSpec(
        days_since_procedure=(33, 190)[number],
        expected=expected,
        zone=zone,
        motion=_motion(_tumor(seed), seed, number),
        grid=_grid(size, 1 + number),
        contrast_scale=(0.94, 1.04)[number],
        noise_hu=_NOISE_HU[size],
    )
