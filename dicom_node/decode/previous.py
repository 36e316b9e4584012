"""Result folders of earlier follow-ups of the same plan."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from dicom_node.decode.nifti_image import read_nifti
from dicom_node.decode.plan import PlanFile
from dicom_node.refusal import Refused
from pipeline.case import EarlierFollowUp, EarlierLesion, Outcome
from pipeline.geometry import Geometry
from pipeline.transform import Transform, transform_from_itk
from pipeline.volume import Mask


def read_previous(
    folders: Sequence[Path], plan_file: PlanFile, *, baseline_frame_uid: str, before_days: int
) -> tuple[EarlierFollowUp, ...]:
    """The earlier follow-ups, oldest first.

    An earlier follow-up's frame of reference is not written in its result; its series UID stands for it.
    Raises Refused: previous_unreadable, previous_of_another_plan, previous_not_earlier, previous_twice.
    """
    found: dict[str, EarlierFollowUp] = {}
    for folder in folders:
        document = _document(folder)
        name = folder.name
        if document.get("plan_id") != plan_file.plan_id or document.get("patient_id") != plan_file.patient_id:
            raise Refused(
                "previous_of_another_plan", f"The earlier result {name} belongs to another plan; leave it out."
            )
        days = document.get("days_since_procedure")
        if isinstance(days, bool) or not isinstance(days, int):
            raise _unreadable(name)
        if days >= before_days:
            raise Refused(
                "previous_not_earlier", f"The earlier result {name} is not earlier than this follow-up; leave it out."
            )
        study = str(document.get("study_instance_uid") or folder.resolve())
        if study in found:
            raise Refused("previous_twice", f"The earlier result {name} was given twice; leave one out.")
        found[study] = _earlier(folder, document, days, baseline_frame_uid)
    return tuple(sorted(found.values(), key=lambda earlier: earlier.days_since_procedure))


def _document(folder: Path) -> dict[str, Any]:
    try:
        document = json.loads((folder / "assessment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise _unreadable(folder.name) from problem
    if not isinstance(document, dict) or not isinstance(document.get("lesions"), list):
        raise _unreadable(folder.name)
    if not isinstance(document.get("registration"), dict | None):
        raise _unreadable(folder.name)
    return document


def _unreadable(name: str) -> Refused:
    return Refused(
        "previous_unreadable", f"The earlier result {name} has no whole, readable assessment.json; assess it again."
    )


def _earlier(folder: Path, document: dict[str, Any], days: int, baseline_frame_uid: str) -> EarlierFollowUp:
    frame_uid = str(document.get("series_instance_uid") or folder.name)
    labels = _labels(folder, frame_uid)
    lesions = []
    for number, item in enumerate(document["lesions"], 1):
        if not isinstance(item, dict) or item.get("outcome") not in get_args(Outcome):
            raise _unreadable(folder.name)
        zone = None if labels is None else _zone(labels, number, document["lesions"])
        required = item.get("required_margin_mm")
        if not _is_margin(required):
            raise _unreadable(folder.name)
        lesions.append(EarlierLesion(str(item.get("lesion_id")), item["outcome"], zone, required))
    accepted = (document.get("registration") or {}).get("accepted", False)
    transform = _transform(folder, baseline_frame_uid, frame_uid) if accepted else None
    return EarlierFollowUp(days, tuple(lesions), transform)


def _is_margin(value: object) -> bool:
    """Whether it can be a required margin; older results may not say which."""
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _labels(folder: Path, frame_uid: str) -> tuple[NDArray[Any], Geometry] | None:
    """The label of each voxel and the grid of `zone.nii.gz`; None where no zone was found."""
    path = folder / "zone.nii.gz"
    if not path.is_file():
        return None
    try:
        return read_nifti(path, frame_uid, "the earlier result")
    except Refused as problem:
        text = f"The zone of the earlier result {folder.name} cannot be read; assess it again."
        raise Refused("previous_unreadable", text) from problem


def _zone(labels: tuple[NDArray[Any], Geometry], number: int, lesions: Sequence[Any]) -> Mask | None:
    """Lesion n's zone is label n; a file of 0 and 1 holds all zones together, unless 1 is the first one's alone."""
    values, geometry = labels
    joined = len(lesions) > 1 and values.max() <= 1 and not _first_alone(values, geometry, lesions)
    voxels = values > 0.5 if joined else np.asarray(np.round(values) == number)
    return Mask(voxels, geometry) if voxels.any() else None


def _first_alone(values: NDArray[Any], geometry: Geometry, lesions: Sequence[Any]) -> bool:
    stated = lesions[0].get("zone_volume_ml") if isinstance(lesions[0], dict) else None
    if not isinstance(stated, int | float):
        return False
    volume_ml = float((values > 0.5).sum()) * geometry.voxel_volume_mm3 / 1000
    return abs(volume_ml - stated) < 0.05 * max(volume_ml, stated)


def _transform(folder: Path, baseline_frame_uid: str, frame_uid: str) -> Transform | None:
    path = folder / "baseline_from_followup.h5"
    if not path.is_file():
        return None
    try:
        return transform_from_itk(
            sitk.ReadTransform(str(path)), to_frame_uid=baseline_frame_uid, from_frame_uid=frame_uid
        )
    except (RuntimeError, ValueError, AttributeError) as problem:  # AttributeError: another kind of transform
        raise Refused(
            "previous_unreadable", f"The transform of the earlier result {folder.name} cannot be read; assess it again."
        ) from problem
