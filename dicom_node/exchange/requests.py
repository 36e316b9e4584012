"""What other systems were asked for, what came of it, and when they are asked again: kept in the ledger's database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import and_, delete, select

from dicom_node.back_off import BackOff
from dicom_node.ledger import Ledger
from dicom_node.peers import FetchSettings
from dicom_node.schema import REQUESTS, upsert

#: count: whether a study is whole; baseline: a plan's; earlier: which follow-ups precede the subject; followup: one of
#: these; missing: the rest of a study that is here in part.
Purpose = Literal["count", "baseline", "earlier", "followup", "missing"]
#: fault: one of ours.
RequestState = Literal["answered", "more", "brought", "not_there", "other_patient", "no_answer", "not_stored", "fault"]
#: Asked again seldom.
_SETTLED: tuple[RequestState, ...] = ("answered",)


@dataclass(frozen=True)
class Question:
    """What a peer is asked for. subject: a Study Instance UID."""

    peer: str
    purpose: Purpose
    subject: str


@dataclass(frozen=True)
class Request:
    """What a peer answered last to a `Question`. at, next_at: when it was asked, and will be again.

    last_arrival: the subject's when it was asked about; None where that does not matter.
    """

    peer: str
    purpose: Purpose
    subject: str
    state: RequestState
    text: str
    tries: int
    at: float
    next_at: float
    last_arrival: float | None = None

    def is_due(self, now: float) -> bool:
        """Whether it is to be asked again. A clock that was set back puts nothing off."""
        return not self.at <= now < self.next_at


class Requests:
    """The record of what was asked. Every method is one transaction."""

    def __init__(self, ledger: Ledger, fetch: FetchSettings) -> None:
        self._ledger = ledger
        self._fetch = fetch
        self._back_off = BackOff(fetch.first_retry_s, fetch.longest_retry_s)

    def last(self, question: Question) -> Request | None:
        """What the peer was asked for last, if it was."""
        where = and_(*(REQUESTS.c[name] == value for name, value in vars(question).items()))
        with self._ledger.transaction() as connection:
            row = connection.execute(select(REQUESTS).where(where)).mappings().one_or_none()
        return None if row is None else Request(**row)

    def waiting(self) -> set[Question]:
        """What was asked and is not to be asked again yet."""
        now = self._ledger.now()
        not_yet = (REQUESTS.c.at <= now) & (REQUESTS.c.next_at > now)
        query = select(REQUESTS.c.peer, REQUESTS.c.purpose, REQUESTS.c.subject).where(not_yet)
        with self._ledger.transaction() as connection:
            return {Question(*row) for row in connection.execute(query)}

    def record(self, question: Question, state: RequestState, text: str, last_arrival: float | None = None) -> None:
        """Record an answer. Asked again: what is settled seldom, else after twice the time that was waited before."""
        before = self.last(question)
        unsettled = before is not None and before.state not in _SETTLED
        tries, waited_s = (before.tries, before.next_at - before.at) if before is not None and unsettled else (0, 0.0)
        wait_s = self._fetch.longest_retry_s if state in _SETTLED else self._back_off.after(waited_s)
        now = self._ledger.now()
        request = Request(
            **vars(question),
            state=state,
            text=text,
            tries=tries + 1,
            at=now,
            next_at=now + wait_s,
            last_arrival=last_arrival,
        )
        with self._ledger.transaction() as connection:
            upsert(connection, REQUESTS, vars(request))

    def forget(self, purpose: Purpose, subject: str) -> None:
        """Forget what was asked, as it is no longer needed."""
        with self._ledger.transaction() as connection:
            mine = (REQUESTS.c.purpose == purpose) & (REQUESTS.c.subject == subject)
            connection.execute(delete(REQUESTS).where(mine))


def requests_by_subject(ledger: Ledger) -> dict[str, list[Request]]:
    """Everything that was asked, by the study that it was about."""
    found: dict[str, list[Request]] = {}
    with ledger.transaction() as connection:
        for row in connection.execute(select(REQUESTS).order_by(REQUESTS.c.at)).mappings():
            found.setdefault(row["subject"], []).append(Request(**row))
    return found
