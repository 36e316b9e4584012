"""Who works on what, so that two workers never do the same: workers, leases, and the claims on assessments.

A worker that has been declared lost is fenced: whatever it still asks for is refused, in the transaction that would
have done it. It comes back under a new id.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, exists, insert, select, update

from dicom_node.ledger import Ledger
from dicom_node.records import ENDED, OWED, Resource, Send, SendState, WorkerRecord
from dicom_node.schema import ASSESSMENTS, LEASES, SENDS, WORKERS, insert_into
from dicom_node.settings import Settings

#: Whose holder decides what is due and takes over what the lost have left.
ROUTING = "routing"
#: How long a lost worker is remembered, so that its death counts against what it was at.
_FORGET_AFTER_S = 7 * 86400.0


class Claims:
    """One worker's claims in the ledger. Every method is one transaction; safe between threads."""

    def __init__(self, ledger: Ledger, me: WorkerRecord) -> None:
        self._ledger = ledger
        self._me = me

    # -- workers

    def enter(self, *, alone: bool) -> None:
        """Begin to work. alone: a lock proves that no other worker lives; all that are recorded are lost."""
        with self._ledger.transaction() as connection:
            if alone:
                connection.execute(update(WORKERS).values(lost=True))
            old = WORKERS.c.lost & (WORKERS.c.started_at < self._me.started_at - _FORGET_AFTER_S)
            connection.execute(delete(WORKERS).where(old))
            connection.execute(insert(WORKERS).values(vars(self._me)))

    def leave(self) -> None:
        """End in good order: what is left goes on with another, and does not count as a death. Nothing if lost."""
        mine = (WORKERS.c.worker_id == self._me.worker_id) & ~WORKERS.c.lost
        with self._ledger.transaction() as connection:
            connection.execute(delete(WORKERS).where(mine))

    def beat(self) -> bool:
        """Show a sign of life; False when it comes too late, this worker is lost."""
        mine = (WORKERS.c.worker_id == self._me.worker_id) & ~WORKERS.c.lost
        with self._ledger.transaction() as connection:
            return bool(connection.execute(update(WORKERS).where(mine).values(beat=WORKERS.c.beat + 1)).rowcount)

    def workers(self) -> list[WorkerRecord]:
        """All that are not lost."""
        with self._ledger.transaction() as connection:
            found = connection.execute(select(WORKERS).where(~WORKERS.c.lost)).mappings()
            return [WorkerRecord(**row) for row in found]

    def fence(self, silent: WorkerRecord) -> bool:
        """Whether a worker is lost from now on; not if it has shown a sign of life since it was looked at."""
        still = (WORKERS.c.worker_id == silent.worker_id) & (WORKERS.c.beat == silent.beat) & ~WORKERS.c.lost
        with self._ledger.transaction() as connection:
            return bool(connection.execute(update(WORKERS).where(still).values(lost=True)).rowcount)

    # -- leases

    def lease(self, name: str) -> bool:
        """Whether this worker now holds the lease: it did, or its holder lives no more. Writes only to take it."""
        orphaned = LEASES.c.holder.not_in(select(WORKERS.c.worker_id).where(~WORKERS.c.lost))
        take = update(LEASES).where((LEASES.c.name == name) & orphaned & self._i_live())
        with self._ledger.transaction() as connection:
            if connection.execute(select(self.holds(name))).scalar():
                return True
            if connection.execute(take.values(holder=self._me.worker_id)).rowcount:
                return True
            if connection.execute(select(LEASES.c.name).where(LEASES.c.name == name)).first() is not None:
                return False
            first = (
                insert_into(connection, LEASES).values(name=name, holder=self._me.worker_id).on_conflict_do_nothing()
            )
            connection.execute(first)
            return bool(connection.execute(select(self.holds(name))).scalar())

    def holds(self, lease: str) -> ColumnElement[bool]:
        """A condition for other statements: this worker holds the lease, and lives."""
        mine = (LEASES.c.name == lease) & (LEASES.c.holder == self._me.worker_id)
        return exists().where(mine) & self._i_live()

    def begin_send(self, owed: Send, *, lease: str, at: float) -> bool:
        """Record that sending begins: from now on the destination may hold objects of it. False where it must not
        begin: the assessment was superseded since, or the lease is another's.
        """
        mine = (SENDS.c.assessment_id == owed.assessment_id) & (SENDS.c.destination == owed.destination)
        holds_still = (ASSESSMENTS.c.assessment_id == owed.assessment_id) & ~ASSESSMENTS.c.superseded
        permitted = SENDS.c.state.in_(OWED) & exists().where(holds_still) & self.holds(lease)
        with self._ledger.transaction() as connection:
            # PostgreSQL: what supersedes it waits for this, and then sees that it is being sent.
            connection.execute(select(ASSESSMENTS.c.assessment_id).where(holds_still).with_for_update(read=True))
            values = {"state": "sending", "text": "not answered yet", "at": at}
            return bool(connection.execute(update(SENDS).where(mine & permitted).values(values)).rowcount)

    def sent(self, owed: Send, *, lease: str, state: SendState, text: str, at: float) -> bool:
        """Record how sending went; False where the lease under which it was done is another's now."""
        mine = (SENDS.c.assessment_id == owed.assessment_id) & (SENDS.c.destination == owed.destination)
        with self._ledger.transaction() as connection:
            found = update(SENDS).where(mine & self.holds(lease)).values(state=state, text=text, at=at)
            return bool(connection.execute(found).rowcount)

    # -- assessments

    def claim(self, assessment_id: str) -> int | None:
        """The token under which this worker has the assessment from now on; None where it has ended or we are lost."""
        mine = (ASSESSMENTS.c.assessment_id == assessment_id) & ASSESSMENTS.c.state.not_in(ENDED) & self._i_live()
        taken = {"state": "running", "owner": self._me.worker_id, "token": ASSESSMENTS.c.token + 1}
        with self._ledger.transaction() as connection:
            found = connection.execute(update(ASSESSMENTS).where(mine).values(taken).returning(ASSESSMENTS.c.token))
            return found.scalar()

    def held(self) -> dict[str, int]:
        """The assessments that are still this worker's, with their tokens."""
        mine = (ASSESSMENTS.c.owner == self._me.worker_id) & (ASSESSMENTS.c.state == "running")
        with self._ledger.transaction() as connection:
            found = connection.execute(select(ASSESSMENTS.c.assessment_id, ASSESSMENTS.c.token).where(mine))
            return {assessment_id: token for assessment_id, token in found}

    def take_over(self, assessment_id: str, owner: str) -> int | None:
        """How often it was taken over from workers that were lost, this time included; None if it is not the owner's.

        Whoever had it can record nothing any more. Only for the holder of the routing lease.
        """
        mine = (ASSESSMENTS.c.assessment_id == assessment_id) & (ASSESSMENTS.c.owner == owner)
        mine &= ASSESSMENTS.c.state.not_in(ENDED) & self.holds(ROUTING)
        was_lost = select(WORKERS.c.worker_id).where((WORKERS.c.worker_id == owner) & WORKERS.c.lost)
        with self._ledger.transaction() as connection:
            died = connection.execute(was_lost).first() is not None
            freed = {"state": "queued", "owner": "", "token": ASSESSMENTS.c.token + 1}
            freed["takeovers"] = ASSESSMENTS.c.takeovers + int(died)
            found = update(ASSESSMENTS).where(mine).values(freed).returning(ASSESSMENTS.c.takeovers)
            return connection.execute(found).scalar()

    def assign(self, assessment_id: str, resource: Resource) -> None:
        """Record what the assessment is to run on."""
        mine = ASSESSMENTS.c.assessment_id == assessment_id
        with self._ledger.transaction() as connection:
            connection.execute(update(ASSESSMENTS).where(mine).values(resource=resource))

    def _i_live(self) -> ColumnElement[bool]:
        return exists().where((WORKERS.c.worker_id == self._me.worker_id) & ~WORKERS.c.lost)


@dataclass(frozen=True)
class Station:
    """What every part of a worker works with."""

    settings: Settings
    ledger: Ledger
    claims: Claims
