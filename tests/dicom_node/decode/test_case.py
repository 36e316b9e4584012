"""Plan, baseline, follow-up and earlier results to one case; and every way in which they do not belong together."""

from __future__ import annotations

import copy
import json
import shutil
from datetime import date

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_node.decode.case import read_case
from dicom_node.decode.files import quiet
from dicom_node.refusal import Refused
from pipeline.transform import Transform, itk_transform


def read(case, **changes):
    given = {"baseline": [case.baseline], "followup": [case.followup], "previous": [], **changes}
    return read_case(case.plan, **given)


def refused(case, **changes):
    with pytest.raises(Refused) as problem:
        read(case, **changes)
    assert problem.value.text.endswith(".")
    assert "\n" not in problem.value.text
    return problem.value.code


def test_a_whole_case(made_case, kit):
    study = read(made_case)
    assert study.case.days_since_procedure == 23
    assert study.case.followup.acquired == date(2026, 4, 2)
    assert study.case.plan.lesions[0].tumor.voxels.sum() == 80
    assert study.case.followup.phase == "enhanced"
    assert study.patient_id == "MADE-1"
    assert study.study_instance_uid == kit.uid_of("MADE-1", "after")
    assert study.baseline_series_instance_uid == kit.uid_of("MADE-1", "before", "pv")
    assert study.sources_match_grid
    assert len(study.source_images) == 20
    heights = [float(image.ImagePositionPatient[2]) for image in study.source_images]
    assert heights == sorted(heights)
    assert "contrast agent" in study.choice.reason


def test_single_files_do_as_well_as_folders(made_case):
    study = read(
        made_case, baseline=sorted(made_case.baseline.iterdir()), followup=sorted(made_case.followup.iterdir())
    )
    assert len(study.source_images) == 20


