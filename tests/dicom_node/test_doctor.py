"""What doctor finds on a machine that can run the node, and on one that cannot."""

from __future__ import annotations

import gc
import json
import socket
from contextlib import closing

import pytest
from typer.testing import CliRunner

from dicom_node.cli import app
from dicom_node.doctor import examine


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def config(tmp_path, text="", *, dicom=None, page=None):
    file = tmp_path / "node.toml"
    listener = f"listener = {{ port = {dicom or free_port()}, minimum_free_gib = 0 }}"
    file.write_text(f'data_folder = "data"\n{listener}\nreview = {{ port = {page or free_port()} }}\n{text}')
    return file


def found(checks):
    return {check.name: check for check in checks}


def test_a_machine_where_all_is_well(tmp_path):
    checks = found(examine(config(tmp_path)))
    assert {name for name, check in checks.items() if check.level == "fault"} == set()
    assert checks["data folder"].level == checks["database"].level == checks["DICOM listener"].level == "good"
    assert checks["plans"].level == "warning"
    assert "plan add" in checks["plans"].mend


def test_a_running_node_is_known_by_its_answer(bench, tmp_path):
    node = bench.node("listener")
    checks = found(examine(config(tmp_path, dicom=node.settings.listener.port)))
    assert checks["DICOM listener"].text.endswith("answers C-ECHO")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pynetdicom leaves its socket open
def test_ports_that_others_have_and_a_pacs_that_is_away(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as page:
        text = f'[[send]]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {free_port()}\n'
        file = config(tmp_path, text, dicom=other.getsockname()[1], page=page.getsockname()[1])
        for taken in (other, page):
            taken.settimeout(0)
        checks = examine(file)
    faults = {check.name.split()[0] for check in checks if check.level == "fault"}
    assert faults == {"DICOM", "review", "PACS"}
    assert all(check.mend for check in checks if check.level != "good")
    gc.collect()


def test_a_database_that_is_away_and_no_room(tmp_path):
    file = config(tmp_path, f'[database]\nurl = "postgresql://node:secret@127.0.0.1:{free_port()}/node"\n')
    file.write_text(file.read_text().replace("minimum_free_gib = 0", "minimum_free_gib = 1e9"))
    checks = found(examine(file))
    assert checks["database"].level == checks["disk"].level == "fault"
    assert "secret" not in json.dumps([check.text + check.mend for check in checks.values()])
    assert "A700" in checks["disk"].mend


def test_a_listener_open_to_everyone_is_pointed_out(tmp_path):
    file = config(tmp_path)
    file.write_text(file.read_text().replace("listener = {", 'listener = { host = "0.0.0.0",'))
    assert found(examine(file))["who may send"].level == "warning"
    file.write_text(
        file.read_text().replace('host = "0.0.0.0",', 'host = "0.0.0.0", allowed_addresses = ["192.0.2.1"],')
    )
    assert "who may send" not in found(examine(file))


def test_the_command_prints_one_document_and_says_the_first_fault(tmp_path):
    run = CliRunner().invoke(app, ["doctor", "--config", str(config(tmp_path)), "--json"])
    assert run.exit_code == 0
    assert {"name", "level", "text", "mend"} == set(json.loads(run.stdout)[0])
    (tmp_path / "node.toml").write_text("[listener]\nprot = 1\n")
    run = CliRunner().invoke(app, ["doctor", "--config", str(tmp_path / "node.toml")])
    assert run.exit_code == 1
    assert "FAULT  configuration: node.toml: unknown key listener.prot; did you mean listener.port?" in run.stdout
    assert run.stderr.startswith("marginwatch: configuration: ")
