"""plan.json, read strictly: whatever is wrong is named by the path of its key."""

from __future__ import annotations

import copy
import json
from datetime import date

import pytest

from dicom_node.decode.plan import read_plan_file
from dicom_node.refusal import Refused

SIZE = {"temperature_c": -20, "after_s": 600, "diameter_mm": 30}
WRONG = [
    ({"lessons": []}, "lessons is not a known key"),
    ({"plan_id": None}, "plan_id must be a text"),
    ({"plan_id": "  "}, "plan_id must be a text"),
    ({"plan_id": "../P1"}, "plan_id must have no slash"),
    ({"plan_id": "P\\1"}, "plan_id must have no slash"),
    ({"plan_id": ".."}, "plan_id must have no slash"),
    ({"plan_id": "P\n1"}, "plan_id must have no line break or control character"),
    ({"plan_id": "P\x1b[2J"}, "plan_id must have no line break or control character"),
    ({"plan_id": "P" * 65}, "plan_id must have at most 64 characters; it has 65"),
    ({"organ": "spleen"}, "organ must be one of liver, lung, kidney, bone, soft_tissue"),
    ({"procedure.energy": "laser"}, "procedure.energy must be one of"),
    ({"procedure.date": "2026-01-12"}, "procedure.date must be a date written YYYYMMDD"),
    ({"procedure.date": "20260231"}, "procedure.date must be a date written YYYYMMDD"),
    ({"procedure.time": "12:00"}, "procedure.time is not a known key"),
    ({"baseline": "1.2.3"}, "baseline must be an object"),
    ({"baseline.series_instance_uid": 5}, "baseline.series_instance_uid must be a text"),
    ({"lesions": []}, "lesions must be a list with at least 1 entry"),
    ({"lesions": {}}, "lesions must be a list with at least 1 entry"),
    ({"lesions.0.required_margin_mm": -1}, "lesions[0].required_margin_mm must be at least 0"),
    ({"lesions.0.required_margin_mm": 50}, "lesions[0].required_margin_mm must be at most 30"),
    ({"lesions.0.required_margin_mm": "5"}, "lesions[0].required_margin_mm must be a number"),
    ({"lesions.0.required_margin_mm": True}, "lesions[0].required_margin_mm must be a number"),
    ({"lesions.0.required_margin_mm": float("nan")}, "lesions[0].required_margin_mm must be a number"),
    ({"lesions.0.lesion_id": "L\\1"}, "lesions[0].lesion_id must have no slash or backslash"),
    ({"lesions.0.lesion_id": "L\n1"}, "lesions[0].lesion_id must have no line break"),
    ({"lesions.0.lesion_id": "L" * 65}, "lesions[0].lesion_id must have at most 64 characters"),
    ({"lesions.0.tumor": 4}, "lesions[0].tumor must be an object"),
    ({"lesions.0.tumor.segment_number": 0}, "lesions[0].tumor.segment_number must be a whole number"),
    ({"lesions.0.tumor.segment_number": 1.0}, "lesions[0].tumor.segment_number must be a whole number"),
    ({"lesions.0.tumor.segment": 1}, "lesions[0].tumor.segment is not a known key"),
    ({"lesions.0.tumor": {"sop_instance_uid": "1.2"}}, "lesions[0].tumor.segment_number is missing"),
    ({"lesions.0.tumor": {"path": ""}}, "lesions[0].tumor.path must be a text"),
    ({"lesions.0.tumor": {"path": "a", "roi_number": 1}}, "lesions[0].tumor.roi_number is not a known key"),
    (
        {"lesions.0.applicators.0.tip_lps_mm": [1, 2]},
        "lesions[0].applicators[0].tip_lps_mm must be three numbers",
    ),
    ({"lesions.0.applicators.0.tip_lps_mm": [1, 2, "3"]}, "applicators[0].tip_lps_mm[2] must be a number"),
    ({"lesions.0.applicators.0.entry_lps_mm": [0, 0, 0]}, "entry_lps_mm must be at least 1 mm from tip_lps_mm"),
    ({"lesions.0.applicators.0.tip_lps_mm": [1e300, 0, 0]}, "applicators[0].tip_lps_mm[0] must be a number"),
    ({"lesions.0.applicators.0.tip_lps_mm": [1e160, 0, 0]}, "applicators[0].tip_lps_mm lies farther than 3 m"),
    ({"lesions.0.applicators.0.entry_lps_mm": [0, 10**400, 0]}, "entry_lps_mm[1] must be a number"),
    ({"lesions.0.applicators.0.model": "A" * 65}, "model must have at most 64 characters"),
    ({"lesions.0.applicators.0.model": "A\x1b[2J"}, "model must have no line break or control character"),
    ({"lesions.0.applicators.0.isotherm_size": SIZE | {"length_mm": 20}}, "isotherm_size.length_mm is less than 0.8"),
    (
        {"lesions.0.protocol": [{"phase": "heat", "duration_s": 60}], "procedure.energy": "microwave"}
        | {"lesions.0.applicators.0.isotherm_size": SIZE},
        "isotherm_size is what a cryoprobe makes in gel; in microwave leave it out",
    ),
    ({"lesions.0.protocol": {}}, "lesions[0].protocol must be a list of one phase or more, or one of 10-8-10, "),
    ({"lesions.0.protocol": [{"phase": "heat", "duration_s": 60}]}, "lesions[0].protocol has no phase freeze"),
    ({"lesions.0.protocol.0.active": True}, "protocol[0].active goes with a phase thaw, not with freeze"),
    ({"lesions.0.protocol.0.power_w": 40}, "protocol[0].power_w goes with a phase heat, not with freeze"),
    ({"lesions.0.protocol.0.phase": "boil"}, "lesions[0].protocol[0].phase must be one of"),
    ({"lesions.0.protocol.0.duration_s": 0.0004}, "lesions[0].protocol[0].duration_s must be at least 1"),
    (
        {"lesions.0.protocol": [{"phase": p, "duration_s": 9} for p in ("freeze", "thaw")] * 31},
        "lesions[0].protocol has 62 phases; at most 60 are possible",
    ),
    (
        {"lesions.0.protocol": [{"phase": "freeze", "duration_s": 7200}] * 4},
        "lesions[0].protocol takes 8.0 hours; at most 6 are possible",
    ),
    ({"lesions.0.applicators.0.start_s": -1}, "lesions[0].applicators[0].start_s must be at least 0"),
    ({"lesions.0.applicators.0.start_s": 21601}, "lesions[0].applicators[0].start_s must be at most 21600"),
    ({"lesions.0.applicators.0.power_fraction": 0}, "applicators[0].power_fraction must be above 0"),
    ({"lesions.0.applicators.0.power_fraction": 80}, "applicators[0].power_fraction must be at most 1"),
    ({"lesions.0.protocol.0.duration_s": 0}, "lesions[0].protocol[0].duration_s must be at least 1"),
    (
        {"lesions.0.protocol": [{"phase": "heat", "duration_s": 9, "power_w": -3}]},
        "lesions[0].protocol[0].power_w must be above 0",
    ),
    ({"organ_mask": []}, "organ_mask must be an object"),
]


