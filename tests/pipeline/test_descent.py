"""Our descent against torch's own Adam with its cosine schedule."""

from __future__ import annotations

import pytest
import torch

from pipeline.descent import Descent, descend


def rough(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A bent valley with ripples, whose gradients differ by orders of magnitude."""
    return (
        100 * (x[1] - x[0] ** 2).square() + (1 - x[0]).square() + (y - 3).square().sum() + 0.1 * torch.sin(9 * y).sum()
    )


def variables() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
    y = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    return x, y


@pytest.mark.parametrize("how", [Descent(60, 0.3, 0.05, (0.9, 0.98)), Descent(40, 1.5, 0.1)])
def test_it_goes_the_way_of_torch(how: Descent) -> None:
    ours, theirs = variables(), variables()
    path: list[torch.Tensor] = []
    descend(ours, lambda: rough(*ours), how, confine=lambda: path.append(torch.cat([v.reshape(-1) for v in ours])))
    optimizer = torch.optim.Adam(theirs, lr=how.rate, betas=how.memory)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, how.steps, eta_min=how.rate * how.last_share)
    assert len(path) == how.steps
    for step in range(how.steps):
        optimizer.zero_grad()
        rough(*theirs).backward()
        optimizer.step()
        schedule.step()
        there = torch.cat([v.detach().reshape(-1) for v in theirs])
        assert torch.allclose(path[step], there, rtol=1e-9, atol=1e-9), step
    assert rough(*ours) < rough(*variables())


def test_it_stays_where_it_is_confined_to() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    descend((x,), lambda: (x + 5).square().sum(), Descent(30, 0.5, 0.1), confine=lambda: x.clamp_(min=1.0))
    assert x.item() == 1.0
