"""The phantom as DICOM: CT series, a plan folder with its SEG, and the truth, as an archive would hand them out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code

from dicom_node import codes
from dicom_node.nifti import ras_affine
from dicom_node.phantom_image import PhantomStudy, image_of, uid_of
from pipeline import phantom_stories
from pipeline.case import Lesion, Outcome
from pipeline.phantom import Phantom, Truth, make_phantom
from pipeline.phantom_stories import Size
from pipeline.volume import Mask, Volume

_ANATOMICAL_STRUCTURE = Code("123037004", "SCT", "Anatomical Structure")  # CID 7150
_WORDS: dict[Outcome, str] = {
    "complete": "complete",
    "narrow_margin": "narrow_margin",
    "incomplete_coverage": "incomplete",
    "local_progression": "progression",
    "not_assessable": "not_assessable",
}
"""The outcomes as `truth.json` spells them."""


@dataclass(frozen=True)
class PhantomFolder:
    """Where a phantom lies. plan: the `plan.json`; truth: the `truth.json`; the others are folders of slices."""

    plan: Path
    baseline: Path
    followups: tuple[Path, ...]
    truth: Path


def write_phantom(
    folder: Path, *, story: str = "incomplete", seed: int = 0, size: Size = "small", patient_id: str = "PHANTOM-0001"
) -> PhantomFolder:
    """Makes the patient of a story (one of `pipeline.phantom_stories.STORIES`) and writes it below `folder`.

    The same arguments write the same images under the same UIDs. Raises ValueError for an unknown story.
    """
    spec = phantom_stories.story(story, seed=seed, size=size)
    return write_made(make_phantom(replace(spec, patient_id=patient_id)), folder)


def write_made(phantom: Phantom, folder: Path) -> PhantomFolder:
    """Writes a made phantom: `plan/`, `baseline/`, `followup-N/`, `truth.json`, `truth-{zone,tumor}-N.nii.gz`."""
    spec = phantom.spec
    baseline = PhantomStudy(
        uid=uid_of(phantom, "study", 0),
        series_uid=uid_of(phantom, "series", 0),
        patient_id=spec.patient_id,
        taken=datetime.combine(spec.baseline_date, time(10, 15)),
        phase="portal_venous",
        number=0,
    )
    images = _write_series(phantom, phantom.plan.baseline, baseline, folder / "baseline")
    plan = _write_plan(phantom, baseline, images, folder / "plan")
    truths: list[dict[str, Any]] = []
    folders: list[Path] = []
    for number, followup in enumerate(phantom.followups, 1):
        study = PhantomStudy(
            uid=uid_of(phantom, "study", number),
            series_uid=uid_of(phantom, "series", number),
            patient_id=followup.patient_id,
            taken=datetime.combine(followup.followup.acquired, time(9, 30)),
            phase=spec.followups[number - 1].phase,
            number=number,
        )
        folders.append(folder / f"followup-{number}")
        _write_series(phantom, followup.volume, study, folders[-1])
        truths.append(_truth_record(followup.truth, study))
        for name, mask in (("zone", followup.truth.zone), ("tumor", followup.truth.tumor)):
            _write_nifti(mask, folder / f"truth-{name}-{number}.nii.gz")
    truth = folder / "truth.json"
    truth.write_text(json.dumps({"story": spec.name, "seed": spec.seed, "followups": truths}, indent=1))
    return PhantomFolder(plan, folder / "baseline", tuple(folders), truth)


def _write_series(phantom: Phantom, volume: Volume, study: PhantomStudy, folder: Path) -> list[Dataset]:
    """Writes one file a slice; file names say nothing about the order. Returns the headers without pixel data."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = (volume.voxels.astype(np.int32) + 1024).clip(0, 4095).astype(np.uint16)
    order = np.random.default_rng(phantom.spec.seed).permutation(len(stored))
    heads: list[Dataset] = []
    for k in range(len(stored)):
        image = image_of(phantom, volume, study, k)
        image.PixelData = stored[k].tobytes()
        image.save_as(folder / f"IM{order[k]:04d}.dcm", enforce_file_format=True)
        del image.PixelData
        heads.append(image)
    return heads


