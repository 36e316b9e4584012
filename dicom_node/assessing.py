"""One follow-up from files to a result folder: decode, assess, write. Shared by `assess`, the worker and batch."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pipeline
from dicom_node.results.place import check_place


def assess_files(
    plan: Path,
    *,
    baseline: Sequence[Path],
    followup: Sequence[Path],
    previous: Sequence[Path],
    out: Path,
    progress: Callable[[str], None] = lambda _stage: None,
) -> dict[str, Any]:
    """The `assessment.json` document of one follow-up, after its whole result folder has appeared at `out`.

    plan: the `plan.json`; baseline, followup: DICOM files (anything else among them is noted and skipped); previous:
    result folders of earlier follow-ups of the plan. Raises `Refused` for input that cannot be used, and at once where
    no result can appear at `out`; then `out` is left as it was. A follow-up that cannot be assessed is a result like
    any other.
    """
    started = time.monotonic()
    check_place(out)
    progress("load")
    # Loaded here and not above, so that the times of a cold start count it.
    import torch

    from dicom_node.decode.case import read_case
    from dicom_node.results.folder import write_results
    from pipeline.assess import assess

    # The registration runs its two ways side by side; more threads inside each only wait for one another.
    torch.set_num_threads(1)
    ready = time.monotonic()
    progress("decode")
    study = read_case(plan, baseline=baseline, followup=followup, previous=previous)
    before = {"load": ready - started, "decode": time.monotonic() - ready}
    assessment = assess(study.case, clock=time.monotonic, progress=progress)
    progress("write")
    return write_results(assessment, study, out, earlier_timing_s=before, started=started, settings=settings_in_use())


def settings_in_use() -> dict[str, Any]:
    """Every setting of the method that has a name; `settings_sha256` in the result is the hash of these. What is
    written into the code without one is told by the software's version.

    Nothing in a node's configuration is among them: it says where things lie, who may connect and how long to wait. So
    node, batch and command line give the same hash for the same method.
    """
    from pipeline.progression import ProgressionSettings
    from pipeline.segment import SegmentSettings

    modules = [m.name for m in pkgutil.iter_modules(pipeline.__path__) if not m.name.startswith("phantom")]
    constants = {name: _constants(importlib.import_module(f"pipeline.{name}")) for name in modules}
    return {
        **{name: found for name, found in constants.items() if found},
        "segment_settings": asdict(SegmentSettings()),
        "progression_settings": asdict(ProgressionSettings()),
    }


def _constants(module: ModuleType) -> dict[str, Any]:
    """A module's own numbers: names in capitals that hold a number, or a tuple or dataclass of nothing else."""
    named = {name: _numbers(value) for name, value in vars(module).items() if name.lstrip("_").isupper()}
    return {name: value for name, value in sorted(named.items()) if value is not None}


def _numbers(value: Any) -> Any:
    """The value as JSON holds it; None for what is not made of numbers alone."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: _numbers(getattr(value, field.name)) for field in fields(value)}
        return None if None in parts.values() else parts
    if isinstance(value, tuple):
        each = [_numbers(v) for v in value]
        return None if None in each else each
    return value if isinstance(value, (int, float)) else None
