"""What a plan states of the treatment, from plan.json to the document: where, when, how strong, and by which device."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTDoseStorage

from dicom_node.decode.planned import read_planned
from dicom_node.nifti import lps_from_index
from dicom_node.probe_table import probe_table
from dicom_node.refusal import Refused
from dicom_node.simulation.lesion import simulated_lesions
from pipeline.simulate.zone import SimulationSettings

QUICK = ("--spacing-mm", 3, "--no-spread", "--json")
FREEZE = [{"phase": "freeze", "duration_s": 150}]
DOSE_UID = "1.2.826.0.1.3680043.8.498.4712"


def lesion_of(said):
    """The only lesion of the document that was printed."""
    status, out, err = said
    assert (status, err) == (0, "")
    (lesion,) = json.loads(out)["lesions"]
    return lesion


def ml(lesion, edge=1):
    """After each cycle; by default of the ice."""
    return lesion["edges"][edge]["volume_ml_after_cycle"]


def beside(applicator, x_mm=0.0, **changes):
    """An applicator moved along x."""
    moved = {
        name: [x + x_mm * (n == 0) for n, x in enumerate(applicator[name])] for name in ("tip_lps_mm", "entry_lps_mm")
    }
    return {**applicator, **moved, **changes}


def test_one_probe_in_three_cannulas_frozen_twice_each_makes_six_cycles(simulate, plan):
    def moved(document):
        lesion = document["lesions"][0]
        one = lesion["applicators"][0]
        lesion["applicators"] = [beside(one, x, start_s=start) for x, start in ((-8, 0), (0, 230), (8, 460))]
        lesion["protocol"] = [{"phase": p, "duration_s": s} for p, s in (("freeze", 90), ("thaw", 40), ("freeze", 90))]

    lesion = lesion_of(simulate(plan(moved), *QUICK))
    assert [applicator["start_s"] for applicator in lesion["applicators"]] == [0, 230, 460]
    for edge in lesion["edges"]:
        after = edge["volume_ml_after_cycle"]
        assert len(after) == 6
        assert after == sorted(after)
    assert ml(lesion)[3] > 1.5 * ml(lesion)[1]
    assert ml(lesion)[5] > 1.3 * ml(lesion)[3]


def again(folder, change):
    """The plan in that folder, changed once more."""
    document = json.loads((folder / "plan.json").read_text())
    change(document["lesions"][0])
    (folder / "plan.json").write_text(json.dumps(document))
    return folder


def test_a_probe_that_begins_later_and_a_weak_one_do_less(simulate, plan):
    """The same two probes at once, one after the other, and one of them at a third of its power."""

    def two(document):
        lesion = document["lesions"][0]
        lesion["applicators"] = [beside(lesion["applicators"][0], x) for x in (-6, 6)]
        lesion["protocol"] = FREEZE

    def of(**second):
        return lambda lesion: lesion["applicators"].append({**lesion["applicators"].pop(), **second})

    folder = plan(two)
    both = lesion_of(simulate(folder, *QUICK))
    weak = lesion_of(simulate(again(folder, of(power_fraction=0.33)), *QUICK))
    later = lesion_of(simulate(again(folder, of(power_fraction=1.0, start_s=400)), *QUICK))
    assert [a["power_fraction"] for a in weak["applicators"]] == [1.0, 0.33]
    assert [a["start_s"] for a in later["applicators"]] == [0.0, 400.0]
    assert [len(ml(lesion)) for lesion in (both, weak, later)] == [1, 1, 2]
    assert ml(weak)[0] < 0.9 * ml(both)[0]
    assert ml(later)[0] < 0.6 * ml(both)[0]
    assert ml(later)[1] < 0.97 * ml(both)[0]  # together they help one another


def test_a_stated_isotherm_sets_the_device_and_is_told(simulate, plan):
    size = {"temperature_c": -20, "after_s": 150, "diameter_mm": 9.0, "length_mm": 22.0}

    def alone(document):
        lesion = document["lesions"][0]
        lesion["applicators"] = lesion["applicators"][:1]
        lesion["protocol"] = FREEZE

    folder = plan(alone)
    of_table = lesion_of(simulate(folder, *QUICK))
    fitted = lesion_of(simulate(again(folder, lambda x: x["applicators"][0].update(isotherm_size=size)), *QUICK))
    (before,), (device,) = of_table["applicators"], fitted["applicators"]
    assert before["fitted_to"] is None
    assert device["fitted_to"] == {**size, "medium_c": 37.0}
    assert device["provenance"].startswith("heat transfer fitted to the plan's isotherm -20 °C of 9 mm after 150 s; ")
    assert device["active_length_mm"] < before["active_length_mm"]
    assert device["transfer_w_m2k"] < before["transfer_w_m2k"]
    assert ml(fitted)[0] < 0.85 * ml(of_table)[0]


def as_dose(folder, patient_id, frame_uid):
    """The simulated temperatures of a result folder as an RT Dose."""
    image = nib.load(folder / "L1-temperature.nii.gz")
    celsius, matrix = np.asarray(image.dataobj).transpose(2, 1, 0), lps_from_index(image.affine)
    made, spacing = Dataset(), np.linalg.norm(matrix[:3, :3], axis=0)
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = RTDoseStorage, DOSE_UID, "RTDOSE"
    made.StudyInstanceUID, made.SeriesInstanceUID = f"{DOSE_UID}.1", f"{DOSE_UID}.2"
    made.PatientID, made.FrameOfReferenceUID = patient_id, frame_uid
    made.ImagePositionPatient, made.ImageOrientationPatient = matrix[:3, 3].tolist(), [1, 0, 0, 0, 1, 0]
    made.PixelSpacing = spacing[1:].tolist()
    made.GridFrameOffsetVector = (np.arange(len(celsius)) * spacing[0]).tolist()
    made.NumberOfFrames, made.Rows, made.Columns = celsius.shape
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 1
    made.BitsAllocated, made.BitsStored, made.HighBit, made.DoseGridScaling = 16, 16, 15, 0.01
    made.add_new("PixelData", "OW", np.round(celsius * 100).astype("i2").tobytes())
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = made.SOPClassUID, DOSE_UID
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def test_temperatures_of_another_program_are_compared_with_the_simulated_zone(simulate, plan, without_baseline):
    """Its own, by way of an RT Dose and a threshold in plan.json: the two zones are one."""

    def with_map(document):
        document["lesions"][0]["simulated_zone"] = {"sop_instance_uid": DOSE_UID, "at_most_c": -20}

    folder = plan(with_map)
    regions = dcmread(folder / "regions.dcm", stop_before_pixels=True)
    made = as_dose(without_baseline, regions.PatientID, regions.FrameOfReferenceUID)
    made.save_as(folder / "dose.dcm", enforce_file_format=True)
    lesion = lesion_of(simulate(folder, *QUICK))
    stated = lesion["simulated_zone_of_plan"]
    assert stated["volume_ml"] == pytest.approx(ml(lesion, 0)[-1], rel=0.05)
    assert stated["dice"] > 0.95
    document = json.loads((folder / "plan.json").read_text())
    document["lesions"][0]["simulated_zone"]["at_most_c"] = -300
    (folder / "plan.json").write_text(json.dumps(document))
    status, _, err = simulate(folder, *QUICK)
    assert status == 1
    assert "lesions[0].simulated_zone.at_most_c must lie between -210 and 200 °C" in err


@pytest.fixture
def tabled(simulate, plan, written_phantom, tmp_path):
    """Simulates a device of the site's table whose zone is a ball around its tip, so far along x from the tumor."""
    study = read_planned(written_phantom.plan, baseline=None, probes=probe_table())
    center = study.plan.lesions[0].tumor.centroid_lps_mm

    def run(diameter_mm, off_mm=0.0, required_mm=5.0):
        def placed(document):
            tip = (center + np.array([off_mm, 0.0, 0.0])).tolist()
            lesion = document["lesions"][0]
            lesion["applicators"] = [
                {"model": "Ball", "tip_lps_mm": tip, "entry_lps_mm": [tip[0], tip[1] - 90, tip[2]]}
            ]
            lesion["required_margin_mm"] = required_mm

        (tmp_path / "node.toml").write_text('[simulation]\nprobes = "probes.toml"\n')
        (tmp_path / "probes.toml").write_text(
            '[[probe]]\nmodel = "Ball"\nkind = "tabled_zone"\nenergy = "cryoablation"\nprovenance = "made"\n'
            f"diameter_mm = {diameter_mm}\nlength_mm = {diameter_mm}\n"
            "center_from_tip_mm = 0.0\nspread_fraction = 0.1\n"
        )
        return simulate(plan(placed), *QUICK, "--config", tmp_path / "node.toml")

    return run


