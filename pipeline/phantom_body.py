"""The phantom's body: organs, bones and vessels as formulas, rendered to HU wherever its points are asked for.

Coordinates are the baseline's LPS millimetres; the origin lies in the middle of the trunk at the height of the liver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.geometry import FloatArray, Geometry
from pipeline.phantom_shape import Blob, Point, smooth_max, smooth_min
from pipeline.phantom_vessels import Vessels, liver_vessels

Phase = Literal["unenhanced", "arterial", "portal_venous"]
Plane = NDArray[Any]

#: HU unenhanced, arterial, portal venous: usual abdominal CT at 120 kV.
LEVELS_HU: dict[str, tuple[float, float, float]] = {
    "liver": (55, 70, 110),
    "portal vein": (42, 95, 168),
    "hepatic vein": (42, 60, 158),
    "aorta": (42, 300, 150),
    "vena cava": (42, 85, 138),
    "spleen": (48, 105, 122),
    "kidney": (34, 165, 182),
    "muscle": (55, 58, 64),
    "stomach": (20, 20, 22),
    "stomach wall": (40, 75, 85),
    "bowel": (32, 55, 62),
    "gallbladder": (8, 8, 8),
    "tumor": (45, 66, 72),
    "nodule": (55, 118, 150),
}
_PHASES: tuple[Phase, ...] = ("unenhanced", "arterial", "portal_venous")
_HALF_WIDTH_MM, _HALF_DEPTH_MM = 172.0, 122.0
_WALL_MM = 12.0
_LIVER_BOX_MM = ((-165.0, -110.0, -100.0), (95.0, 100.0, 105.0))
_OVER_LIVER = ("gallbladder", "aorta", "vena cava")


def level_hu(tissue: str, phase: Phase, contrast_scale: float = 1.0) -> float:
    """HU of a tissue in a phase, with its enhancement over the unenhanced level scaled."""
    levels = LEVELS_HU[tissue]
    return levels[0] + contrast_scale * (levels[_PHASES.index(phase)] - levels[0])


@dataclass(frozen=True, eq=False)
class Body:
    """One person. scale: (3,) this person's size against the standard one; texture: rows of (wave per mm, phase)."""

    scale: FloatArray
    lobes: tuple[Blob, Blob]
    organs: tuple[tuple[str, Blob], ...]
    vessels: tuple[Vessels, ...]
    texture: FloatArray

    def liver_depth_mm(self, points_lps_mm: FloatArray) -> FloatArray:
        """(...,) depth below the liver's surface of (..., 3) points, positive inside."""
        points = _unscaled(points_lps_mm, self.scale)
        right, left = (lobe.depth_mm(points) for lobe in self.lobes)
        wall = _body_depth_mm(points) - _fat_mm(points) - _WALL_MM
        vein = dict(self.organs)["vena cava"].depth_mm(points)
        return smooth_min(smooth_min(smooth_max(right, left, 25.0), wall, 8.0), -vein, 3.0)

    def vessel_distance_mm(self, point_lps_mm: Point) -> float:
        """The distance from a point to the nearest wall of a liver vessel, negative inside one."""
        return min(tree.distance_mm(np.asarray(point_lps_mm) / self.scale) for tree in self.vessels)


@dataclass(frozen=True)
class Scan:
    """How a scan looks. edge_mm: width over which an edge blurs; sub_slices: samples over its thickness."""

    phase: Phase
    contrast_scale: float
    vessel_scale: float
    edge_mm: float
    sub_slices: int = 2


Overlay = Callable[[FloatArray, Plane, Plane], Plane]
"""Draws lesions: (baseline points (r, c, 3), HU so far (r, c), liver depth in mm (r, c)) to HU (r, c)."""


