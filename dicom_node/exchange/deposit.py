"""Fetched instances into the store and the ledger, as the listener's intake does with those that are sent."""

from __future__ import annotations

import logging
import threading
from io import BytesIO
from pathlib import Path
from uuid import uuid4

from pydicom import dcmread

from dicom_node.broken import BROKEN
from dicom_node.digest import digest_of
from dicom_node.durable import write_file
from dicom_node.identity import identity_of
from dicom_node.ledger import Ledger
from dicom_node.records import Arrival, Identity
from dicom_node.refusal import Refused
from dicom_node.store import Store

_LOG = logging.getLogger("marginwatch.exchange")


class Keep:
    """A `Deposit` into a store and a ledger; safe between threads. folder: where instances lie until they are kept."""

    def __init__(self, store: Store, ledger: Ledger, folder: Path) -> None:
        self._store = store
        self._ledger = ledger
        self._folder = folder
        self._lock = threading.Lock()

    def __call__(self, content: bytes, *, received_from: str) -> Identity:
        """Whose it is. Raises `Refused` ("disk_full", "broken_dataset") and OSError."""
        self._store.require_space()
        try:
            identity = identity_of(dcmread(BytesIO(content), stop_before_pixels=True))
        except BROKEN as problem:
            raise Refused("broken_dataset", f"A fetched instance cannot be read: {problem}.") from None
        file = self._folder / f"{uuid4().hex}.dcm"
        write_file(file, content)
        try:
            with self._lock:
                self._keep(identity, file, received_from)
        finally:
            file.unlink(missing_ok=True)
        return identity

    def _keep(self, identity: Identity, file: Path, received_from: str) -> None:
        found = digest_of(file)
        assert found is not None
        digest, known = found.dataset, self._ledger.instance(identity.sop_instance_uid)
        stored = None if known is None else self._store.sha256(known.path)
        if known is not None and stored == digest:
            return
        if known is None or stored is None or known.sha256 == digest:
            path = self._store.take(identity, file)
            self._store.sync()
            arrival = Arrival(identity, path, digest, received_from=received_from)
            if known is None:
                self._ledger.arrived_together([arrival])
            else:
                self._ledger.replaced(arrival)
            return
        path = self._store.take_aside(identity, file, digest)
        self._store.sync()
        self._ledger.conflict(identity, path, sha256=digest)
        _LOG.warning("an instance was fetched with other content; the first is kept, this one put aside")
