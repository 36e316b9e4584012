"""The DICOM listener: accepts connections, gives each association a thread, and ends those that take too long."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network

from dicom_node.connection import Called
from dicom_node.exchange.commitment import CommitmentReports
from dicom_node.ledger import Ledger
from dicom_node.receive.association import Association, Limits, Reply, Tally
from dicom_node.receive.callbacks import Callbacks
from dicom_node.receive.commitment import CLASS_CONFLICT, NO_SUCH_INSTANCE, Commitment, Reference
from dicom_node.receive.gate import Gate, Rules
from dicom_node.receive.inbox import Inbox
from dicom_node.receive.intake import Intake
from dicom_node.receive.negotiation import Rejection
from dicom_node.receive.pdu import Connection
from dicom_node.receive.reception import Reception
from dicom_node.refusal import Refused
from dicom_node.settings import ListenerSettings
from dicom_node.store import Store
from dicom_node.tls import listener_tls

_LOG = logging.getLogger("marginwatch.listener")

_WATCH_EVERY_S = 1.0
_BACKLOG = 128
_STOP_WITHIN_S = 5.0


@dataclass(frozen=True)
class Visit:
    """An association that has ended: who it was and what it brought."""

    address: str
    tally: Tally


class Listener:
    """A node's C-ECHO, C-STORE and storage commitment provider, for every storage class and transfer syntax.

    peers: those whose address is known, by AE title; a report on storage commitment goes to them by an association of
    its own.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        store: Store,
        ledger: Ledger,
        inbox: Inbox,
        *,
        ended: Callable[[Visit], None] = lambda _visit: None,
        peers: Mapping[str, Called] = {},
    ) -> None:
        self._settings = settings
        self._store = store
        self._ledger = ledger
        self._ended = ended
        self._inbox = inbox
        self._intake = Intake(inbox, store, ledger)
        self._callbacks = Callbacks(peers, ae_title=settings.ae_title)
        self._gate = Gate(_rules(settings))
        self._limits = Limits(
            idle_s=settings.idle_s,
            max_pdu_bytes=settings.max_pdu_bytes,
        )
        self._reception = Reception(
            self._gate,
            inbox,
            self._intake,
            Commitment(self._missing, CommitmentReports(ledger), calls_back=self._callbacks.takes),
            require_space=store.require_space,
            max_instance_bytes=int(settings.max_instance_gib * 2**30),
        )
        self._tls = listener_tls(settings.tls)
        self._socket: socket.socket | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._served: dict[socket.socket, Association | None] = {}
        self._threads = [
            threading.Thread(target=self._accept, name="listener", daemon=True),
            threading.Thread(target=self._watch, name="listener watch", daemon=True),
        ]

    def start(self) -> None:
        """Listen from now on. Raises `Refused` when the port is taken, or another listener has the data folder."""
        address = (self._settings.host, self._settings.port)
        try:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            self._socket = socket.create_server(address, family=family, backlog=_BACKLOG)
        except OSError as problem:
            text = f"The DICOM port {address[0]}:{address[1]} cannot be opened: {problem.strerror}."
            raise Refused("port_taken", text) from None
        if not self._inbox.acquire():
            self._socket.close()
            self._socket = None
            raise Refused("listener_running", "Another listener is already running on this data folder.")
        self._intake.start()
        self._callbacks.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        if self._socket is None:
            return
        self._stopping.set()
        _shut(self._socket)
        with self._lock:
            open_now = list(self._served)
        for peer in open_now:
            _shut(peer)
        deadline = time.monotonic() + _STOP_WITHIN_S
        while self._served and time.monotonic() < deadline:
            time.sleep(0.01)
        self._threads[0].join(_STOP_WITHIN_S)
        self._socket.close()
        self._intake.stop()
        self._callbacks.stop()
        self._inbox.release()
        self._socket = None

    def deposit(self, content: bytes, *, source: str = "", study_instance_uid: str = "") -> Reply:
        """Keep an instance that came in another way than by C-STORE (`Reception.deposit`)."""
        return self._reception.deposit(content, source=source, study_instance_uid=study_instance_uid)

    def settle(self, within_s: float) -> bool:
        """Whether all that was answered with success until now is in store and ledger, waited for if need be."""
        return self._intake.settle(within_s)

    # -- connections

    def _accept(self) -> None:
        assert self._socket is not None
        while not self._stopping.is_set():
            try:
                peer, address = self._socket.accept()
            except OSError as problem:
                if not self._stopping.is_set():  # e.g. no more descriptors: what is open will end
                    _LOG.warning("a connection could not be accepted: %s", problem.strerror)
                    time.sleep(0.1)
                continue
            self._let_in(peer, address[0])

    def _let_in(self, peer: socket.socket, address: str) -> None:
        if not self._gate.admits(address):
            peer.close()
            return
        rejection = self._gate.enter(address)
        if rejection is not None and not self._gate.wait(address):
            peer.close()
            return
        with self._lock:
            self._served[peer] = None
        try:
            threading.Thread(
                target=self._serve, args=(peer, address, rejection), name="association", daemon=True
            ).start()
        except RuntimeError as problem:  # the system has no thread to give; what is open will end
            _LOG.warning("a connection could not be served: %s", problem)
            self._forget(peer, address, rejection)
            peer.close()

    def _forget(self, peer: socket.socket, address: str, rejection: Rejection | None) -> None:
        self._gate.leave(address, waited=rejection is not None)
        with self._lock:
            self._served.pop(peer, None)  # the same socket by TLS has been forgotten already

    def _serve(self, peer: socket.socket, address: str, rejection: Rejection | None) -> None:
        tally = Tally()
        try:
            with self._spoken_to(peer) as stream:
                connection = Connection(stream, max_pdu_bytes=self._limits.max_pdu_bytes)
                association = Association(connection, self._reception, self._limits, rejection=rejection)
                tally = association.tally
                with self._lock:
                    self._served[stream] = association
                    if self._stopping.is_set():
                        return
                association.serve()
        except OSError as problem:  # SSLError too
            _LOG.warning("a connection from %s could not be made: %s", address, problem)
        except Exception:  # noqa: BLE001  one association must not end the listener
            _LOG.exception("an association failed")
        finally:
            self._forget(peer, address, rejection)
        if tally.request is not None:
            _LOG.info("association with %s (%s): %s", tally.request.calling_ae_title, address, tally.ended)
        self._ended(Visit(address, tally))

    @contextmanager
    def _spoken_to(self, peer: socket.socket) -> Iterator[socket.socket]:
        """The connection, by TLS where that is on; closed at the end. Raises OSError."""
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            with peer:
                yield peer
            return
        peer.settimeout(self._limits.request_s)
        with self._tls.wrap_socket(peer, server_side=True) as stream:
            stream.settimeout(None)
            with self._lock:
                self._served[stream] = self._served.pop(peer, None)
            try:
                yield stream
            finally:
                with self._lock:
                    self._served.pop(stream, None)

    def _watch(self) -> None:
        """Closes connections on which a peer takes too long: their threads then see them as broken off."""
        while not self._stopping.wait(_WATCH_EVERY_S):
            now = time.monotonic()
            with self._lock:
                late = [peer for peer, association in self._served.items() if association and association.due < now]
            for peer in late:
                _LOG.warning("an association took too long and was ended")
                _shut(peer)

    # -- storage commitment

    def _missing(self, wanted: Sequence[Reference]) -> Mapping[Reference, int]:
        """Those that do not lie whole on the disk, with the Failure Reason."""
        self._intake.settle()
        known = {x.sop_instance_uid: x for x in self._ledger.known([r.sop_instance_uid for r in wanted])}
        found: dict[Reference, int] = {}
        for reference in wanted:
            instance = known.get(reference.sop_instance_uid)
            if instance is None or self._store.sha256(instance.path) != instance.sha256:
                found[reference] = NO_SUCH_INSTANCE
            elif instance.sop_class_uid != reference.sop_class_uid:
                found[reference] = CLASS_CONFLICT
        return found


def _rules(settings: ListenerSettings) -> Rules:
    return Rules(
        networks=tuple(ip_network(text) for text in settings.allowed_addresses),
        calling_ae_titles=settings.calling_ae_titles,
        called_ae_title=settings.ae_title if settings.check_called_ae_title else "",
        most_associations=settings.max_associations,
        most_a_minute=settings.associations_a_minute,
    )


def _shut(peer: socket.socket) -> None:
    """End a connection under the thread that reads from it."""
    try:
        socket.socket.shutdown(peer, socket.SHUT_RDWR)  # SSLSocket's own would go on in clear
    except (OSError, ValueError):
        return