def changed(document, changes):
    out = copy.deepcopy(document)
    for path, value in changes.items():
        *way, last = path.split(".")
        node = out
        for step in way:
            node = node[int(step)] if isinstance(node, list) else node[step]
        node[int(last) if isinstance(node, list) else last] = value
    return out


@pytest.mark.parametrize(("changes", "text"), WRONG)
def test_a_wrong_value_is_named(made_case, changes, text):
    made_case.write_plan(changed(made_case.document, changes))
    with pytest.raises(Refused) as refused:
        read_plan_file(made_case.plan)
    assert refused.value.code == "plan_invalid"
    assert text in refused.value.text


@pytest.mark.parametrize(
    "path",
    [
        "plan_id",
        "patient_id",
        "organ",
        "procedure",
        "procedure.date",
        "procedure.energy",
        "baseline",
        "lesions",
        "baseline.study_instance_uid",
        "lesions.0.lesion_id",
        "lesions.0.required_margin_mm",
        "lesions.0.tumor",
        "lesions.0.applicators.0.model",
        "lesions.0.protocol.0.duration_s",
        "lesions.0.tumor.sop_instance_uid",
    ],
)
def test_a_missing_key_is_named(made_case, path):
    document = copy.deepcopy(made_case.document)
    *way, last = path.split(".")
    node = document
    for step in way:
        node = node[int(step)] if isinstance(node, list) else node[step]
    del node[last]
    made_case.write_plan(document)
    with pytest.raises(Refused) as refused:
        read_plan_file(made_case.plan)
    key = path.replace(".0", "[0]")
    assert f"{key} is missing" in refused.value.text


@pytest.mark.parametrize("plan_id", ["P" * 64, "Ä 17 (2nd), left: R.1"])
def test_plan_ids_that_are_fine(made_case, plan_id):
    made_case.write_plan({**made_case.document, "plan_id": plan_id})
    assert read_plan_file(made_case.plan).plan_id == plan_id


def test_two_lesions_of_one_name(made_case):
    made_case.write_plan({**made_case.document, "lesions": made_case.document["lesions"] * 2})
    with pytest.raises(Refused) as refused:
        read_plan_file(made_case.plan)
    assert "lesions[1].lesion_id L1 is given twice" in refused.value.text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "plan_invalid"),
        ("[]", "plan_invalid"),
        ('{"plan_id": "a", "plan_id": "b"}', "plan_invalid"),
        ("[" * 100_000, "plan_invalid"),
        (b"\xff\xfe\x00", "plan_unreadable"),
    ],
)
def test_a_file_that_is_no_plan(made_case, text, code):
    made_case.plan.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Refused) as refused:
        read_plan_file(made_case.plan)
    assert refused.value.code == code


def test_no_file(tmp_path):
    with pytest.raises(Refused) as refused:
        read_plan_file(tmp_path / "plan.json")
    assert refused.value.code == "plan_missing"


def test_what_a_plan_file_says(made_case):
    plan = read_plan_file(made_case.plan)
    assert (plan.plan_id, plan.patient_id, plan.organ, plan.energy) == ("P1", "MADE-1", "liver", "cryoablation")
    assert plan.procedure_date == date(2026, 3, 10)
    assert plan.lesion_ids == ("L1",)
    assert plan.lesions[0].tumor.segment_number == 1
    assert plan.lesions[0].simulated_zone is None
    assert plan.lesions[0].protocol[0].duration_s == 600
    assert plan.folder == made_case.plan.parent


def test_the_example_of_the_contract_is_valid(shared, tmp_path):
    contract = (shared / "contract.md").read_text()
    example = contract.split("```json\n")[1].split("```")[0].replace("[x, y, z]", "[1, 2, 3]", 1)
    document = json.loads(example.replace("[x, y, z]", "[1, 2, 9]"))
    (tmp_path / "plan.json").write_text(json.dumps(document))
    plan = read_plan_file(tmp_path / "plan.json")
    assert plan.organ_mask is not None
    assert plan.lesions[0].protocol[2].power_w == 100


@pytest.mark.parametrize("case", ["dev1", "dev2", "dev3", "dev4", "dev5"])
def test_the_plans_of_the_cases_are_valid(shared, case):
    assert read_plan_file(shared / "cases" / case / "plan" / "plan.json").patient_id == f"DEV-000{case[-1]}"
