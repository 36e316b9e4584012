"""The folder of one simulation: it appears whole, or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dicom_node.durable import clear_leftovers, whole_folder
from dicom_node.results.identifiers import Identifiers, content_sha256
from dicom_node.results.pictures import save_picture
from dicom_node.results.place import check_place, not_written
from dicom_node.results.record import reasons_record, software_version
from dicom_node.simulation.lesion import SimulatedLesion
from dicom_node.simulation.masks import write_masks
from dicom_node.simulation.names import file_names
from dicom_node.simulation.object import simulated_segments, zone_object
from dicom_node.simulation.pictures import picture_of
from dicom_node.simulation.record import record_of
from dicom_node.study import PlannedStudy
from pipeline.assessment import Reason
from pipeline.simulate.zone import SimulationSettings

#: By this file an earlier simulation is known, which a new one may replace.
DOCUMENT = "simulation.json"


@dataclass(frozen=True, eq=False)
class Simulated:
    """What there is to write. settings: everything set that the result depends on, JSON."""

    study: PlannedStudy
    lesions: tuple[SimulatedLesion, ...]
    reasons: tuple[Reason, ...]
    simulation: SimulationSettings
    settings: Mapping[str, Any]


def write_simulation(
    simulated: Simulated, out: Path, *, earlier_timing_s: Mapping[str, float], started: float
) -> dict[str, Any]:
    """The `simulation.json` document, after the whole folder has appeared at `out`.

    started: `time.monotonic()` at the start of the run. Raises `Refused` (`cannot_write_results`) as `write_results`.
    """
    target = out.resolve()
    try:
        clear_leftovers(target)
        check_place(target, replaces=DOCUMENT)
        with whole_folder(target) as fresh:
            return _fill(fresh, simulated, earlier_timing_s, started)
    except OSError as problem:
        raise not_written(target, problem) from problem


def _fill(folder: Path, simulated: Simulated, earlier_s: Mapping[str, float], started: float) -> dict[str, Any]:
    writing = time.monotonic()
    study, lesions = simulated.study, simulated.lesions
    names = file_names([found.lesion.lesion_id for found in lesions])
    (folder / "images").mkdir()
    for found, name in zip(lesions, names, strict=True):
        write_masks(found, name, folder)
        save_picture(picture_of(found, study), folder / "images" / f"{name}.png")
    document = record_of(study, lesions, simulated.reasons, simulated.simulation, simulated.settings)
    for item, name in zip(document["lesions"], names, strict=True):
        item["files"] = name
    problem = _write_object(simulated, document, folder)
    document["reasons"] += reasons_record(problem)
    now = time.monotonic()
    stages_s = {**earlier_s, "write": now - writing, "total": now - started}
    document["timing_s"] = {stage: round(seconds, 3) for stage, seconds in stages_s.items()}
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / DOCUMENT).write_text(text + "\n", encoding="utf-8")
    return document


def _write_object(simulated: Simulated, document: Mapping[str, Any], folder: Path) -> Sequence[Reason]:
    """Writes `zone.dcm`; why there is none, if so."""
    study = simulated.study
    segments = simulated_segments(simulated.lesions)
    if study.sources is None:
        text = (
            "There is no zone.dcm: the plan's regions do not name the images of the baseline; give the baseline scan."
        )
        return (Reason("segmentation_not_written", text),)
    if not segments:
        return (Reason("segmentation_not_written", "There is no zone.dcm: no zone reaches any size."),)
    identifiers = Identifiers(
        study.study_instance_uid,
        study.series_instance_uid,
        study.plan.plan_id,
        software_version(),
        content_sha256(document, [segment.mask for segment in segments]),
        datetime.now().astimezone().replace(tzinfo=None),
    )
    made = zone_object(segments, study.sources, study.plan.organ, identifiers)
    made.save_as(folder / "zone.dcm", enforce_file_format=True)
    return ()