def made_body(seed: int) -> Body:
    """A person: sizes, lobes and vessel trees drawn from the seed."""
    rng = np.random.default_rng([seed, 5])
    scale = rng.uniform(0.96, 1.05, 3)
    jitter = rng.uniform(-4, 4, (3, 3))
    right = Blob(
        (-80 + jitter[0, 0], -6 + jitter[0, 1], 2.0), (70.0, 84.0, 84 + jitter[0, 2]), (0, 12, 0), 4.0, seed * 10 + 1
    )
    left = Blob(
        (-4 + jitter[1, 0], -48 + jitter[1, 1], 26.0), (74.0, 34.0, 40 + jitter[1, 2]), (0, -12, 8), 3.0, seed * 10 + 2
    )
    organs = (
        ("kidney", Blob((-58.0, 62.0, -72.0), (27.0, 25.0, 50.0), (8, -8, 30), 1.5, seed * 10 + 3)),
        ("kidney", Blob((62.0, 62.0, -55.0), (27.0, 25.0, 52.0), (8, 8, -30), 1.5, seed * 10 + 4)),
        ("spleen", Blob((105.0, 38.0, 18.0), (26.0, 42.0, 52.0), (12, 0, -15), 2.5, seed * 10 + 5)),
        ("stomach", Blob((62.0, -38.0, 10 + jitter[2, 0]), (40.0, 36.0, 48.0), (0, 20, 0), 4.0, seed * 10 + 6)),
        *(
            ("bowel", Blob((float(x), float(y), float(z)), (17.0, 16.0, 20.0), (0, 0, 0), 2.5, seed * 10 + 20 + n))
            for n, (x, y, z) in enumerate(_bowel_centers(rng))
        ),
        ("gallbladder", Blob((-42.0, -58.0, -44.0), (14.0, 19.0, 24.0), (25, 0, 0), 1.0, seed * 10 + 7)),
        ("aorta", Blob((13.0, 42.0, 0.0), (10.5, 10.5, 4000.0))),
        ("vena cava", Blob((-19.0, 40.0, 0.0), (12.5, 10.0, 4000.0))),
    )
    empty = Body(scale, (right, left), organs, (), np.zeros((0, 4)))
    return Body(
        scale,
        (right, left),
        organs,
        liver_vessels(lambda points: empty.liver_depth_mm(points * scale), rng),
        _texture(rng),
    )


def render(
    geometry: Geometry, body: Body, scan: Scan, *, baseline_from: Callable[[Plane], Any], overlay: Overlay
) -> Plane:
    """float32 ``[k, j, i]`` HU without noise on any grid; `baseline_from` maps the grid's points to the baseline's."""
    out = np.empty(geometry.shape, np.float32)
    offsets = (np.arange(scan.sub_slices) + 0.5) / scan.sub_slices - 0.5

    def one_slice(k: int) -> None:
        planes = []
        for offset in offsets:
            index = np.stack(np.meshgrid([k + offset], *map(np.arange, geometry.shape[1:]), indexing="ij"), axis=-1)
            points = np.ascontiguousarray(baseline_from(geometry.lps_of(index)[0].astype(np.float32)), np.float32)
            planes.append(_plane_hu(points, body, scan, overlay))
        out[k] = np.mean(planes, axis=0)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one_slice, range(geometry.shape[0])))
    return out


def noise_hu(geometry: Geometry, sd_hu: float, seed: int) -> Plane:
    """float32 ``[k, j, i]`` scanner noise: grains of about 1 mm in plane, hardly correlated from slice to slice."""
    rng = np.random.default_rng([seed, 13])
    grain = np.array([0.35, *(0.9 / geometry.spacing_mm[1:])])
    noise = ndimage.gaussian_filter(rng.standard_normal(geometry.shape, dtype=np.float32), grain, mode="wrap")
    return np.asarray(noise * np.float32(sd_hu / noise.std()), np.float32)


def blended(hu: Plane, depth_mm: FloatArray, value: Any, edge_mm: float) -> Plane:
    """HU with `value` laid over it inside a shape; the edge runs over `edge_mm` as partial volume does."""
    weight = np.clip(depth_mm / edge_mm + 0.5, 0.0, 1.0)
    return np.asarray(hu + weight * (value - hu), np.float32)


def _plane_hu(points_mm: Plane, body: Body, scan: Scan, overlay: Overlay) -> Plane:
    sheet, edge = Sheet(_unscaled(points_mm, body.scale)), scan.edge_mm

    def level(tissue: str) -> float:
        return level_hu(tissue, scan.phase, scan.contrast_scale)

    def paint(organs: Iterable[tuple[str, Blob]]) -> None:
        for tissue, blob in organs:
            _paint(hu, sheet, blob, partial(_organ_hu, tissue=tissue, blob=blob, level=level), edge)

    hu = _trunk_hu(sheet.points, edge, level("muscle"))
    paint(organ for organ in body.organs if organ[0] not in _OVER_LIVER)
    liver: Plane = np.full(hu.shape, -50.0, np.float32)
    near = sheet.box(np.array(_LIVER_BOX_MM[0]), np.array(_LIVER_BOX_MM[1]))
    if liver[near].size:
        liver[near] = body.liver_depth_mm(points_mm[near])
        liver_hu = np.full(hu.shape, level("liver"), np.float32)
        liver_hu[near] += _texture_hu(sheet.points[near], body.texture)
        for tree in body.vessels:
            value = level("liver") + scan.vessel_scale * (level(tree.tissue) - level("liver"))
            _paint_vessels(liver_hu, sheet, tree, value, edge)
        hu = blended(hu, liver, liver_hu, edge)
    paint(organ for organ in body.organs if organ[0] in _OVER_LIVER)
    return overlay(points_mm, hu, liver)