def test_what_else_lies_in_the_folders_is_passed_over(made_case, kit):
    (made_case.followup / "notes.txt").write_text("seen")
    scout = kit.Series(
        np.zeros((3, 8, 8), np.int16),
        name="scout",
        study="after",
        tags={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    )
    kit.write(scout.images(), made_case.followup, prefix="scout")
    report = made_case.followup_series.image(0, Modality="SR", SOPInstanceUID="1.2.9", SeriesInstanceUID="1.2.8")
    kit.save(report, made_case.followup / "report")
    study = read(made_case)
    assert len(study.source_images) == 20
    assert any("LOCALIZER" in line for line in study.choice.considered)


def test_an_empty_folder(made_case, tmp_path):
    (tmp_path / "none").mkdir()
    assert refused(made_case, followup=[tmp_path / "none"]) == "empty_folder"
    assert refused(made_case, baseline=[tmp_path / "none"]) == "empty_folder"
    assert refused(made_case, followup=[tmp_path / "gone"]) == "path_missing"


@pytest.mark.parametrize("key", ["series_instance_uid", "study_instance_uid"])
def test_the_baseline_series_is_not_there(made_case, key):
    document = copy.deepcopy(made_case.document)
    document["baseline"][key] = "1.2.3"
    made_case.write_plan(document)
    assert refused(made_case) == "baseline_series_missing"


def test_one_slice_only(made_case):
    one = sorted(made_case.followup.iterdir())[:1]
    assert refused(made_case, followup=one) == "one_slice"
    assert refused(made_case, baseline=sorted(made_case.baseline.iterdir())[:1]) == "one_slice"


def test_two_slices_of_the_baseline_only(made_case):
    assert refused(made_case, baseline=sorted(made_case.baseline.iterdir())[:2]) == "too_few_slices"


def test_a_followup_before_the_procedure(made_case):
    document = copy.deepcopy(made_case.document)
    document["procedure"]["date"] = "20260403"
    made_case.write_plan(document)
    assert refused(made_case) == "followup_before_procedure"


def test_a_baseline_from_after_the_procedure(made_case):
    """A slip of the year would otherwise only show as a late follow-up."""
    document = copy.deepcopy(made_case.document)
    document["procedure"]["date"] = "20250310"
    made_case.write_plan(document)
    with pytest.raises(Refused, match="after the plan's procedure_date of 2025-03-10") as problem:
        read(made_case)
    assert problem.value.code == "baseline_after_procedure"


def test_the_day_of_the_procedure_itself(made_case):
    document = copy.deepcopy(made_case.document)
    document["procedure"]["date"] = "20260402"
    made_case.write_plan(document)
    assert read(made_case).case.days_since_procedure == 0


def test_the_baseline_as_followup(made_case):
    assert refused(made_case, followup=[made_case.baseline]) == "followup_is_baseline"


def test_two_studies_as_followup(made_case):
    assert refused(made_case, followup=[made_case.followup, made_case.baseline]) == "several_studies"


def test_a_truncated_file(made_case):
    path = made_case.followup / "004"
    path.write_bytes(path.read_bytes()[:-100])
    assert refused(made_case) == "truncated_file"
    path.write_bytes(path.read_bytes()[:180])
    assert refused(made_case) == "truncated_file"


def test_a_color_picture_among_the_slices(made_case, kit):
    picture = made_case.followup_series.image(
        3,
        PhotometricInterpretation="RGB",
        SamplesPerPixel=3,
        SOPInstanceUID="1.2.3.4",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.7",
    )
    kit.save(picture, made_case.followup / "picture")
    study = read(made_case)
    assert len(study.source_images) == 20
    assert [note.code for note in study.notes] == ["color_pictures_left_out"]
    for path in made_case.followup.iterdir():
        if path.name != "picture":
            path.unlink()
    assert refused(made_case) == "not_grayscale"


def test_a_region_in_another_frame(made_case, kit):
    tumor = np.zeros((20, 24, 24), bool)
    tumor[5:9, 5:9, 5:9] = True
    seg = kit.segmentation(made_case.baseline_series, {1: tumor}, FrameOfReferenceUID="1.2.3.4")
    kit.save(seg, made_case.plan.parent / "seg")
    with pytest.raises(Refused) as problem:
        read(made_case)
    assert problem.value.code == "region_wrong_frame"
    assert problem.value.text.startswith("lesions[0].tumor")


def test_a_wrong_segment_number(made_case):
    document = copy.deepcopy(made_case.document)
    document["lesions"][0]["tumor"]["segment_number"] = 2
    made_case.write_plan(document)
    with pytest.raises(Refused) as problem:
        read(made_case)
    assert "lesions[0].tumor.segment_number 2 is not in the object" in problem.value.text


def test_a_tumor_outside_the_baseline(made_case, kit):
    far = kit.Series(np.zeros((20, 24, 24), np.int16), origin_mm=(500.0, 0.0, 0.0))
    tumor = np.zeros((20, 24, 24), bool)
    tumor[5:9, 5:9, 5:9] = True
    kit.save(kit.segmentation(far, {1: tumor}), made_case.plan.parent / "seg")
    assert refused(made_case) == "tumor_outside_baseline"


@pytest.mark.parametrize("key", ["simulated_zone", "organ_mask", "vessel_mask"])
def test_a_region_outside_the_baseline_is_named(made_case, key):
    """Drawn on another scan of the same frame, far from this one."""
    far = np.eye(4)
    far[:3, 3] = 900.0
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), far), made_case.plan.parent / "far.nii.gz")
    where = made_case.document["lesions"][0] if key == "simulated_zone" else made_case.document
    where[key] = {"path": "far.nii.gz"}
    made_case.write_plan()
    with pytest.raises(Refused, match=rf"{key} lies outside the baseline scan") as problem:
        read(made_case)
    assert problem.value.code == "region_outside_baseline"


def test_dates_shifted_apart_are_those_of_the_study(made_case, kit):
    shutil.rmtree(made_case.followup)
    kit.write([made_case.followup_series.image(k, AcquisitionDate="20010101") for k in range(20)], made_case.followup)
    assert read(made_case).case.followup.acquired == date(2026, 4, 2)


def test_no_date(made_case, kit):
    shutil.rmtree(made_case.followup)
    kit.write(
        [made_case.followup_series.image(k, AcquisitionDate=None, StudyDate=None) for k in range(20)],
        made_case.followup,
    )
    assert refused(made_case) == "no_date"