def _write_plan(phantom: Phantom, baseline: PhantomStudy, images: Sequence[Dataset], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (lesion,) = phantom.plan.lesions
    regions: list[tuple[str, Mask, Code, Code]] = [
        ("index tumor", lesion.tumor, codes.ABNORMAL_STRUCTURE, codes.NEOPLASM)
    ]
    if phantom.plan.organ_mask is not None:
        regions.append(("liver", phantom.plan.organ_mask, _ANATOMICAL_STRUCTURE, codes.ORGANS["liver"]))
    if lesion.simulated_zone is not None:
        kind = codes.NON_ENHANCING_LESION
        regions.append(("simulated ablation zone", lesion.simulated_zone, codes.ABNORMAL_STRUCTURE, kind))
    segmentation = _segmentation(phantom, images, regions)
    segmentation.save_as(folder / "regions.dcm")
    numbers = {label: number for number, (label, *_) in enumerate(regions, 1)}
    path = folder / "plan.json"
    path.write_text(json.dumps(_plan_record(phantom, baseline, segmentation.SOPInstanceUID, numbers), indent=1))
    return path


def _segmentation(
    phantom: Phantom, images: Sequence[Dataset], regions: Sequence[tuple[str, Mask, Code, Code]]
) -> hd.seg.Segmentation:
    pixels: NDArray[np.uint8] = np.stack([mask.voxels for _, mask, _, _ in regions], axis=-1).astype(np.uint8)
    made = hd.seg.Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            hd.seg.SegmentDescription(number, label, category, kind, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
            for number, (label, _, category, kind) in enumerate(regions, 1)
        ],
        series_instance_uid=uid_of(phantom, "series", "plan"),
        series_number=900,
        sop_instance_uid=uid_of(phantom, "plan"),
        instance_number=1,
        manufacturer="Marginwatch",
        manufacturer_model_name="Phantom",
        software_versions="1",
        device_serial_number="1",
        content_label="PLAN",
        content_description="Ablation plan",
        series_description="Ablation plan",
    )
    made.InstanceCreationDate = made.ContentDate = images[0].StudyDate
    made.InstanceCreationTime = made.ContentTime = images[0].StudyTime
    return made


def _plan_record(
    phantom: Phantom, baseline: PhantomStudy, segmentation: str, numbers: dict[str, int]
) -> dict[str, Any]:
    def segment(label: str) -> dict[str, Any]:
        return {"sop_instance_uid": segmentation, "segment_number": numbers[label]}

    plan = phantom.plan
    (lesion,) = plan.lesions
    record: dict[str, Any] = {
        "plan_id": plan.plan_id,
        "patient_id": baseline.patient_id,
        "organ": plan.organ,
        "procedure": {"date": f"{plan.procedure_date:%Y%m%d}", "energy": plan.energy},
        "baseline": {"study_instance_uid": baseline.uid, "series_instance_uid": baseline.series_uid},
        "organ_mask": segment("liver"),
        "lesions": [{**_lesion_record(lesion), "tumor": segment("index tumor")}],
    }
    if lesion.simulated_zone is not None:
        record["lesions"][0]["simulated_zone"] = segment("simulated ablation zone")
    return record


def _lesion_record(lesion: Lesion) -> dict[str, Any]:
    return {
        "lesion_id": lesion.lesion_id,
        "required_margin_mm": lesion.required_margin_mm,
        "applicators": [
            {"model": probe.model, "tip_lps_mm": list(probe.tip_lps_mm), "entry_lps_mm": list(probe.entry_lps_mm)}
            for probe in lesion.applicators
        ],
        "protocol": [{"phase": step.phase, "duration_s": step.duration_s} for step in lesion.protocol],
    }


def _truth_record(truth: Truth, study: PhantomStudy) -> dict[str, Any]:
    return {
        "expected": _WORDS[truth.expected],
        "study_instance_uid": study.uid,
        "series_instance_uid": study.series_uid,
        "minimal_margin_mm": truth.minimal_margin_mm,
        "minimal_margin_point_lps_mm": list(truth.minimal_margin_point_lps_mm),
        "tumor_volume_ml": truth.tumor_volume_ml,
        "zone_volume_ml": truth.zone_volume_ml,
        "covered_fraction": truth.covered_fraction,
        "uncovered_volume_ml": truth.uncovered_volume_ml,
        "nodule_volume_ml": truth.nodules.volume_ml,
        "landmarks_followup_lps_mm": np.round(truth.landmarks_followup_lps_mm, 4).tolist(),
        "landmarks_baseline_lps_mm": np.round(truth.landmarks_baseline_lps_mm, 4).tolist(),
    }


def _write_nifti(mask: Mask, path: Path) -> None:
    nib.save(nib.Nifti1Image(mask.voxels.T.astype(np.uint8), ras_affine(mask.geometry.lps_from_index)), path)
