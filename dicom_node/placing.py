"""Instances get their place in the store and their row in the ledger, once, whoever brings them.

Several processes may place at the same time: the listener what is sent, a worker what it fetches. Of two with one UID
the first at its place stays, which the file system decides; the other is compared with it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_node.digest import digest_of
from dicom_node.durable import sync_entry
from dicom_node.ledger import Ledger
from dicom_node.logs import about
from dicom_node.records import Arrival, Identity, Instance
from dicom_node.store import Store

_LOG = logging.getLogger("marginwatch.placing")


@dataclass(frozen=True)
class Brought:
    """A whole file and whose it is. received_from: the AE title of who brought it; empty where that is not known."""

    path: Path
    identity: Identity
    received_from: str = ""


class Placing:
    """Places files; for one thread. is_synced: whether they have reached the disk before they are handed over."""

    def __init__(self, store: Store, ledger: Ledger, *, is_synced: bool) -> None:
        self._store = store
        self._ledger = ledger
        self._is_synced = is_synced

    def place(self, brought: Sequence[Brought]) -> dict[Path, OSError]:
        """Those that the disk did not take, with the problem; all others are in store and ledger, and safe there.

        The files stay where they are: to place them again changes nothing. Raises what the database raises.
        """
        known = {x.sop_instance_uid: x for x in self._ledger.known([b.identity.sop_instance_uid for b in brought])}
        new: dict[str, tuple[Brought, Arrival]] = {}
        problems: dict[Path, OSError] = {}
        for one in brought:
            try:
                with about(study_instance_uid=one.identity.study_instance_uid, step="place"):
                    self._place(one, known.get(one.identity.sop_instance_uid), new)
            except OSError as problem:
                problems[one.path] = problem
        self._store.sync()
        for arrival in self._ledger.arrived_together(arrival for _, arrival in new.values()):
            self._came_second(*new[arrival.identity.sop_instance_uid])
        return problems

    def _place(self, one: Brought, known: Instance | None, new: dict[str, tuple[Brought, Arrival]]) -> None:
        """new: those that the ledger does not know yet, by UID."""
        found = digest_of(one.path)
        if found is None:  # done in an earlier try that was broken off
            return
        if not self._is_synced:
            sync_entry(one.path)
        uid, digest = one.identity.sop_instance_uid, found.dataset
        if known is not None:
            self._again(one, known, digest)
        elif uid not in new:
            path, there = self._store.take_first(one.identity, one.path)
            # What lies there without a row is being entered by another process, or was left by one that died.
            first = digest if there is None else there
            new[uid] = one, Arrival(one.identity, path, first, received_from=one.received_from)
            if first != digest:
                self._put_aside(one, digest)
        elif new[uid][1].sha256 != digest:
            self._put_aside(one, digest)

    def _again(self, one: Brought, known: Instance, digest: str) -> None:
        """An instance that is known: nothing to do, or its stored file is lost or damaged, or it has other content."""
        stored = self._store.sha256(known.path)
        if stored == digest:
            return
        if stored is None or known.sha256 == digest:
            path = self._store.take(one.identity, one.path)
            self._store.sync()
            self._ledger.replaced(Arrival(one.identity, path, digest, received_from=one.received_from))
            _LOG.warning("a stored instance was lost or damaged; it came again and is whole now")
        else:
            self._put_aside(one, digest)

    def _came_second(self, one: Brought, arrival: Arrival) -> None:
        """Another process has entered this UID since it was looked up, perhaps under another study or series."""
        entered = self._ledger.instance(arrival.identity.sop_instance_uid)
        if entered is not None and entered.path != str(arrival.path):
            if entered.sha256 != arrival.sha256:
                self._put_aside(replace(one, path=self._store.located(arrival.path)), arrival.sha256)
            self._store.forget(arrival.path)

    def _put_aside(self, one: Brought, digest: str) -> None:
        path = self._store.take_aside(one.identity, one.path, digest)
        self._store.sync()
        self._ledger.conflict(one.identity, path, sha256=digest)
        uid = one.identity.sop_instance_uid
        _LOG.warning("instance %s came again with other content; the first is kept, this one put aside", uid)
