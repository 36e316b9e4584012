"""When a study is assessed anew: which earlier result the new one supersedes, and what if there is no new one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import get_args

from sqlalchemy import func, select, update

from dicom_node.back_off import BackOff, Delay
from dicom_node.claims import ROUTING, Station
from dicom_node.durable import clear_leftovers, whole_folder
from dicom_node.ledger import Ledger
from dicom_node.records import AssessmentRecord, Send, Withdrawal
from dicom_node.refusal import Refused
from dicom_node.schema import ASSESSMENTS, DATABASE_AWAY, SENDS, insert_new

_LOG = logging.getLogger("marginwatch.queue")
_OPEN: tuple[Withdrawal, ...] = ("owed", "failed")


def superseded_by(record: AssessmentRecord, ledger: Ledger) -> list[AssessmentRecord]:
    """The earlier assessments of the same study and plan of which a PACS may hold objects; the last one first."""
    earlier = [x for x in ledger.assessments_of(record.study_instance_uid, record.plan_id) if x.number < record.number]
    tried = [x for x in earlier if _tried(x, ledger)]
    return sorted(tried, key=lambda x: x.number, reverse=True)


def withdrawals(ledger: Ledger) -> dict[Withdrawal, int]:
    """How many assessments that hold are in each state of withdrawing."""
    counts: dict[Withdrawal, int] = {state: 0 for state in get_args(Withdrawal) if state}
    query = (
        select(ASSESSMENTS.c.withdrawal, func.count())
        .where(~ASSESSMENTS.c.superseded & ASSESSMENTS.c.withdrawal.in_(list(counts)))
        .group_by(ASSESSMENTS.c.withdrawal)
    )
    with ledger.engine.connect() as connection:
        return counts | {state: count for state, count in connection.execute(query)}


class Withdrawals:
    """Withdraws what holds no more where an assessment ended without a result. In rounds, for one thread.

    Its end is recorded without waiting for this: neither a full disk nor an odd old result may lose one or the other.
    clock: seconds that only go forward.
    """

    def __init__(
        self, station: Station, *, back_off: BackOff | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = station.ledger
        self._claims = station.claims
        self._data_folder = station.settings.data_folder
        self._back_off = back_off or BackOff()
        self._clock = clock
        self._delays: dict[str, Delay] = {}

    def look(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """One round over what is owed and has waited long enough."""
        due = self._due()
        self._delays = {record.assessment_id: self._delays.get(record.assessment_id, Delay()) for record in due}
        for record in due:
            delay = self._delays[record.assessment_id]
            if stopped():
                return
            if self._clock() < delay.until_s:
                continue
            try:
                self._withdraw(record)
            except DATABASE_AWAY:
                raise
            except Exception:  # noqa: BLE001  a worker: it is tried again
                _LOG.exception("what assessment %s supersedes cannot be withdrawn yet", record.assessment_id[:16])
                delay.lengthen(self._back_off, self._clock())
                self._record(record, {"withdrawal": "failed"})

    def _due(self) -> list[AssessmentRecord]:
        due = ~ASSESSMENTS.c.superseded & ASSESSMENTS.c.withdrawal.in_(_OPEN)
        with self._ledger.transaction() as connection:
            found = connection.execute(select(ASSESSMENTS.c.assessment_id).where(due).order_by(ASSESSMENTS.c.ended_at))
            ids = list(found.scalars())
        return [self._ledger.assessment(assessment_id) for assessment_id in ids]

    def _withdraw(self, record: AssessmentRecord) -> None:
        folder = str(Path(record.folder).with_name(f"{record.assessment_id[:16]}-withdrawal"))
        send_to = withdraw(replace(record, folder=folder), self._ledger, self._data_folder)
        self._record(record, {"withdrawal": "made", "folder": folder} if send_to else {"withdrawal": ""}, send_to)

    def _record(self, record: AssessmentRecord, values: dict[str, str], send_to: Sequence[str] = ()) -> None:
        """Nothing where it was superseded meanwhile: the next one withdraws."""
        mine = (ASSESSMENTS.c.assessment_id == record.assessment_id) & ~ASSESSMENTS.c.superseded
        now = self._ledger.now()
        with self._ledger.transaction() as connection:
            found = update(ASSESSMENTS).where(mine & self._claims.holds(ROUTING)).values(values)
            if not connection.execute(found).rowcount:
                return
            for destination in send_to:
                owed = Send(record.assessment_id, destination, "pending", "not tried yet", now)
                connection.execute(insert_new(connection, SENDS).values(vars(owed)))


def withdraw(record: AssessmentRecord, ledger: Ledger, data_folder: Path) -> list[str]:
    """Where it is to be sent that the earlier results hold no more, after that was written into the record's folder.

    For an assessment that brings no result in their place. Empty where there are none. Raises `Refused` where an
    earlier result cannot be read, and OSError.
    """
    earlier = superseded_by(record, ledger)
    if not earlier:
        return []
    # Loaded here and not above: highdicom is slow to load, and seldom needed in the worker.
    from dicom_node.results.identifiers import Identifiers
    from dicom_node.results.record import software_version
    from dicom_node.results.withdrawal import count_objects, read_earlier, write_withdrawal

    folders = [data_folder / x.folder for x in earlier]
    if not all(any((folder / "dicom").glob("*.dcm")) for folder in folders):
        raise Refused("not_withdrawn", "The objects of an earlier result are gone, so it cannot be withdrawn.")
    found = read_earlier(folders)
    if count_objects(folders) > len(found.objects if found else ()):
        raise Refused("not_withdrawn", "An earlier result cannot be read, so it cannot be withdrawn.")
    if found is None or not found.objects:
        return []
    created = datetime.now().astimezone().replace(tzinfo=None)
    identifiers = Identifiers(
        record.study_instance_uid, "", record.plan_id, software_version(), "withdrawn", created, replaces=found.report
    )
    target = data_folder / record.folder
    clear_leftovers(target)
    with whole_folder(target) as fresh:
        (fresh / "dicom").mkdir()
        write_withdrawal(found, identifiers, fresh / "dicom")
    return sorted({destination for x in earlier for destination in _tried(x, ledger)})


def _tried(record: AssessmentRecord, ledger: Ledger) -> list[str]:
    """The destinations that its objects were sent to, with success or without."""
    return [send.destination for send in ledger.sends(record.assessment_id) if send.state != "pending"]
