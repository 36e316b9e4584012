"""What makes a made patient: scans, zones and dates, in the baseline's coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from pipeline.case import Outcome, Point
from pipeline.geometry import Geometry, upright_grid
from pipeline.phantom_body import Phase
from pipeline.phantom_shape import Blob, Dented, Motion


@dataclass(frozen=True)
class Grid:
    """A scan's grid. shape, spacing_mm: slices, rows, columns; slices lie along +z, rows +y, columns +x."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    center_lps_mm: Point

    def geometry(self, frame_uid: str) -> Geometry:
        """The grid in a frame of reference; its first voxel is rounded to 0.01 mm, so that DICOM can say it exactly."""
        half = ((np.array(self.shape) - 1) / 2 * self.spacing_mm)[::-1]
        first = np.round(np.array(self.center_lps_mm) - half, 2)
        return upright_grid(self.shape, self.spacing_mm, first, frame_uid)


@dataclass(frozen=True)
class FollowUpSpec:
    """One follow-up to make; places are given in the baseline's coordinates.

    zone: what was ablated; missed: parts of it that were not; nodules: enhancing tissue, which the zone does not hold.
    Neither may reach the zone's center: the zone stays star-shaped.
    other_body_seed: draws somebody else's body under this patient's name.
    """

    days_since_procedure: int
    expected: Outcome
    zone: Blob
    motion: Motion
    grid: Grid
    missed: tuple[Blob, ...] = ()
    nodules: tuple[Blob, ...] = ()
    phase: Phase = "portal_venous"
    contrast_scale: float = 0.94
    vessel_scale: float = 0.85
    noise_hu: float = 13.0
    zone_hu: float = 42.0
    core_hu: float = 14.0
    """How much denser the middle of the zone is."""
    rim_mm: float = 1.2
    rim_hu: float = 14.0
    """How much brighter than the liver the thin benign rim is."""
    mr_like: bool = False
    """Signal instead of HU: not in the order of the HU, and uneven over the scan, as MR is."""
    other_body_seed: int | None = None
    patient_id: str | None = None
    """Whose name the scan bears, when not the plan's patient's."""

    @property
    def shape(self) -> Dented:
        """The non-enhancing zone as it is."""
        return Dented(self.zone, self.missed + self.nodules)


@dataclass(frozen=True)
class PhantomSpec:
    """All that makes a phantom; the same spec makes the same phantom to the last bit."""

    name: str
    seed: int
    tumor: Blob
    baseline_grid: Grid
    followups: tuple[FollowUpSpec, ...]
    simulated_zone: Blob | None = None
    required_margin_mm: float = 5.0
    patient_id: str = "PHANTOM-0001"
    baseline_date: date = date(2026, 1, 5)
    procedure_date: date = date(2026, 1, 12)
    baseline_noise_hu: float = 12.0
    tumor_scale: float = 1.0
    """Scales the contrast of the tumor to the liver."""
