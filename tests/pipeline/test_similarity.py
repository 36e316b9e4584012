"""Mutual information against a plain histogram and against finite differences."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.similarity import BINS, negative_mutual_information, to_bins


def test_a_gradient_is_that_of_the_measure() -> None:
    rng = np.random.default_rng(0)
    fixed = to_bins(torch.tensor(rng.normal(size=60)), -3, 3)
    moving = to_bins(torch.tensor(rng.normal(size=60)), -3, 3).requires_grad_(True)
    weights = torch.tensor(rng.uniform(0.2, 1, 60))
    negative_mutual_information(fixed, moving, weights).backward()
    assert moving.grad is not None
    step = 1e-5
    for n in range(0, 60, 7):
        up, down = moving.detach().clone(), moving.detach().clone()
        up[n] += step
        down[n] -= step
        change = negative_mutual_information(fixed, up, weights) - negative_mutual_information(fixed, down, weights)
        assert abs(float(change) / (2 * step) - float(moving.grad[n])) < 1e-6


def test_dependence_raises_it_and_independence_leaves_nearly_none() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.uniform(-1, 1, 20_000), rng.uniform(-1, 1, 20_000)
    one = torch.ones(20_000, dtype=torch.float64)
    same = -float(negative_mutual_information(to_bins(torch.tensor(a), -1, 1), to_bins(torch.tensor(-a), -1, 1), one))
    apart = -float(negative_mutual_information(to_bins(torch.tensor(a), -1, 1), to_bins(torch.tensor(b), -1, 1), one))
    assert same > 2.0
    assert abs(apart) < 0.05


def test_values_beyond_the_range_stay_in_the_histogram() -> None:
    bins = to_bins(torch.tensor([-1e6, 1e6]), 0.0, 1.0)
    assert float(bins.min()) >= 1
    assert float(bins.max()) <= BINS - 2
