"""The node's log: one line a record, what it is about as fields, and no patient in it unless the site allows it."""

from __future__ import annotations

import json
import logging
import re

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.logs import about, formatter
from dicom_node.settings import LogSettings


def lines(settings: LogSettings, *, message: str = "stored", **extra: str) -> str:
    record = logging.getLogger("marginwatch.test").makeRecord(
        "marginwatch.test", logging.WARNING, __file__, 1, message, (), None, extra=extra or None
    )
    record.created = 1_700_000_000.5
    return formatter(settings).format(record)


def test_json_lines_hold_time_level_logger_message_study_and_step():
    with about(study_instance_uid="1.2.3"), about(step="assess"):
        line = json.loads(lines(LogSettings(format="json")))
    assert line == {
        "time": "2023-11-14T22:13:20.500Z",
        "level": "warning",
        "logger": "marginwatch.test",
        "message": "stored",
        "study_instance_uid": "1.2.3",
        "step": "assess",
    }
    assert "step" not in json.loads(lines(LogSettings(format="json")))


def test_text_lines_hold_the_same():
    with about(study_instance_uid="1.2.3"):
        line = lines(LogSettings(), step="send")
    assert line == "2023-11-14T22:13:20.500Z WARNING marginwatch.test: stored study_instance_uid=1.2.3 step=send"


@pytest.mark.parametrize("form", ["text", "json"])
def test_patient_data_is_left_out_unless_allowed(form):
    said = {"patient_id": "DEV-0001", "patient_name": "Made^Up"}
    assert not re.search("DEV-0001|Made", lines(LogSettings(format=form), **said))
    allowed = lines(LogSettings(format=form, patient_data=True), **said)
    assert "DEV-0001" in allowed
    assert "Made^Up" in allowed


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_message_writes_a_second_line(form):
    assert "\n" not in lines(LogSettings(format=form), message="a\n2026 ERROR forged\r\nx")


def test_a_traceback_is_kept():
    try:
        raise ValueError("no")
    except ValueError:
        import sys

        record = logging.LogRecord("x", logging.ERROR, "f", 1, "broke", (), sys.exc_info())
    assert "ValueError: no" in json.loads(formatter(LogSettings(format="json")).format(record))["traceback"]
    assert formatter(LogSettings()).format(record).endswith("ValueError: no")


def test_what_the_database_was_given_does_not_stand_in_its_errors(bench):
    ledger = bench.ledger()
    with pytest.raises(SQLAlchemyError) as problem, ledger.engine.begin() as connection:
        connection.execute(text("INSERT INTO nowhere VALUES (:patient_id)"), {"patient_id": "DEV-0001"})
    assert "DEV-0001" not in str(problem.value)
    ledger.close()
