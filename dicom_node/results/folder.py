"""The result folder of one follow-up: it appears whole, or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dicom_node.durable import clear_leftovers, whole_folder
from dicom_node.results.identifiers import identifiers_of
from dicom_node.results.masks import write_masks
from dicom_node.results.objects import write_objects
from dicom_node.results.place import check_place, not_written
from dicom_node.results.record import record_of
from dicom_node.results.registration import write_transform
from dicom_node.results.withdrawal import Earlier, read_earlier, succeeding, write_withdrawal
from dicom_node.study import StudyCase
from pipeline.assessment import Assessment


def write_results(  # noqa: PLR0913  (what `assess_files` takes, decoded and assessed)
    assessment: Assessment,
    study: StudyCase,
    out: Path,
    *,
    earlier_timing_s: Mapping[str, float],
    started: float,
    settings: Mapping[str, Any],
    supersedes: Sequence[Path] = (),
) -> dict[str, Any]:
    """The `assessment.json` document, after the whole result folder has appeared at `out`.

    supersedes: the result folders of earlier assessments of the study, the last one first; a PACS may hold their
    objects, which this one withdraws.
    settings: everything set that the result depends on, JSON; the result keeps its hash. started: `time.monotonic()`
    at the start of the run, so that ``timing_s.total`` is the whole. A result that is
    already there is replaced once the new one is complete. Raises `Refused` (`cannot_write_results`) when the disk is
    full or the place is not ours to write to; then `out` is as it was.
    """
    target = out.resolve()
    try:
        clear_leftovers(target)
        check_place(target)
        with whole_folder(target) as fresh:
            before = read_earlier(supersedes)
            return _fill(fresh, assessment, study, (earlier_timing_s, started), (settings, before))
    except OSError as problem:
        raise not_written(target, problem) from problem


def _fill(
    folder: Path,
    assessment: Assessment,
    study: StudyCase,
    timing: tuple[Mapping[str, float], float],
    context: tuple[Mapping[str, Any], Earlier | None],
) -> dict[str, Any]:
    earlier_s, started = timing
    settings, before = context
    writing = time.monotonic()
    write_masks(assessment.lesions, study.case.followup.volume.geometry, folder)
    transform = assessment.registration.baseline_from_followup
    if transform is not None:
        write_transform(transform, folder / "baseline_from_followup.h5")
    document = record_of(assessment, study, settings=settings)
    created = datetime.now().astimezone().replace(tzinfo=None)
    identifiers = identifiers_of(assessment, study, document, created)
    if before is not None:
        identifiers = succeeding(identifiers, before)
    write_objects(assessment, study, identifiers, folder)
    if before is not None:
        write_withdrawal(before, identifiers, folder / "dicom")
    now = time.monotonic()
    stages_s = {**earlier_s, **assessment.timing_s, "write": now - writing, "total": now - started}
    document["timing_s"] = {stage: round(seconds, 3) for stage, seconds in stages_s.items()}
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "assessment.json").write_text(text + "\n", encoding="utf-8")
    return document
