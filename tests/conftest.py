"""Shared by all tests: where the shared data lies, and small phantoms made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.phantom import Phantom, make_phantom
from pipeline.phantom_stories import story

#: Two workers on two cores: more threads inside each only wait for one another.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real and acceptance data beside the project; skips where it is missing."""
    folder = ROOT.parent / "shared"
    if not (folder / "cases").is_dir():
        pytest.skip("the shared data folder (../shared) is not here")
    return folder


@pytest.fixture(scope="session")
def incomplete_phantom() -> Phantom:
    """A small liver patient whose tumor was not covered."""
    return make_phantom(story("incomplete"))


@pytest.fixture(scope="session")
def progression_phantom() -> Phantom:
    """A small liver patient with a clean follow-up and a later one with a nodule at the edge."""
    return make_phantom(story("progression"))
