"""What other systems were asked for, what came of it, and when they are asked again: kept in the ledger's database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import and_, delete, select

from dicom_node.ledger import Ledger
from dicom_node.peers import FetchSettings
from dicom_node.schema import REQUESTS, upsert

#: count: whether a study is whole; baseline: a plan's; earlier: which follow-ups precede the subject; followup: one of
#: these; missing: the rest of a study that is here in part.
Purpose = Literal["count", "baseline", "earlier", "followup", "missing"]
RequestState = Literal["answered", "more", "brought", "not_there", "other_patient", "no_answer", "not_stored"]
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
    """What a peer answered last to a `Question`. at, next_at: when it was asked, and will be again."""

    peer: str
    purpose: Purpose
    subject: str
    state: RequestState
    text: str
    tries: int
    at: float
    next_at: float


class Requests:
    """The record of what was asked. Every method is one transaction."""

    def __init__(self, ledger: Ledger, fetch: FetchSettings) -> None:
        self._ledger = ledger
        self._fetch = fetch

    def last(self, question: Question) -> Request | None:
        """What the peer was asked for last, if it was."""
        where = and_(*(REQUESTS.c[name] == value for name, value in vars(question).items()))
        with self._ledger.transaction() as connection:
            row = connection.execute(select(REQUESTS).where(where)).mappings().one_or_none()
        return None if row is None else Request(**row)

    def is_due(self, question: Question) -> bool:
        """Whether the peer was not asked yet, or is to be asked again."""
        before = self.last(question)
        return before is None or self._ledger.now() >= before.next_at

    def record(self, question: Question, state: RequestState, text: str) -> None:
        """Record an answer. Asked again: what is settled seldom, else after twice the time that was waited before."""
        before = self.last(question)
        unsettled = before is not None and before.state not in _SETTLED
        tries = before.tries + 1 if before is not None and unsettled else 1
        # The exponent is limited: after weeks of tries the power would be no float any more.
        wait_s = min(self._fetch.first_retry_s * 2.0 ** min(tries - 1, 60), self._fetch.longest_retry_s)
        now = self._ledger.now()
        due = now + (self._fetch.longest_retry_s if state in _SETTLED else wait_s)
        row = vars(Request(**vars(question), state=state, text=text, tries=tries, at=now, next_at=due))
        with self._ledger.transaction() as connection:
            upsert(connection, REQUESTS, row)

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
