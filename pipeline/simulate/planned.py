"""What a simulated zone means for its lesion: sizes, the planned margin, and how far both may be off."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.case import Lesion, Plan
from pipeline.margin import measure_margin
from pipeline.probe import CryoProbe, HeatProbe
from pipeline.simulate.placement import MOST_CELLS_IN_RADII
from pipeline.simulate.zone import COARSE_MM, Edge, Factors, SimulatedZone, SimulationSettings, scene_of, simulate
from pipeline.surface import Level, surface_of_mask
from pipeline.volume import Mask

#: Perfusion differs most from patient to patient. Conductivity of frozen tissue differs by up to 40 % between
#: publications (Materials 2021;14:3750). Heat transfer: what moves the radius of a single probe's ice by about 10 %.
_PERFUSION, _CONDUCTIVITY, _TRANSFER = (0.5, 2.0), (0.8, 1.2), (0.75, 1.3)
ENSEMBLE = tuple(Factors(p, k, h) for p in _PERFUSION for k in _CONDUCTIVITY for h in _TRANSFER)


_THREADS = 2  # as many cores as the smallest machine has
_WITH_SHAFT = (CryoProbe, HeatProbe)


@dataclass(frozen=True)
class Size:
    """volume_ml: after each freeze-thaw cycle; length_mm: along the applicators; diameter_mm: across, of the circle
    with the area of the largest section."""

    volume_ml: tuple[float, ...]
    length_mm: float
    diameter_mm: float


@dataclass(frozen=True)
class PlannedMargin:
    """minimal_margin_mm: signed, from the tumor's surface to the edge, positive inside the zone; None where there is no
    zone; covered_fraction: of the tumor's volume."""

    edge: str
    temperature_c: float | None
    size: Size
    minimal_margin_mm: float | None
    covered_fraction: float


@dataclass(frozen=True, eq=False)
class Spread:
    """Least and greatest value over the ensemble and the zone itself, for the edge that counts; None where one of them
    is no zone. runs: of the ensemble; certain, possible: what lies inside in all of them, and in any, on the zone's
    grid or, where a member reaches beyond it, on a wider one of the same cells.
    """

    runs: int
    volume_ml: tuple[float, float]
    minimal_margin_mm: tuple[float, float] | None
    certain: Mask
    possible: Mask


def planned_margins(zone: SimulatedZone, lesion: Lesion) -> tuple[PlannedMargin, ...]:
    """One for each edge of the zone, the one that counts first."""
    return tuple(_planned(edge, zone, lesion) for edge in zone.edges)


def spread_of(
    plan: Plan,
    lesion: Lesion,
    settings: SimulationSettings,
    zone: SimulatedZone,
    *,
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> Spread:
    """How far the lesion's zone may be off: it is simulated once for each member of the ensemble, on cells of 2 mm,
    which cost little and move the edge by so much less than the ensemble does. told: how many runs are done, of how
    many.
    """
    thinnest_mm = min((a.probe.radius_mm for a in lesion.applicators if isinstance(a.probe, _WITH_SHAFT)), default=10.0)
    coarse_mm = max(settings.spacing_mm, min(COARSE_MM, MOST_CELLS_IN_RADII * thinnest_mm))
    coarse = replace(settings, spacing_mm=coarse_mm)
    scene = scene_of(plan, lesion, coarse)
    levels = [zone.counting.level]
    margins = [_margin(zone.counting, lesion)]
    # The kernels let other threads run.
    with ThreadPoolExecutor(_THREADS) as threads:
        members = threads.map(lambda factors: simulate(scene, coarse, factors), ENSEMBLE)
        for done, member in enumerate(members, 1):
            told(done, len(ENSEMBLE))
            levels.append(member.counting.level)
            margins.append(_margin(member.counting, lesion))
    volumes = [_volume_ml(level) for level in levels]
    grid = zone.grid.holding([_part(level).grid for level in levels if not level.mask().is_empty])
    inside = [level.mask_on(grid).voxels for level in levels]
    known = [margin for margin in margins if margin is not None]
    return Spread(
        runs=len(ENSEMBLE),
        volume_ml=(min(volumes), max(volumes)),
        minimal_margin_mm=(min(known), max(known)) if len(known) == len(margins) else None,
        certain=Mask(np.logical_and.reduce(inside), grid),
        possible=Mask(np.logical_or.reduce(inside), grid),
    )


def _planned(edge: Edge, zone: SimulatedZone, lesion: Lesion) -> PlannedMargin:
    points = lesion.tumor.points_lps_mm()
    covered = float((edge.level.at(points) > 0).mean())
    size = Size(tuple(_volume_ml(level) for level in edge.cycles), *_extent(edge.level, zone.axis))
    return PlannedMargin(edge.name, edge.temperature_c, size, _margin(edge, lesion), covered)


def _margin(edge: Edge, lesion: Lesion) -> float | None:
    if not (edge.level.values > 0).any():
        return None
    return measure_margin(surface_of_mask(lesion.tumor), edge.level).minimal_margin_mm


def _volume_ml(level: Level) -> float:
    """The volume that the edge's surface encloses."""
    if not (level.values > 0).any():
        return 0.0
    surface = _part(level).surface()
    a, b, c = (surface.vertices_lps_mm[surface.faces[:, n]] - surface.vertices_lps_mm[0] for n in range(3))
    return float(abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum())) / 6000.0


def _part(level: Level) -> Level:
    """The level around what it holds inside, with two cells of rim where there are some."""
    inside = np.argwhere(level.values > 0)
    low = np.maximum(inside.min(axis=0) - 2, 0)
    high = np.minimum(inside.max(axis=0) + 3, level.values.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return Level(level.values[box], level.grid.crop(low, high))


def _extent(level: Level, axis: NDArray[np.float64]) -> tuple[float, float]:
    """Length along an axis and diameter across it, mm; zeros for an empty zone."""
    if not (level.values > 0).any():
        return 0.0, 0.0
    surface = _part(level).surface()
    along = surface.vertices_lps_mm @ axis
    length = float(np.ptp(along))
    index = np.argwhere(level.values > 0)
    points = level.grid.lps_of(index)
    inside = points @ axis
    step = max(2.0, float(level.grid.spacing_mm.max()))
    slabs = np.bincount(np.floor((inside - inside.min()) / step).astype(int))
    area = float(slabs.max()) * level.grid.voxel_volume_mm3 / step
    return length, 2 * float(np.sqrt(area / np.pi))
