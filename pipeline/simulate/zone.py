"""The simulated ablation zone of one lesion: fields, isotherms, and how far they may be off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.case import Applicator, Lesion, Plan
from pipeline.geometry import FloatArray, Geometry
from pipeline.probe import CryoProbe, HeatProbe, TabledZone
from pipeline.simulate.device_fit import fitted
from pipeline.simulate.dose import Dose
from pipeline.simulate.heat import Course, HeatSettings, run
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.schedule import intervals_of
from pipeline.simulate.sinks import Line
from pipeline.simulate.tissue import Tissue, varied
from pipeline.simulate.tissue_map import grid_around, label_map, tissue_names
from pipeline.simulate.tissues import TISSUES, heated
from pipeline.surface import Level
from pipeline.volume import Mask

Array = NDArray[np.float32]

#: °C. −20 °C is the lethal edge of the liquid-nitrogen studies, −40 °C the strictest in use, 0 °C what imaging shows.
ISOTHERMS_C = (0.0, -20.0, -40.0)
COARSE_MM = 2.0
#: A probe much thinner than a cell is felt as a line; beyond this its first millimetres are guessed.
_MOST_CELLS_IN_RADII = 3.5
_AROUND_TABLED_MM = 4.0


@dataclass(frozen=True)
class SimulationSettings:
    """isotherm_c: the edge of the zone that counts; spacing_mm: of the cells; room_mm: beyond the applicators' active
    parts; by_tissue: whether fat, bone, lung and vessels are told apart, else all is the organ; dose: what heat
    coagulates by.
    """

    isotherm_c: float = -20.0
    spacing_mm: float = 1.0
    room_mm: float = 36.0
    by_tissue: bool = True
    dose: Dose = field(default_factory=Dose)

    def __post_init__(self) -> None:
        if not -80.0 <= self.isotherm_c <= 0.0:
            hint = "; it looks like kelvin" if self.isotherm_c > 100 else ""
            raise ValueError(f"isotherm_c must be between -80 and 0 °C, not {self.isotherm_c:g}{hint}")
        if not 0.4 <= self.spacing_mm <= 3.0:
            raise ValueError(
                f"spacing_mm must be between 0.4 and 3, not {self.spacing_mm:g}: coarser cells cannot resolve a probe"
            )


@dataclass(frozen=True)
class Factors:
    """One member of an ensemble: what the tissue's perfusion, the conductivity of its ice (for heat: of the tissue)
    and the transfer of heat (for heat: the power) are multiplied by."""

    perfusion: float = 1.0
    conductivity: float = 1.0
    transfer: float = 1.0


@dataclass(frozen=True, eq=False)
class Edge:
    """An edge of the zone. name: e.g. "-20 °C", or "coagulated"; cycles: its level after each freeze-thaw cycle, the
    last one final; all positive inside."""

    name: str
    temperature_c: float | None
    cycles: tuple[Level, ...]

    @property
    def level(self) -> Level:
        return self.cycles[-1]

    @property
    def mask(self) -> Mask:
        return Mask(self.level.values > 0, self.level.grid)


@dataclass(frozen=True, eq=False)
class SimulatedZone:
    """What one lesion's applicators and protocol should do. edges: the one that counts first; temperature_c: (k, j, i)
    float32, the least (for heat the greatest) that each cell reached, None for a tabled zone; axis: (3,) the mean
    direction of the applicators.
    """

    lesion_id: str
    grid: Geometry
    axis: FloatArray
    edges: tuple[Edge, ...]
    temperature_c: Array | None

    @property
    def counting(self) -> Edge:
        """The edge of the zone that counts as the simulated ablation zone."""
        return self.edges[0]


class CannotSimulate(ValueError):
    """Why a lesion's zone cannot be simulated; `key` is the part of the lesion to look at."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key, self.text = key, text


def active_line(applicator: Applicator) -> Line:
    """The active part of an applicator with a device that has one."""
    probe = applicator.probe
    assert isinstance(probe, CryoProbe | HeatProbe)
    start = _along(applicator, probe.tip_inset_mm)
    end = _along(applicator, probe.tip_inset_mm + probe.active_length_mm)
    reach_mm = probe.reach_mm if isinstance(probe, HeatProbe) else 0.0
    return Line(_point(start), _point(end), probe.radius_mm, reach_mm)


def check_lesion(lesion: Lesion) -> None:
    """Raises CannotSimulate for applicators and a protocol that make no zone."""
    if not lesion.applicators:
        raise CannotSimulate("applicators", "names no applicator; the zone cannot be simulated")
    if any(applicator.probe is None for applicator in lesion.applicators):
        raise CannotSimulate("applicators", "names a device of which nothing is known")
    tabled = [isinstance(a.probe, TabledZone) for a in lesion.applicators]
    if any(tabled) and not all(tabled):
        raise CannotSimulate("applicators", "mixes devices with a tabled zone and devices that are simulated")
    if len({type(applicator.probe) for applicator in lesion.applicators}) > 1:
        raise CannotSimulate("applicators", "mixes devices that freeze and devices that heat")
    if not any(tabled) and not lesion.protocol:
        raise CannotSimulate("protocol", "is missing; the zone cannot be simulated without it")
    wanted = "freeze" if any(isinstance(a.probe, CryoProbe) for a in lesion.applicators) else "heat"
    if not any(tabled) and not any(phase.phase == wanted for phase in lesion.protocol):
        raise CannotSimulate("protocol", f"has no phase {wanted}")


