"""The ledger of an earlier version: opened and brought up to date, nothing lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing


def test_columns_that_an_earlier_version_did_not_have_are_added(bench):
    dataset = bench.patient().slice("baseline", "20260105", 0)
    bench.settings.data_folder.mkdir()
    file = bench.settings.data_folder / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as old, old:
        old.execute(
            "CREATE TABLE instances (sop_instance_uid VARCHAR(64) PRIMARY KEY, sop_class_uid VARCHAR(64) NOT NULL,"
            " study_instance_uid VARCHAR(64) NOT NULL, series_instance_uid VARCHAR(64) NOT NULL, path TEXT NOT NULL,"
            " sha256 VARCHAR(64) NOT NULL, arrived_at FLOAT NOT NULL)"
        )
        values = (dataset.SOPInstanceUID, dataset.SOPClassUID, dataset.StudyInstanceUID, "1.2", "a.dcm", "", 1.0)
        old.execute("INSERT INTO instances VALUES (?, ?, ?, ?, ?, ?, ?)", [str(value) for value in values])
    for _ in range(2):
        ledger = bench.ledger()
        (instance,) = ledger.instances(dataset.StudyInstanceUID)
        assert (instance.path, instance.sha256, instance.seen) == ("a.dcm", "", "")
        ledger.close()


def test_indices_that_an_earlier_version_did_not_have_are_added(bench):
    bench.ledger().close()
    file = bench.settings.data_folder / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as old, old:
        old.execute("DROP INDEX ix_sends_state")
    bench.ledger().close()
    with closing(sqlite3.connect(file)) as now:
        assert now.execute("SELECT name FROM sqlite_master WHERE name = 'ix_sends_state'").fetchall()
