"""The DICOM listener: answers C-ECHO, stores what C-STORE brings as it came, and decodes nothing but who it is."""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
from typing import Any

from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.identity import read_identity
from dicom_node.ledger import Ledger
from dicom_node.records import Arrival, Identity
from dicom_node.refusal import Refused
from dicom_node.send import send_without_delay
from dicom_node.settings import ListenerSettings
from dicom_node.store import Store

_LOG = logging.getLogger("marginwatch.listener")

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
_MAX_ASSOCIATIONS = 25
_LOCKS = 64


class Listener:
    """A C-ECHO and C-STORE provider for every storage class and transfer syntax."""

    def __init__(self, settings: ListenerSettings, store: Store, ledger: Ledger) -> None:
        self._settings = settings
        self._store = store
        self._ledger = ledger
        self._server: Any = None
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def start(self) -> None:
        """Listen from now on. Raises `Refused` when the port is taken."""
        ae = AE(ae_title=self._settings.ae_title)
        ae.maximum_pdu_size = self._settings.max_pdu_bytes
        ae.maximum_associations = _MAX_ASSOCIATIONS
        ae.require_calling_aet = list(self._settings.calling_ae_titles)
        ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, AllTransferSyntaxes)
        address = (self._settings.host, self._settings.port)
        handlers = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_CONN_OPEN, send_without_delay),
            (evt.EVT_PDU_RECV, _acknowledge_at_once),
        ]
        try:
            self._server = ae.start_server(address, block=False, evt_handlers=handlers)
        except OSError as problem:
            text = f"The DICOM port {address[0]}:{address[1]} cannot be opened: {problem.strerror}."
            raise Refused("port_taken", text) from None

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _on_store(self, event: Any) -> int:
        """The status of one C-STORE; pynetdicom answers 0xC211 should this raise."""
        syntax = event.context.transfer_syntax
        encoded: bytes = event.request.DataSet.getvalue()
        try:
            self._store.require_space()
            identity = read_identity(encoded, syntax)
            if identity.sop_instance_uid != event.request.AffectedSOPInstanceUID:
                raise Refused("other_uid", "The dataset is not the instance that was announced.")
            digest = hashlib.sha256(encoded).hexdigest()
            content = event.encoded_dataset(include_meta=True)
            with self._locks[
                hash(identity.sop_instance_uid) % _LOCKS
            ]:  # two senders may bring the same instance at once
                self._keep(identity, content, digest)
        except Refused as refused:
            _LOG.warning("an instance was not stored: %s", refused.text)
            return OUT_OF_RESOURCES if refused.code == "disk_full" else CANNOT_UNDERSTAND
        except OSError as problem:
            _LOG.error("an instance was not stored: the data folder cannot be used: %s", problem.strerror)
            return OUT_OF_RESOURCES
        except SQLAlchemyError as problem:  # the sender may come again; 0xC211 would tell it not to
            _LOG.error("an instance was not stored: the database cannot be used: %s", problem)
            return OUT_OF_RESOURCES
        return SUCCESS

    def _keep(self, identity: Identity, content: bytes, digest: str) -> None:
        """Store a new instance, or one whose stored file is lost or damaged; other content is stored apart."""
        known = self._ledger.instance(identity.sop_instance_uid)
        if known is None:
            path = self._store.put(identity, content)
            self._ledger.arrived(identity, path, sha256=digest)
            return
        stored = self._store.sha256(known.path)
        if stored == digest:
            return
        if stored is None or known.sha256 == digest:
            self._ledger.replaced(Arrival(identity, self._store.put(identity, content), digest))
            _LOG.warning("a stored instance was lost or damaged; it came again and is whole now")
        else:
            self._ledger.conflict(identity, self._store.put_aside(identity, content, digest), sha256=digest)
            _LOG.warning("an instance came again with other content; the first is kept, this one put aside")


def _acknowledge_at_once(event: Any) -> None:
    """Re-arm TCP_QUICKACK, which the kernel drops again and again: senders with Nagle on are many times slower else."""
    connection = event.assoc.dul.socket.socket
    if connection is not None and hasattr(socket, "TCP_QUICKACK"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
