"""The table of devices: ours, a site's, and what is wrong with an entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.probe_table import probe_table
from dicom_node.refusal import Refused
from pipeline.probe import CryoProbe, HeatProbe, TabledZone

EXAMPLE = Path(__file__).resolve().parents[2] / "configs" / "probes.example.toml"
ARGON = {
    "model": '"A24"',
    "kind": '"cryoprobe"',
    "energy": '"cryoablation"',
    "radius_mm": "1.2",
    "active_length_mm": "40",
    "tip_inset_mm": "3",
    "coolant_c": "-150",
    "transfer_w_m2k": "1850",
    "ramp_s": "25",
    "provenance": '"measured"',
}


def table_with(folder: Path, **changes: str | None) -> Path:
    entry = {**ARGON, **changes}
    path = folder / f"probes-{len(list(folder.iterdir()))}.toml"
    path.write_text("[[probe]]\n" + "\n".join(f"{k} = {v}" for k, v in entry.items() if v is not None))
    return path


@pytest.mark.parametrize("energy", ["cryoablation", "radiofrequency", "microwave"])
def test_every_energy_has_a_generic_device_for_models_that_are_not_known(energy) -> None:
    probe, known = probe_table().find("no such thing", energy)
    assert not known
    assert probe.is_generic
    assert isinstance(probe, CryoProbe if energy == "cryoablation" else HeatProbe)


def test_every_device_says_where_its_numbers_come_from_and_has_a_name_of_its_own() -> None:
    devices = probe_table().devices
    assert all(len(device.probe.provenance) > 20 for device in devices)
    names = [(device.energy, name) for device in devices for name in device.names]
    doubled = {name for name in names if names.count(name) > 1}
    own = {(d.energy, n) for d in devices for n in d.names if d.names.count(n) > 1}
    assert doubled == own


@pytest.mark.parametrize("name", ["PCS-24", "pcs24", "Perc 24", "argon 2.4 MM"])
def test_a_device_is_found_however_it_is_written(name) -> None:
    probe, known = probe_table().find(name, "cryoablation")
    assert known
    assert probe.model == "argon 2.4 mm"


def test_a_name_of_another_energy_is_not_known() -> None:
    assert not probe_table().find("PCS-24", "microwave")[1]


def test_a_sites_entry_goes_before_ours(tmp_path) -> None:
    site = table_with(tmp_path, model='"PCS-24"', transfer_w_m2k="999")
    probe, known = probe_table(site).find("PCS-24", "cryoablation")
    assert known
    assert isinstance(probe, CryoProbe)
    assert probe.transfer_w_m2k == 999
    assert probe.thaw_c is None
    assert not probe.is_generic


def test_the_example_is_read() -> None:
    own, example = probe_table().devices, probe_table(EXAMPLE).devices
    assert len(example) == len(own) + 3
    assert {type(device.probe) for device in example[:3]} == {CryoProbe, HeatProbe, TabledZone}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": '"laser"'}, "kind must be one of"),
        ({"kind": '["cryoprobe"]'}, "kind must be one of"),
        ({"energy": '"laser"'}, "energy must be one of"),
        ({"energy": None}, "energy must be one of"),
        ({"energy": '"microwave"'}, "energy cannot be microwave for a cryoprobe"),
        ({"fallback_for": '"microwave"'}, "fallback_for"),
        ({"generic": '"false"'}, "generic must be true or false"),
        ({"aliases": '"A"'}, "aliases must be a list"),
        ({"radius_mm": None}, "radius_mm is missing"),
        ({"coolant_c": None}, "coolant_c is missing"),
        ({"radius_mm": '"1"'}, "radius_mm must be a number"),
        ({"thaw_c": '"warm"'}, "thaw_c must be a number"),
        ({"thaw_c": "true"}, "thaw_c must be a number"),
        ({"coolant_c": "123"}, "looks like kelvin"),
        ({"radius_mm": "12"}, "radius_mm must be between"),
        ({"radius_mm": "nan"}, "radius_mm must be between"),
        ({"colour": "1"}, "colour is not a known key"),
    ],
)
def test_a_wrong_entry_is_refused_by_its_key(tmp_path, changes, said) -> None:
    with pytest.raises(Refused) as refused:
        probe_table(table_with(tmp_path, **changes))
    assert refused.value.code == "bad_probe_table"
    assert said in refused.value.text
    assert "probe[0]" in refused.value.text


@pytest.mark.parametrize("content", ["[[probe]\n", "[[device]]\n", "probe = 3\n"])
def test_what_is_no_table_is_refused(tmp_path, content) -> None:
    path = tmp_path / "p.toml"
    path.write_text(content)
    with pytest.raises(Refused, match=r"p\.toml"):
        probe_table(path)
