"""The folder: what is in it, and that it appears whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import dicom_node.decode.case
import pipeline.assess
import pipeline.segment
from dicom_node import durable
from dicom_node.assessing import assess_files, settings_in_use
from dicom_node.interrupt import Interrupted
from dicom_node.nifti import ras_affine
from dicom_node.refusal import Refused
from dicom_node.results import folder as folder_module
from dicom_node.results.place import check_place
from dicom_node.results.record import settings_sha256
from pipeline.geometry import Geometry


def one(made, outcome="incomplete_coverage"):
    grid = made.geometry()
    lesions = (made.lesion(grid, "L1", (-85, -20, -120), outcome),)
    return made.assessment(lesions, outcome), made.study(grid, lesions)


@pytest.mark.usefixtures("bare")
def test_every_key_is_explained(made, write):
    _, document = write(*one(made), settings={})
    page = (Path(__file__).resolve().parents[3] / "docs" / "assessment.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    explained = {key for cell in first_cells for key in re.findall(r"`(\w+)`", cell)}
    names = {"schema", "notice", "patient_id", "plan_id", "study_instance_uid", "series_instance_uid", "lesion_id"}
    (lesion,) = document["lesions"]
    keys = {*document, *document["registration"], *lesion} - names - {"registration", "lesions"}
    assert keys == explained


@pytest.mark.usefixtures("bare")
def test_document_has_the_keys_of_the_contract(made, write):
    out, document = write(*one(made), settings={"node": {"name": "x"}})
    assert json.loads((out / "assessment.json").read_text("utf-8")) == document
    assert document["schema"] == "marginwatch/assessment/1"
    assert document["outcome"] == "incomplete_coverage"
    assert document["needs_review"] is True
    assert document["days_since_procedure"] == 33
    assert document["registration"] == {
        "accepted": True,
        "expected_error_mm": 1.1,
        "minimum_jacobian": 0.6,
        "reasons": [],
    }
    (lesion,) = document["lesions"]
    assert lesion["minimal_margin_mm"] == pytest.approx(-2.0)
    assert lesion["minimal_margin_interval_mm"] == pytest.approx([-3.2, -0.9])
    assert lesion["minimal_margin_point_lps_mm"] == pytest.approx([-93, -20, -120])
    assert lesion["minimal_margin_location"] == "medial and cranial, 12 mm from the capsule"
    assert lesion["minimal_margin_depth_in_organ_mm"] == 12.0
    assert lesion["organ_limited_margin_mm"] == pytest.approx(-2.0)
    assert lesion["organ_limited_surface_fraction"] == 0.2
    assert lesion["organ_limited_place"] == {
        "point_lps_mm": [-93.0, -20.0, -120.0],
        "margin_mm": -2.0,
        "required_mm": 5.0,
        "location": "medial and cranial, 12 mm from the capsule",
        "depth_in_organ_mm": 12.0,
    }
    assert (lesion["probability_below_0mm"], lesion["probability_below_required"]) == (0.9, 0.95)
    assert lesion["registration_error_mm"] == {"mean": 0.8, "maximum": 1.0, "at_minimal_margin": 0.7}
    assert lesion["tissue_contraction_mm"] == 0.4
    assert set(lesion["simulated_zone"]) == {"volume_ml", "dice", "minimal_margin_mm", "predicted"}
    assert set(lesion["findings"][0]) == {"kind", "centroid_lps_mm", "volume_ml", "longest_diameter_mm"}
    assert document["series_choice"]["phase"] == "portal_venous"
    assert document["provenance"]["weights_sha256"] is None
    assert document["provenance"]["settings_sha256"] == hashlib.sha256(b'{"node":{"name":"x"}}').hexdigest()
    timing = document["timing_s"]
    assert {"decode", "register", "segment", "write", "total"} <= set(timing)
    assert timing["total"] >= timing["write"]


@pytest.mark.usefixtures("bare")
def test_the_hash_is_that_of_what_the_method_is_set_to(made, tmp_path, monkeypatch):
    assessment, study = one(made)
    monkeypatch.setattr(dicom_node.decode.case, "read_case", lambda *_, **__: study)
    monkeypatch.setattr(pipeline.assess, "assess", lambda *_, **__: assessment)

    def written_hash(name):
        document = assess_files(tmp_path / "plan.json", baseline=[], followup=[], previous=[], out=tmp_path / name)
        return document["provenance"]["settings_sha256"]

    first = written_hash("a")
    assert first == written_hash("b")
    assert first == settings_sha256(settings_in_use()) != settings_sha256({})
    changed = replace(pipeline.segment.SegmentSettings(), smoothness=9.0)
    monkeypatch.setattr(pipeline.segment, "SegmentSettings", lambda: changed)
    assert written_hash("c") != first


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        ("segment", "HOLE_ML", 0.2),
        ("trust", "JACOBIAN_RANGE", (0.4, 1.8)),
        ("register", "FINE_LEVELS", ()),
        ("contraction", "_FADE_MM", 1.0),
        ("similarity", "BINS", 16),
    ],
)
def test_every_named_number_of_the_method_is_in_the_hash(module, name, value, monkeypatch):
    before = settings_in_use()
    assert name in before[module]
    monkeypatch.setattr(importlib.import_module(f"pipeline.{module}"), name, value)
    assert settings_sha256(settings_in_use()) != settings_sha256(before)


def test_the_settings_name_no_test_patient_and_no_wording():
    assert not [name for name in settings_in_use() if name.startswith("phantom")]
    assert "_UNPROVEN" not in settings_in_use()["lesion"]


def test_what_could_not_be_measured_is_null_and_never_nan(made, write):
    grid = made.geometry()
    whole = made.lesion(grid, "L1", (-85, -20, -120))
    broken = replace(whole.margin, minimal_margin_mm=-math.inf, minimal_margin_interval_mm=(-math.inf, 1.0))
    lesions = (made.blank_lesion("L0"), replace(whole, margin=broken))
    out, document = write(made.assessment(lesions, "not_assessable", accepted=False), made.study(grid, lesions))
    blank, odd = document["lesions"]
    assert blank["minimal_margin_mm"] is blank["tumor_volume_ml"] is blank["simulated_zone"] is None
    assert blank["required_margin_mm"] == 5.0
    assert blank["findings"] == []
    assert odd["minimal_margin_mm"] is None
    assert odd["minimal_margin_interval_mm"] is None
    assert "NaN" not in (out / "assessment.json").read_text()


@pytest.mark.usefixtures("bare")
def test_masks_lie_on_the_followup(made, write):
    grid = made.geometry(rotate_deg=12)
    lesions = (made.lesion(grid, "L1", (-88, -20, -120)), made.lesion(grid, "L2", (-60, -20, -118)))
    out, _ = write(made.assessment(lesions, "complete"), made.study(grid, lesions))
    image = nib.load(out / "zone.nii.gz")
    assert image.shape == grid.shape[::-1]
    assert image.get_data_dtype() == np.uint8
    labels = np.asarray(image.dataobj)
    assert ((labels > 0).transpose(2, 1, 0) == (lesions[0].zone | lesions[1].zone).voxels).all()
    assert (labels[lesions[0].zone.voxels.transpose(2, 1, 0)] == 1).all()
    i, j, k = np.argwhere(labels == 2)[7]
    ras = image.affine @ (i, j, k, 1)
    assert ras[:3] * (-1, -1, 1) == pytest.approx(grid.lps_of((k, j, i)))
    # an independent reader agrees on where it lies
    read = sitk.ReadImage(str(out / "zone.nii.gz"))
    assert read.TransformIndexToPhysicalPoint((int(i), int(j), int(k))) == pytest.approx(
        grid.lps_of((k, j, i)), abs=1e-3
    )


def test_affine_is_that_of_the_shared_cases(cases):
    truth = nib.load(cases / "dev1" / "truth-zone-1.nii.gz")
    spacing = np.diag([3.0, 0.72, 0.72, 1.0])[[2, 1, 0, 3]]
    spacing[:3, 3] = (-157.920122, -171.920122, -191.429999)
    grid = Geometry(truth.shape[::-1], spacing, "1.2.3")
    assert ras_affine(grid.lps_from_index) == pytest.approx(truth.affine, abs=1e-4)


def test_masks_are_there_and_empty_when_not_assessable(written):
    out = written("ct_blank")
    for name in ("zone", "tumor", "uncovered"):
        assert not np.asarray(nib.load(out / f"{name}.nii.gz").dataobj).any()
    assert not (out / "baseline_from_followup.h5").exists()
    names = {path.name for path in (out / "dicom").iterdir()}
    assert names == {"report.dcm", "document.dcm", "capture-1.dcm", "capture-2.dcm", "capture-3.dcm"}


@pytest.mark.usefixtures("bare")
def test_transform_file_maps_as_the_transform(made, write):
    out, _ = write(*one(made))
    read = sitk.ReadTransform(str(out / "baseline_from_followup.h5"))
    points = np.random.default_rng(0).uniform((-110, -60, -140), (-50, 20, -100), (50, 3))
    mapped = np.array([read.TransformPoint(point) for point in points])
    assert mapped == pytest.approx(made.transform()(points), abs=1e-6)


def test_pictures_are_named_by_lesion_and_plane(written):
    out = written("ct_incomplete")
    assert sorted(path.name for path in (out / "images").iterdir()) == [
        "lesion-1-axial.png",
        "lesion-1-coronal.png",
        "lesion-1-sagittal.png",
    ]
    assert (out / "report.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.usefixtures("bare")
def test_a_new_result_replaces_the_old_one_whole(made, write, tmp_path):
    assessment, study = one(made)
    out, _ = write(assessment, study)
    (out / "stale.txt").write_text("from before")
    write(assessment, study)
    assert not (out / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("module", "at"), [(folder_module, "write_masks"), (folder_module, "write_objects"), (durable, "_sync")]
)
def test_a_full_disk_leaves_the_old_result(made, write, tmp_path, monkeypatch, module, at):
    out, before = write(*one(made))

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, at, full)
    with pytest.raises(Refused) as refused:
        write(*one(made, "complete"))
    assert refused.value.code == "cannot_write_results"
    assert "No space left" in refused.value.text
    assert json.loads((out / "assessment.json").read_text()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("limit_bytes", [8_000, 100_000, 1_000_000])
def test_files_that_the_disk_does_not_take(made, write, tmp_path, monkeypatch, limit_bytes):
    """A real refusal by the system, whichever file it hits: the transform, a picture, or a capture."""
    resource = pytest.importorskip("resource")
    with monkeypatch.context() as patched:
        patched.setattr(folder_module, "write_objects", lambda *_: None)
        out, before = write(*one(made))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        with pytest.raises(Refused) as refused:
            write(*one(made, "complete"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert refused.value.code == "cannot_write_results"
    assert json.loads((out / "assessment.json").read_text()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("problem", "raised"), [(OSError(errno.EIO, "Input/output error"), Refused), (Interrupted(), Interrupted)]
)
def test_a_failed_exchange_brings_the_old_result_back(made, write, tmp_path, monkeypatch, problem, raised):
    out, before = write(*one(made))
    rename = Path.rename

    def fails_for_the_new(path, target):
        if ".writing-" in path.name:
            raise problem
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new)
    with pytest.raises(raised):
        write(*one(made, "complete"))
    assert json.loads((out / "assessment.json").read_text()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_bug_leaves_nothing_behind(made, write, tmp_path, monkeypatch):
    def bug(*_args, **_kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(folder_module, "write_objects", bug)
    with pytest.raises(ZeroDivisionError):
        write(*one(made))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("bare")
def test_a_folder_that_is_no_result_is_not_replaced(made, write, tmp_path):
    home = tmp_path / "result"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    with pytest.raises(Refused, match="not a result folder"):
        write(*one(made))
    assert (home / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("full", "exists and is not a result folder"),
        ("file", "is a file; name a new folder"),
        ("file/below", "is a file, so there can be no folder"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_place_where_no_result_can_go_is_told_before_the_work(tmp_path, name, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    begun: list[str] = []
    nothing = {"baseline": [], "followup": [], "previous": []}
    with pytest.raises(Refused, match=said) as refused:
        assess_files(tmp_path / "plan.json", **nothing, out=tmp_path / name, progress=begun.append)
    assert refused.value.code == "cannot_write_results"
    assert begun == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["new", "empty", "earlier", "a/b/c"])
def test_a_place_where_a_result_can_go(tmp_path, name):
    for made in ("empty", "earlier"):
        (tmp_path / made).mkdir()
    (tmp_path / "earlier" / "assessment.json").touch()
    before = sorted(tmp_path.rglob("*"))
    check_place(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_written_or_exchanged(tmp_path, monkeypatch):
    def read_only(*_args, **_kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("tempfile.mkdtemp", read_only)
        with pytest.raises(Refused, match="Read-only file system"):
            check_place(tmp_path / "new")
    monkeypatch.setattr("os.path.ismount", lambda _: True)
    with pytest.raises(Refused, match="is a mounted disk"):
        check_place(tmp_path)


@pytest.mark.usefixtures("bare")
def test_an_empty_folder_and_missing_parents_are_fine(made, write, tmp_path):
    (tmp_path / "result").mkdir()
    write(*one(made))
    out, _ = write(*one(made), name="a/b/c")
    assert (out / "assessment.json").exists()


@pytest.mark.usefixtures("bare")
def test_what_a_killed_writer_left_is_cleared_and_its_old_result_comes_back(made, write, tmp_path):
    out, before = write(*one(made))
    out.rename(tmp_path / ".result.replaced-1")
    (tmp_path / ".result.writing-1").mkdir()
    (tmp_path / ".result.writing-1" / "zone.nii.gz").write_bytes(b"half")

    def broken(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(folder_module, "write_masks", broken)
        with pytest.raises(Refused):
            write(*one(made, "complete"))
    assert json.loads((out / "assessment.json").read_text()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    write(*one(made, "complete"))
    assert json.loads((out / "assessment.json").read_text())["outcome"] == "complete"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