def earlier_result(folder, *, lesions, labels, days=10, **changes):
    folder.mkdir()
    document = {
        "patient_id": "MADE-1",
        "plan_id": "P1",
        "study_instance_uid": f"1.2.{days}",
        "series_instance_uid": f"1.3.{days}",
        "days_since_procedure": days,
        "registration": {"accepted": True},
        "lesions": lesions,
        **changes,
    }
    (folder / "assessment.json").write_text(json.dumps(document))
    nib.save(nib.Nifti1Image(labels.T.astype(np.uint8), np.diag([-1.25, -1.5, 2.0, 1.0])), folder / "zone.nii.gz")
    matrix = np.eye(4)
    matrix[:3, 3] = (1, 2, 3)
    sitk.WriteTransform(itk_transform(Transform("a", "b", matrix)), str(folder / "baseline_from_followup.h5"))
    return folder


@pytest.fixture
def labels():
    out = np.zeros((6, 8, 10), np.uint8)
    out[2, 3, 4] = 1
    out[3:5, 5, 6] = 2
    return out


def test_earlier_results_in_time_order(made_case, tmp_path, labels, kit):
    first = {"lesion_id": "L1", "outcome": "complete", "required_margin_mm": 3}
    both = [first, {"lesion_id": "L2", "outcome": "narrow_margin"}]
    later = earlier_result(tmp_path / "later", lesions=both, labels=labels, days=20)
    sooner = earlier_result(tmp_path / "sooner", lesions=both[:1], labels=labels == 1, days=3)
    previous = read(made_case, previous=[later, sooner]).case.previous
    assert [earlier.days_since_procedure for earlier in previous] == [3, 20]
    assert [lesion.outcome for lesion in previous[1].lesions] == ["complete", "narrow_margin"]
    assert [lesion.required_margin_mm for lesion in previous[1].lesions] == [3, None]
    assert [lesion.zone.voxels.sum() for lesion in previous[1].lesions] == [1, 2]
    zone, transform = previous[0].lesions[0].zone, previous[0].baseline_from_followup
    assert zone.points_lps_mm() == pytest.approx(np.array([[4 * 1.25, 3 * 1.5, 2 * 2.0]]))
    assert transform.to_frame_uid == kit.frame
    assert transform.from_frame_uid == zone.geometry.frame_uid
    assert transform(zone.centroid_lps_mm) == pytest.approx(zone.centroid_lps_mm + np.array([1, 2, 3]))


def test_an_older_result_that_joins_all_zones(made_case, tmp_path, labels):
    both = [{"lesion_id": n, "outcome": "complete", "zone_volume_ml": 0.004} for n in ("L1", "L2")]
    folder = earlier_result(tmp_path / "old", lesions=both, labels=labels > 0)
    (earlier,) = read(made_case, previous=[folder]).case.previous
    assert [lesion.zone.voxels.sum() for lesion in earlier.lesions] == [3, 3]


def test_an_earlier_result_without_an_accepted_registration(made_case, tmp_path, labels):
    lesions = [{"lesion_id": "L1", "outcome": "not_assessable"}]
    folder = earlier_result(tmp_path / "old", lesions=lesions, labels=labels * 0, registration={"accepted": False})
    (earlier,) = read(made_case, previous=[folder]).case.previous
    assert earlier.baseline_from_followup is None
    assert earlier.lesions[0].zone is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"plan_id": "P2"}, "previous_of_another_plan"),
        ({"patient_id": "OTHER"}, "previous_of_another_plan"),
        ({"days": 23}, "previous_not_earlier"),
        ({"days": 40}, "previous_not_earlier"),
        ({"days_since_procedure": "ten"}, "previous_unreadable"),
        ({"lesions": [{"lesion_id": "L1", "outcome": "fine"}]}, "previous_unreadable"),
        ({"lesions": None}, "previous_unreadable"),
        (
            {"lesions": [{"lesion_id": "L1", "outcome": "complete", "required_margin_mm": "5"}]},
            "previous_unreadable",
        ),
        ({"registration": "x"}, "previous_unreadable"),
        ({"registration": [1]}, "previous_unreadable"),
        ({"days_since_procedure": True}, "previous_unreadable"),
    ],
)
def test_earlier_results_that_do_not_fit(made_case, tmp_path, labels, changes, code):
    given = {"lesions": [{"lesion_id": "L1", "outcome": "complete"}], "labels": labels, **changes}
    assert refused(made_case, previous=[earlier_result(tmp_path / "old", **given)]) == code


