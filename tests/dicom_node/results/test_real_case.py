"""A real follow-up with its true masks: what is written of it is valid and lies where the truth lies."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest

from pipeline.assessment import LesionAssessment, Margin
from pipeline.case import FollowUp
from pipeline.geometry import Geometry
from pipeline.volume import Mask, Volume


def real(made, case, number):
    """The assessment that the truth of a shared case would give, and its study."""
    read = [pydicom.dcmread(path) for path in (case / f"followup-{number}").iterdir()]
    read.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    positions = np.array([one.ImagePositionPatient for one in read], float)
    orientation, spacing = np.array(read[0].ImageOrientationPatient, float), read[0].PixelSpacing
    matrix = np.eye(4)
    matrix[:3, 0] = (positions[-1] - positions[0]) / (len(read) - 1)
    matrix[:3, 1], matrix[:3, 2] = orientation[3:] * float(spacing[0]), orientation[:3] * float(spacing[1])
    matrix[:3, 3] = positions[0]
    grid = Geometry((len(read), read[0].Rows, read[0].Columns), matrix, read[0].FrameOfReferenceUID)
    intercept = int(read[0].get("RescaleIntercept", 0))
    voxels = np.stack([one.pixel_array for one in read]).astype(np.int16) + np.int16(intercept)

    def truth(name):
        image = nib.load(case / f"truth-{name}-{number}.nii.gz")
        return Mask(np.ascontiguousarray(np.asarray(image.dataobj).transpose(2, 1, 0) > 0), grid)

    known = json.loads((case / "truth.json").read_text())["followups"][number - 1]
    zone, tumor = truth("zone"), truth("tumor")
    least = known.get("minimal_margin_mm") or 5.0
    point = tuple(float(x) for x in (tumor - zone if known["expected"] == "incomplete" else tumor).centroid_lps_mm)
    margin = Margin(least, (least - 1, least + 1), point, tumor.volume_ml, zone.volume_ml, 0.9, 0.6, 0.3, 0.7)
    outcome = "incomplete_coverage" if known["expected"] == "incomplete" else "complete"
    lesion = LesionAssessment("L1", outcome, 5.0, (), margin, None, (), zone, tumor, tumor - zone)
    study = made.study(made.geometry(), (made.blank_lesion("L1"),), read[0].Modality)
    volume = Volume(voxels, grid, "ct_hu" if read[0].Modality == "CT" else "mr_signal")
    acquired = datetime.datetime.strptime(read[0].StudyDate, "%Y%m%d").replace(tzinfo=datetime.UTC).date()
    for one in read:
        del one.PixelData
    study = replace(
        study,
        case=replace(study.case, followup=FollowUp(acquired, volume, "portal_venous")),
        patient_id=read[0].PatientID,
        study_instance_uid=read[0].StudyInstanceUID,
        series_instance_uid=read[0].SeriesInstanceUID,
        source_images=tuple(read),
    )
    return made.assessment((lesion,), outcome), study


@pytest.mark.parametrize(("name", "number"), [("dev2", 1), ("dev5", 1)])
def test_real_followup(made, write, cases, errors_of, name, number):
    case = cases / name
    assessment, study = real(made, case, number)
    assessment = replace(assessment, registration=replace(assessment.registration, baseline_from_followup=None))
    out, document = write(assessment, study)
    assert [error for path in (out / "dicom").glob("*.dcm") for error in errors_of(path)] == []
    for region in ("zone", "tumor"):
        ours, truth = nib.load(out / f"{region}.nii.gz"), nib.load(case / f"truth-{region}-{number}.nii.gz")
        assert ours.affine == pytest.approx(truth.affine, abs=1e-3)
        assert ((np.asarray(ours.dataobj) > 0) == (np.asarray(truth.dataobj) > 0)).all()
    seg = hd.seg.segread(out / "dicom" / "segmentation.dcm")
    assert (seg.Rows, seg.Columns) == (study.source_images[0].Rows, study.source_images[0].Columns)
    voxels = seg.get_volume(combine_segments=False).array[..., 0].sum()
    assert voxels == assessment.lesions[0].zone.voxels.sum()
    assert document["timing_s"]["write"] < 30
