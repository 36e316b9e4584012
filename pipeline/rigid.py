"""The rigid start of a registration: translation by masked correlation, several rolls, then mutual information."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft

from pipeline.descent import Descent, descend
from pipeline.device import device_of
from pipeline.geometry import FloatArray, Geometry
from pipeline.sampling import Box, Field, Window, box_of, extent_of, field_of, lattice_in, smoothed, window_of
from pipeline.similarity import negative_mutual_information, to_bins
from pipeline.transform import Transform, resample
from pipeline.volume import Volume

FINE_MM, COARSE_MM = 3.0, 8.0
_ROLLS_DEG = (0.0, -15.0, 15.0)
_LEAST_OVERLAP = 0.3  # of the smaller image, for a translation to be considered


def rigid_start(followup: Volume, baseline: Volume, *, region: Box, device: str = "auto") -> Transform:
    """The rigid map from follow-up to baseline, from several starts.

    region: the part of the baseline (LPS mm) that matters most; the second stage looks only there and 40 mm around.
    """
    there = device_of(device)
    with ThreadPoolExecutor(2) as pool:
        fixed, moving = pool.map(_Scan.of, (followup, baseline))
        coarse = _Pair.of(fixed, moving, spacing_mm=6.0, device=there)
        whole = extent_of(followup.geometry)
        starts = _translations(fixed, moving)
        candidates = list(pool.map(lambda start: coarse.refine(start, whole, steps=40, rate=1.5), starts))
    best = min(candidates, key=lambda c: c[1])
    fine = _Pair.of(fixed, moving, spacing_mm=FINE_MM, device=there)
    back = Transform(baseline.geometry.frame_uid, followup.geometry.frame_uid, best[0]).inverse_points
    near = box_of(back(region.corners())).grown(40.0).meet(whole)
    matrix, _ = fine.refine(best[0], near, steps=60, rate=0.8)
    return Transform(baseline.geometry.frame_uid, followup.geometry.frame_uid, matrix)


@dataclass(frozen=True, eq=False)
class _Scan:
    """A scan at `FINE_MM`, from which all coarser ones are made, and the gray values that carry anatomy."""

    volume: Volume
    window: Window

    @staticmethod
    def of(volume: Volume) -> _Scan:
        window = window_of(volume)
        values, geometry = smoothed(volume, spacing_mm=FINE_MM, low=window.low, high=window.high)
        return _Scan(Volume(values, geometry, volume.quantity), window)

    def at(self, spacing_mm: float) -> tuple[NDArray[np.float32], Geometry]:
        """Values and grid at a coarser spacing."""
        return smoothed(self.volume, spacing_mm=spacing_mm, low=self.window.low, high=self.window.high)


@dataclass(frozen=True, eq=False)
class _Pair:
    """Both images as torch fields at one resolution."""

    fixed: Field
    moving: Field
    inside: Field
    fixed_window: Window
    moving_window: Window
    spacing_mm: float
    device: torch.device

    @staticmethod
    def of(followup: _Scan, baseline: _Scan, *, spacing_mm: float, device: torch.device) -> _Pair:
        fixed = field_of(*followup.at(spacing_mm), device)
        values, geometry = baseline.at(spacing_mm)
        inside = np.pad(np.ones(tuple(n - 2 for n in geometry.shape), np.float32), 1)
        return _Pair(fixed, field_of(values, geometry, device), field_of(inside, geometry, device),
                     followup.window, baseline.window, spacing_mm, device)  # fmt: skip

    def refine(self, start: FloatArray, box: Box, *, steps: int, rate: float) -> tuple[FloatArray, float]:
        """(4, 4) baseline-from-follow-up matrix after Adam on six parameters, and its loss on a fixed lattice."""
        lattice = lattice_in(box, self.spacing_mm)
        while np.prod(lattice.counts) > 20_000:
            lattice = lattice_in(box, lattice.spacing_mm * 1.2)
        middle = torch.tensor((box.low + box.high) / 2, dtype=torch.float32, device=self.device)
        base = torch.tensor(start, dtype=torch.float32, device=self.device)
        # 100 mm is the lever arm that makes a millimetre of shift and of rotation comparable.
        six = torch.zeros(6, device=self.device, requires_grad=True)
        generator = torch.Generator().manual_seed(0)

        def loss_of(jitter: torch.Tensor) -> torch.Tensor:
            return self._loss(lattice.points(jitter.to(self.device)), base, six, middle)

        descend((six,), lambda: loss_of(torch.rand(3, generator=generator)), Descent(steps, rate, 0.1))
        with torch.no_grad():
            loss = loss_of(torch.full((3,), 0.5))
            matrix = base @ _rigid(six, middle)
        return matrix.double().cpu().numpy(), float(loss)

    def _loss(self, points: torch.Tensor, base: torch.Tensor, six: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
        matrix = base @ _rigid(six, middle)
        mapped = points @ matrix[:3, :3].T + matrix[:3, 3]
        weight = self.inside.at(mapped.detach()) * 1.0
        # Air outside the patient says nothing about where the inside lies.
        fixed, moving = self.fixed.at(points), self.moving.at(mapped)
        body = (fixed > self.fixed_window.low + 1) | (moving.detach() > self.moving_window.low + 1)
        weight = weight * body
        share = weight.sum() / body.sum().clamp_min(1)
        if share < _LEAST_OVERLAP:
            weight = weight + 1e-4
        loss = negative_mutual_information(
            to_bins(fixed, self.fixed_window.low, self.fixed_window.high),
            to_bins(moving, self.moving_window.low, self.moving_window.high),
            weight,
        )
        return loss * share.detach().clamp(0.05, 1.0) ** 0.5


def _rigid(six: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    """(4, 4) rotation about `middle` by a rotation vector (hundredths of a radian), then a translation (mm)."""
    w = six[:3] / 100.0
    zero = torch.zeros((), dtype=six.dtype, device=six.device)
    skew = torch.stack([zero, -w[2], w[1], w[2], zero, -w[0], -w[1], w[0], zero]).view(3, 3)
    rotation = torch.linalg.matrix_exp(skew)
    shift = middle + six[3:] - rotation @ middle
    top = torch.cat([rotation, shift[:, None]], 1)
    return torch.cat([top, torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=six.dtype, device=six.device)])


def _translations(followup: _Scan, baseline: _Scan) -> list[FloatArray]:
    """(4, 4) baseline-from-follow-up starts: of each of the two best rolls the translation with the best masked
    correlation at `COARSE_MM`, then the identity start. One that moves no corner of the scan by more than `COARSE_MM`
    from a start before it is left out.
    """
    scored: list[tuple[float, FloatArray]] = []
    fixed, fixed_inside, fixed_grid = _coarse(followup, 0.0)
    for roll in _ROLLS_DEG:
        moving, moving_inside, moving_grid = _coarse(baseline, roll)
        score, shift = _best_shift(fixed, fixed_inside, moving, moving_inside)
        matrix = np.eye(4)
        matrix[:3, 3] = moving_grid.lps_of(np.zeros(3)) - fixed_grid.lps_of(np.zeros(3)) + shift[::-1] * COARSE_MM
        scored.append((score, _roll(roll, baseline.volume) @ matrix))
    scored.sort(key=lambda s: -s[0])
    starts: list[FloatArray] = []
    corners = extent_of(followup.volume.geometry).corners()
    for matrix in [m for _, m in scored[:2]] + [_identity_start(followup.volume, baseline.volume)]:
        apart = [np.linalg.norm(corners @ (matrix - m)[:3, :3].T + (matrix - m)[:3, 3], axis=1).max() for m in starts]
        if not apart or min(apart) > COARSE_MM:
            starts.append(matrix)
    return starts


def _identity_start(followup: Volume, baseline: Volume) -> FloatArray:
    """Same coordinates where the two scans overlap in space, else centers on top of each other."""
    a, b = extent_of(followup.geometry), extent_of(baseline.geometry)
    matrix = np.eye(4)
    common = np.prod(np.maximum(np.minimum(a.high, b.high) - np.maximum(a.low, b.low), 0))
    if common < _LEAST_OVERLAP * min(np.prod(a.high - a.low), np.prod(b.high - b.low)):
        matrix[:3, 3] = (b.low + b.high - a.low - a.high) / 2
    return matrix


def _roll(degrees: float, baseline: Volume) -> FloatArray:
    """(4, 4) rotation about the patient's long axis through the middle of the baseline."""
    box = extent_of(baseline.geometry)
    middle = (box.low + box.high) / 2
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(4)
    matrix[:2, :2] = [[c, -s], [s, c]]
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle
    return matrix


