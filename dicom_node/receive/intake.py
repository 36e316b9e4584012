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
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from dicom_node.broken import BROKEN
from dicom_node.digest import digest_of
from dicom_node.durable import sync_entry
from dicom_node.identity import identity_of
from dicom_node.ledger import Ledger
from dicom_node.receive.inbox import Inbox
from dicom_node.records import Arrival, Identity, Instance
from dicom_node.refusal import Refused
from dicom_node.store import Store

_LOG = logging.getLogger("marginwatch.intake")

_MOST_AT_ONCE = 200
#: How long to gather before a batch: little for whoever waits, much less work for the disk.
_GATHER_S = 0.2
_LOOK_EVERY_S = 0.02
_RETRY_S = 2.0
_SETTLE_WITHIN_S = 10.0


@dataclass(frozen=True)
class Arrived:
    """A file in the inbox and whose it is. calling_ae_title: who sent it; empty where that is not known any more."""

    path: Path
    identity: Identity
    calling_ae_title: str = ""


class Intake:
    """Sorts arrived instances into store and ledger in a thread of its own, in the order of their arrival."""

    def __init__(self, inbox: Inbox, store: Store, ledger: Ledger) -> None:
        self._inbox = inbox
        self._store = store
        self._ledger = ledger
        self._waiting: queue.SimpleQueue[Arrived] = queue.SimpleQueue()
        # What could not be done because of a disk that is away; the thread's own.
        self._later: list[Arrived] = []
        self._again_at = 0.0
        self._taken = 0
        self._done = 0
        self._awaited = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="intake", daemon=True)

    def start(self) -> None:
        """Also takes up what an earlier process left in the inbox."""
        for path in self._inbox.left_over():
            try:
                dataset = dcmread(path, stop_before_pixels=True)
                sender = str(dataset.file_meta.get("SourceApplicationEntityTitle") or "")
                self.take(Arrived(path, identity_of(dataset), sender))
            except (Refused, *BROKEN) as problem:
                # It was never answered with success: what is answered was read before.
                _LOG.error("a file left in the inbox cannot be read and stays there: %s", problem)
        self._thread.start()

    def stop(self) -> None:
        """After everything that was taken is done; what cannot be done now stays in the inbox for the next start."""
        self.settle()
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_RETRY_S)

    def take(self, arrived: Arrived) -> None:
        with self._changed:
            self._taken += 1
        self._waiting.put(arrived)

    def settle(self, within_s: float = _SETTLE_WITHIN_S) -> bool:
        """Whether everything taken before this call is in store and ledger, waited for no longer than stated."""
        with self._changed:
            wanted = self._taken
            self._awaited += 1
            try:
                return self._changed.wait_for(lambda: self._done >= wanted, within_s)
            finally:
                self._awaited -= 1

    def _work(self) -> None:
        while batch := self._next_batch():
            while True:
                try:
                    self._enter(batch)
                    break
                except Exception:  # noqa: BLE001  a database or disk that is away comes back; the files wait
                    _LOG.exception("%d instances wait in the inbox; trying again", len(batch))
                    if self._stopping.wait(_RETRY_S):
                        return
            with self._changed:
                self._done += len(batch)
                self._changed.notify_all()

    def _next_batch(self) -> list[Arrived]:
        """What has arrived, and what had to wait; empty at the stop."""
        batch: list[Arrived] = []
        until = 0.0
        while len(batch) < _MOST_AT_ONCE:
            try:
                batch.append(self._waiting.get(timeout=_LOOK_EVERY_S))
            except queue.Empty:
                if batch and (self._awaited or time.monotonic() > until):
                    break
                if self._later and time.monotonic() > self._again_at:
                    batch, self._later = self._later, []
                    break
                if self._stopping.is_set():
                    break
                continue
            if len(batch) == 1:
                until = time.monotonic() + _GATHER_S
        return batch

    def _enter(self, batch: Sequence[Arrived]) -> None:
        known = {x.sop_instance_uid: x for x in self._ledger.known([a.identity.sop_instance_uid for a in batch])}
        new: dict[str, Arrival] = {}
        done: list[Arrived] = []
        for arrived in batch:
            try:
                self._place(arrived, known.get(arrived.identity.sop_instance_uid), new)
                done.append(arrived)
            except OSError as problem:
                _LOG.error("an instance waits in the inbox: the data folder cannot be used: %s", problem.strerror)
                self._later.append(arrived)
                self._again_at = time.monotonic() + _RETRY_S
        self._store.sync()
        self._ledger.arrived_together(new.values())
        for arrived in done:
            arrived.path.unlink(missing_ok=True)

    def _place(self, arrived: Arrived, known: Instance | None, new: dict[str, Arrival]) -> None:
        """Finds the instance its place; new: those of the batch that the ledger does not know yet, by UID."""
        digest = digest_of(arrived.path)
        if digest is None:  # done in an earlier try that was broken off
            return
        if not self._inbox.is_durable:
            sync_entry(arrived.path)
        uid = arrived.identity.sop_instance_uid
        if known is not None:
            self._again(arrived, known, digest.dataset)
        elif uid not in new:
            place = self._store.take(arrived.identity, arrived.path)
            new[uid] = Arrival(arrived.identity, place, digest.dataset, received_from=arrived.calling_ae_title)
        elif new[uid].sha256 != digest.dataset:
            self._put_aside(arrived, digest.dataset)

    def _again(self, arrived: Arrived, known: Instance, digest: str) -> None:
        """An instance that is known: nothing to do, or its stored file is lost or damaged, or it has other content."""
        stored = self._store.sha256(known.path)
        if stored == digest:
            return
        if stored is None or known.sha256 == digest:
            place = self._store.take(arrived.identity, arrived.path)
            again = Arrival(arrived.identity, place, digest, received_from=arrived.calling_ae_title)
            self._ledger.replaced(again)
            _LOG.warning("a stored instance was lost or damaged; it came again and is whole now")
        else:
            self._put_aside(arrived, digest)

    def _put_aside(self, arrived: Arrived, digest: str) -> None:
        path = self._store.take_aside(arrived.identity, arrived.path, digest)
        self._ledger.conflict(arrived.identity, path, sha256=digest)
        _LOG.warning("an instance came again with other content; the first is kept, this one put aside")
