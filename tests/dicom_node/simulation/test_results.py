"""What lies in the folder of a simulation, read back by other means than those that wrote it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from dicom_node import codes
from dicom_node.assessing import settings_in_use
from dicom_node.decode.files import read_header, scan
from dicom_node.decode.planned import read_planned
from dicom_node.decode.segment import segment_voxels
from dicom_node.nifti import lps_from_index
from dicom_node.probe_table import probe_table
from dicom_node.refusal import Refused
from dicom_node.results.record import settings_sha256
from dicom_node.simulating import Wishes, simulate_files
from dicom_node.simulation import folder as folder_module
from dicom_node.simulation.lesion import simulated_lesions
from dicom_node.simulation.names import file_names
from dicom_node.simulation.object import simulated_segments
from pipeline.geometry import Geometry
from pipeline.simulate.zone import SimulationSettings
from pipeline.volume import Mask

ISOTHERMS = ("zone", "isotherm-0", "isotherm-40")


def document_of(folder: Path):
    return json.loads((folder / "simulation.json").read_text(encoding="utf-8"))


def nifti(path: Path):
    """Values and grid ``[k, j, i]``, as nibabel reads them."""
    image = nib.load(path)
    return np.asarray(image.dataobj).transpose(2, 1, 0), lps_from_index(image.affine)


def test_every_key_is_explained(with_baseline):
    page = (Path(__file__).resolve().parents[3] / "docs" / "simulation.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    explained = [key for cell in first_cells for key in re.findall(r"`(\w+)`", cell)]
    assert len(explained) == len(set(explained))
    document = document_of(with_baseline)
    (lesion,) = document["lesions"]
    parts = [document["settings"], document["provenance"], lesion["protocol"], lesion["edges"][0], lesion["spread"]]
    parts += [lesion["applicators"][0], lesion["protocol"]["phases"][0], lesion["simulated_zone_of_plan"]]
    keys = {key for part in (document, lesion, *parts) for key in part}
    assert keys == set(explained)


def test_the_document_says_what_was_simulated(with_baseline):
    document = document_of(with_baseline)
    assert document["schema"] == "marginwatch/simulation/1"
    assert document["reasons"] == []
    assert document["settings"] == {"isotherm_c": -20.0, "spacing_mm": 3.0, "by_tissue": True, "dose": "arrhenius"}
    (lesion,) = document["lesions"]
    assert [edge["counts"] for edge in lesion["edges"]] == [True, False, False]
    assert [edge["temperature_c"] for edge in lesion["edges"]] == [-20.0, 0.0, -40.0]
    lethal, ice, strict = (edge["volume_ml_after_cycle"] for edge in lesion["edges"])
    assert len(lethal) == len(ice) == len(strict) == 2
    assert ice[1] > lethal[1] > strict[1]
    assert lethal[0] <= lethal[1]
    low, high = lesion["spread"]["volume_ml"]
    assert low < lethal[1] < high
    low, high = lesion["spread"]["minimal_margin_mm"]
    assert low < lesion["edges"][0]["minimal_margin_mm"] < high
    overlap = lesion["simulated_zone_of_plan"]
    assert 0 < overlap["dice"] < 1
    assert overlap["volume_ml"] > 1
    assert {"load", "decode", "simulate", "write", "total"} == set(document["timing_s"])


def test_the_files_are_those_that_are_told(with_baseline, without_baseline):
    cycles = {f"isotherm-{n}-cycle-{cycle}" for n in (0, 20, 40) for cycle in (1, 2)}
    always = {"temperature", "zone", "isotherm-0", "isotherm-20", "isotherm-40", *cycles}
    for folder, more in ((with_baseline, {"certain", "possible"}), (without_baseline, set())):
        assert {path.name for path in folder.glob("*.nii.gz")} == {f"L1-{name}.nii.gz" for name in always | more}
        assert (folder / "zone.dcm").is_file()
        with Image.open(folder / "images" / "L1.png") as picture:
            assert np.asarray(picture).std() > 10


def test_zones_are_where_the_temperature_says(with_baseline):
    celsius, affine = nifti(with_baseline / "L1-temperature.nii.gz")
    assert celsius.dtype == np.float32
    assert celsius.max() == pytest.approx(37, abs=0.5)
    for name, limit in (("zone", -20), ("isotherm-0", 0), ("isotherm-40", -40)):
        inside, same = nifti(with_baseline / f"L1-{name}.nii.gz")
        assert np.abs(affine - same).max() == 0
        assert ((celsius < limit - 0.1) <= (inside > 0)).all()
        assert ((inside > 0) <= (celsius < limit + 0.1)).all()
    first, _ = nifti(with_baseline / "L1-isotherm-20-cycle-1.nii.gz")
    last, _ = nifti(with_baseline / "L1-isotherm-20-cycle-2.nii.gz")
    assert (first <= last).all()
    assert (last == nifti(with_baseline / "L1-zone.nii.gz")[0]).all()
    certain, possible = (nifti(with_baseline / f"L1-{name}.nii.gz")[0] for name in ("certain", "possible"))
    assert (certain <= possible).all()
    assert 0 < certain.sum() < possible.sum()


def test_the_volumes_told_are_those_of_the_files(with_baseline):
    (lesion,) = json.loads((with_baseline / "simulation.json").read_text())["lesions"]
    for edge, name in zip(lesion["edges"], ("zone", "isotherm-0", "isotherm-40"), strict=True):
        inside, affine = nifti(with_baseline / f"L1-{name}.nii.gz")
        volume_ml = inside.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
        assert edge["volume_ml_after_cycle"][-1] == pytest.approx(volume_ml, rel=0.08), name  # cells of 3 mm


@pytest.mark.parametrize("which", ["with_baseline", "without_baseline"])
def test_the_dicom_object_holds_the_same_voxels(which, request):
    folder = request.getfixturevalue(which)
    for number, name in enumerate(ISOTHERMS, 1):
        voxels, grid = segment_voxels(read_header(folder / "zone.dcm"), number, "zone")
        assert_same(Mask(voxels, grid), *nifti(folder / f"L1-{name}.nii.gz"))


def assert_same(mask: Mask, values, affine) -> None:
    """The same voxels in the same places, whatever of the empty rest is on the grid."""
    index = np.argwhere(values > 0)
    places = index @ affine[:3, :3].T + affine[:3, 3]
    at = mask.geometry.index_of(places)
    found = np.round(at).astype(int)
    assert np.abs(at - found).max() < 1e-3
    assert mask.voxels[tuple(found.T)].all()
    assert int(mask.voxels.sum()) == len(index)


def test_a_plan_can_name_the_object_as_its_simulated_zone(with_baseline, plan, tmp_path, written_phantom):
    uid = str(pydicom.dcmread(with_baseline / "zone.dcm", stop_before_pixels=True).SOPInstanceUID)

    def with_zone(document):
        document["lesions"][0]["simulated_zone"] = {"sop_instance_uid": uid, "segment_number": 1}

    folder = plan(with_zone)
    shutil.copyfile(with_baseline / "zone.dcm", folder / "zone.dcm")
    files = sorted(written_phantom.baseline.iterdir())
    study = read_planned(folder / "plan.json", baseline=files, probes=probe_table())
    zone = study.plan.lesions[0].simulated_zone
    assert zone is not None
    assert_same(zone, *nifti(with_baseline / "L1-zone.nii.gz"))
    out = simulate_files(
        folder / "plan.json", baseline=files, out=tmp_path / "out", wishes=Wishes(spacing_mm=3.0, with_spread=False)
    )
    assert out["lesions"][0]["simulated_zone_of_plan"]["dice"] == 1.0


@pytest.mark.parametrize("which", ["with_baseline", "without_baseline"])
def test_the_validator_accepts_the_object(which, request, dicom_errors):
    assert dicom_errors(request.getfixturevalue(which) / "zone.dcm") == []


def test_the_object_belongs_to_the_baseline(with_baseline, without_baseline, written_phantom):
    images = {h.text("SOPInstanceUID"): h for h in scan([written_phantom.baseline]).headers}
    first = next(iter(images.values()))
    for folder in (with_baseline, without_baseline):
        made = pydicom.dcmread(folder / "zone.dcm")
        for keyword in ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID", "PatientName", "PatientBirthDate"):
            assert str(made[keyword].value) == first.text(keyword)
        assert made.StudyDate == first.text("StudyDate")
        (series,) = made.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == first.text("SeriesInstanceUID")
        named = [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
        assert set(named) <= set(images)
        assert [item.SegmentLabel for item in made.SegmentSequence] == [
            "L1 simulated zone -20 °C",
            "L1 simulated 0 °C",
            "L1 simulated -40 °C",
        ]
        kind = made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == codes.ABLATION_ZONE.value
        (algorithm,) = made.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "Marginwatch simulation"
    whole = pydicom.dcmread(with_baseline / "zone.dcm").ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert 3 < len(whole) < len(images)


def test_several_lesions_lie_on_one_grid_and_keep_their_shape(written_phantom):
    study = read_planned(written_phantom.plan, baseline=None, probes=probe_table())
    (one,) = study.plan.lesions
    moved = np.array([31.3, 12.7, -20.2])
    applicators = tuple(
        replace(a, tip_lps_mm=tuple(a.tip_lps_mm + moved), entry_lps_mm=tuple(a.entry_lps_mm + moved))
        for a in one.applicators
    )
    matrix = one.tumor.geometry.lps_from_index.copy()
    matrix[:3, 3] += moved
    tumor = Mask(one.tumor.voxels, Geometry(one.tumor.geometry.shape, matrix, one.tumor.geometry.frame_uid))
    other = replace(one, lesion_id="L 2/b", tumor=tumor, applicators=applicators, simulated_zone=None)
    plan = replace(study.plan, lesions=(one, other), organ_mask=None, vessel_mask=None)
    uniform = SimulationSettings(spacing_mm=2.0, by_tissue=False)
    found, _ = simulated_lesions(plan, uniform, with_spread=False)
    segments = simulated_segments(found)
    assert [segment.number for segment in segments] == [1, 2, 3, 4, 5, 6]
    assert all(segment.mask.geometry.same_grid(segments[0].mask.geometry) for segment in segments)
    first, second = segments[0].mask, segments[3].mask
    assert second.volume_ml == pytest.approx(first.volume_ml, rel=0.02)
    assert second.centroid_lps_mm - first.centroid_lps_mm == pytest.approx(moved, abs=0.25)
    own = found[1].zone.counting.mask
    assert second.volume_ml == pytest.approx(own.volume_ml, rel=0.02)


def test_names_are_safe_and_each_lesions_own():
    assert file_names(["L1", "l1", "a b", "a_b", ".x", "-y", "Ü°"]) == [
        "L1", "l1-2", "a_b", "a_b-2", "_x", "_y", "__",
    ]  # fmt: skip


def test_a_bug_leaves_nothing_behind(written_phantom, tmp_path, monkeypatch):
    def bug(*_args, **_kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(folder_module, "picture_of", bug)
    with pytest.raises(ZeroDivisionError):
        simulate_files(
            written_phantom.plan,
            baseline=None,
            out=tmp_path / "out",
            wishes=Wishes(spacing_mm=3.0, with_spread=False),
        )
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(written_phantom, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "write_masks", full)
    with pytest.raises(Refused, match="No space left on device"):
        simulate_files(
            written_phantom.plan,
            baseline=None,
            out=tmp_path / "out",
            wishes=Wishes(spacing_mm=3.0, with_spread=False),
        )


def test_a_place_where_nothing_can_go_is_told_before_the_work(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "assessment.json").touch()
    begun: list[str] = []
    with pytest.raises(Refused, match="is not a result folder"):
        simulate_files(tmp_path / "plan.json", baseline=None, out=tmp_path / "out", progress=begun.append)
    assert begun == []


def test_the_same_simulation_has_the_same_identifiers_and_hash(without_baseline, written_phantom, tmp_path):
    wishes = Wishes(spacing_mm=3.0, with_spread=False)
    simulate_files(written_phantom.plan, baseline=None, out=tmp_path / "a", wishes=wishes)
    uids = [str(pydicom.dcmread(f / "zone.dcm").SOPInstanceUID) for f in (without_baseline, tmp_path / "a")]
    assert uids[0] == uids[1]
    hashes = [document_of(f)["provenance"]["settings_sha256"] for f in (without_baseline, tmp_path / "a")]
    assert hashes[0] == hashes[1] != settings_sha256(settings_in_use())
