"""Mutual information of two images at sample points, with its exact gradient, in torch.

Samples are joined in a Parzen histogram with cubic B-spline windows (Mattes et al., IEEE TMI 2003;22:120-128,
doi:10.1109/TMI.2003.809072); here both images get the cubic window, so the measure is smooth in both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.sampling import cubic_weights

BINS = 32
_PAD = 2  # bins kept free at each end, so that a window never leaves the histogram


class _JointEntropyGap(torch.autograd.Function):  # type: ignore[misc]
    """Negative mutual information as a function of the second image's values; gradient by the closed form."""

    @staticmethod
    def forward(ctx: Any, fixed_bins: torch.Tensor, moving_bins: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        i0, wi, _ = _window(fixed_bins)
        j0, wj, dj = _window(moving_bins)
        share = weights / weights.sum().clamp_min(1e-6)
        # Full rows of the bins and one product of matrices: faster than adding up sample by sample, and as exact.
        rows = torch.zeros(len(wi), BINS, dtype=wi.dtype, device=wi.device).scatter_(1, i0, wi)
        columns = torch.zeros_like(rows).scatter_(1, j0, wj * share[:, None])
        table = rows.T @ columns
        row, column = table.sum(1, keepdim=True), table.sum(0, keepdim=True)
        ratio = torch.log((table + 1e-12) / (row * column + 1e-12))
        ctx.save_for_backward(rows @ ratio, j0, dj, share)
        return -(table * ratio).sum()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        ratio, j0, dj, share = ctx.saved_tensors
        per_sample = -(ratio.gather(1, j0) * dj).sum(1) * share
        return None, per_sample * grads[0], None


def negative_mutual_information(
    fixed_bins: torch.Tensor, moving_bins: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Minus the mutual information (nats) of two (n,) lists of bin positions from `to_bins`, weighted by (n,)."""
    out: torch.Tensor = _JointEntropyGap.apply(fixed_bins, moving_bins, weights)
    return out


def equalised(values: NDArray[np.float32], sample: NDArray[np.float32], *, share: float = 0.5) -> NDArray[np.float32]:
    """The values on a scale from 0 to 1 that gives room to what is frequent in the sample.

    A mix of the sample's cumulative distribution (`share`) and its plain range, without the outer 0.5 %. Bins of even
    width would leave an organ and its vessels three or four of 32 beside fat and lung.
    """
    if sample.size < 10:
        return np.zeros_like(values)
    quantiles = np.quantile(sample, np.linspace(0.005, 0.995, 65))
    quantiles = np.maximum.accumulate(quantiles) + np.arange(65) * max(1e-6, 1e-6 * float(np.ptp(quantiles)))
    ranks = np.linspace(0, 1, 65)
    scale = share * ranks + (1 - share) * (quantiles - quantiles[0]) / (quantiles[-1] - quantiles[0])
    return np.asarray(np.interp(values, quantiles, scale), np.float32)


def to_bins(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Continuous histogram positions of intensities; what lies beyond [low, high] is clamped to the end bins."""
    scaled = (values.clamp(low, high) - low) / max(high - low, 1e-6)
    return scaled * (BINS - 1 - 2 * _PAD) + _PAD


def _window(position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(n, 4) bins that each sample touches, its cubic weights there, and their derivatives."""
    base = position.detach().floor().clamp(1, BINS - 3)
    t = position - base
    bins = base.long()[:, None] + torch.arange(-1, 3, device=position.device)
    one = 1 - t
    slope = torch.stack([-(one**2), 3 * t**2 - 4 * t, -3 * one**2 + 4 * one, t**2], 1) / 2
    return bins, cubic_weights(t), slope
