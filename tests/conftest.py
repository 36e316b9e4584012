"""Shared by all tests: where the shared data lies, and small phantoms made once a session."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from dicom_node.phantom_series import PhantomFolder, write_phantom
from pipeline.assess import assess
from pipeline.assessment import Assessment, LesionAssessment, Registration
from pipeline.carried import CarriedTumor, carry
from pipeline.case import Case, Plan
from pipeline.lesion import assess_lesion, segment, view_lesion
from pipeline.organ import FoundOrgan
from pipeline.phantom import Phantom, make_phantom
from pipeline.phantom_stories import story
from pipeline.registration_error import RegistrationErrors
from pipeline.sampling import extent_of, spline_grid

#: Two workers on two cores: more threads inside each only wait for one another.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, "pipeline" in item.path.parts))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real and acceptance data beside the project; skips where it is missing."""
    folder = ROOT.parent / "shared"
    if not (folder / "cases").is_dir():
        pytest.skip("the shared data folder (../shared) is not here")
    return folder


Once = Callable[[str, Callable[[], Any]], Any]
"""Gives what a function makes, under a name; see `once`."""


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """What takes long is made by the first worker that asks for it; the others wait and read it."""
    folder = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent

    def made(name: str, make: Callable[[], Any]) -> Any:
        kept = folder / f"{name}.pickle"
        with FileLock(folder / f"{name}.lock"):
            if not kept.exists():
                kept.write_bytes(pickle.dumps(make()))
            return pickle.loads(kept.read_bytes())

    return made


@pytest.fixture(scope="session")
def incomplete_phantom(once: Once) -> Phantom:
    """A small liver patient whose tumor was not covered."""
    return once("incomplete phantom", lambda: make_phantom(story("incomplete")))


@pytest.fixture(scope="session")
def incomplete_assessment(once: Once, incomplete_phantom: Phantom) -> Assessment:
    """What the whole method says of that patient."""
    return once("incomplete assessment", lambda: assess(incomplete_phantom.case()))


@pytest.fixture(scope="session")
def written_phantom(once: Once, tmp_path_factory: pytest.TempPathFactory) -> PhantomFolder:
    """The same patient as DICOM files; only to be read."""
    return once("written phantom", lambda: write_phantom(tmp_path_factory.mktemp("phantom")))


def shift_errors(case: Case, expected_mm: float) -> RegistrationErrors:
    """Draws that move everything alike, as large as a registration expected."""
    geometry = case.followup.volume.geometry
    grid = spline_grid(extent_of(geometry), 80.0, geometry.frame_uid)
    drawn = np.random.default_rng(0).standard_normal((256, 3, 1, 1, 1)) * expected_mm / np.sqrt(3)
    return RegistrationErrors(drawn * np.ones((1, 3, *grid.shape)), grid)


@pytest.fixture(scope="session")
def carried_again() -> Callable[[Case, Registration], CarriedTumor]:
    """The first lesion's tumor as a registration carries it that was found before."""

    def carried(case: Case, registration: Registration) -> CarriedTumor:
        assert registration.baseline_from_followup is not None
        errors = shift_errors(case, registration.quality.expected_error_mm or 0.0)
        return carry(case.plan.lesions[0], registration.baseline_from_followup, errors)

    return carried


@pytest.fixture(scope="session")
def assessed_again(
    carried_again: Callable[[Case, Registration], CarriedTumor],
) -> Callable[[Case, Registration], LesionAssessment]:
    """Assesses the first lesion of a case on a registration that was found before, which is what takes long."""

    def assessed(case: Case, registration: Registration) -> LesionAssessment:
        transform = registration.baseline_from_followup
        assert transform is not None
        organ = FoundOrgan(case.plan.organ_mask, "given by the plan")
        view = view_lesion(case, case.plan.lesions[0], transform, organ)
        return assess_lesion(case, view, segment(case, view), carried_again(case, registration))

    return assessed


@pytest.fixture(scope="session")
def assessed_with(
    incomplete_phantom: Phantom,
    incomplete_assessment: Assessment,
    assessed_again: Callable[[Case, Registration], LesionAssessment],
) -> Callable[[Plan], LesionAssessment]:
    """Assesses the first lesion of another plan for the incomplete patient."""
    followup, registration = incomplete_phantom.followups[0].followup, incomplete_assessment.registration
    return lambda plan: assessed_again(Case(plan, followup), registration)


@pytest.fixture(scope="session")
def clean_told(once: Once, progression_phantom: Phantom) -> tuple[Assessment, list[str]]:
    """The follow-up of five weeks, with which the stories "complete", "progression" and "shrinking" begin.

    What was found, and the stages it told of.
    """

    def made() -> tuple[Assessment, list[str]]:
        told: list[str] = []
        ticks = iter(range(1000))
        return assess(progression_phantom.case(0), clock=lambda: float(next(ticks)), progress=told.append), told

    found: tuple[Assessment, list[str]] = once("clean assessment", made)
    return found


@pytest.fixture(scope="session")
def progression_phantom(once: Once) -> Phantom:
    """A small liver patient with a clean follow-up and a later one with a nodule at the edge."""
    return once("progression phantom", lambda: make_phantom(story("progression")))
