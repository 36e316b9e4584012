"""The benchmarks in their short form: the document that the contract asks for, with every goal in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_assess_reports_time_and_memory_against_its_goals() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "assess.py"), "--json", "--quick"]
    document = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert document["benchmark"] == "assess"
    assert document["machine"]["cores"] >= 1
    (row,) = document["rows"]
    assert row["outcome"] == "incomplete_coverage"
    assert [goal["goal"] for goal in document["goals"]] == ["<= 60", "<= 4"]
    assert all(goal["value"] > 0 for goal in document["goals"])
    assert document["all_met"] == all(goal["met"] for goal in document["goals"])
