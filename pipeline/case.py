"""What goes into an assessment: the plan with its baseline, one follow-up, and what earlier follow-ups found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Literal

import numpy as np

from pipeline.geometry import FloatArray, FrameMismatch, frozen
from pipeline.probe import Energy as Energy
from pipeline.probe import Probe
from pipeline.transform import Transform
from pipeline.volume import Mask, Volume

Organ = Literal["liver", "lung", "kidney", "bone", "soft_tissue"]
ContrastPhase = Literal["unenhanced", "arterial", "portal_venous", "delayed", "enhanced", "unknown"]
Outcome = Literal["local_progression", "incomplete_coverage", "not_assessable", "narrow_margin", "complete"]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class IsothermSize:
    """How large an isotherm one cryoprobe makes in gel, as device tables state it. medium_c: of the gel before."""

    temperature_c: float
    after_s: float
    diameter_mm: float
    length_mm: float | None = None
    medium_c: float = 37.0


@dataclass(frozen=True)
class Applicator:
    """One probe, needle or antenna as placed; points in the baseline's frame.

    probe: what is known of the device, None where nothing is; model_is_known: whether `probe` is this model, not the
    generic one of its energy; power_fraction: of its full power; start_s: when its protocol begins, so that one probe
    can be moved through several cannulas; isotherm_size: stated by the plan, goes before what is known of the device.
    """

    model: str
    tip_lps_mm: Point
    entry_lps_mm: Point
    probe: Probe | None = None
    power_fraction: float = 1.0
    start_s: float = 0.0
    isotherm_size: IsothermSize | None = None
    model_is_known: bool = True


@dataclass(frozen=True)
class ProtocolPhase:
    """One step of the protocol, e.g. freeze 600 s; power where the energy has one; is_active: a thaw that the probe
    warms."""

    phase: Literal["freeze", "thaw", "heat"]
    duration_s: float
    power_w: float | None = None
    is_active: bool = False


@dataclass(frozen=True, eq=False)
class Lesion:
    """One index tumor as planned; regions in the baseline's frame, on any grid of their own.

    zone_is_predicted: the simulated zone was not planned by anyone but worked out from applicators and protocol: it may
    lie beside what happened.
    """

    lesion_id: str
    required_margin_mm: float
    tumor: Mask
    simulated_zone: Mask | None = None
    applicators: tuple[Applicator, ...] = ()
    protocol: tuple[ProtocolPhase, ...] = ()
    zone_is_predicted: bool = False

    def __post_init__(self) -> None:
        if self.required_margin_mm < 0:
            raise ValueError(f"lesion {self.lesion_id}: the required margin cannot be negative")
        if self.tumor.is_empty:
            raise ValueError(f"lesion {self.lesion_id}: the tumor region is empty")
        if self.simulated_zone is not None and self.simulated_zone.is_empty:
            raise ValueError(f"lesion {self.lesion_id}: the simulated zone is empty")

    @property
    def expected_regions(self) -> tuple[Mask, ...]:
        """What the ablation zone should cover: the planned zone, else the tumor; both where the zone was predicted."""
        if self.simulated_zone is None:
            return (self.tumor,)
        return (self.simulated_zone, self.tumor) if self.zone_is_predicted else (self.simulated_zone,)

    @cached_property
    def points_lps_mm(self) -> FloatArray:
        """(n, 3) LPS of every voxel of the tumor and, where one was planned, of its simulated zone; kept once made."""
        planned = None if self.zone_is_predicted else self.simulated_zone
        regions = [r for r in (self.tumor, planned) if r is not None]
        return frozen(np.concatenate([r.points_lps_mm() for r in regions]))


@dataclass(frozen=True, eq=False)
class Plan:
    """What was planned and done, with the scan it was planned on."""

    plan_id: str
    organ: Organ
    energy: Energy
    procedure_date: date
    baseline: Volume
    lesions: tuple[Lesion, ...]
    organ_mask: Mask | None = None
    vessel_mask: Mask | None = None

    def __post_init__(self) -> None:
        if not self.lesions:
            raise ValueError("a plan needs at least one lesion")
        frame = self.baseline.geometry.frame_uid
        regions = [
            self.organ_mask,
            self.vessel_mask,
            *(x for lesion in self.lesions for x in (lesion.tumor, lesion.simulated_zone)),
        ]
        for region in regions:
            if region is not None and region.geometry.frame_uid != frame:
                raise FrameMismatch("a region of the plan is not in the baseline's frame of reference")
        for name, mask in (("organ", self.organ_mask), ("vessel", self.vessel_mask)):
            if mask is not None and mask.is_empty:
                raise ValueError(f"the plan's {name} mask is empty")


@dataclass(frozen=True, eq=False)
class FollowUp:
    """The series to assess, already chosen, and the contrast phase it was found to show."""

    acquired: date
    volume: Volume
    phase: ContrastPhase


@dataclass(frozen=True, eq=False)
class EarlierLesion:
    """What an earlier follow-up found for one lesion; the zone lies on that follow-up's grid.

    required_margin_mm: what its outcome was judged by; None where that is not known.
    """

    lesion_id: str
    outcome: Outcome
    zone: Mask | None
    required_margin_mm: float | None


@dataclass(frozen=True, eq=False)
class EarlierFollowUp:
    """An earlier follow-up of the same plan; the transform maps its points to the baseline's."""

    days_since_procedure: int
    lesions: tuple[EarlierLesion, ...]
    baseline_from_followup: Transform | None


@dataclass(frozen=True, eq=False)
class Case:
    """One follow-up to assess. `previous` is in time order, oldest first."""

    plan: Plan
    followup: FollowUp
    previous: tuple[EarlierFollowUp, ...] = ()

    @property
    def days_since_procedure(self) -> int:
        return (self.followup.acquired - self.plan.procedure_date).days
