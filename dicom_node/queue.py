"""The worker: it assesses what is due and sends what is owed, side by side with other workers, whatever is killed.

The ledger says what is due (`routing`), the engine runs it step by step (`engine`), and whoever works on it holds it by
a token (`claims`). A worker that falls silent is declared lost by the others, which go on with its work; should it
wake up, everything it still does is refused, and it begins anew under another id.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dicom_node.attempt import Attempts
from dicom_node.back_off import BackOff
from dicom_node.child import assess_in_child
from dicom_node.claims import ROUTING, Claims, Station
from dicom_node.coordinator import Coordinator
from dicom_node.engine import Engine, Limits
from dicom_node.exchange.completeness import Completeness
from dicom_node.exchange.deposit import Keep
from dicom_node.exchange.fetcher import Fetcher, TellsFetched
from dicom_node.exchange.rounds import Rounds
from dicom_node.exchange.stow import deliver
from dicom_node.ledger import Ledger
from dicom_node.liveness import Watch, host_name, new_worker_id, on_the_same_machine
from dicom_node.lock import WorkerLock
from dicom_node.outbox import Outbox, Told
from dicom_node.records import WorkerRecord
from dicom_node.refusal import Refused
from dicom_node.routing import Order
from dicom_node.schema import DATABASE_AWAY, reaching
from dicom_node.settings import Settings
from dicom_node.store import Store
from dicom_node.withdrawing import Withdrawals

_LOG = logging.getLogger("marginwatch.queue")

_ROUTE_EVERY_S = 0.5
_LOOK_AT_CHILDREN_EVERY_S = 0.4
#: While the database is away.
_ASK_AGAIN_AFTER_S = 1.0
_BEGIN_ANEW_AFTER = BackOff(first_s=0.5, longest_s=10.0)
_FETCH_EVERY_S = 1.0


@dataclass(frozen=True)
class Tools:
    """What the worker calls; replaced in tests. told: hears of each try to send; brought: of what was fetched."""

    assess: Callable[..., dict[str, Any]] = assess_in_child
    send: Callable[..., int] = deliver
    told: Told = lambda _destination, _owed, _problem: None
    brought: TellsFetched = lambda _pacs, _part: None
    back_off: BackOff = field(default_factory=BackOff)


class Worker:
    """Routes, assesses and sends until stopped. One in a process.

    alone: a lock proves that no other worker lives (see `WorkerLock`), so that what an earlier one left is taken up at
    once.
    """

    def __init__(
        self, settings: Settings, ledger: Ledger, order: Order, tools: Tools | None = None, *, alone: bool = True
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._order = order
        self._tools = tools or Tools()
        self._alone = alone
        self._stop = threading.Event()
        self._shift: _Shift | None = None
        self._seen_at_s = time.monotonic()
        self._keeper = threading.Thread(target=self._keep_until_stopped, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin; raises `Refused` ("database_unreachable"), and then nothing is left running."""
        self._shift = self._begin()
        self._keeper.start()

    def stop(self) -> None:
        """Stop now. What runs is killed and goes on at the next start, or with another worker."""
        self._stop.set()
        self._keeper.join()
        if self._shift is not None:
            self._shift.end()

    def seen_s_ago(self) -> float:
        """Seconds since the last sign of life that the ledger took."""
        return time.monotonic() - self._seen_at_s

    def _begin(self) -> _Shift:
        return _Shift(self._settings, self._ledger, self._order, self._tools, alone=self._alone)

    def _keep_until_stopped(self) -> None:
        """Show signs of life, look for those of the others, and begin anew when declared lost."""
        waited_s = 0.0
        while not self._stop.wait(_LOOK_AT_CHILDREN_EVERY_S):
            try:
                if self._shift is None:
                    self._shift = self._begin()
                    waited_s = 0.0
                elif self._shift.keep():
                    self._seen_at_s = self._shift.seen_at_s
                else:
                    _LOG.warning("this worker was silent for too long and was declared lost; it begins anew")
                    lost, self._shift = self._shift, None
                    lost.end()
            except DATABASE_AWAY as problem:
                _LOG.warning("the database is away: %s", str(problem.orig).split("\n", 1)[0])
                self._stop.wait(_ASK_AGAIN_AFTER_S)
            except Refused as refused:
                waited_s = _BEGIN_ANEW_AFTER.after(waited_s)
                _LOG.warning("the worker cannot begin anew yet: %s", refused.text)
                self._stop.wait(waited_s)
            except Exception:  # noqa: BLE001  the worker: it must not fall silent for a bug
                _LOG.exception("keeping the worker alive failed; trying again")


