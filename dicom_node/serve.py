"""The running node: listener, worker and review page, together in one process or each in its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from importlib.metadata import version
from typing import Literal

import uvicorn

from dicom_node.ledger import Ledger, open_ledger
from dicom_node.listener import Listener
from dicom_node.lock import WorkerLock
from dicom_node.queue import Tools, Worker
from dicom_node.records import ROUTED_PRIORITY
from dicom_node.refusal import Refused
from dicom_node.review.app import create_app
from dicom_node.routing import Order
from dicom_node.settings import ReviewSettings, Settings
from dicom_node.store import Store

Part = Literal["listener", "worker", "review"]
PARTS: tuple[Part, ...] = ("listener", "worker", "review")
WORKER_ONLY: tuple[Part, ...] = ("worker",)


class Node:
    """The chosen parts of a node; `start` returns when all of them answer, `stop` when none does any more."""

    def __init__(
        self,
        settings: Settings,
        *,
        parts: Collection[Part] = PARTS,
        tools: Tools | None = None,
    ) -> None:
        self.settings = settings
        self.ledger = open_ledger(settings)
        # PostgreSQL keeps several workers apart by itself; SQLite is one worker's.
        alone = not settings.database.url
        self._lock = WorkerLock(settings.data_folder) if alone else None
        self._listener: Listener | None = None
        self._worker: Worker | None = None
        self._page: _Page | None = None
        if "listener" in parts:
            free_bytes = int(settings.listener.minimum_free_gib * 2**30)
            store = Store(settings.data_folder, minimum_free_bytes=free_bytes)
            self._listener = Listener(settings.listener, store, self.ledger)
        if "worker" in parts:
            order = Order(ROUTED_PRIORITY, version("marginwatch"))
            self._worker = Worker(settings, self.ledger, order, tools, alone=alone)
        if "review" in parts:
            self._page = _Page(settings.review, self.ledger, settings)

    def start(self) -> None:
        """Raises `Refused` when a port is taken, another worker has the data folder, or the queue's database cannot be
        used; then nothing is left running.
        """
        if self._worker is not None and self._lock is not None and not self._lock.acquire():
            self.ledger.close()
            raise Refused("worker_running", f"Another worker is already running on {self.settings.data_folder}.")
        try:
            if self._page is not None:
                self._page.start()
            if self._listener is not None:
                self._listener.start()
            if self._worker is not None:
                self._worker.start()
        except Refused:
            self._worker = None  # it is the last to start, so it has not
            self.stop()
            raise

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.stop()
        if self._page is not None:
            self._page.stop()
        if self._worker is not None:
            self._worker.stop()
        if self._lock is not None:
            self._lock.release()
        self.ledger.close()


class _Page:
    """The web server in a thread of its own."""

    def __init__(self, review: ReviewSettings, ledger: Ledger, settings: Settings) -> None:
        self._review = review
        app = create_app(ledger, settings.data_folder, host=review.host)
        config = uvicorn.Config(
            app,
            host=review.host,
            port=review.port,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="review", daemon=True)

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                address = f"{self._review.host}:{self._review.port}"
                raise Refused("port_taken", f"The review page's port {address} cannot be opened; is it in use?")
            time.sleep(0.02)

    def stop(self) -> None:
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._server.run()
        except SystemExit:  # uvicorn's way to say that it could not bind
            return
