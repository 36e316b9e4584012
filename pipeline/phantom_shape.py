"""Shapes and motions given by formula, for the phantom: what is drawn and what is true come from the same function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from pipeline.geometry import FloatArray

Point = tuple[float, float, float]
Depth = Callable[[FloatArray], FloatArray]
"""(...,) signed depth in mm, positive inside, of (..., 3) points; exact in sign, about right in size."""


@dataclass(frozen=True)
class Blob:
    """An ellipsoid with smooth bumps, star-shaped around its center.

    radii_mm along its own axes, which are x, y, z turned by rotation_deg; bump_mm: how far the bumps rise and dip.
    """

    center_lps_mm: Point
    radii_mm: Point
    rotation_deg: Point = (0.0, 0.0, 0.0)
    bump_mm: float = 0.0
    bump_seed: int = 0

    def __post_init__(self) -> None:
        if min(self.radii_mm) <= 0:
            raise ValueError("the radii of a blob are positive")
        if self.bump_mm > 0.3 * min(self.radii_mm):
            raise ValueError("the bumps of a blob stay below a third of its least radius")

    @cached_property
    def _turn(self) -> FloatArray:
        return np.asarray(Rotation.from_euler("xyz", self.rotation_deg, degrees=True).as_matrix())

    @cached_property
    def _waves(self) -> tuple[FloatArray, FloatArray]:
        rng = np.random.default_rng([self.bump_seed, 77])
        directions = rng.standard_normal((5, 3))
        directions *= (rng.uniform(2.0, 4.5, 5) / np.linalg.norm(directions, axis=1))[:, None]
        return directions, rng.uniform(0, 2 * np.pi, 5)

    def depth_mm(self, points_lps_mm: ArrayLike) -> FloatArray:
        """(...,) signed depth in mm of (..., 3) points, positive inside."""
        points = np.asarray(points_lps_mm)
        kind = points.dtype.type if points.dtype == np.float32 else np.float64
        local = points - np.asarray(self.center_lps_mm, kind)
        if any(self.rotation_deg):
            local = local @ self._turn.astype(kind)
        a, b, c = (kind(r) for r in self.radii_mm)
        x, y, z = local[..., 0] / a, local[..., 1] / b, local[..., 2] / c
        reach = np.sqrt(x * x + y * y + z * z) + kind(1e-6)
        slope = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) + kind(1e-6) / max(a, b, c)
        edge = np.asarray(kind(1))
        if self.bump_mm:
            x, y, z = x / reach, y / reach, z / reach
            waves, phases = self._waves
            rises = sum(
                np.sin(x * kind(u) + y * kind(v) + z * kind(w) + kind(p))
                for (u, v, w), p in zip(waves, phases, strict=True)
            )
            edge = 1 + kind(self.bump_mm / np.mean(self.radii_mm) / 2.2) * rises
        return np.asarray(reach * (edge - reach) / slope)

    def scaled(self, factor: float) -> Blob:
        """The same shape grown or shrunk around its center."""
        a, b, c = self.radii_mm
        return Blob(
            self.center_lps_mm, (a * factor, b * factor, c * factor), self.rotation_deg, self.bump_mm, self.bump_seed
        )


@dataclass(frozen=True)
class Dented:
    """A blob with parts taken out of it (a heat sink, a nodule); the cut edges are rounded by about 1 mm."""

    blob: Blob
    dents: tuple[Blob, ...] = ()

    def depth_mm(self, points_lps_mm: ArrayLike) -> FloatArray:
        """(...,) signed depth in mm of (..., 3) points, positive inside."""
        depth = self.blob.depth_mm(points_lps_mm)
        for dent in self.dents:
            depth = smooth_min(depth, -dent.depth_mm(points_lps_mm), 2.0)
        return depth


def smooth_min(a: FloatArray, b: FloatArray, width_mm: float) -> FloatArray:
    """The lesser of two depths (the intersection of two shapes), rounded where they meet."""
    overlap = np.maximum(width_mm - np.abs(a - b), 0.0) / width_mm
    return np.asarray(np.minimum(a, b) - overlap * overlap * (width_mm / 4))


def smooth_max(a: FloatArray, b: FloatArray, width_mm: float) -> FloatArray:
    """The greater of two depths (the union of two shapes), rounded where they meet."""
    return -smooth_min(-a, -b, width_mm)


@dataclass(frozen=True)
class Wave:
    """A displacement ``amplitude_mm * sin(wave_per_mm . p + phase)``."""

    amplitude_mm: Point
    wave_per_mm: Point
    phase: float


@dataclass(frozen=True)
class Contraction:
    """Tissue drawn toward an ablation zone, in the follow-up's coordinates: a ball shrunk by `fraction` of its radius,
    around it a pull that falls with the square of the distance, as in tissue that keeps its volume."""

    center_lps_mm: Point
    radius_mm: float
    fraction: float

    def displacement_mm(self, points: FloatArray) -> FloatArray:
        """(..., 3) from where tissue is now to where it was."""
        away = points - np.asarray(self.center_lps_mm, points.dtype)
        reach = np.linalg.norm(away, axis=-1, keepdims=True)
        share = np.minimum(1.0, self.radius_mm / np.maximum(reach, 1e-3)) ** 3
        return np.asarray(away * (share * self.fraction / (1 - self.fraction)).astype(points.dtype))


@dataclass(frozen=True)
class Motion:
    """A known smooth motion: maps follow-up points to baseline points, ``baseline_from_followup``.

    A turn about `pivot_lps_mm`, a shift, waves, and before them the way back from a contraction.
    """

    shift_mm: Point = (0.0, 0.0, 0.0)
    tilt_deg: Point = (0.0, 0.0, 0.0)
    pivot_lps_mm: Point = (0.0, 0.0, 0.0)
    waves: tuple[Wave, ...] = ()
    contraction: Contraction | None = None

    def __call__(self, points_lps_mm: ArrayLike) -> FloatArray:
        """(..., 3) baseline points for (..., 3) follow-up points; float32 stays float32."""
        points = np.asarray(points_lps_mm)
        points = points if points.dtype == np.float32 else points.astype(np.float64)
        if self.contraction is not None:
            points = points + self.contraction.displacement_mm(points)
        kind = points.dtype
        turn = Rotation.from_euler("xyz", self.tilt_deg, degrees=True).as_matrix()
        offset = np.asarray(self.pivot_lps_mm) - turn @ np.asarray(self.pivot_lps_mm) + np.asarray(self.shift_mm)
        out = points @ turn.T.astype(kind) + offset.astype(kind)
        for wave in self.waves:
            angle = points @ np.asarray(wave.wave_per_mm, kind) + kind.type(wave.phase)
            out += np.sin(angle)[..., None] * np.asarray(wave.amplitude_mm, kind)
        return np.asarray(out)

    def inverse(self, points_lps_mm: ArrayLike) -> FloatArray:
        """(..., 3) follow-up points that map to the given baseline points, to 1e-6 mm."""
        target = np.asarray(points_lps_mm, np.float64)
        points = target.copy()
        for _ in range(100):
            step = target - self(points)
            points += step
            if np.abs(step).max(initial=0.0) < 1e-6:
                return points
        raise ValueError("the motion is too steep to be inverted")


def smooth_motion(seed: int, *, shift_mm: Point, tilt_deg: Point, pivot_lps_mm: Point, amplitude_mm: float) -> Motion:
    """A motion with three waves of 110 to 190 mm length; `amplitude_mm` is about the most that the waves add."""
    rng = np.random.default_rng([seed, 41])
    direction = rng.standard_normal((3, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    direction *= (2 * np.pi / rng.uniform(110, 190, 3))[:, None]
    amplitude = rng.standard_normal((3, 3))
    amplitude *= amplitude_mm / 1.5 / np.linalg.norm(amplitude, axis=1, keepdims=True)
    phases = rng.uniform(0, 2 * np.pi, 3)
    waves = tuple(Wave(_point(a), _point(d), float(p)) for a, d, p in zip(amplitude, direction, phases, strict=True))
    return Motion(shift_mm, tilt_deg, pivot_lps_mm, waves)


def _point(values: FloatArray) -> Point:
    return float(values[0]), float(values[1]), float(values[2])


def directions(count: int) -> FloatArray:
    """(count, 3) unit vectors spread evenly over the sphere."""
    n = np.arange(count) + 0.5
    z = 1 - 2 * n / count
    angle = np.pi * (1 + 5**0.5) * n
    ring = np.sqrt(1 - z * z)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=-1)


def surface_points(depth: Depth, center_lps_mm: Point, *, reach_mm: float, count: int) -> FloatArray:
    """(count, 3) points where the depth is zero, along even rays from the center of a star-shaped region."""
    rays, center = directions(count), np.asarray(center_lps_mm, float)
    low, high = np.zeros(count), np.full(count, reach_mm)
    for _ in range(26):
        middle = (low + high) / 2
        inside = depth(center + rays * middle[:, None]) > 0
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.asarray(center + rays * ((low + high) / 2)[:, None])


def normals(depth: Depth, points: FloatArray) -> FloatArray:
    """(n, 3) unit vectors along which the depth falls, at (n, 3) points."""
    step = np.eye(3) * 0.01
    slope = np.stack([depth(points - e) - depth(points + e) for e in step], axis=-1)
    return np.asarray(slope / np.linalg.norm(slope, axis=-1, keepdims=True))


def signed_margins_mm(points: FloatArray, zone_surface: FloatArray, zone_depth: Depth) -> FloatArray:
    """(n,) distance of each point to the zone's surface, positive inside the zone.

    zone_surface: (m, 3) samples of the surface, closer together than it bends; from the nearest sample the distance
    is taken to the plane that touches the surface there.
    """
    nearest = cKDTree(zone_surface).query(points)[1]
    foot = zone_surface[nearest]
    distance = np.abs(((points - foot) * normals(zone_depth, foot)).sum(-1))
    return np.asarray(np.where(zone_depth(points) > 0, distance, -distance))


def least_margin(surface: FloatArray, zone_surface: FloatArray, zone_depth: Depth) -> tuple[float, FloatArray]:
    """The least of `signed_margins_mm` over a dense surface, and its point (3,); coarse first, then close by."""
    some = surface[::8]
    rough = signed_margins_mm(some, zone_surface[::2], zone_depth)
    distance, _ = cKDTree(some[rough < rough.min() + 0.25]).query(surface, distance_upper_bound=1.2)
    close = surface[np.isfinite(distance)]
    margins = signed_margins_mm(close, zone_surface, zone_depth)
    worst = int(np.argmin(margins))
    return float(margins[worst]), close[worst]


def volume_grid(low: FloatArray, high: FloatArray, step_mm: float) -> FloatArray:
    """(n, 3) centers of a fine regular grid over a box: for volumes by counting."""
    axes = [np.arange(a, b + step_mm, step_mm) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
