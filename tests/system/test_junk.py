"""Every kind of bad input at the node's door: it stores what is storable, answers a status, and stays up."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

pytestmark = [pytest.mark.system]


def test_the_node_stays_up_whatever_comes(node, phantom, tools, tmp_path):
    node.start()
    slices = sorted(phantom.baseline.iterdir())
    bad = tmp_path / "bad"
    bad.mkdir()
    whole = slices[0].read_bytes()
    (bad / "cut-in-the-header.dcm").write_bytes(whole[:400])
    (bad / "cut-in-the-pixels.dcm").write_bytes(whole[:-1000])
    (bad / "no-pixels.dcm").write_bytes(whole[: whole.index(b"\xe0\x7f\x10\x00")])
    (bad / "not-dicom.dcm").write_bytes(b"not DICOM at all" * 20)
    (bad / "empty.dcm").touch()
    for file in sorted(bad.iterdir()):
        environment = {**os.environ, "TCP_NODELAY": "1"}
        command = [tools.need("storescu", "dcmtk"), "-aec", "MARGINWATCH", "127.0.0.1", str(node.dicom_port), str(file)]
        subprocess.run(command, capture_output=True, check=False, env=environment, timeout=60)
    for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\xff\xff\xff\xff", os.urandom(4096)):
        with socket.create_connection(("127.0.0.1", node.dicom_port)) as connection:
            connection.sendall(noise)
    assert node.answers()
    node.send(phantom.baseline)
    assert tools.wait_until(lambda: node.study(patient_id="PHANTOM-0001"), seconds=30)
    echo = [tools.need("echoscu", "dcmtk"), "127.0.0.1", str(node.dicom_port)]
    assert subprocess.run(echo, check=False).returncode == 0
    outside = [path for path in node.folder.iterdir() if path.name not in ("data", "node.toml", "node.log")]
    assert outside == []
    assert "Traceback" not in (node.folder / "node.log").read_text()


def test_the_quirks_of_real_scanners_are_stored_or_turned_away(node, shared, tools):
    node.start()
    node.send(shared / "quirks", check=False)
    assert node.answers()
    tools.wait_until(lambda: list((node.folder / "data" / "instances").rglob("*.dcm")), seconds=30)
    assert "Traceback" not in (node.folder / "node.log").read_text()