def _coarse(scan: _Scan, roll_deg: float) -> tuple[NDArray[np.float64], NDArray[np.float64], Geometry]:
    """Values in [0, 1] and where they are known, on an LPS-aligned grid at `COARSE_MM`, rolled by `roll_deg`."""
    values, geometry = scan.at(COARSE_MM)
    volume, window = scan.volume, scan.window
    box = extent_of(volume.geometry)
    frame = volume.geometry.frame_uid
    grid = Box(box.low + COARSE_MM / 2, box.high + COARSE_MM / 2).grid(COARSE_MM, frame)
    quantity = volume.quantity
    out = resample(Volume(values, geometry, quantity), grid, Transform(frame, frame, _roll(roll_deg, volume)))
    known = np.isfinite(out)
    scaled = np.where(known, (out - window.low) / (window.high - window.low), 0.0)
    return scaled.astype(np.float64), known.astype(np.float64), grid


def _best_shift(
    fixed: NDArray[np.float64],
    fixed_inside: NDArray[np.float64],
    moving: NDArray[np.float64],
    moving_inside: NDArray[np.float64],
) -> tuple[float, FloatArray]:
    """Best normalised correlation over all integer shifts, and the shift: moving index = fixed index + shift.

    Masked normalised correlation after Padfield, IEEE TIP 2012;21:2706-2718 (doi:10.1109/TIP.2011.2181402).
    """
    shape = [fft.next_fast_len(a + b - 1, real=True) for a, b in zip(fixed.shape, moving.shape, strict=True)]

    def correlate(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        product = np.conj(fft.rfftn(a, shape)) * fft.rfftn(b, shape)
        return np.asarray(fft.irfftn(product, shape))

    n = np.maximum(correlate(fixed_inside, moving_inside), 1e-6)
    sum_f, sum_m = correlate(fixed, moving_inside), correlate(fixed_inside, moving)
    numerator = correlate(fixed, moving) - sum_f * sum_m / n
    var_f = correlate(fixed**2, moving_inside) - sum_f**2 / n
    var_m = correlate(fixed_inside, moving**2) - sum_m**2 / n
    score = numerator / np.sqrt(np.maximum(var_f, 1e-3) * np.maximum(var_m, 1e-3))
    overlap = n / min(fixed_inside.sum(), moving_inside.sum())
    score = np.where(overlap > _LEAST_OVERLAP, score * np.minimum(1.0, overlap) ** 0.25, -1.0)
    best = np.array(np.unravel_index(int(np.argmax(score)), score.shape), float)
    wrap = np.array(score.shape)
    return float(score.max()), np.where(best > wrap / 2, best - wrap, best)
