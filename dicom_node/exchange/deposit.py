"""Fetched instances into the store and the ledger, as the listener's intake does with those that are sent."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from uuid import uuid4

from dicom_node.durable import write_file
from dicom_node.identity import identity_of_file
from dicom_node.ledger import Ledger
from dicom_node.placing import Brought, Placing
from dicom_node.records import Identity
from dicom_node.store import Store

_LEFT_AFTER_S = 86400.0


class Keep:
    """A `Deposit` into a store and a ledger; safe between threads. folder: where instances lie until they are kept."""

    def __init__(self, store: Store, ledger: Ledger, folder: Path) -> None:
        self._store = store
        self._placing = Placing(store, ledger, is_synced=True)
        self._folder = folder
        self._lock = threading.Lock()
        for left in folder.glob("*"):  # by one that was killed; other workers may be at theirs
            with suppress(OSError):
                if left.stat().st_mtime < time.time() - _LEFT_AFTER_S:
                    left.unlink()

    def __call__(self, content: bytes, *, received_from: str) -> Identity:
        """Whose it is. Raises `Refused` ("disk_full", "broken_dataset") and OSError."""
        self._store.require_space()
        identity = identity_of_file(BytesIO(content)).identity
        file = self._folder / f"{uuid4().hex}.dcm"
        write_file(file, content)
        try:
            with self._lock:
                problems = self._placing.place([Brought(file, identity, received_from)])
        finally:
            file.unlink(missing_ok=True)
        for problem in problems.values():
            raise problem
        return identity
