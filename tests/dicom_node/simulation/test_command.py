"""`marginwatch simulate`: exit status, what it says, and what it refuses by key."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import pipeline.assess
from dicom_node.cli import app
from dicom_node.refusal import Refused
from pipeline.simulate.dose import Dose
from pipeline.simulated_plan import AS_EXPECTATION

QUICK = ("--spacing-mm", "3", "--no-spread")


def unchanged(_document):
    pass


def test_it_says_volume_margin_and_where_to_look(simulate, written_phantom, tmp_path):
    status, out, err = simulate(written_phantom.plan, "--baseline", written_phantom.baseline, "--spacing-mm", 3)
    assert (status, err) == (0, "")
    assert "L1: zone -20 °C: " in out
    assert "planned minimal margin" in out
    assert "required 5.0 mm" in out
    assert "the plan's own zone: " in out
    assert f"look at {tmp_path / 'out' / 'images' / 'L1.png'}" in out
    assert out.endswith("Not for primary diagnosis.\n")


def test_json_prints_the_document_and_nothing_else(simulate, plan, tmp_path):
    folder = plan(lambda d: d["lesions"][0].pop("simulated_zone"))
    status, out, err = simulate(folder, *QUICK, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == json.loads((tmp_path / "out" / "simulation.json").read_text())
    assert json.loads(out)["lesions"][0]["simulated_zone_of_plan"] is None


def test_an_earlier_simulation_is_replaced_and_nothing_else(simulate, plan, tmp_path):
    folder = plan(unchanged)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "simulation.json").touch()
    assert simulate(folder, *QUICK)[0] == 0
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").touch()
    status, out, err = simulate(folder, *QUICK, out="thesis")
    assert (status, out) == (1, "")
    assert "exists and is not a result folder" in err
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["thesis.txt"]


def test_the_configuration_counts_and_the_command_line_goes_before_it(simulate, plan, tmp_path):
    folder = plan(unchanged)
    (tmp_path / "node.toml").write_text('[simulation]\nisotherm_c = -40.0\nprobes = "probes.toml"\n')
    (tmp_path / "probes.toml").write_text(
        '[[probe]]\nmodel = "IceForce"\nkind = "tabled_zone"\nenergy = "cryoablation"\ndiameter_mm = 30.0\n'
        'length_mm = 40.0\ncenter_from_tip_mm = 15.0\nspread_fraction = 0.1\nprovenance = "measured"\n'
    )
    status, out, _ = simulate(folder, *QUICK, "--json", "--config", tmp_path / "node.toml")
    assert status == 0
    document = json.loads(out)
    assert document["settings"]["isotherm_c"] == -40.0
    (lesion,) = document["lesions"]
    assert [edge["name"] for edge in lesion["edges"]] == ["tabled"]
    assert lesion["applicators"][0]["provenance"] == "measured"
    (tmp_path / "node.toml").write_text("[simulation]\nisotherm_c = -40.0\n")
    _, out, _ = simulate(folder, *QUICK, "--isotherm-c", -30, "--json", "--config", tmp_path / "node.toml")
    names = [edge["name"] for edge in json.loads(out)["lesions"][0]["edges"]]
    assert names == ["-30 °C", "0 °C", "-20 °C", "-40 °C"]


def test_the_configured_isotherm_is_the_one_that_assess_expects(plan, written_phantom, tmp_path, monkeypatch):
    """As far as to where the zone is simulated; the rest of an assessment takes long."""
    asked = []

    def asking(_plan, settings, **_):
        asked.append(settings)
        raise Refused("enough", "Enough is known.")

    monkeypatch.setattr(pipeline.assess, "completed_plan", asking)
    folder = plan(lambda document: document["lesions"][0].pop("simulated_zone"))
    (tmp_path / "node.toml").write_text('[simulation]\nisotherm_c = -35.0\ndose = "cem43"\n')
    given = {"plan": folder, "baseline": written_phantom.baseline, "followup": written_phantom.followups[0]}
    words = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    for more in ((), ("--config", str(tmp_path / "node.toml"))):
        said = CliRunner().invoke(app, ["assess", *words, "--out", str(tmp_path / "out"), *more])
        assert said.exit_code != 0
    default, configured = asked
    assert default == AS_EXPECTATION
    assert configured == replace(AS_EXPECTATION, isotherm_c=-35.0, dose=Dose("cem43"))


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--isotherm-c", "253", "looks like kelvin"),
        ("--isotherm-c", "5", "between -80 and 0"),
        ("--isotherm-c", "nan", "between -80 and 0"),
        ("--isotherm-c", "inf", "between -80 and 0 °C, not inf"),
        ("--spacing-mm", "4", "between 0.4 and 3"),
        ("--spacing-mm", "-1", "between 0.4 and 3"),
    ],
)
def test_options_out_of_range_are_wrong_usage(simulate, plan, tmp_path, option, value, said):
    status, out, err = simulate(plan(unchanged), option, value)
    assert (status, out) == (2, "")
    assert option in err
    assert said in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_plan_that_is_not_there_is_wrong_usage(simulate, tmp_path):
    assert simulate(tmp_path / "nowhere")[0] == 2


def change(path, value):
    """Sets a value of plan.json by its path, e.g. lesions.0.protocol."""

    def changed(document):
        *above, last = path.split(".")
        for name in above:
            document = document[int(name) if name.isdigit() else name]
        document[int(last) if last.isdigit() else last] = value

    return changed


APPLICATOR = "lesions.0.applicators.0"
SIZE = {"temperature_c": 253.15, "after_s": 600, "diameter_mm": 30}
BAD = [
    (change(f"{APPLICATOR}.entry_lps_mm", "tip"), "lesions[0].applicators[0].entry_lps_mm must"),
    (change("procedure.energy", "laser"), "procedure.energy must be one of cryoablation"),
    (change("lesions.0.protocol.0.duration_s", -600), "lesions[0].protocol[0].duration_s must be at least 1"),
    (change("lesions.0.protocol.0.duration_s", 1e9), "lesions[0].protocol[0].duration_s must be at most 7200"),
    (
        change(f"{APPLICATOR}.isotherm_size", SIZE),
        "lesions[0].applicators[0].isotherm_size.temperature_c must be in °C",
    ),
    (change("lesions.0.protocol", []), "lesions[0].protocol must be a list of one phase or more"),
    (
        change("lesions.0.protocol", "10-9-8"),
        "lesions[0].protocol must be a list of one phase or more, or one of 10-8-10",
    ),
    (change("lesions.0.applicators", []), "lesions[0].applicators names no applicator"),
    (change("procedure.energy", "radiofrequency"), "lesions[0].protocol[0].phase must be heat in radiofrequency"),
    (change("lesions.0.protocol", [{"phase": "thaw", "duration_s": 60}]), "lesions[0].protocol has no phase freeze"),
    (change("lesions.0.isotherm", -20), "lesions[0].isotherm is not a known key"),
]


@pytest.mark.parametrize(("changed", "said"), BAD, ids=[said for _, said in BAD])
def test_what_cannot_be_simulated_is_refused_by_its_key(simulate, plan, tmp_path, changed, said):
    def with_tip(document):
        changed(document)
        probes = document["lesions"][0].get("applicators")
        if probes and probes[0]["entry_lps_mm"] == "tip":
            probes[0]["entry_lps_mm"] = probes[0]["tip_lps_mm"]

    status, out, err = simulate(plan(with_tip), *QUICK)
    assert (status, out) == (1, "")
    assert err.startswith(f"marginwatch: plan.json: {said}")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_lesion_without_the_keys_is_refused_too(simulate, plan):
    def bare(document):
        del document["lesions"][0]["applicators"]

    assert simulate(plan(bare))[2].startswith("marginwatch: plan.json: lesions[0].applicators names no applicator")


def test_a_missing_protocol_is_named(simulate, plan):
    def bare(document):
        del document["lesions"][0]["protocol"]

    assert simulate(plan(bare))[2].startswith("marginwatch: plan.json: lesions[0].protocol is missing")


def test_probes_through_one_another_are_refused(simulate, plan):
    def crossed(document):
        one, other = document["lesions"][0]["applicators"]
        for name in ("tip_lps_mm", "entry_lps_mm"):
            other[name] = [x + 1.0 * (n == 0) for n, x in enumerate(one[name])]

    status, _, err = simulate(plan(crossed), *QUICK)
    assert status == 1
    assert "lesions[0].applicators[1].tip_lps_mm overlaps applicators[0]" in err


def test_a_probe_outside_the_baseline_scan_is_refused(simulate, plan, written_phantom):
    def away(document):
        for name in ("tip_lps_mm", "entry_lps_mm"):
            document["lesions"][0]["applicators"][1][name][2] -= 290.0

    folder = plan(away)
    status, _, err = simulate(folder, *QUICK, "--baseline", written_phantom.baseline)
    assert status == 1
    assert "lesions[0].applicators[1].tip_lps_mm lies outside the baseline scan." in err


def test_a_probe_far_from_its_tumor_is_refused_without_the_baseline_too(simulate, plan):
    def away(document):
        for name in ("tip_lps_mm", "entry_lps_mm"):
            document["lesions"][0]["applicators"][1][name][2] -= 400.0

    status, _, err = simulate(plan(away), *QUICK)
    assert status == 1
    assert "lesions[0].applicators[1].tip_lps_mm lies more than 300 mm from the tumor." in err


def test_cells_too_coarse_for_a_thin_probe_are_refused(simulate, plan):
    def thin(document):
        document["lesions"][0]["applicators"][0]["model"] = "IceSeed"

    status, _, err = simulate(plan(thin), *QUICK)
    assert status == 1
    assert "lesions[0].applicators[0].model is simulated as the IceSeed with a radius of 0.75 mm" in err
    assert "cells of 3 mm are too coarse; at most 2.6 mm are possible." in err


def test_a_baseline_of_another_series_is_refused(simulate, plan, written_phantom):
    status, _, err = simulate(plan(unchanged), *QUICK, "--baseline", written_phantom.followups[0])
    assert status == 1
    assert "The series that the plan was made on is not in the baseline folder" in err


def test_an_unknown_model_is_simulated_as_the_generic_one_and_told(simulate, plan):
    def unknown(document):
        for applicator in document["lesions"][0]["applicators"]:
            applicator["model"] = "Mystery 9"
        document["lesions"][0]["protocol"] = "10-8-10"

    status, out, _ = simulate(plan(unknown), "--spacing-mm", 2.5, "--no-spread", "--json")
    assert status == 0
    (lesion,) = json.loads(out)["lesions"]
    assert "applicator_model_unknown" in {reason["code"] for reason in lesion["reasons"]}
    applicator = lesion["applicators"][0]
    assert (applicator["model"], applicator["probe"]) == ("Mystery 9", "generic cryoprobe")
    assert (applicator["known"], applicator["generic"]) == (False, True)
    assert lesion["protocol"]["preset"] == "10-8-10"
    assert "doi:10.1007/s00270-018-1950-z" in lesion["protocol"]["source"]
    assert [phase["active"] for phase in lesion["protocol"]["phases"]] == [False, True, False]


def test_a_lesion_without_applicators_beside_one_with_is_told(simulate, plan):
    def two(document):
        first = document["lesions"][0]
        document["lesions"].append({key: first[key] for key in ("required_margin_mm", "tumor")} | {"lesion_id": "L2"})

    status, out, _ = simulate(plan(two), *QUICK, "--json")
    assert status == 0
    document = json.loads(out)
    assert [lesion["lesion_id"] for lesion in document["lesions"]] == ["L1"]
    told = {reason["code"]: reason["text"] for reason in document["reasons"]}
    assert "lesions[1].applicators" in told["zone_not_simulated"]


def test_a_protocol_that_freezes_nothing_is_a_result_that_says_so(simulate, plan, tmp_path):
    def short(document):
        document["lesions"][0]["protocol"] = [{"phase": "freeze", "duration_s": 1}]

    status, out, _ = simulate(plan(short), *QUICK, "--json", "--isotherm-c", -80)
    assert status == 0
    document = json.loads(out)
    (lesion,) = document["lesions"]
    assert {"simulated_zone_empty"} <= {reason["code"] for reason in lesion["reasons"]}
    assert lesion["edges"][0]["minimal_margin_mm"] is None
    assert lesion["minimal_margin_point_lps_mm"] is None
    assert (tmp_path / "out" / "images" / "L1.png").is_file()
    status, out, _ = simulate(tmp_path / "plan", *QUICK, "--isotherm-c", -80)
    assert "no margin: there is no zone" in out


@pytest.mark.parametrize(("energy", "power"), [("microwave", 60), ("radiofrequency", None)])
def test_heat_makes_one_coagulated_zone(simulate, plan, tmp_path, energy, power):
    def heated(document):
        document["procedure"]["energy"] = energy
        lesion = document["lesions"][0]
        lesion["applicators"] = lesion["applicators"][:1]
        lesion["protocol"] = [{"phase": "heat", "duration_s": 300} | ({"power_w": power} if power else {})]

    status, out, _ = simulate(plan(heated), "--spacing-mm", 2, "--no-spread", "--json")
    assert status == 0
    (lesion,) = json.loads(out)["lesions"]
    (edge,) = lesion["edges"]
    assert (edge["name"], edge["temperature_c"], edge["counts"]) == ("coagulated", None, True)
    assert edge["volume_ml_after_cycle"][0] > 2.0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == [
        "L1-temperature.nii.gz",
        "L1-zone.nii.gz",
    ]


def test_the_shared_case_without_a_zone(simulate, shared):
    case = shared / "cases" / "dev4"
    if not case.is_dir():
        pytest.skip("the shared cases are not beside the repository")
    status, out, err = simulate(case / "plan", "--baseline", case / "baseline", "--spacing-mm", 2, "--no-spread")
    assert (status, err) == (0, "")
    assert "L1: zone -20 °C: " in out
