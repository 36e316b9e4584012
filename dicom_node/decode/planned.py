"""A plan alone, for its simulation: with the baseline scan where it is at hand, else on an empty grid in its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dicom_node.decode.baseline import images_of_patient, of_baseline, read_baseline
from dicom_node.decode.files import Header, quiet, scan
from dicom_node.decode.named_images import named_images
from dicom_node.decode.plan import PlanFile, load_plan, notes_on_regions, read_plan_file, region_source
from dicom_node.decode.regions import RegionSource, region_box, region_frame_uid
from dicom_node.decode.series import Acquisition
from dicom_node.probe_table import ProbeTable
from dicom_node.refusal import Refused
from dicom_node.study import PlannedStudy, SourceImages
from pipeline.assessment import Reason
from pipeline.geometry import FloatArray, Geometry, upright_grid
from pipeline.volume import Volume

#: Of the empty grid, around tumors and applicators: more than any zone reaches.
_ROOM_MM, _CELL_MM = 100.0, 1.0
#: Tumors and tips farther apart than this do not belong together; the grid would be larger than any patient.
_FARTHEST_MM = 300.0


def read_planned(plan: Path, *, baseline: Sequence[Path] | None, probes: ProbeTable) -> PlannedStudy:
    """The plan with its regions and devices. plan: the `plan.json`; baseline: DICOM files or folders with the plan's
    baseline series; None looks for it in the plan's folder, and where it is not there does without.

    Raises `Refused` as `read_case` does for plan and baseline, and ``baseline_needed`` where the plan's regions lie in
    several frames of reference and only the baseline could tell which is its own.
    """
    with quiet():
        plan_file = read_plan_file(plan)
        if baseline is None:
            objects = scan([plan_file.folder]).headers
            headers, source = of_baseline(objects, plan_file), region_source(plan_file, objects)
        else:
            headers = images_of_patient(baseline, plan_file, "baseline")
            source = region_source(plan_file)
        if headers:
            acquisition, volume = read_baseline(headers, plan_file)
            return _planned(plan_file, source, probes, volume, _sources(acquisition, volume))
        volume = _stand_in(plan_file, source)
        named = named_images(plan_file, _region_objects(plan_file, source), volume.geometry.shape[1:])
        sources = SourceImages(named, volume.geometry, match_grid=False) if named else None
        return _planned(plan_file, source, probes, volume, sources, has_baseline=False)


def _planned(
    plan_file: PlanFile,
    source: RegionSource,
    probes: ProbeTable,
    baseline: Volume,
    sources: SourceImages | None,
    *,
    has_baseline: bool = True,
) -> PlannedStudy:
    loaded = load_plan(plan_file, baseline, source, probes)
    notes = notes_on_regions(plan_file, source, baseline.geometry.frame_uid)
    if not has_baseline:
        organ = plan_file.organ.replace("_", " ")
        text = f"Without the baseline scan all tissue is taken to be {organ}, but for the plan's own regions"
        notes += (Reason("baseline_not_given", f"{text}: fat, bone and lung are not told apart."),)
    return PlannedStudy(
        plan=loaded,
        patient_id=plan_file.patient_id,
        study_instance_uid=plan_file.baseline_study_uid,
        series_instance_uid=plan_file.baseline_series_uid,
        sources=sources,
        has_baseline=has_baseline,
        notes=notes,
    )


def _sources(acquisition: Acquisition, volume: Volume) -> SourceImages:
    headers = tuple(header.dataset for header in acquisition.source_headers)
    return SourceImages(headers, volume.geometry, acquisition.slices_are_sources)


def _region_objects(plan_file: PlanFile, source: RegionSource) -> Iterable[Header]:
    uids = dict.fromkeys(ref.sop_instance_uid for ref in plan_file.regions if ref.path is None)
    return [source.objects[uid] for uid in uids if uid in source.objects]


def _stand_in(plan_file: PlanFile, source: RegionSource) -> Volume:
    """An empty image around tumors and applicators, in the frame of reference of the plan's regions; of no unit, so
    that no tissue is read from it."""
    keys: dict[str, str] = {}  # of the first region in each frame of reference
    for ref in plan_file.regions:
        if (frame := region_frame_uid(ref, source)) is not None:
            keys.setdefault(frame, ref.key)
    if len(keys) > 1:
        text = f"{' and '.join(keys.values())} lie in several frames of reference, and only the baseline tells its own"
        raise Refused("baseline_needed", f"plan.json: {text}; give the baseline scan with --baseline.")
    # NIfTI says no frame of reference: then the baseline's series has to name it.
    frame_uid = next(iter(keys), plan_file.baseline_series_uid)
    boxes = [region_box(lesion.tumor, source) for lesion in plan_file.lesions]
    tips = [applicator.tip_lps_mm for lesion in plan_file.lesions for applicator in lesion.applicators]
    points = np.concatenate([*boxes, np.array(tips, float).reshape(-1, 3)])
    _check_near(plan_file, boxes)
    return _empty(points, frame_uid)


def _check_near(plan_file: PlanFile, boxes: Sequence[FloatArray]) -> None:
    """Raises Refused ``cannot_simulate`` for a tip in another place than its tumor; the baseline cannot show it."""
    for number, (lesion, box) in enumerate(zip(plan_file.lesions, boxes, strict=True)):
        for tip, applicator in enumerate(lesion.applicators):
            if np.linalg.norm(np.array(applicator.tip_lps_mm) - box.mean(axis=0)) > _FARTHEST_MM:
                key = f"lesions[{number}].applicators[{tip}].tip_lps_mm"
                text = f"plan.json: {key} lies more than {_FARTHEST_MM:.0f} mm from the tumor."
                raise Refused("cannot_simulate", text)


def _empty(points_lps_mm: FloatArray, frame_uid: str) -> Volume:
    low, high = points_lps_mm.min(axis=0) - _ROOM_MM, points_lps_mm.max(axis=0) + _ROOM_MM
    shape = np.ceil((high - low) / _CELL_MM).astype(int)[::-1] + 1
    grid: Geometry = upright_grid(shape, (_CELL_MM,) * 3, low, frame_uid)
    return Volume(np.zeros(grid.shape, np.int16), grid, "mr_signal")
