"""From the inbox into store and ledger: many instances at a time, and again after a crash.

An instance is answered once it is safe in the inbox. Here it gets its place and its row; until both are on the disk its
file stays in the inbox, so that nothing is lost in between and doing it again changes nothing.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from dicom_node.identity import identity_of_file
from dicom_node.ledger import Ledger
from dicom_node.placing import Brought, Placing
from dicom_node.receive.inbox import Inbox
from dicom_node.refusal import Refused
from dicom_node.schema import DATABASE_AWAY
from dicom_node.store import Store

_LOG = logging.getLogger("marginwatch.intake")

_MOST_AT_ONCE = 1000
#: A batch begins when nothing has come for a while, or after this long: to gather costs whoever waits little, and the
#: disk and the senders, who share the processor with it, gain much.
_QUIET_S, _GATHER_S = 0.2, 3.0
_LOOK_EVERY_S = 0.02
_RETRY_S, _PUT_OFF_S = 2.0, 10.0
_SETTLE_WITHIN_S = 10.0
_AWAY = (OSError, *DATABASE_AWAY)


class Intake:
    """Sorts arrived instances into store and ledger in a thread of its own, in the order of their arrival."""

    def __init__(self, inbox: Inbox, store: Store, ledger: Ledger) -> None:
        self._inbox = inbox
        self._placing = Placing(store, ledger, is_synced=inbox.is_durable)
        self._waiting: queue.SimpleQueue[Brought] = queue.SimpleQueue()
        # What could not be done because of a disk that is away; the thread's own.
        self._later: list[Brought] = []
        self._again_at = 0.0
        self._taken = 0
        self._tried = 0
        self._awaited = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="intake", daemon=True)

    def start(self) -> None:
        """Also takes up what an earlier process left in the inbox."""
        for path in self._inbox.left_over():
            try:
                with path.open("rb") as file:
                    found = identity_of_file(file)
                self.take(Brought(path, found.identity, found.source_ae_title))
            except (Refused, OSError) as problem:
                # It was never answered with success: what is answered was read before.
                _LOG.error("a file left in the inbox cannot be read and stays there: %s", problem)
        self._thread.start()

    def stop(self) -> None:
        """After everything that was taken is done; what cannot be done now stays in the inbox for the next start."""
        self.settle()
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_RETRY_S)

    def take(self, arrived: Brought) -> None:
        """An instance whose file lies whole in the inbox."""
        with self._changed:
            self._taken += 1
        self._waiting.put(arrived)

    def settle(self, within_s: float = _SETTLE_WITHIN_S) -> bool:
        """Whether everything taken before this call is in store and ledger, waited for no longer than stated.

        What had to be put off is not waited for.
        """
        with self._changed:
            wanted = self._taken
            self._awaited += 1
            try:
                return self._changed.wait_for(lambda: self._tried >= wanted, within_s) and not self._later
            finally:
                self._awaited -= 1

    def _work(self) -> None:
        while not self._stopping.is_set() or not self._waiting.empty():
            if batch := self._next_batch():
                self._enter_until_done(batch)
                with self._changed:
                    self._tried += len(batch)
                    self._changed.notify_all()
            elif self._later and time.monotonic() > self._again_at:
                batch, self._later = self._later, []
                self._enter_until_done(batch)

    def _next_batch(self) -> list[Brought]:
        """What has arrived; empty where nothing has for a moment."""
        batch: list[Brought] = []
        quiet_at = until = 0.0
        while len(batch) < _MOST_AT_ONCE:
            try:
                batch.append(self._waiting.get(timeout=_LOOK_EVERY_S))
            except queue.Empty:
                now = time.monotonic()
                if batch and (self._awaited or now > min(quiet_at, until) or self._stopping.is_set()):
                    break
                if not batch:
                    break
                continue
            now = time.monotonic()
            quiet_at = now + _QUIET_S
            until = until or now + _GATHER_S
            if now > until:
                break
        return batch

    def _enter_until_done(self, batch: Sequence[Brought]) -> None:
        """They are in store and ledger then, or put off."""
        while True:
            try:
                self._enter(batch)
                return
            except _AWAY:
                _LOG.exception("%d instances wait in the inbox; trying again", len(batch))
                if self._stopping.wait(_RETRY_S):
                    self._put_off(batch)
                    return
            except Exception:  # noqa: BLE001  a bug, or what the database cannot hold
                if len(batch) > 1:  # one of them, which must not keep the others from their place
                    for one in batch:
                        self._enter_until_done([one])
                    return
                _LOG.exception("an instance waits in the inbox: it cannot be entered")
                self._put_off(batch)
                return

    def _enter(self, batch: Sequence[Brought]) -> None:
        problems = self._placing.place(batch)
        for brought in batch:
            if brought.path not in problems:
                with suppress(OSError):  # it would be found again at the next start
                    brought.path.unlink(missing_ok=True)
        for problem in problems.values():
            _LOG.error("an instance waits in the inbox: the data folder cannot be used: %s", problem.strerror)
        self._put_off([brought for brought in batch if brought.path in problems])

    def _put_off(self, some: Sequence[Brought]) -> None:
        if some:
            self._later += some
            self._again_at = time.monotonic() + _PUT_OFF_S
