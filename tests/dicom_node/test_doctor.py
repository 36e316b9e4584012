"""What doctor finds on a machine that can run the node, and on one that cannot."""

from __future__ import annotations

import errno
import gc
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import closing

import pytest
from typer.testing import CliRunner

from dicom_node.accounts import Accounts
from dicom_node.cli import app
from dicom_node.doctor import _page, examine, is_healthy
from dicom_node.settings import ReviewSettings


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
    assert faults == {"DICOM", "review"}
    # The node runs all the same, and sends once the PACS is there.
    assert [check.level for check in checks if check.name.startswith("PACS")] == ["warning"]
    assert all(check.mend for check in checks if check.level != "good")
    gc.collect()


def test_a_database_that_is_away_and_no_room(tmp_path):
    file = config(tmp_path, f'[database]\nurl = "postgresql://node:secret@127.0.0.1:{free_port()}/node"\n')
    file.write_text(file.read_text().replace("minimum_free_gib = 0", "minimum_free_gib = 1e9"))
    checks = found(examine(file))
    assert (checks["database"].level, checks["disk"].level) == ("fault", "warning")
    assert "secret" not in json.dumps([check.text + check.mend for check in checks.values()])
    assert "A700" in checks["disk"].mend


@pytest.mark.parametrize(
    "changed",
    [{}, {"host_names": ("node.example",)}, {"host": "::1"}, {"host": "0.0.0.0", "host_names": ("node.example",)}],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_running_page_is_known_however_it_is_served(bench, certificate, changed, scheme):
    if ":" in changed.get("host", "") and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    tls = {"tls_certificate": str(certificate[0]), "tls_key": str(certificate[1])} if scheme == "https" else {}
    review = ReviewSettings(port=free_port(), **changed, **tls)
    ledger = bench.ledger()
    Accounts(ledger.engine, clock=time.time).add("anna", "reader", "correct horse")
    ledger.close()
    assert not is_healthy(review)
    node = bench.node("review", review=review)
    assert review.url.startswith(f"{scheme}://")
    assert is_healthy(review)
    (check,) = _page(node.settings)
    assert (check.level, check.text) == ("good", f"{review.url} answers")


@pytest.mark.parametrize(
    ("number", "level", "says"),
    [
        (errno.EPERM, "warning", "no hard links"),
        (errno.ENOSPC, "warning", "takes nothing more: No space left on device"),
        (errno.EIO, "fault", "cannot be written: Input/output error"),
    ],
)
def test_what_is_wrong_with_the_data_folder_is_told_apart(tmp_path, monkeypatch, number, level, says):
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", fails)
    check = found(examine(config(tmp_path)))["data folder"]
    assert check.level == level
    assert says in check.text


def test_a_key_with_a_passphrase_is_a_fault_and_asks_nobody(tmp_path, certificate):
    """openssl would ask for it on the terminal."""
    locked = tmp_path / "locked.pem"
    command = ["openssl", "rsa", "-aes256", "-in", str(certificate[1]), "-out", str(locked), "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True)
    ours = str(certificate[0])
    for text in (
        f'[listener.tls]\ncertificate = "{ours}"\nkey = "{locked}"\n',
        f'[review]\ntls_certificate = "{ours}"\ntls_key = "{locked}"\n',
    ):
        file = tmp_path / "tls.toml"
        file.write_text(f'data_folder = "data"\n{text}')
        run = [sys.executable, "-m", "dicom_node.cli", "doctor", "--json", "--config", str(file)]
        told = subprocess.run(run, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, text=True)
        check = next(check for check in json.loads(told.stdout) if check["name"] == "TLS")
        assert check["level"] == "fault"
        assert "without a passphrase" in check["text"]


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