class _Shift:
    """A worker's time under one id: from its entry in the ledger until it leaves or is declared lost."""

    def __init__(self, settings: Settings, ledger: Ledger, order: Order, tools: Tools, *, alone: bool) -> None:
        """Raises `Refused` ("database_unreachable"); then nothing is left running."""
        self._settings = settings.worker
        limits = Limits(settings.worker.concurrency, settings.worker.gpus, settings.worker.attempts)
        version = order.software_version
        self._me = WorkerRecord(new_worker_id(), host_name(), version, time.time(), limits.cpus, limits.gpus)
        self._claims = Claims(ledger, self._me)
        station = Station(settings, ledger, self._claims)
        self._watch = Watch(lost_after_s=self._settings.takeover_after_s, look_every_s=self._settings.heartbeat_s)
        self._attempts = Attempts(station, tools.assess)
        self._outbox = Outbox(station, back_off=tools.back_off, send=tools.send, told=tools.told)
        self._rounds = self._rounds_of(station, tools.brought)
        self._stop = threading.Event()
        self._beats_at_s = self.seen_at_s = time.monotonic()
        self._data_folder = settings.data_folder
        self._lock = self._lock_of(self._me)
        self._lock.acquire()
        try:
            with reaching(settings.ledger_url):
                self._claims.enter(alone=alone)
            self._engine = Engine(settings.queue_url, self._me.worker_id, limits, self._attempts)
        except Refused:
            with suppress(Refused), reaching(settings.ledger_url):
                self._claims.leave()
            self._lock.remove()
            raise
        self._coordinator = Coordinator(station, order, self._engine, self._attempts)
        self._router = threading.Thread(target=self._route_until_stopped, name="router", daemon=True)
        self._router.start()
        self._outbox.start()
        for rounds in self._rounds:
            rounds.start()

    def _rounds_of(self, station: Station, brought: TellsFetched) -> tuple[Rounds, ...]:
        """What looks again and again whether studies are whole, what is lacking, and what is to be withdrawn; the
        elected worker's.
        """
        settings, ledger = station.settings, station.ledger

        def elected() -> bool:
            return self._claims.lease(ROUTING)

        store = Store(settings.data_folder, minimum_free_bytes=settings.listener.minimum_free_bytes)
        completeness = Completeness(settings, ledger)
        fetcher = Fetcher(settings, ledger, Keep(store, ledger, settings.data_folder / "fetching"), told=brought)
        return (
            Rounds("completeness", completeness.look, every_s=_ROUTE_EVERY_S, may_run=elected),
            Rounds("fetch", fetcher.look, every_s=_FETCH_EVERY_S, may_run=elected),
            Rounds("withdraw", Withdrawals(station).look, every_s=_ROUTE_EVERY_S, may_run=elected),
        )

    def end(self) -> None:
        self._stop.set()
        self._attempts.stop()
        for rounds in self._rounds:
            rounds.stop()
        self._router.join()
        self._outbox.stop()
        self._engine.close()
        try:
            self._claims.leave()
        except DATABASE_AWAY:
            _LOG.warning("the worker could not sign off: the database is away")
        self._lock.remove()

    def keep(self) -> bool:
        """Do what is due of: a sign of life, a look at the others, a look at our children. False: we are lost."""
        self._attempts.kill_what_is_not_ours()
        now_s = time.monotonic()
        if now_s < self._beats_at_s:
            return True
        self._beats_at_s = now_s + self._settings.heartbeat_s
        if not self._claims.beat():
            return False
        self.seen_at_s = time.monotonic()
        others = [worker for worker in self._claims.workers() if worker.worker_id != self._me.worker_id]
        silent = self._watch.look(others, time.monotonic())
        dead = [other for other in others if self._is_dead(other)]
        for lost in {worker.worker_id: worker for worker in silent + dead}.values():
            if self._claims.fence(lost):
                _LOG.warning("worker %s has fallen silent and is declared lost", lost.worker_id)
        return True

    def _is_dead(self, other: WorkerRecord) -> bool:
        """Whether a worker of this machine has ended without signing off; it need not be waited for."""
        if not on_the_same_machine(other.worker_id, self._me.worker_id):
            return False
        lock = self._lock_of(other)
        dead = lock.is_orphaned()
        if dead:
            lock.remove()
        return dead

    def _lock_of(self, worker: WorkerRecord) -> WorkerLock:
        return WorkerLock(self._data_folder, f"workers/{worker.worker_id}")

    def _route_until_stopped(self) -> None:
        pause_s = _ROUTE_EVERY_S
        while not self._stop.wait(pause_s):
            started = time.monotonic()
            try:
                self._coordinator.coordinate()
            except DATABASE_AWAY as problem:
                _LOG.warning("routing has to wait: %s", str(problem.orig).split("\n", 1)[0])
                self._stop.wait(_ASK_AGAIN_AFTER_S)
            except Exception:  # noqa: BLE001  the worker: it goes on
                _LOG.exception("routing failed; trying again")
            pause_s = max(_ROUTE_EVERY_S, 5 * (time.monotonic() - started))
