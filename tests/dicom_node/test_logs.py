"""The node's log: one line a record, what it is about as fields, and no patient in it unless the site allows it."""

from __future__ import annotations

import gc
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.child import ChildBroke
from dicom_node.logs import about, formatter
from dicom_node.plans import register_plan
from dicom_node.settings import Destination, LogSettings


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


@contextmanager
def logged(settings: LogSettings) -> Iterator[Callable[[], list[dict[str, str]]]]:
    """What the node has logged meanwhile, as a site sees it."""
    stream, logger = StringIO(), logging.getLogger("marginwatch")
    handler, level = logging.StreamHandler(stream), logger.level
    handler.setFormatter(formatter(settings))
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


# pynetdicom leaves the socket of a failed connection to the garbage collector
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("patient_data", [False, True])
def test_a_running_node_says_which_study_and_step_it_speaks_of(bench, patient_data):
    def fails(_: object) -> None:
        raise ChildBroke("boom")

    def line(logger: str, says: str) -> dict[str, str] | None:
        """Study, step and patient of a line."""
        found = [x for x in lines() if x["logger"] == f"marginwatch.{logger}" and says in x["message"]]
        return (
            {name: found[0].get(name, "") for name in ("study_instance_uid", "step", "patient_id")} if found else None
        )

    patient, other = bench.patient(), bench.patient("P2")
    of = {"patient_id": "P1" if patient_data else ""}
    followup = {"study_instance_uid": patient.study_uid("followup")} | of
    with logged(LogSettings(format="json", patient_data=patient_data)) as lines:
        bench.stand_in.answer = fails
        away = Destination("PACS", "127.0.0.1", bench.free_port(), storage_commitment=False)
        node = bench.node("listener", "worker", send=(away,))
        register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, node.settings.data_folder)
        slices = patient.slices("baseline", "20260105") + patient.slices("followup", "20260215")
        for dataset in slices:
            assert node._listener.deposit(bench.file_bytes(dataset)).status == 0
        wrong = node._listener.deposit(bench.file_bytes(other.slice("x", "20260105", 0)), study_instance_uid="1.2.3")
        assert wrong.status == 0xA900
        bench.wait_until(lambda: line("queue", "failed: "))
        assert line("queue", "failed: ") == followup | {"step": "record"}
        bench.stand_in.answer = lambda _: bench.document("1.2")
        node.ledger.reopen_failed()
        bench.wait_until(lambda: line("outbox", "not sent"))
        assert line("outbox", "not sent") == followup | {"step": "send"}
    assert patient_data or "P1" not in json.dumps(lines())
    gc.collect()


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
