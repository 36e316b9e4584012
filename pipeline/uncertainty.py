"""How far off the least margin may be, and how likely it lies below what matters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import FloatArray
from pipeline.margin import MarginMap
from pipeline.registration_error import RegistrationErrors
from pipeline.segment import Zone
from pipeline.volume import Mask

#: Surface points that may become the thinnest place: within this of the least margin, at most so many.
WITHIN_MM = 6.0
MOST_POINTS = 160
#: The zone's drawn edge: what it is off all over (per unit of noise over contrast, and of the slice thickness), and
#: from place to place, alike over `ROUGH_MM`. Set on the made patients of docs/decisions/0047.
OFF_MM, OFF_PER_NOISE, OFF_PER_SLICE = 0.1, 1.6, 0.17
ROUGH_MM_SD, ROUGH_PER_NOISE, ROUGH_PER_SLICE = 0.1, 2.4, 0.18
ROUGH_MM = 5.0
#: What a tumor drawn on slices thicker than those patients' adds from place to place: surfaces of known shapes, drawn
#: on 2.5 mm slices, are off by 0.12 mm, on 5 mm slices by 0.32 mm (pairs of benchmarks/margin.py: the root mean square
#: error of the least margin is 0.164 and 0.454 mm, half of its square to each of the two surfaces).
DRAWN_PER_SLICE, DRAWN_SLICE_MM = 0.07, 2.5
_WAVES = 48


@dataclass(frozen=True)
class EdgeError:
    """Standard deviations of the drawn edges in mm: all over, and from place to place."""

    off_mm: float
    rough_mm: float

    @staticmethod
    def of(zone: Zone, tumor: Mask) -> EdgeError:
        """Of a zone as found and a tumor as drawn, each on its own grid."""
        noise = zone.intensities.noise / max(abs(zone.intensities.organ - zone.intensities.zone), 1e-3)
        slice_mm = float(zone.mask.geometry.spacing_mm.max())
        off = np.linalg.norm([OFF_MM, OFF_PER_NOISE * noise, OFF_PER_SLICE * slice_mm])
        thicker_mm = np.sqrt(max(0.0, float(tumor.geometry.spacing_mm.max()) ** 2 - DRAWN_SLICE_MM**2))
        drawn = DRAWN_PER_SLICE * thicker_mm
        rough = np.linalg.norm([ROUGH_MM_SD, ROUGH_PER_NOISE * noise, ROUGH_PER_SLICE * slice_mm, drawn])
        return EdgeError(float(off), float(rough))

    def draws_mm(self, points_lps_mm: FloatArray, draws: int) -> FloatArray:
        """(draws, n) errors of the edge near (n, 3) points: one for all, and a smooth random field."""
        rng = np.random.default_rng(1)
        waves = rng.standard_normal((draws, 3, _WAVES)) / ROUGH_MM
        phases = rng.uniform(0, 2 * np.pi, (draws, 1, _WAVES))
        field = np.stack([np.cos(points_lps_mm @ w + p).sum(1) for w, p in zip(waves, phases, strict=True)])
        shift = self.off_mm * rng.standard_normal((draws, 1))
        return np.asarray(shift + self.rough_mm * np.sqrt(2 / _WAVES) * field)


@dataclass(frozen=True)
class MarginUncertainty:
    """interval_mm: 95 %. The probabilities are those of the true least margin; the second one's margin is held against
    the required one as the verdict holds it, with the organ's edge credited."""

    interval_mm: tuple[float, float]
    probability_below_0mm: float
    probability_below_required: float


def margin_uncertainty(
    margins: MarginMap, errors: RegistrationErrors, edge: EdgeError, *, required_mm: FloatArray
) -> MarginUncertainty:
    """From draws of both errors at every point of the tumor's surface that may be the thinnest.

    required_mm: (n,) the margin asked for at each vertex of the tumor's surface. The least of many noisy margins is not
    the margin of the least place: mostly it is smaller. The draws show by how much, and that is taken off once for the
    noise that was drawn, and once more for the noise that the measured margin had: always for the probabilities, for
    each end of the interval only where that makes it wider, since an end must not lean on an estimate.
    """
    slack = margins.distance_mm - required_mm
    near = np.union1d(_nearest(margins.distance_mm), _nearest(slack))
    points = margins.tumor.vertices_lps_mm[near]
    moved = points + errors.at(points)
    drawn = margins.edge.margin_mm(moved.reshape(-1, 3), nearest=1).reshape(moved.shape[:2])
    drawn = drawn + edge.draws_mm(points, len(drawn))
    least, off = drawn.min(1), _offset(drawn, margins.distance_mm[near])
    low, high = np.quantile(least, [0.025, 0.975])
    short = (drawn - required_mm[near]).min(1) - 2.0 * _offset(drawn - required_mm[near], slack[near])
    below = least - 2.0 * off
    return MarginUncertainty(
        (float(low - max(off, 2.0 * off)), float(high - min(off, 2.0 * off))),
        _share(below < 0.0),
        _share((short < 0.0) | (below < 0.0)),
    )


def _nearest(values: FloatArray) -> NDArray[np.int_]:
    """The numbers of the values that may become the least: a third of them the very least, the rest spread evenly."""
    near = np.flatnonzero(values <= values.min() + WITHIN_MM)
    if len(near) <= MOST_POINTS:
        return near
    least = near[np.argsort(values[near])[: MOST_POINTS // 3]]
    return np.union1d(least, near[:: len(near) // (2 * MOST_POINTS // 3) + 1])


def _offset(drawn: FloatArray, measured: FloatArray) -> float:
    """How far the least of the draws lies from the least that was measured, on average."""
    return float(drawn.min(1).mean() - measured.min())


def _share(draws: NDArray[np.bool_]) -> float:
    """The share of draws, never none and never all: so many draws cannot tell certainty (Laplace's rule)."""
    return float((draws.sum() + 1) / (len(draws) + 2))