def test_an_earlier_result_given_twice_or_broken(made_case, tmp_path, labels):
    folder = earlier_result(tmp_path / "old", lesions=[{"lesion_id": "L1", "outcome": "complete"}], labels=labels)
    assert refused(made_case, previous=[folder, folder]) == "previous_twice"
    assert refused(made_case, previous=[tmp_path / "nowhere"]) == "previous_unreadable"
    (folder / "baseline_from_followup.h5").write_bytes(b"broken")
    assert refused(made_case, previous=[folder]) == "previous_unreadable"


def flat_zone(folder):
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), None)
    image.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), code=1)
    nib.save(image, folder / "zone.nii.gz")


def deep_document(folder):
    (folder / "assessment.json").write_text("[" * 200_000)


def other_transform(folder):
    affine = sitk.AffineTransform(3)
    both = sitk.CompositeTransform([affine, sitk.TranslationTransform(3)])
    sitk.WriteTransform(both, str(folder / "baseline_from_followup.h5"))


@pytest.mark.parametrize(
    "spoil", [flat_zone, lambda folder: (folder / "zone.nii.gz").write_bytes(b"x"), deep_document, other_transform]
)
def test_an_earlier_result_with_a_broken_file(made_case, tmp_path, labels, spoil):
    folder = earlier_result(tmp_path / "old", lesions=[{"lesion_id": "L1", "outcome": "complete"}], labels=labels)
    spoil(folder)
    with pytest.raises(Refused, match=r"[Tt]he earlier result old") as problem:
        read(made_case, previous=[folder])
    assert problem.value.code == "previous_unreadable"


@pytest.mark.parametrize("name", ["dev1", "dev2", "dev3", "dev4", "dev5"])
def test_the_cases(shared, name):
    folder = shared / "cases" / name
    truth = json.loads((folder / "truth.json").read_text())
    for number in range(1, len(truth["followups"]) + 1):
        study = read_case(
            folder / "plan" / "plan.json",
            baseline=[folder / "baseline"],
            followup=[folder / f"followup-{number}"],
            previous=[],
        )
        volume = study.case.followup.volume
        mask = nib.load(folder / f"truth-zone-{number}.nii.gz")
        matrix = np.diag([-1.0, -1, 1, 1]) @ mask.affine
        matrix[:3, :3] = matrix[:3, 2::-1]
        assert volume.voxels.shape == mask.shape[::-1]
        assert np.abs(volume.geometry.lps_from_index - matrix).max() < 1e-2
        assert volume.voxels.dtype == np.int16
        assert study.case.followup.phase == ("enhanced" if name == "dev5" else "portal_venous")
        assert study.sources_match_grid
        assert not study.notes


def test_the_same_followup_as_one_enhanced_object(shared, tmp_path):
    """highdicom's conversion of the slices is the oracle: the volume must be the same, voxel by voxel."""
    folder = shared / "cases" / "dev2"
    with quiet():
        slices = [dcmread(path) for path in sorted((folder / "followup-1").iterdir())]
        uids = [generate_uid(entropy_srcs=[name]) for name in ("series", "object")]
        hd.legacy.LegacyConvertedEnhancedCTImage(
            slices, series_instance_uid=uids[0], series_number=5, sop_instance_uid=uids[1], instance_number=1
        ).save_as(tmp_path / "one.dcm")
    plan, baseline = folder / "plan" / "plan.json", [folder / "baseline"]
    one = read_case(plan, baseline=baseline, followup=[tmp_path], previous=[])
    many = read_case(plan, baseline=baseline, followup=[folder / "followup-1"], previous=[])
    assert len(one.source_images) == 1
    assert one.case.followup.volume.geometry.same_grid(many.case.followup.volume.geometry)
    assert np.array_equal(one.case.followup.volume.voxels, many.case.followup.volume.voxels)
    assert one.case.followup.acquired == many.case.followup.acquired
    assert one.case.followup.phase == many.case.followup.phase