def simulate_zone(
    plan: Plan, lesion: Lesion, settings: SimulationSettings | None = None, factors: Factors | None = None
) -> SimulatedZone:
    """The zone of one lesion, in the baseline's frame. Raises CannotSimulate.

    factors: a member of an ensemble instead of the tissues' and devices' own values.
    """
    s, f = settings or SimulationSettings(), factors or Factors()
    check_lesion(lesion)
    if isinstance(lesion.applicators[0].probe, TabledZone):
        return _tabled(plan, lesion, s, f)
    applicators = _fitted(lesion.applicators)
    check_placement(plan, applicators, s)
    lattice = _lattice(plan, applicators, s, f)
    applicators = tuple(_with_factors(applicator, f) for applicator in applicators)
    lines = [active_line(applicator) for applicator in applicators]
    intervals = intervals_of(applicators, lesion.protocol)
    axis = _mean_direction(applicators)
    course = run(lattice, lines, intervals, HeatSettings(dose=s.dose))
    if course.dose is not None and course.greatest_enthalpy is not None:
        hottest = lattice.by_tissue(course.greatest_enthalpy, "temperature_of")
        return SimulatedZone(lesion.lesion_id, lattice.geometry, axis, (_coagulated(course, course.dose),), hottest)
    edges = tuple(_isotherm(course, celsius) for celsius in dict.fromkeys((s.isotherm_c, *ISOTHERMS_C)))
    coldest = lattice.by_tissue(course.least_enthalpy[-1], "temperature_of")
    return SimulatedZone(lesion.lesion_id, lattice.geometry, axis, edges, coldest)


def _fitted(applicators: Sequence[Applicator]) -> tuple[Applicator, ...]:
    """The applicators, those with a stated isotherm with the device fitted to it. Raises CannotSimulate."""
    found = []
    for number, applicator in enumerate(applicators):
        probe, size = applicator.probe, applicator.isotherm_size
        if size is not None and isinstance(probe, CryoProbe):
            try:
                probe = fitted(probe, size)
            except ValueError as problem:
                raise CannotSimulate(f"applicators[{number}].isotherm_size", str(problem)) from None
        found.append(replace(applicator, probe=probe))
    return tuple(found)


def check_placement(plan: Plan, applicators: Sequence[Applicator], settings: SimulationSettings) -> None:
    """Raises CannotSimulate for applicators outside the baseline or through one another, and for cells too coarse."""
    lines = [active_line(applicator) for applicator in applicators]
    for number, (applicator, line) in enumerate(zip(applicators, lines, strict=True)):
        if not bool(plan.baseline.geometry.contains(np.array(applicator.tip_lps_mm))):
            raise CannotSimulate(f"applicators[{number}].tip_lps_mm", "lies outside the baseline scan")
        if settings.spacing_mm > _MOST_CELLS_IN_RADII * line.radius_mm:
            text = f"has a radius of {line.radius_mm:g} mm; cells of {settings.spacing_mm:g} mm are too coarse for it"
            raise CannotSimulate(f"applicators[{number}].model", text)
        for before in range(number):
            touch = line.radius_mm + lines[before].radius_mm
            together = applicator.start_s == applicators[before].start_s
            if together and _apart_mm(line, lines[before]) < touch:
                text = f"overlaps applicators[{before}]: their shafts are less than {touch:.1f} mm apart"
                raise CannotSimulate(f"applicators[{number}].tip_lps_mm", text)


def _apart_mm(one: Line, other: Line) -> float:
    """Least distance between two active parts, to a tenth of a millimetre."""
    along = np.linspace(0.0, 1.0, 200)[:, None]
    points = _ends(one)[0] * (1 - along) + _ends(one)[1] * along
    start, end = _ends(other)
    shaft = end - start
    share = np.clip((points - start) @ shaft / (shaft @ shaft), 0.0, 1.0)
    return float(np.linalg.norm(points - start - share[:, None] * shaft, axis=1).min())


def _lattice(plan: Plan, applicators: Sequence[Applicator], settings: SimulationSettings, factors: Factors) -> Lattice:
    ends = np.array([p for a in applicators for p in _ends(active_line(a))])
    frame_uid = plan.baseline.geometry.frame_uid
    grid = grid_around(ends, room_mm=settings.room_mm, spacing_mm=settings.spacing_mm, frame_uid=frame_uid)
    names = tissue_names(plan.organ)
    if settings.by_tissue:
        labels = label_map(
            grid,
            plan.organ,
            image=plan.baseline,
            organ_mask=plan.organ_mask,
            tumors=[each.tumor for each in plan.lesions],
            vessel_mask=plan.vessel_mask,
        )
    else:
        labels = np.full(grid.shape, names.index(plan.organ), np.uint8)
    heats = isinstance(applicators[0].probe, HeatProbe)
    tissues = tuple(_tissue(TISSUES[name], factors, heats=heats) for name in names)
    return Lattice(grid, labels, tissues)


