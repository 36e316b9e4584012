"""The written phantom against what was made, read back by another way than it was written."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from dicom_node.decode.case import read_case
from dicom_node.phantom_series import PhantomFolder, write_made
from dicom_node.refusal import Refused
from pipeline.itk import geometry_of
from pipeline.phantom import Phantom, make_phantom
from pipeline.phantom_stories import story
from pipeline.volume import Volume


@pytest.fixture(scope="module")
def written(progression_phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> PhantomFolder:
    return write_made(progression_phantom, tmp_path_factory.mktemp("phantom"))


def read_by_itk(folder: Path, frame_uid: str) -> Volume:
    """The series as SimpleITK (GDCM) sorts and scales it."""
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(names)
    return Volume(sitk.GetArrayFromImage(image), geometry_of(image, frame_uid), "ct_hu")


def test_itk_reads_the_volumes_that_were_made(written: PhantomFolder, progression_phantom: Phantom) -> None:
    made = [progression_phantom.plan.baseline, *(followup.volume for followup in progression_phantom.followups)]
    for folder, volume in zip((written.baseline, *written.followups), made, strict=True):
        read = read_by_itk(folder, volume.geometry.frame_uid)
        assert read.geometry.same_grid(volume.geometry)
        assert np.array_equal(read.voxels, np.maximum(volume.voxels, -1024))


def test_decode_reads_plan_and_followup_as_made(written: PhantomFolder, progression_phantom: Phantom) -> None:
    for number, folder in enumerate(written.followups):
        study = read_case(
            written.plan, baseline=sorted(written.baseline.iterdir()), followup=sorted(folder.iterdir()), previous=()
        )
        plan, made = study.case.plan, progression_phantom.plan
        assert (plan.plan_id, plan.organ, plan.energy, plan.procedure_date) == (
            made.plan_id, made.organ, made.energy, made.procedure_date,
        )  # fmt: skip
        assert np.array_equal(plan.baseline.voxels, made.baseline.voxels)
        assert study.case.followup.acquired == progression_phantom.followups[number].followup.acquired
        assert study.case.followup.phase == "portal_venous"
        assert np.array_equal(study.case.followup.volume.voxels, progression_phantom.followups[number].volume.voxels)
        (lesion,), (drawn,) = plan.lesions, made.lesions
        placed = [(a.model, a.tip_lps_mm, a.entry_lps_mm) for a in lesion.applicators]
        assert placed == [(a.model, a.tip_lps_mm, a.entry_lps_mm) for a in drawn.applicators]
        assert lesion.protocol == drawn.protocol
        for read, region in (
            (lesion.tumor, drawn.tumor),
            (lesion.simulated_zone, drawn.simulated_zone),
            (plan.organ_mask, made.organ_mask),
        ):
            assert read is not None
            assert region is not None
            assert read.volume_ml == pytest.approx(region.volume_ml)
            assert read.centroid_lps_mm == pytest.approx(region.centroid_lps_mm, abs=1e-3)


def test_the_truth_lies_on_the_followups_grid(written: PhantomFolder, progression_phantom: Phantom) -> None:
    document = json.loads(written.truth.read_text())
    assert [entry["expected"] for entry in document["followups"]] == ["complete", "progression"]
    for number, followup in enumerate(progression_phantom.followups, 1):
        image = nib.load(written.truth.parent / f"truth-zone-{number}.nii.gz")
        inside = np.argwhere(np.asarray(image.dataobj) > 0)  # type: ignore[attr-defined]
        center = (inside @ image.affine[:3, :3].T + image.affine[:3, 3]).mean(0) * (-1, -1, 1)  # type: ignore[attr-defined]
        assert center == pytest.approx(followup.truth.zone.centroid_lps_mm, abs=1e-3)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (apt-get install dicom3tools)")
def test_dciodvfy_finds_no_error(written: PhantomFolder) -> None:
    files = [next(folder.iterdir()) for folder in (written.baseline, *written.followups)]
    for path in [*files, written.plan.parent / "regions.dcm"]:
        done = subprocess.run(["dciodvfy", str(path)], check=False, capture_output=True, text=True)
        assert "Error" not in done.stderr, done.stderr


def test_writing_twice_gives_the_same_bytes(progression_phantom: Phantom, tmp_path: Path) -> None:
    first, second = (write_made(progression_phantom, tmp_path / name) for name in "ab")
    for one, other in zip(sorted(first.baseline.iterdir()), sorted(second.baseline.iterdir()), strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert first.plan.read_bytes() == second.plan.read_bytes()


def test_the_wrong_patient_is_refused(tmp_path: Path) -> None:
    folder = write_made(make_phantom(story("wrong_patient")), tmp_path)
    with pytest.raises(Refused) as refused:
        read_case(folder.plan, baseline=[folder.baseline], followup=[folder.followups[0]], previous=())
    assert refused.value.code == "patient_mismatch"


def test_a_scan_without_contrast_is_seen_to_be_one(tmp_path: Path) -> None:
    folder = write_made(make_phantom(story("unenhanced")), tmp_path)
    study = read_case(folder.plan, baseline=[folder.baseline], followup=[folder.followups[0]], previous=())
    assert study.case.followup.phase == "unenhanced"
