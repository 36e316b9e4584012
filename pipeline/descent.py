"""Gradient descent by Adam with a rate that falls like a cosine.

Kingma and Ba, Adam, ICLR 2015 (arXiv:1412.6980). torch has both, but its optimizers import the whole compiler when the
first one is made, which takes 1.8 s (docs/decisions/0045-our-own-adam.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Descent:
    """steps; rate: how far, in the variables' own unit, a step goes at first, and last_share: at last, as a fraction of
    that; memory: how much of the mean gradient and of its mean square is kept from step to step.
    """

    steps: int
    rate: float
    last_share: float
    memory: tuple[float, float] = (0.9, 0.999)


def descend(
    variables: Sequence[torch.Tensor],
    loss: Callable[[], torch.Tensor],
    how: Descent,
    *,
    confine: Callable[[], None] = lambda: None,
) -> None:
    """Changes the variables (leaves of any shape that require a gradient) in place so that the loss, a scalar, falls.

    confine: called after each step, to bring the variables back to where they may be. Raises RuntimeError, as torch
    does, for a variable that the loss does not depend on.
    """
    first = [torch.zeros_like(v) for v in variables]
    second = [torch.zeros_like(v) for v in variables]
    a, b = how.memory
    for step in range(how.steps):
        fall = (1 + float(np.cos(np.pi * step / how.steps))) / 2
        rate = how.rate * (how.last_share + (1 - how.last_share) * fall)
        gradients = torch.autograd.grad(loss(), list(variables))
        with torch.no_grad():
            for variable, gradient, m, s in zip(variables, gradients, first, second, strict=True):
                m.lerp_(gradient, 1 - a)
                s.mul_(b).addcmul_(gradient, gradient, value=1 - b)
                spread = (s / (1 - b ** (step + 1))).sqrt_().add_(1e-8)
                variable.addcdiv_(m, spread, value=-rate / (1 - a ** (step + 1)))
            confine()