def _tissue(tissue: Tissue, factors: Factors, *, heats: bool) -> Tissue:
    if not heats:
        return varied(tissue, perfusion=factors.perfusion, ice_conductivity=factors.conductivity)
    hot = heated(varied(tissue, perfusion=factors.perfusion))
    return replace(hot, conductivity_w_mk=tuple(k * factors.conductivity for k in hot.conductivity_w_mk))


def _with_factors(applicator: Applicator, factors: Factors) -> Applicator:
    probe = applicator.probe
    if isinstance(probe, CryoProbe):
        probe = replace(probe, transfer_w_m2k=probe.transfer_w_m2k * factors.transfer)
    elif isinstance(probe, HeatProbe):
        # Efficiencies are better known than heat transfer: half of the variation, in the same directions.
        probe = replace(probe, efficiency=min(1.0, probe.efficiency * (1 + factors.transfer) / 2))
    return replace(applicator, probe=probe)


def _isotherm(course: Course, celsius: float) -> Edge:
    """Contours of θ, in which the flux is linear, lie far closer than contours of T, whose slope jumps at the edge of
    the ice."""
    lattice = course.lattice
    edge = np.array([float(law.potential_of(celsius)) for law in lattice.laws_of_tissues], np.float32)[lattice.labels]
    levels = tuple(
        Level(edge - lattice.by_tissue(least, "potential_from"), lattice.geometry) for least in course.least_enthalpy
    )
    return Edge(f"{celsius:g} °C", celsius, levels)


def _coagulated(course: Course, dose: Array) -> Edge:
    level = np.log(np.clip(dose, 1e-4, 1e4)).astype(np.float32)
    return Edge("coagulated", None, (Level(level, course.lattice.geometry),))


def _tabled(plan: Plan, lesion: Lesion, settings: SimulationSettings, factors: Factors) -> SimulatedZone:
    """The union of the devices' ellipsoids; in an ensemble they grow and shrink by their spread."""
    inside: list[Callable[[FloatArray], FloatArray]] = []
    ends: list[FloatArray] = []
    widest_mm = 0.0
    for applicator in lesion.applicators:
        probe = applicator.probe
        assert isinstance(probe, TabledZone)
        scale = 1 + probe.spread_fraction * float(np.sign(factors.transfer - 1))
        center, axis = _along(applicator, probe.center_from_tip_mm), _direction(applicator)
        inside.append(_ellipsoid(center, axis, scale * probe.length_mm / 2, scale * probe.diameter_mm / 2))
        widest_mm = max(widest_mm, scale * probe.diameter_mm)
        ends += [center - axis * scale * probe.length_mm / 2, center + axis * scale * probe.length_mm / 2]
    frame_uid = plan.baseline.geometry.frame_uid
    # A zone may be wider than the room that a probe needs.
    room_mm = max(settings.room_mm, widest_mm / 2 + _AROUND_TABLED_MM)
    grid = grid_around(np.array(ends), room_mm=room_mm, spacing_mm=settings.spacing_mm, frame_uid=frame_uid)
    points = grid.grid_lps()
    level = np.max([each(points) for each in inside], axis=0).astype(np.float32)
    edge = Edge("tabled", None, (Level(level, grid),))
    return SimulatedZone(lesion.lesion_id, grid, _mean_direction(lesion.applicators), (edge,), None)


def _ellipsoid(
    center: FloatArray, axis: FloatArray, half_length_mm: float, radius_mm: float
) -> Callable[[FloatArray], FloatArray]:
    def level(points: FloatArray) -> FloatArray:
        offset = points - center
        along = offset @ axis
        across = np.sqrt(np.maximum((offset**2).sum(-1) - along**2, 0.0))
        return np.asarray((1 - np.hypot(along / half_length_mm, across / radius_mm)) * radius_mm)

    return level


def _ends(line: Line) -> tuple[FloatArray, FloatArray]:
    return np.array(line.start_lps_mm), np.array(line.end_lps_mm)


def _direction(applicator: Applicator) -> FloatArray:
    shaft = np.subtract(applicator.entry_lps_mm, applicator.tip_lps_mm)
    return np.asarray(shaft / np.linalg.norm(shaft))


def _mean_direction(applicators: Sequence[Applicator]) -> FloatArray:
    """(3,) unit vector; of the first applicator where they point against one another."""
    total = np.sum([_direction(a) for a in applicators], axis=0)
    size = float(np.linalg.norm(total))
    return np.asarray(total / size) if size > 0.1 else _direction(applicators[0])


def _along(applicator: Applicator, from_tip_mm: float) -> FloatArray:
    return np.asarray(np.array(applicator.tip_lps_mm) + from_tip_mm * _direction(applicator))


def _point(values: FloatArray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z
