"""What a simulated zone means for its lesion: sizes, the planned margin, and how far both may be off."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.case import Lesion, Plan, Point
from pipeline.margin import MarginMap, measure_margin
from pipeline.simulate.placement import fine_enough_mm
from pipeline.simulate.zone import Edge, Factors, SimulatedZone, SimulationSettings, scene_of, simulate
from pipeline.surface import Level, Surface
from pipeline.volume import Mask

#: Perfusion differs most from patient to patient. Conductivity of frozen tissue differs by up to 40 % between
#: publications (Materials 2021;14:3750). Heat transfer: what moves the radius of a single probe's ice by about 10 %.
_PERFUSION, _CONDUCTIVITY, _TRANSFER = (0.5, 2.0), (0.8, 1.2), (0.75, 1.3)
ENSEMBLE = tuple(Factors(p, k, h) for p in _PERFUSION for k in _CONDUCTIVITY for h in _TRANSFER)


_THREADS = 2  # as many cores as the smallest machine has
#: Of the ensemble's cells: coarser ones would move the edge more than the ensemble does.
COARSE_MM = 2.0


@dataclass(frozen=True)
class Size:
    """volume_ml: after each freeze-thaw cycle; length_mm: along the applicators; diameter_mm: across, of the circle
    with the area of the largest section."""

    volume_ml: tuple[float, ...]
    length_mm: float
    diameter_mm: float


@dataclass(frozen=True)
class PlannedMargin:
    """minimal_margin_mm: signed, from the tumor's surface to the edge, positive inside the zone; thinnest_lps_mm: where
    on the tumor; both None where there is no zone; covered_fraction: of the tumor's volume."""

    edge: str
    temperature_c: float | None
    size: Size
    minimal_margin_mm: float | None
    thinnest_lps_mm: Point | None
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


def planned_margins(zone: SimulatedZone, tumor: Mask, surface: Surface) -> tuple[PlannedMargin, ...]:
    """One for each edge of the zone, the one that counts first. surface: the tumor's."""
    return tuple(_planned(edge, zone, tumor, surface) for edge in zone.edges)


def spread_of(
    plan: Plan,
    lesion: Lesion,
    settings: SimulationSettings,
    zone: SimulatedZone,
    surface: Surface,
    *,
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> Spread:
    """How far the lesion's zone may be off: it is simulated once for each member of the ensemble, on cells of 2 mm
    (finer for a thinner shaft, never finer than the zone's own), which cost little and move the edge by so much less
    than the ensemble does. surface: the tumor's; told: how many runs are done, of how many. Raises CannotSimulate.
    """
    coarse_mm = max(settings.spacing_mm, fine_enough_mm(lesion.applicators, COARSE_MM))
    coarse = replace(settings, spacing_mm=coarse_mm)
    scene = scene_of(plan, lesion, coarse)
    levels = [zone.counting.level]
    margins = [_minimal_mm(zone.counting, surface)]
    # The kernels let other threads run.
    with ThreadPoolExecutor(_THREADS) as threads:
        members = threads.map(lambda factors: simulate(scene, coarse, factors), ENSEMBLE)
        for done, member in enumerate(members, 1):
            told(done, len(ENSEMBLE))
            levels.append(member.counting.level)
            margins.append(_minimal_mm(member.counting, surface))
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


def _planned(edge: Edge, zone: SimulatedZone, tumor: Mask, surface: Surface) -> PlannedMargin:
    covered = float((edge.level.at(tumor.points_lps_mm()) > 0).mean())
    size = Size(tuple(_volume_ml(level) for level in edge.cycles), *_extent(edge.level, zone.axis))
    margin = _margin(edge, surface)
    if margin is None:
        return PlannedMargin(edge.name, edge.temperature_c, size, None, None, covered)
    x, y, z = (float(v) for v in surface.vertices_lps_mm[margin.thinnest])
    return PlannedMargin(edge.name, edge.temperature_c, size, margin.minimal_margin_mm, (x, y, z), covered)


def _margin(edge: Edge, surface: Surface) -> MarginMap | None:
    """None where there is no zone."""
    return measure_margin(surface, edge.level) if (edge.level.values > 0).any() else None


def _minimal_mm(edge: Edge, surface: Surface) -> float | None:
    margin = _margin(edge, surface)
    return None if margin is None else margin.minimal_margin_mm


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
