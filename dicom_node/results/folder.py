"""The result folder of one follow-up: it appears whole, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from dicom_node.refusal import Refused
from dicom_node.results.identity import identity_of
from dicom_node.results.masks import write_masks
from dicom_node.results.objects import write_objects
from dicom_node.results.record import record_of
from dicom_node.results.registration import write_transform
from dicom_node.study import StudyCase
from pipeline.assessment import Assessment


def write_results(
    assessment: Assessment,
    study: StudyCase,
    out: Path,
    *,
    earlier_timing_s: Mapping[str, float],
    started: float,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The `assessment.json` document, after the whole folder of the contract has appeared at `out`.

    started: `time.monotonic()` at the start of the run, so that ``timing_s.total`` is the whole. A result that is
    already there is replaced once the new one is complete. Raises `Refused` (`cannot_write_results`) when the disk is
    full or the place is not ours to write to; then `out` is as it was.
    """
    target = out.resolve()
    try:
        _check_replaceable(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.writing-{uuid4().hex}")
        fresh.mkdir()
    except OSError as problem:
        raise _refusal(target, problem) from problem
    try:
        document = _fill(fresh, assessment, study, (earlier_timing_s, started), settings)
        _sync(fresh)
        _put_in_place(fresh, target)
    except OSError as problem:
        raise _refusal(target, problem) from problem
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return document


def _fill(
    folder: Path,
    assessment: Assessment,
    study: StudyCase,
    timing: tuple[Mapping[str, float], float],
    settings: Mapping[str, Any] | None,
) -> dict[str, Any]:
    earlier_s, started = timing
    writing = time.monotonic()
    write_masks(assessment.lesions, study.case.followup.volume.geometry, folder)
    transform = assessment.registration.baseline_from_followup
    if transform is not None:
        write_transform(transform, folder / "baseline_from_followup.h5")
    document = record_of(assessment, study, settings=settings)
    created = datetime.now().astimezone().replace(tzinfo=None)
    write_objects(assessment, study, identity_of(assessment, study, document, created), folder)
    now = time.monotonic()
    stages_s = {**earlier_s, **assessment.timing_s, "write": now - writing, "total": now - started}
    document["timing_s"] = {stage: round(seconds, 3) for stage, seconds in stages_s.items()}
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "assessment.json").write_text(text + "\n", encoding="utf-8")
    return document


def _check_replaceable(target: Path) -> None:
    """A mistyped `--out` must not cost somebody a folder: only an empty folder or an earlier result is replaced."""
    if not target.exists():
        return
    if target.is_dir() and ((target / "assessment.json").is_file() or not any(target.iterdir())):
        return
    raise Refused(
        "cannot_write_results",
        f"{target} exists and is not a result folder; name a new folder or an empty one for the results.",
    )


def _put_in_place(fresh: Path, target: Path) -> None:
    """Renames the complete folder into place; the old one is set aside first and comes back if that fails."""
    if not target.exists():
        fresh.rename(target)
    else:
        aside = target.with_name(f".{target.name}.replaced-{uuid4().hex}")
        target.rename(aside)
        try:
            fresh.rename(target)
        except OSError:
            aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    _sync_entry(target.parent)


def _sync(folder: Path) -> None:
    """Everything below the folder is on the disk, not only in memory: a power cut leaves no empty files behind."""
    for path in sorted(folder.rglob("*")):
        _sync_entry(path)
    _sync_entry(folder)


def _sync_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(target: Path, problem: OSError) -> Refused:
    why = problem.strerror or str(problem)
    return Refused("cannot_write_results", f"The results could not be written to {target}: {why}; nothing was changed.")
