"""The contrast phase of a CT, from the image alone."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.case import ContrastPhase
from pipeline.volume import Volume


@dataclass(frozen=True)
class PhaseEstimate:
    """What the image shows. aorta_hu, liver_hu: medians where found; reason: one plain sentence."""

    phase: ContrastPhase
    aorta_hu: float | None
    liver_hu: float | None
    confident: bool
    reason: str


def estimate_phase(volume: Volume) -> PhaseEstimate:
    """The contrast phase that the CT shows."""
    return PhaseEstimate("unknown", None, None, False, "No aorta was looked for.")
