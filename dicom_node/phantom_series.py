"""The phantom as DICOM: CT series, a plan folder with its SEG, and the truth, as an archive would hand them out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import highdicom as hd
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from dicom_node import codes
from pipeline import phantom_stories
from pipeline.case import Lesion, Outcome
from pipeline.phantom import Phantom, Truth, make_phantom
from pipeline.phantom_body import Phase
from pipeline.phantom_stories import Size
from pipeline.volume import Mask, Volume

PATIENT_NAME = "PHANTOM^LIVER"
_NAMESPACE = UUID("1c2b6f0e-55c6-5a2f-8f0e-0c7a5b0a6f11")
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_BIRTH_DATE = date(1960, 1, 1)
_ANATOMICAL_STRUCTURE = Code("123037004", "SCT", "Anatomical Structure")  # CID 7150
_PHASE_WORDS: dict[Phase, tuple[str, int | None]] = {
    "unenhanced": ("LIVER WITHOUT CONTRAST", None),
    "arterial": ("LIVER ARTERIAL", 35),
    "portal_venous": ("LIVER PORTAL VENOUS", 70),
}
"""Series description, and seconds from the injection to the scan."""
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


@dataclass(frozen=True)
class _Study:
    """The identity of one scan of the phantom."""

    uid: str
    series_uid: str
    patient_id: str
    taken: datetime
    phase: Phase
    number: int


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
    baseline = _Study(
        uid=_uid(phantom, "study", 0),
        series_uid=_uid(phantom, "series", 0),
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
        study = _Study(
            uid=_uid(phantom, "study", number),
            series_uid=_uid(phantom, "series", number),
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


def _uid(phantom: Phantom, *parts: object) -> str:
    """A UID under the UUID root 2.25 (PS3.5 annex B.2), always the same for the same phantom and parts."""
    spec = phantom.spec
    who = (spec.name, spec.seed, spec.patient_id, spec.baseline_grid.shape, *parts)
    return f"2.25.{uuid5(_NAMESPACE, json.dumps(who)).int}"


def _write_series(phantom: Phantom, volume: Volume, study: _Study, folder: Path) -> list[Dataset]:
    """Writes one file a slice; file names say nothing about the order. Returns the headers without pixel data."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = (volume.voxels.astype(np.int32) + 1024).clip(0, 4095).astype(np.uint16)
    order = np.random.default_rng(phantom.spec.seed).permutation(len(stored))
    heads: list[Dataset] = []
    for k in range(len(stored)):
        image = _image(phantom, volume, study, k)
        image.PixelData = stored[k].tobytes()
        image.save_as(folder / f"IM{order[k]:04d}.dcm", enforce_file_format=True)
        del image.PixelData
        heads.append(image)
    return heads


def _image(phantom: Phantom, volume: Volume, study: _Study, k: int) -> FileDataset:
    uid = _uid(phantom, "image", study.number, k)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SpecificCharacterSet = "ISO_IR 192"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, uid
    _describe_study(image, study)
    _describe_scan(image, study)
    _describe_place(image, volume, k)
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = volume.voxels.shape[1:]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.WindowCenter, image.WindowWidth = 60, 350
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = -1024, 1, "HU"
    return image


def _describe_study(image: Dataset, study: _Study) -> None:
    image.PatientName, image.PatientID = PATIENT_NAME, study.patient_id
    image.PatientBirthDate, image.PatientSex = f"{_BIRTH_DATE:%Y%m%d}", "O"
    image.StudyInstanceUID, image.SeriesInstanceUID = study.uid, study.series_uid
    day, clock = f"{study.taken:%Y%m%d}", f"{study.taken:%H%M%S}"
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = day
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = clock
    image.AccessionNumber, image.StudyID = f"P{study.taken:%Y%m%d}", "1"
    image.ReferringPhysicianName = ""
    image.StudyDescription = "CT ABDOMEN, MADE PHANTOM"
    image.SeriesDescription = _PHASE_WORDS[study.phase][0]
    image.SeriesNumber, image.AcquisitionNumber = 3, 1


def _describe_scan(image: Dataset, study: _Study) -> None:
    image.Modality, image.Manufacturer, image.ManufacturerModelName = "CT", "Marginwatch", "Phantom"
    image.BodyPartExamined, image.ProtocolName, image.PatientPosition = "ABDOMEN", "LIVER", "FFS"
    image.KVP, image.ConvolutionKernel = 120, "STANDARD"
    delay_s = _PHASE_WORDS[study.phase][1]
    if delay_s is not None:
        image.ContrastBolusAgent = "IOHEXOL"
        image.ContrastBolusStartTime = f"{study.taken - timedelta(seconds=delay_s):%H%M%S}"


def _describe_place(image: Dataset, volume: Volume, k: int) -> None:
    geometry = volume.geometry
    slice_mm, row_mm, column_mm = geometry.spacing_mm.tolist()
    corner = geometry.lps_of((k, 0, 0))
    axes = geometry.lps_from_index[:3, [2, 1]] / (column_mm, row_mm)
    image.InstanceNumber = k + 1
    image.FrameOfReferenceUID, image.PositionReferenceIndicator = geometry.frame_uid, ""
    image.ImagePositionPatient = [_decimal(v) for v in corner]
    image.ImageOrientationPatient = [_decimal(v) for v in axes.T.ravel()]
    image.PixelSpacing = [_decimal(row_mm), _decimal(column_mm)]
    image.SliceThickness, image.SliceLocation = _decimal(slice_mm), _decimal(corner[2])


def _decimal(value: float) -> DSfloat:
    return DSfloat(round(float(value), 6) + 0.0, auto_format=True)


def _write_plan(phantom: Phantom, baseline: _Study, images: Sequence[Dataset], folder: Path) -> Path:
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
        series_instance_uid=_uid(phantom, "series", "plan"),
        series_number=900,
        sop_instance_uid=_uid(phantom, "plan"),
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


def _plan_record(phantom: Phantom, baseline: _Study, segmentation: str, numbers: dict[str, int]) -> dict[str, Any]:
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


def _truth_record(truth: Truth, study: _Study) -> dict[str, Any]:
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
    reversed_axes = mask.geometry.lps_from_index[:, [2, 1, 0, 3]]
    nib.save(nib.Nifti1Image(mask.voxels.T.astype(np.uint8), _RAS_FROM_LPS @ reversed_axes), path)
