"""A plan simulated without its baseline scan: on an empty grid, in the frame of its regions."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage

from dicom_node.decode.files import scan
from dicom_node.decode.planned import read_planned
from dicom_node.nifti import ras_affine
from dicom_node.probe_table import probe_table
from dicom_node.refusal import Refused
from dicom_node.simulating import Wishes, simulate_files

QUICK = Wishes(spacing_mm=3.0, with_spread=False)
ROI_UID = "1.2.826.0.1.3680043.8.498.4711"


def item(**values) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def codes_of(document) -> set[str]:
    return {reason["code"] for reason in document["reasons"]}


def test_it_says_that_tissue_was_not_told_apart(without_baseline):
    document = json.loads((without_baseline / "simulation.json").read_text())
    assert codes_of(document) == {"baseline_not_given"}
    (reason,) = document["reasons"]
    assert "taken to be liver" in reason["text"]


def test_it_is_the_same_zone_where_the_scan_shows_no_other_tissue(with_baseline, without_baseline):
    one, other = (nib.load(f / "L1-zone.nii.gz").get_fdata() > 0.5 for f in (with_baseline, without_baseline))
    assert one.shape == other.shape
    assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.95


def test_the_baseline_is_taken_from_the_plans_folder(plan, written_phantom, with_baseline, tmp_path):
    folder = plan(lambda document: document)
    shutil.copytree(written_phantom.baseline, folder / "scan", copy_function=shutil.copyfile)
    document = simulate_files(folder / "plan.json", baseline=None, out=tmp_path / "out", wishes=QUICK)
    assert codes_of(document) == set()
    zones = [nib.load(f / "L1-zone.nii.gz").get_fdata() for f in (with_baseline, tmp_path / "out")]
    assert (zones[0] == zones[1]).all()


def structures(written_phantom, folder, *, names_images: bool) -> None:
    """An RTSTRUCT of the tumor as a cylinder of 9 mm radius and 18 mm height, in the plan's folder."""
    images = scan([written_phantom.baseline]).headers
    document = json.loads((folder / "plan.json").read_text())
    tips = np.array([a["tip_lps_mm"] for a in document["lesions"][0]["applicators"]])
    x, y, z = tips.mean(axis=0) + np.array([0, 0, 12.0])
    heights = sorted(float(h.dataset.ImagePositionPatient[2]) for h in images)
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    contours = []
    for height in (h for h in heights if abs(h - z) <= 9.0):
        points = np.stack([x + 9 * np.cos(angle), y + 9 * np.sin(angle), np.full(60, height)], axis=-1)
        data = [f"{v:.4f}" for v in points.ravel()]
        contours.append(item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=60, ContourData=data))
    frame = images[0].text("FrameOfReferenceUID")
    made = item(SOPClassUID=RTStructureSetStorage, SOPInstanceUID=ROI_UID, Modality="RTSTRUCT")
    made.PatientID, made.PatientName, made.PatientBirthDate = images[0].text("PatientID"), "MADE^UP", ""
    made.StudyInstanceUID, made.SeriesInstanceUID = f"{ROI_UID}.1", f"{ROI_UID}.2"
    made.StudyDate = "19990101"
    made.StructureSetROISequence = [item(ROINumber=4, ROIName="tumor", ReferencedFrameOfReferenceUID=frame)]
    made.ROIContourSequence = [item(ReferencedROINumber=4, ContourSequence=contours)]
    if names_images:
        named = [
            item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=h.text("SOPInstanceUID"))
            for h in images
        ]
        series = item(SeriesInstanceUID=images[0].text("SeriesInstanceUID"), ContourImageSequence=named)
        study = item(RTReferencedSeriesSequence=[series])
        made.ReferencedFrameOfReferenceSequence = [item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[study])]
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = made.SOPClassUID, ROI_UID
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.save_as(folder / "structures.dcm", enforce_file_format=True)


