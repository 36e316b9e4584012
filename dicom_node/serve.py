"""The running node: listener, worker and review page, together in one process or each in its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Literal

import uvicorn

from dicom_node.accounts import Accounts
from dicom_node.audit.message import StudyPart
from dicom_node.audit.trail import Actor, AuditTrail
from dicom_node.connection import Called
from dicom_node.health import WorkerSigns
from dicom_node.ledger import Ledger, open_ledger
from dicom_node.lock import WorkerLock
from dicom_node.peers import Pacs
from dicom_node.queue import Tools, Worker
from dicom_node.receive.inbox import Inbox
from dicom_node.receive.listener import Listener, Visit
from dicom_node.records import ROUTED_PRIORITY, Send
from dicom_node.refusal import Refused
from dicom_node.review.app import Connections, create_app
from dicom_node.routing import Order
from dicom_node.settings import LOOPBACK, Destination, Settings
from dicom_node.store import Store
from dicom_node.tls import review_tls

_LOG = logging.getLogger("marginwatch.serve")

#: In place of the AE title that a sender by STOW-RS does not have.
_BY_STOW = "STOW-RS"
#: A request that is still running at the stop is broken off after so long: worker and audit trail wait for it.
_STOP_WITHIN_S = 5

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
        self.trail = AuditTrail(settings.data_folder, settings.audit, clock=time.time)
        self._parts = parts
        self._has_started = False
        # PostgreSQL keeps several workers apart by itself; SQLite is one worker's.
        alone = not settings.database.url
        self._lock = WorkerLock(settings.data_folder) if alone else None
        self._listener: Listener | None = None
        self._worker: Worker | None = None
        self._page: _Page | None = None
        if "listener" in parts:
            store = Store(settings.data_folder, minimum_free_bytes=settings.listener.minimum_free_bytes)
            inbox = Inbox(settings.data_folder / "inbox", durable=settings.listener.durability == "answer")
            known: list[Pacs | Destination] = [*settings.pacs, *settings.send]
            peers = {peer.ae_title: Called(peer.ae_title, peer.host, peer.port) for peer in known if peer.host}
            self._listener = Listener(settings.listener, store, self.ledger, inbox, ended=self._visited, peers=peers)
        if "worker" in parts:
            order = Order(ROUTED_PRIORITY, version("marginwatch"))
            audited = replace(tools or Tools(), told=self._told, brought=self._brought)
            self._worker = Worker(settings, self.ledger, order, audited, alone=alone)
        if "review" in parts:
            # What comes by STOW-RS goes the listener's way, so it needs one in this process.
            deposit = None if self._listener is None else partial(self._listener.deposit, source=_BY_STOW)
            worker = self._worker or WorkerSigns(self.ledger)
            connections = Connections(self.ledger, self.trail, deposit, worker.seen_s_ago)
            self._page = _Page(settings, connections)

    def start(self) -> None:
        """Raises `Refused` when a port is taken, another worker has the data folder, the queue's database cannot be
        used, or nobody could log in to a page that is served to others; then nothing is left running.
        """
        if self._worker is not None and self._lock is not None and not self._lock.acquire():
            self.trail.close()
            self.ledger.close()
            raise Refused("worker_running", f"Another worker is already running on {self.settings.data_folder}.")
        try:
            if self._page is not None:
                require_users(self.settings, self.ledger)
            # Before the page: what comes by STOW-RS lies in the inbox, which the listener tidies up at its start.
            if self._listener is not None:
                self._listener.start()
            if self._page is not None:
                self._page.start()
            if self._worker is not None:
                self._worker.start()
        except Refused:
            self._worker = None  # it is the last to start, so it has not
            self.stop()
            raise
        self._has_started = True
        self.trail.started(self._parts)

    def settle(self, within_s: float = 10.0) -> None:
        """Wait until what has been received is in the ledger, no longer than stated."""
        if self._listener is not None:
            self._listener.settle(within_s)

    def _told(self, destination: Destination, owed: Send, problem: str) -> None:
        """Record in the audit trail that results were sent, or were not."""
        record = self.ledger.assessment(owed.assessment_id)
        part = StudyPart(record.study_instance_uid, self.ledger.patient_id(record.study_instance_uid))
        actor = Actor(destination.ae_title, destination.dicomweb_url or f"{destination.host}:{destination.port}")
        self.trail.sent(actor, self.settings.listener.ae_title, [part], problem=problem)

    def _brought(self, pacs: Pacs, part: StudyPart) -> None:
        """Record in the audit trail what was fetched of a study."""
        sender = Actor(pacs.ae_title, pacs.dicomweb_url or pacs.host)
        self.trail.received(sender, self.settings.listener.ae_title, [part])

    def _visited(self, visit: Visit) -> None:
        """Record in the audit trail what an association brought."""
        tally = visit.tally
        if tally.request is None:
            return
        sender = Actor(tally.request.calling_ae_title, visit.address)
        parts = [StudyPart(study, patient, kept) for (study, patient), kept in tally.kept.items()]
        self.trail.received(sender, self.settings.listener.ae_title, parts, failed=tally.refused)

    def stop(self) -> None:
        if self._page is not None:
            self._page.stop()
        if self._listener is not None:
            self._listener.stop()
        if self._worker is not None:
            self._worker.stop()
        if self._has_started:
            self.trail.stopped(self._parts)
        self.trail.close()
        if self._lock is not None:
            self._lock.release()
        self.ledger.close()


def require_users(settings: Settings, ledger: Ledger) -> None:
    """Raises `Refused` ("no_users") for a page that others can reach while nobody could log in."""
    review = settings.review
    if not review.is_local and not Accounts(ledger.engine, clock=time.time).exist():
        text = f"The review page on {review.host} is not for this machine alone, and nobody can log in yet; add a user "
        text += "first: marginwatch user add NAME --role admin, with the same --config."
        raise Refused("no_users", text)
    if not review.is_local and not review.is_secure:
        _LOG.warning("the review page is served to others without TLS: passwords can be read on the way")


class _Page:
    """The web server in a thread of its own."""

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._review = review = settings.review
        config = uvicorn.Config(
            create_app(settings, connections),
            host=review.host,
            port=review.port,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=_STOP_WITHIN_S,
            # What a client says of its own address is believed only where a proxy is known to say it.
            proxy_headers=review.behind_proxy,
            forwarded_allow_ips=list(LOOPBACK),
            ssl_certfile=review.tls_certificate or None,
            ssl_keyfile=review.tls_key or None,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="review", daemon=True)

    def start(self) -> None:
        review_tls(self._review)  # the server itself would only die of files that cannot be used
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