@pytest.mark.parametrize(
    ("diameter_mm", "off_mm", "required_mm", "code", "said"),
    [
        (50.0, 0.0, 5.0, None, ""),
        (50.0, 0.0, 29.0, "simulated_margin_below_required", "to spare at the least; 29.0 mm are required."),
        (14.0, 0.0, 5.0, "simulated_zone_leaves_tumor", "mm of it stick out at the farthest."),
        (14.0, 28.0, 5.0, "simulated_zone_misses_tumor", "covers no part of its tumor."),
        (
            14.0,
            55.0,
            5.0,
            "simulated_zone_astray",
            "lies more than 30 mm from its tumor: check lesions[0].applicators.",
        ),
    ],
)
def test_a_zone_that_does_not_do_what_is_required_is_told(tabled, diameter_mm, off_mm, required_mm, code, said):
    lesion = lesion_of(tabled(diameter_mm, off_mm, required_mm))
    assert [reason["code"] for reason in lesion["reasons"]] == ([code] if code else [])
    assert all(reason["text"].endswith(said) for reason in lesion["reasons"])
    (edge,), (device,) = lesion["edges"], lesion["applicators"]
    assert (edge["covered_fraction"] == 0) == (off_mm > 0)
    assert (device["active_length_mm"], device["transfer_w_m2k"]) == (None, None)