def _unscaled(points_mm: FloatArray, scale: FloatArray) -> FloatArray:
    points = np.asarray(points_mm)
    return points / scale.astype(points.dtype)


def _body_depth_mm(points: FloatArray) -> FloatArray:
    x, y = points[..., 0] / _HALF_WIDTH_MM, points[..., 1] / _HALF_DEPTH_MM
    reach = np.sqrt(x * x + y * y) + 1e-6
    slope = np.sqrt((x / _HALF_WIDTH_MM) ** 2 + (y / _HALF_DEPTH_MM) ** 2) + 1e-8
    return np.asarray(reach * (1 - reach) / slope)


def _fat_mm(points: FloatArray) -> FloatArray:
    """Thickness of the fat under the skin: more in front and lower down."""
    return np.asarray(15 - 5 * points[..., 1] / _HALF_DEPTH_MM - 4 * np.clip(points[..., 2] / 100, -1, 1))


def _trunk_hu(points: Plane, edge: float, muscle_hu: float) -> Plane:
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    depth, fat = _body_depth_mm(points), _fat_mm(points)
    hu = np.full(depth.shape, -1000.0, np.float32)
    hu = blended(hu, depth, 15.0, edge)
    hu = blended(hu, depth - 2.0, -105.0, edge)
    hu = blended(hu, depth - fat, muscle_hu, edge)
    inner = depth - fat - _WALL_MM
    hu = blended(hu, inner, -95.0, edge)
    dome = np.maximum(84 - 0.006 * ((x + 75) ** 2 + y * y), 74 - 0.006 * ((x - 75) ** 2 + y * y))
    lung = np.minimum(inner, (z - dome) / 2)
    hu = blended(hu, lung, -840.0, edge)
    # Ribs run forward and down around the trunk, one every 27 mm.
    turn = np.arctan2(x / _HALF_WIDTH_MM, y / _HALF_DEPTH_MM)
    along = (z + 32 * np.abs(turn)) % 27.0 - 13.5
    rib = 5.5 - np.sqrt((depth - fat - 6) ** 2 + (0.8 * along) ** 2)
    rib = np.minimum(rib, np.minimum(2.4 - np.abs(turn), (z + 95) / 20 + 1.2 * (y / _HALF_DEPTH_MM + 1)) * 12)
    hu = blended(hu, rib, np.where(rib > 1.5, 190.0, 430.0), edge)
    return _spine_hu(hu, points, edge, muscle_hu)


def _spine_hu(hu: Plane, points: Plane, edge: float, muscle_hu: float) -> Plane:
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    hu = blended(hu, 1 - np.hypot((x - 30) / 24, (y - 88) / 20), muscle_hu, edge / 20)
    hu = blended(hu, 1 - np.hypot((x - 32) / 13, (y - 66) / 13) - np.maximum(z, 0) / 90, muscle_hu, edge / 13)
    level = z % 32.0 - 16.0
    body = 18 - 1.2 * np.cos(level / 8) - np.hypot(x * 0.9, y - 68)
    hu = blended(hu, body, 80.0, edge)
    vertebra = np.minimum(body, 13 - np.abs(level))
    hu = blended(hu, vertebra, np.where(vertebra > 1.8, 175.0, 420.0), edge)
    arch = np.minimum(4 - np.abs(np.hypot(x, y - 94) - 13), 10 - np.abs(level - 2))
    process = np.minimum(3.5 - x, np.minimum(np.minimum(y - 104, 122 - 14 - y), 9 - np.abs(level - 3)))
    hu = blended(hu, np.maximum(arch, process), 380.0, edge)
    return blended(hu, 9 - np.hypot(x, y - 94), 30.0, edge)


def _organ_hu(points: Plane, tissue: str, blob: Blob, level: Callable[[str], float]) -> Any:
    if tissue == "stomach":
        depth = blob.depth_mm(points)
        inside = np.where(points[..., 1] < blob.center_lps_mm[1] - 14, -900.0, level("stomach"))
        return np.where(depth > 3.5, inside, level("stomach wall"))
    if tissue == "kidney":
        return np.where(blob.depth_mm(points) > 12, 0.8 * level("kidney") + 2, level("kidney"))
    return level(tissue)


