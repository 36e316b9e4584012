"""The simulated ablation zone of one lesion: fields, isotherms, and how far they may be off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.case import Applicator, Lesion, Plan
from pipeline.geometry import FloatArray, Geometry
from pipeline.probe import CryoProbe, HeatProbe, TabledZone
from pipeline.simulate.dose import Dose
from pipeline.simulate.heat import Course, HeatSettings, run
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.placement import (
    active_line,
    check_lesion,
    check_placement,
    fitted_devices,
    mean_direction,
    room_around,
)
from pipeline.simulate.schedule import intervals_of
from pipeline.simulate.tabled import tabled_level
from pipeline.simulate.tissue import Tissue, varied
from pipeline.simulate.tissue_map import NAMES, label_map
from pipeline.simulate.tissues import TISSUES, heated
from pipeline.surface import Level
from pipeline.volume import Mask

Array = NDArray[np.float32]

#: °C. −20 °C is the lethal edge of the liquid-nitrogen studies, −40 °C the strictest in use, 0 °C what imaging shows.
ISOTHERMS_C = (0.0, -20.0, -40.0)


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
        return self.level.mask()


@dataclass(frozen=True, eq=False)
class SimulatedZone:
    """What one lesion's applicators and protocol should do. applicators: with the devices as fitted; edges: the one
    that counts first; temperature_c: (k, j, i) float32, the least (for heat the greatest) that each cell reached, None
    for a tabled zone.
    """

    lesion_id: str
    applicators: tuple[Applicator, ...]
    grid: Geometry
    edges: tuple[Edge, ...]
    temperature_c: Array | None

    @property
    def axis(self) -> FloatArray:
        """(3,) the mean direction of the applicators."""
        return mean_direction(self.applicators)

    @property
    def counting(self) -> Edge:
        """The edge of the zone that counts as the simulated ablation zone."""
        return self.edges[0]


@dataclass(frozen=True, eq=False)
class Scene:
    """One lesion laid out on its grid. applicators: with the devices as fitted; labels: (k, j, i) numbers into `NAMES`
    of tissues; None for tabled zones, which ask for no tissue."""

    lesion: Lesion
    applicators: tuple[Applicator, ...]
    frame_uid: str
    labels: NDArray[np.uint8] | None
    grid: Geometry | None


def simulate_zone(plan: Plan, lesion: Lesion, settings: SimulationSettings | None = None) -> SimulatedZone:
    """The zone of one lesion, in the baseline's frame. Raises CannotSimulate."""
    s = settings or SimulationSettings()
    return simulate(scene_of(plan, lesion, s), s)


def scene_of(plan: Plan, lesion: Lesion, settings: SimulationSettings) -> Scene:
    """The lesion laid out. Raises CannotSimulate."""
    check_lesion(lesion)
    frame_uid = plan.baseline.geometry.frame_uid
    applicators = fitted_devices(lesion.applicators)
    check_placement(replace(lesion, applicators=applicators), plan.baseline.geometry, settings.spacing_mm)
    if isinstance(applicators[0].probe, TabledZone):
        return Scene(lesion, applicators, frame_uid, None, None)
    ends = np.array([end for a in applicators for end in active_line(a).ends])
    grid = room_around(ends, room_mm=settings.room_mm, spacing_mm=settings.spacing_mm, frame_uid=frame_uid)
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
        labels = np.full(grid.shape, NAMES.index(plan.organ), np.uint8)
    return Scene(lesion, applicators, frame_uid, labels, grid)


def simulate(scene: Scene, settings: SimulationSettings, factors: Factors | None = None) -> SimulatedZone:
    """The zone of a scene. factors: a member of an ensemble instead of the tissues' and devices' own values."""
    f, lesion = factors or Factors(), scene.lesion
    if scene.labels is None or scene.grid is None:
        return _tabled(scene, settings, f)
    heats = isinstance(scene.applicators[0].probe, HeatProbe)
    tissues = tuple(_tissue(TISSUES[name], f, heats=heats) for name in NAMES)
    lattice = Lattice(scene.grid, scene.labels, tissues)
    applicators = tuple(_with_factors(applicator, f) for applicator in scene.applicators)
    lines = [active_line(applicator) for applicator in applicators]
    intervals = intervals_of(applicators, lesion.protocol)
    course = run(lattice, lines, intervals, HeatSettings(dose=settings.dose))
    if heats:
        assert course.dose is not None  # every phase lasts, and every generator gives power
        assert course.greatest_enthalpy is not None
        extreme_c = lattice.by_tissue(course.greatest_enthalpy, "temperature_of")
        edges: tuple[Edge, ...] = (_coagulated(course, course.dose),)
    else:
        extreme_c = lattice.by_tissue(course.least_enthalpy[-1], "temperature_of")
        edges = _isotherms(course, tuple(dict.fromkeys((settings.isotherm_c, *ISOTHERMS_C))))
    return SimulatedZone(lesion.lesion_id, scene.applicators, lattice.geometry, edges, extreme_c)


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


def _isotherms(course: Course, temperatures_c: Sequence[float]) -> tuple[Edge, ...]:
    """Contours of θ, in which the flux is linear, lie far closer than contours of T, whose slope jumps at the edge of
    the ice.
    """
    lattice = course.lattice
    fields = [lattice.by_tissue(least, "potential_from") for least in course.least_enthalpy]
    edges = []
    for celsius in temperatures_c:
        each = np.array([float(law.potential_of(celsius)) for law in lattice.laws_of_tissues], np.float32)
        levels = tuple(Level(each[lattice.labels] - theta, lattice.geometry) for theta in fields)
        edges.append(Edge(f"{celsius:g} °C", celsius, levels))
    return tuple(edges)


def _coagulated(course: Course, dose: Array) -> Edge:
    level = np.log(np.clip(dose, 1e-4, 1e4)).astype(np.float32)
    return Edge("coagulated", None, (Level(level, course.lattice.geometry),))


def _tabled(scene: Scene, settings: SimulationSettings, factors: Factors) -> SimulatedZone:
    level = tabled_level(
        scene.applicators,
        spreads=float(np.sign(factors.transfer - 1)),
        room_mm=settings.room_mm,
        spacing_mm=settings.spacing_mm,
        frame_uid=scene.frame_uid,
    )
    edges = (Edge("tabled", None, (level,)),)
    return SimulatedZone(scene.lesion.lesion_id, scene.applicators, level.grid, edges, None)