def of_structures(document):
    document["lesions"][0]["tumor"] = {"sop_instance_uid": ROI_UID, "roi_number": 4}
    del document["lesions"][0]["simulated_zone"]


def test_contours_alone_will_do(plan, written_phantom, tmp_path, dicom_errors):
    folder = plan(of_structures)
    structures(written_phantom, folder, names_images=True)
    study = read_planned(folder / "plan.json", baseline=None, probes=probe_table())
    assert study.plan.lesions[0].tumor.volume_ml == pytest.approx(np.pi * 81 * 18 / 1000, rel=0.15)
    document = simulate_files(folder / "plan.json", baseline=None, out=tmp_path / "out", wishes=QUICK)
    assert codes_of(document) == {"baseline_not_given"}
    assert dicom_errors(tmp_path / "out" / "zone.dcm") == []
    made = pydicom.dcmread(tmp_path / "out" / "zone.dcm")
    images = scan([written_phantom.baseline]).headers
    assert made.StudyInstanceUID == images[0].text("StudyInstanceUID")
    assert made.StudyDate == ""  # that of the contours is another study's
    named = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {n.ReferencedSOPInstanceUID for n in named} == {h.text("SOPInstanceUID") for h in images}
    assert not any(frame.get("DerivationImageSequence") for frame in made.PerFrameFunctionalGroupsSequence)


def test_regions_that_name_no_images_make_no_dicom_object(plan, written_phantom, tmp_path):
    folder = plan(of_structures)
    structures(written_phantom, folder, names_images=False)
    document = simulate_files(folder / "plan.json", baseline=None, out=tmp_path / "out", wishes=QUICK)
    assert codes_of(document) == {"baseline_not_given", "segmentation_not_written"}
    assert not (tmp_path / "out" / "zone.dcm").exists()
    assert (tmp_path / "out" / "L1-zone.nii.gz").is_file()


def as_nifti(folder, written_phantom) -> None:
    """The plan's tumor as a NIfTI file in its folder."""
    study = read_planned(written_phantom.plan, baseline=None, probes=probe_table())
    tumor = study.plan.lesions[0].tumor
    image = nib.Nifti1Image(tumor.voxels.T.astype(np.uint8), ras_affine(tumor.geometry.lps_from_index))
    nib.save(image, folder / "tumor.nii.gz")


def test_a_plan_of_nifti_files_alone_is_simulated_too(plan, written_phantom, without_baseline, tmp_path):
    def in_nifti(document):
        document["lesions"][0]["tumor"] = {"path": "tumor.nii.gz"}
        del document["lesions"][0]["simulated_zone"]

    folder = plan(in_nifti)
    as_nifti(folder, written_phantom)
    document = simulate_files(folder / "plan.json", baseline=None, out=tmp_path / "out", wishes=QUICK)
    assert codes_of(document) == {"baseline_not_given", "segmentation_not_written"}
    before = json.loads((without_baseline / "simulation.json").read_text())
    margins = [d["lesions"][0]["edges"][0]["minimal_margin_mm"] for d in (before, document)]
    assert margins[1] == pytest.approx(margins[0], abs=0.5)


def test_regions_in_several_frames_need_the_baseline(plan, written_phantom):
    def mixed(document):
        document["organ_mask"] = {"sop_instance_uid": ROI_UID, "roi_number": 4}

    folder = plan(mixed)
    structures(written_phantom, folder, names_images=False)
    made = pydicom.dcmread(folder / "structures.dcm")
    made.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3"
    made.save_as(folder / "structures.dcm", enforce_file_format=True)
    with pytest.raises(Refused, match="several frames of reference") as refused:
        read_planned(folder / "plan.json", baseline=None, probes=probe_table())
    assert refused.value.code == "baseline_needed"
    assert refused.value.text.startswith("plan.json: lesions[0].tumor and organ_mask lie in")
    assert refused.value.text.endswith("give the baseline scan with --baseline.")