def _paint(hu: Plane, sheet: Sheet, blob: Blob, value: Callable[[Plane], Any], edge: float) -> None:
    """Lays a blob over `hu` in place, looking only at the part of the plane that it can reach."""
    radii = np.array(blob.radii_mm) if not any(blob.rotation_deg) else np.full(3, max(blob.radii_mm))
    reach = radii + 1.5 * blob.bump_mm + edge
    box = sheet.box(np.array(blob.center_lps_mm) - reach, np.array(blob.center_lps_mm) + reach)
    part = sheet.points[box]
    if part.size:
        hu[box] = blended(hu[box], blob.depth_mm(part), value(part), edge)


def _paint_vessels(hu: Plane, sheet: Sheet, tree: Vessels, value: float, edge: float) -> None:
    pad = tree.radii_mm.max(1)[:, None] + edge
    low = np.minimum(tree.starts_mm, tree.ends_mm) - pad
    high = np.maximum(tree.starts_mm, tree.ends_mm) + pad
    for n in sheet.levels(low[:, 2], high[:, 2]):
        box = sheet.box(low[n], high[n])
        part = sheet.points[box]
        if not part.size:
            continue
        start, axis = tree.starts_mm[n].astype(np.float32), (tree.ends_mm[n] - tree.starts_mm[n]).astype(np.float32)
        away = part - start
        share = np.clip((away @ axis) / (axis @ axis), 0, 1)
        away -= share[..., None] * axis
        first, last = tree.radii_mm[n].astype(np.float32)
        depth = first + share * (last - first) - np.sqrt(np.einsum("...i,...i->...", away, away))
        hu[box] = blended(hu[box], depth, value, edge)


class Sheet:
    """One plane of points (r, c, 3), nearly aligned with x and y, that knows where its rows and columns run."""

    def __init__(self, points_mm: Plane) -> None:
        # Every eighth line, with 2 mm of slack, tells where a line runs.
        z = points_mm[::8, ::8, 2]
        self.points = points_mm
        self._left, self._right = points_mm[::8, :, 0].min(0) - 2, points_mm[::8, :, 0].max(0) + 2
        self._front, self._back = points_mm[:, ::8, 1].min(1) - 2, points_mm[:, ::8, 1].max(1) + 2
        self._bottom, self._top = z.min() - 2, z.max() + 2

    def box(self, low: FloatArray, high: FloatArray) -> tuple[slice, slice]:
        """Rows and columns that may hold points between `low` and `high` (3,); empty when none does."""
        if self._top < low[2] or self._bottom > high[2]:
            return slice(0, 0), slice(0, 0)
        rows = slice(int(np.searchsorted(self._back, low[1])), int(np.searchsorted(self._front, high[1])))
        columns = slice(int(np.searchsorted(self._right, low[0])), int(np.searchsorted(self._left, high[0])))
        return rows, columns

    def levels(self, low_mm: FloatArray, high_mm: FloatArray) -> NDArray[np.intp]:
        """Which of n height ranges (n,), (n,) the plane meets."""
        return np.flatnonzero((low_mm < self._top) & (high_mm > self._bottom))


def _texture(rng: np.random.Generator) -> FloatArray:
    waves = rng.standard_normal((14, 3))
    waves *= (2 * np.pi / rng.uniform(9, 45, 14) / np.linalg.norm(waves, axis=1))[:, None]
    return np.column_stack([waves, rng.uniform(0, 2 * np.pi, 14)])


def _texture_hu(points: Plane, texture: FloatArray) -> Plane:
    """Slow unevenness of the parenchyma, standard deviation 2.5 HU; it moves with the liver."""
    out = np.zeros(points.shape[:-1], np.float32)
    for x, y, z, phase in texture.astype(np.float32):
        out += np.sin(points[..., 0] * x + points[..., 1] * y + points[..., 2] * z + phase)
    return np.asarray(out * np.float32(2.5 * (2 / max(1, len(texture))) ** 0.5))


def _bowel_centers(rng: np.random.Generator) -> FloatArray:
    centers = np.array([(x, y, z) for z in (-120.0, -85.0) for x in (-20.0, 25.0, 70.0) for y in (-45.0, -5.0)])
    return np.asarray(centers + rng.uniform(-6, 6, centers.shape))
