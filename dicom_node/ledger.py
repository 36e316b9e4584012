"""Who arrived, and what became of it: the node's memory. Every method is one transaction; safe between threads."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, case, func, select, update

from dicom_node.arrivals import enter, leave, raise_revision
from dicom_node.records import (
    ENDED,
    OWED,
    Arrival,
    AssessmentRecord,
    AssessmentState,
    Identity,
    Instance,
    RegisteredPlan,
    Send,
    Study,
)
from dicom_node.schema import (
    ASSESSMENTS,
    CONFLICTS,
    INSTANCES,
    PLANS,
    SENDS,
    STUDIES,
    insert_into,
    insert_new,
    open_engine,
    reaching,
    upsert,
)
from dicom_node.settings import Settings

#: Databases take no statement of any length: SQLite 32,766 values, PostgreSQL 65,535.
_ASKED_TOGETHER = 10_000
_COMPLETE = {"complete": True, "held": ""}
#: What ends without a result leaves the earlier ones to be withdrawn, if there were any.
_OWED_WITHDRAWAL = case((ASSESSMENTS.c.number > 1, "owed"), else_="")


class Ledger:
    """The node's record in a database. clock: seconds since the epoch."""

    def __init__(self, url: str, *, clock: Callable[[], float]) -> None:
        self._engine = open_engine(url)
        self._clock = clock

    @property
    def engine(self) -> Engine:
        """The database, for what has tables of its own in it or only counts."""
        return self._engine

    def close(self) -> None:
        self._engine.dispose()

    def transaction(self) -> AbstractContextManager[Connection]:
        """One transaction, for the modules that keep tables of their own in the ledger's database."""
        return self._engine.begin()

    # -- studies and instances

    def instance(self, sop_instance_uid: str) -> Instance | None:
        rows = self._rows(INSTANCES, INSTANCES.c.sop_instance_uid == sop_instance_uid)
        return _instance(rows[0]) if rows else None

    def known(self, sop_instance_uids: Sequence[str]) -> list[Instance]:
        """Those of these instances that have arrived."""
        found = []
        for at in range(0, len(sop_instance_uids), _ASKED_TOGETHER):
            some = sop_instance_uids[at : at + _ASKED_TOGETHER]
            found += [_instance(row) for row in self._rows(INSTANCES, INSTANCES.c.sop_instance_uid.in_(some))]
        return found

    def instances(self, study_instance_uid: str) -> list[Instance]:
        rows = self._rows(INSTANCES, INSTANCES.c.study_instance_uid == study_instance_uid)
        return sorted((_instance(row) for row in rows), key=lambda instance: instance.sop_instance_uid)

    def arrived(self, identity: Identity, path: Path, *, sha256: str = "", received_from: str = "") -> bool:
        """Whether the instance is new. A new image reopens its study, as a new revision if that was complete.

        Other objects do not: the PACS may hand our own results back to us, and they must not start us again.
        received_from: the AE title of the system that brought it.
        """
        with self._engine.begin() as connection:
            return bool(
                enter(connection, [Arrival(identity, path, sha256, received_from=received_from)], now=self._clock())
            )

    def arrived_together(self, arrivals: Iterable[Arrival]) -> list[Arrival]:
        """Those that were already known, under another path; all in one transaction."""
        all_of_them = list(arrivals)
        with self._engine.begin() as connection:
            new = enter(connection, all_of_them, now=self._clock())
        first: set[str] = set()
        known = []
        for arrival in all_of_them:
            uid = arrival.identity.sop_instance_uid
            if uid not in new or uid in first:
                known.append(arrival)
            first.add(uid)
        return known

    def replaced(self, arrival: Arrival) -> None:
        """Record that a known instance has other content now, or lies whole again: its study is assessed anew."""
        with self._engine.begin() as connection:
            before = leave(connection, arrival.identity.sop_instance_uid)
            if before != arrival.identity.study_instance_uid:
                raise_revision(connection, before)
            enter(connection, [arrival], now=self._clock())
            mine = STUDIES.c.study_instance_uid == arrival.identity.study_instance_uid
            connection.execute(update(STUDIES).where(mine).values(_patient_of(arrival.identity)))

    def noted(self, arrival: Arrival) -> None:
        """Record where a known instance lies and how its file looks; its content is what it was."""
        place = {"path": str(arrival.path), "sha256": arrival.sha256}
        place |= {"seen": arrival.seen, "head_sha256": arrival.head_sha256}
        with self._engine.begin() as connection:
            mine = INSTANCES.c.sop_instance_uid == arrival.identity.sop_instance_uid
            connection.execute(update(INSTANCES).where(mine).values(place))

    def gone(self, sop_instance_uid: str) -> None:
        """Record that an instance is no more: its file holds another one now. Its study is assessed anew without it."""
        with self._engine.begin() as connection:
            raise_revision(connection, leave(connection, sop_instance_uid))

    def instances_at(self, paths: Sequence[str]) -> dict[str, Instance]:
        """The known instances among the files at these paths, by path."""
        return {row["path"]: _instance(row) for row in self._rows(INSTANCES, INSTANCES.c.path.in_(paths))}

    def conflict(self, identity: Identity, path: Path, *, sha256: str) -> None:
        """Record an instance that has the UID of a stored one and other bytes."""
        row = {
            "sop_instance_uid": identity.sop_instance_uid,
            "sha256": sha256,
            "study_instance_uid": identity.study_instance_uid,
            "path": str(path),
            "arrived_at": self._clock(),
        }
        with self._engine.begin() as connection:
            connection.execute(insert_new(connection, CONFLICTS).values(row))

    def conflict_counts(self) -> dict[str, int]:
        """How many conflicting instances each study has; studies without one are left out."""
        counted = select(CONFLICTS.c.study_instance_uid, func.count()).group_by(CONFLICTS.c.study_instance_uid)
        with self._engine.connect() as connection:
            return {uid: count for uid, count in connection.execute(counted)}

    def conflicts(self, study_instance_uid: str) -> list[dict[str, Any]]:
        """The conflicting instances of a study: UID, SHA-256, path and time of arrival, oldest first."""
        found = self._rows(CONFLICTS, CONFLICTS.c.study_instance_uid == study_instance_uid)
        return sorted(found, key=lambda row: (row["arrived_at"], row["sop_instance_uid"], row["sha256"]))

    def complete(self, study_instance_uids: Sequence[str]) -> None:
        """Call these studies complete now: an archive has no more of them."""
        with self._engine.begin() as connection:
            for uid in study_instance_uids:
                connection.execute(update(STUDIES).where(STUDIES.c.study_instance_uid == uid).values(_COMPLETE))

    def incomplete_studies(self) -> list[Study]:
        return [Study(**row) for row in self._rows(STUDIES, ~STUDIES.c.complete)]

    def settle(self, study: Study, *, held: str = "") -> None:
        """Call a study complete, or held for a reason, unless something arrived since it was looked at."""
        as_seen = (STUDIES.c.study_instance_uid == study.study_instance_uid) & (
            STUDIES.c.last_arrival == study.last_arrival
        )
        with self._engine.begin() as connection:
            connection.execute(update(STUDIES).where(as_seen).values({"held": held} if held else _COMPLETE))

    def release(self, study_instance_uid: str) -> bool:
        """Record that a person wants a held study assessed as it is; False where it is not held, or was released
        already. Another image revokes that.
        """
        mine = (STUDIES.c.study_instance_uid == study_instance_uid) & ~STUDIES.c.complete
        held = (STUDIES.c.held != "") & ~STUDIES.c.released
        with self._engine.begin() as connection:
            return bool(connection.execute(update(STUDIES).where(mine & held).values(released=True)).rowcount)

    def studies(self) -> list[Study]:
        return [Study(**row) for row in self._rows(STUDIES)]

    def study(self, study_instance_uid: str) -> Study | None:
        rows = self._rows(STUDIES, STUDIES.c.study_instance_uid == study_instance_uid)
        return Study(**rows[0]) if rows else None

    def patient_id(self, study_instance_uid: str) -> str:
        """Whose study it is; empty where it is not known."""
        study = self.study(study_instance_uid)
        return study.patient_id if study else ""

    # -- plans

    def add_plan(self, plan: RegisteredPlan) -> None:
        """Register a plan; one with the same id is replaced."""
        values = {**vars(plan), "added_at": self._clock()}
        with self._engine.begin() as connection:
            upsert(connection, PLANS, values)

    def plans(self) -> list[RegisteredPlan]:
        return sorted((RegisteredPlan(**row) for row in self._rows(PLANS)), key=lambda plan: plan.plan_id)

    # -- assessments

    def queue(self, record: AssessmentRecord, *, permitted: ColumnElement[bool] | None = None) -> bool:
        """Record an assessment as queued; it supersedes the earlier ones of the same study and plan.

        Nothing is recorded, and the answer is False, where it is not permitted (any more).
        """
        row = {**vars(record), "previous": json.dumps(record.previous), "document": "", "queued_at": self._clock()}
        same = (ASSESSMENTS.c.study_instance_uid == record.study_instance_uid) & (
            ASSESSMENTS.c.plan_id == record.plan_id
        )
        with self._engine.begin() as connection:
            if permitted is not None and not connection.execute(select(permitted)).scalar():
                return False
            connection.execute(update(ASSESSMENTS).where(same).values(superseded=True))
            insert = insert_into(connection, ASSESSMENTS).values(row)
            connection.execute(
                insert.on_conflict_do_update(index_elements=[ASSESSMENTS.c.assessment_id], set_={"superseded": False})
            )
        return True

    def ended(  # noqa: PLR0913  what there is to say of an end
        self,
        assessment_id: str,
        state: AssessmentState,
        *,
        document: Mapping[str, Any] | None = None,
        folder: str = "",
        code: str = "",
        text: str = "",
        send_to: Sequence[str] = (),
        token: int | None = None,
    ) -> bool:
        """Record how an assessment ended: done with its document, or refused or failed with a code and a sentence.

        folder: the result folder where it is not the one recorded before; send_to: names of the destinations to which
        its objects are owed from now on; token: the caller's. Nothing is recorded, and the answer is False, where that
        is not the present one any more or the assessment has ended otherwise.
        """
        stored = "" if document is None else json.dumps(document)
        now = self._clock()
        ending = {"state": state, "document": stored, "code": code, "text": text, "ended_at": now, "owner": ""}
        if folder:
            ending["folder"] = folder
        if state != "done":
            ending["withdrawal"] = _OWED_WITHDRAWAL
        mine = ASSESSMENTS.c.assessment_id == assessment_id
        if token is not None:
            mine &= (ASSESSMENTS.c.token == token) & ASSESSMENTS.c.state.not_in(ENDED)
        with self._engine.begin() as connection:
            if not connection.execute(update(ASSESSMENTS).where(mine).values(ending)).rowcount:
                return False
            for destination in send_to:
                owed = Send(assessment_id, destination, "pending", "not tried yet", now)
                connection.execute(insert_new(connection, SENDS).values(vars(owed)))
        return True

    def cancel(self, assessment_id: str) -> bool:
        """Whether an assessment that had not ended is called off; who runs it stops within a second."""
        open_one = (ASSESSMENTS.c.assessment_id == assessment_id) & ASSESSMENTS.c.state.not_in(ENDED)
        ending = {"state": "cancelled", "code": "cancelled", "text": "It was called off.", "ended_at": self._clock()}
        ending |= {"owner": "", "token": ASSESSMENTS.c.token + 1, "withdrawal": _OWED_WITHDRAWAL}
        with self._engine.begin() as connection:
            found = update(ASSESSMENTS).where(open_one).values(ending)
            return bool(connection.execute(found).rowcount)

    def reopen(self, assessment_id: str) -> bool:
        """Whether a failed or cancelled assessment will be made once more, under a new id."""
        ended = (
            ASSESSMENTS.c.state.in_(("failed", "cancelled")) & ~ASSESSMENTS.c.superseded & (ASSESSMENTS.c.inputs != "")
        )
        with self._engine.begin() as connection:
            mine = update(ASSESSMENTS).where((ASSESSMENTS.c.assessment_id == assessment_id) & ended)
            return bool(connection.execute(mine.values(inputs="")).rowcount)

    def reopen_failed(self) -> None:
        """Let every failed assessment be made once more: as if nothing had been assessed from its inputs."""
        failed = (ASSESSMENTS.c.state == "failed") & ~ASSESSMENTS.c.superseded
        with self._engine.begin() as connection:
            connection.execute(update(ASSESSMENTS).where(failed).values(inputs=""))

    def assessment(self, assessment_id: str) -> AssessmentRecord:
        """Raises KeyError for an unknown one."""
        rows = self._rows(ASSESSMENTS, ASSESSMENTS.c.assessment_id == assessment_id)
        if not rows:
            raise KeyError(assessment_id)
        return _assessment(rows[0])

    def assessments_of(self, study_instance_uid: str, plan_id: str) -> list[AssessmentRecord]:
        """Every assessment of a study against a plan, superseded ones too."""
        mine = (ASSESSMENTS.c.study_instance_uid == study_instance_uid) & (ASSESSMENTS.c.plan_id == plan_id)
        return [_assessment(row) for row in self._rows(ASSESSMENTS, mine)]

    def current_assessments(self, *, with_documents: bool = True) -> list[AssessmentRecord]:
        """The assessments that nothing has superseded: at most one for each study and plan."""
        columns = [c for c in ASSESSMENTS.c if with_documents or c.name != "document"]
        with self._engine.connect() as connection:
            found = connection.execute(select(*columns).where(~ASSESSMENTS.c.superseded)).mappings()
            return [_assessment({"document": "", **row}) for row in found]

    # -- sends

    def sends(self, assessment_id: str) -> list[Send]:
        return [Send(**row) for row in self._rows(SENDS, SENDS.c.assessment_id == assessment_id)]

    def destinations_owed(self) -> list[str]:
        """The names of destinations that have not taken everything yet; nothing superseded."""
        query = (
            select(SENDS.c.destination)
            .join(ASSESSMENTS, ASSESSMENTS.c.assessment_id == SENDS.c.assessment_id)
            .where(SENDS.c.state.in_(OWED) & ~ASSESSMENTS.c.superseded)
        )
        with self._engine.connect() as connection:
            return list(connection.execute(query.distinct()).scalars())

    def owed(self, destinations: Collection[str] | None = None) -> list[Send]:
        """What these destinations, or all, have not taken yet, the oldest assessment first; nothing superseded."""
        query = (
            select(SENDS)
            .join(ASSESSMENTS, ASSESSMENTS.c.assessment_id == SENDS.c.assessment_id)
            .where(SENDS.c.state.in_(OWED) & ~ASSESSMENTS.c.superseded)
            .order_by(ASSESSMENTS.c.ended_at, SENDS.c.destination)
        )
        if destinations is not None:
            query = query.where(SENDS.c.destination.in_(destinations))
        with self._engine.connect() as connection:
            return [Send(**row) for row in connection.execute(query).mappings()]

    # -- for those who keep further tables in the same database

    def now(self) -> float:
        return self._clock()

    def _rows(self, table: Table, where: Any = None) -> list[dict[str, Any]]:
        query = select(table) if where is None else select(table).where(where)
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def open_ledger(settings: Settings) -> Ledger:
    """The node's ledger, its data folder made where it is missing, for its own user only. Raises `Refused`
    ("database_unreachable").
    """
    settings.data_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with reaching(settings.ledger_url):
        return Ledger(settings.ledger_url, clock=time.time)


def _patient_of(identity: Identity) -> dict[str, str]:
    return {"patient_id": identity.patient_id, "issuer_of_patient_id": identity.issuer_of_patient_id}


def _instance(row: Mapping[str, Any]) -> Instance:
    return Instance(**{field.name: row[field.name] for field in fields(Instance)})


def _assessment(row: dict[str, Any]) -> AssessmentRecord:
    document = json.loads(row["document"]) if row["document"] else None
    return AssessmentRecord(**{**row, "previous": tuple(json.loads(row["previous"])), "document": document})
