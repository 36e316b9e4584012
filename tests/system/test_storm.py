"""The short form of `storm.py`: everything that can be done to the node at least once, while ten studies pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(400)]

STUDIES = 10
#: `storm.py` knows eleven, and does each before any twice.
STRIKES = 11


def test_every_study_is_assessed_once_and_every_result_sent_once_whatever_is_done_to_the_node(tools, tmp_path):
    tools.need("findscu", "dcmtk")
    tools.need("Orthanc", "orthanc")
    command = [sys.executable, str(Path(__file__).parent / "storm.py"), "--json", "--out", str(tmp_path)]
    command += ["--studies", str(STUDIES), "--strikes", str(STRIKES), "--sleep", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(done.stderr)
    logs = "".join(log.read_text() for log in tmp_path.glob("node/node.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    found = json.loads(done.stdout)
    for kind in ("assessed_once", "one_result_folder", "in_the_pacs_once", "in_the_rejecting_pacs_once"):
        assert found[kind] == STUDIES
    expected = 10 if "disk full" in found["strikes"] else 9  # only root can give it a disk of its own
    assert len(found["strikes"]) == expected, found["strikes"]
