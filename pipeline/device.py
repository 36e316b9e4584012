"""Where torch computes."""

from __future__ import annotations

import torch


def device_of(name: str = "auto") -> torch.device:
    """The device of that name; "auto": CUDA where there is some, else the CPU. Raises RuntimeError for other names."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
