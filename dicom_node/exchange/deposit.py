"""Fetched instances into the store and the ledger, as the listener does with those that are sent."""

from __future__ import annotations

import hashlib
import logging
import threading
from io import BytesIO

from pydicom import dcmread

from dicom_node.broken import BROKEN
from dicom_node.digest import start_of_dataset
from dicom_node.identity import identity_of
from dicom_node.ledger import Ledger
from dicom_node.records import Arrival
from dicom_node.refusal import Refused
from dicom_node.store import Store

_LOG = logging.getLogger("marginwatch.exchange")


class Keep:
    """A `Deposit` into a store and a ledger; safe between threads."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._lock = threading.Lock()

    def __call__(self, content: bytes, *, received_from: str) -> None:
        """Raises `Refused` ("disk_full", "broken_dataset") and OSError."""
        self._store.require_space()
        file = BytesIO(content)
        try:
            identity = identity_of(dcmread(file, stop_before_pixels=True))
        except BROKEN as problem:
            raise Refused("broken_dataset", f"A fetched instance cannot be read: {problem}.") from None
        digest = hashlib.sha256(content[start_of_dataset(BytesIO(content)) :]).hexdigest()
        with self._lock:
            known = self._ledger.instance(identity.sop_instance_uid)
            if known is None:
                path = self._store.put(identity, content)
                self._ledger.arrived(identity, path, sha256=digest, received_from=received_from)
                return
            stored = self._store.sha256(known.path)
            if stored == digest:
                return
            if stored is None or known.sha256 == digest:
                path = self._store.put(identity, content)
                self._ledger.replaced(Arrival(identity, path, digest, received_from=received_from))
            else:
                self._ledger.conflict(identity, self._store.put_aside(identity, content, digest), sha256=digest)
                _LOG.warning("an instance was fetched with other content; the first is kept, this one put aside")