def test_a_tabled_device_that_misses_its_tumor_by_far_is_refused(tabled):
    status, out, err = tabled(14.0, 90.0)
    assert (status, out) == (1, "")
    assert "lesions[0].applicators[0].tip_lps_mm puts the zone " in err


def test_an_unknown_model_is_named_by_its_key(simulate, plan):
    def unknown(document):
        lesion = document["lesions"][0]
        lesion["applicators"] = [beside(lesion["applicators"][0], x) for x in (-9, 0, 9)]
        for number in (1, 2):
            lesion["applicators"][number]["model"] = "Mystery 9"
        lesion["protocol"] = FREEZE

    lesion = lesion_of(simulate(plan(unknown), "--spacing-mm", 2.5, *QUICK[2:]))
    (told,) = [reason["text"] for reason in lesion["reasons"] if reason["code"] == "applicator_model_unknown"]
    assert told == (
        "plan.json: lesions[0].applicators[1].model Mystery 9 is not in the probe table: simulated as the "
        "generic cryoprobe."
    )


def test_probes_of_one_place_may_follow_one_another_and_not_overlap_in_time(simulate, plan):
    def two(document):
        lesion = document["lesions"][0]
        one = lesion["applicators"][0]
        lesion["applicators"] = [one, beside(one, 0.5, start_s=149)]
        lesion["protocol"] = FREEZE

    folder = plan(two)
    status, _, err = simulate(folder, *QUICK)
    assert status == 1
    assert "lesions[0].applicators[1].tip_lps_mm overlaps applicators[0]" in err
    folder = again(folder, lambda lesion: lesion["applicators"][1].update(start_s=160))
    assert len(ml(lesion_of(simulate(folder, *QUICK)))) == 2


def test_several_lesions_have_their_margins_in_one_document(simulate, plan, tmp_path):
    """Of one tumor, with its probes and with a weak one alone."""

    def two(document):
        first = document["lesions"][0]
        first["protocol"] = FREEZE
        weak = {**first["applicators"][0], "power_fraction": 0.4}
        document["lesions"].append({**first, "lesion_id": "L2", "required_margin_mm": 3.0, "applicators": [weak]})

    status, out, _ = simulate(plan(two), *QUICK)
    assert status == 0
    one, other = json.loads(out)["lesions"]
    assert [lesion["lesion_id"] for lesion in (one, other)] == ["L1", "L2"]
    assert [lesion["required_margin_mm"] for lesion in (one, other)] == [5.0, 3.0]
    for name in ("minimal_margin_mm", "covered_fraction"):
        assert one["edges"][1][name] > other["edges"][1][name]
    for lesion in (one, other):
        point = np.array(lesion["minimal_margin_point_lps_mm"])
        assert np.isfinite(point).all()
        assert (tmp_path / "out" / f"{lesion['files']}-zone.nii.gz").is_file()


def test_what_is_wrong_with_a_later_lesion_is_told_before_the_first_is_simulated(plan):
    def two(document):
        first = document["lesions"][0]
        away = beside(first["applicators"][0], 75.0)
        document["lesions"].append({**first, "lesion_id": "L2", "applicators": [away]})

    study = read_planned(plan(two) / "plan.json", baseline=None, probes=probe_table())
    stages: list[str] = []
    settings = SimulationSettings(spacing_mm=3.0, by_tissue=False)
    with pytest.raises(Refused, match=r"lesions\[1\]\.applicators\[0\]\.tip_lps_mm puts the active part"):
        simulated_lesions(study.plan, settings, with_spread=True, progress=stages.append)
    assert stages == ["lay out"]
