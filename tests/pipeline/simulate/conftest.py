"""A made plan: a ball of a tumor in the middle of a plain baseline, and probes through it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import lru_cache

import numpy as np
import pytest

from pipeline.case import Applicator, Lesion, Plan, Point, ProtocolPhase
from pipeline.geometry import upright_grid
from pipeline.probe import CryoProbe, Probe
from pipeline.volume import Mask, Volume

FRAME = "baseline"
ARGON = CryoProbe("argon", 0.75, 24.0, 3.0, -150.0, 2000.0, 25.0, 20.0, "made")
DOUBLE = (ProtocolPhase("freeze", 300.0), ProtocolPhase("thaw", 120.0), ProtocolPhase("freeze", 300.0))
MakeProbe = Callable[..., Applicator]
MakePlan = Callable[..., Plan]


@lru_cache
def ball(radius_mm: float) -> Mask:
    """Kept, as the distances to it are that a mask keeps."""
    fine = upright_grid((44, 44, 44), (0.5,) * 3, (-10.75,) * 3, FRAME)
    return Mask(np.linalg.norm(fine.grid_lps(), axis=-1) < radius_mm, fine)


@pytest.fixture
def argon() -> CryoProbe:
    return ARGON


@pytest.fixture
def applicator() -> MakeProbe:
    """A probe through the tumor, its tip 15 mm below the middle and its shaft along LPS (0, 0, 1)."""

    def made(
        tip_lps_mm: Point = (0.3, 0.2, -15.0), *, probe: Probe | None = ARGON, power: float = 1.0, start_s: float = 0.0
    ) -> Applicator:
        entry = (tip_lps_mm[0], tip_lps_mm[1], tip_lps_mm[2] + 80.0)
        return Applicator("argon", tip_lps_mm, entry, probe, power_fraction=power, start_s=start_s)

    return made


@pytest.fixture
def plan(applicator: MakeProbe) -> MakePlan:
    """A plan of one lesion; the baseline shows 120 mm of 50 HU."""

    def made(
        applicators: tuple[Applicator, ...] | None = None,
        protocol: tuple[ProtocolPhase, ...] = DOUBLE,
        *,
        tumor_radius_mm: float = 6.0,
        **given: object,
    ) -> Plan:
        tumor = ball(tumor_radius_mm)
        lesion = Lesion(
            "L1", 5.0, tumor, applicators=(applicator(),) if applicators is None else applicators, protocol=protocol
        )
        grid = upright_grid((30, 30, 30), (4.0,) * 3, (-58.0,) * 3, FRAME)
        baseline = Volume(np.full(grid.shape, 50, np.int16), grid, "ct_hu")
        return Plan("P1", "liver", "cryoablation", date(2025, 1, 2), baseline, (lesion,), **given)  # type: ignore[arg-type]

    return made
