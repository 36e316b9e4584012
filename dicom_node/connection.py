"""An association that this node opens to a peer."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.presentation import PresentationContext

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Called:
    """The peer of an association."""

    ae_title: str
    host: str
    port: int


def connect(
    called: Called,
    calling_ae_title: str,
    contexts: Sequence[PresentationContext],
    *,
    answer_within_s: float = _TIMEOUT_S,
    roles: Sequence[Any] = (),
    handlers: Sequence[tuple[Any, ...]] = (),
) -> Any:
    """A pynetdicom association, which may not be established.

    answer_within_s: how long each message may take; roles: of the presentation contexts, where they are not the usual
    ones. Raises ValueError for a title or host that is none.
    """
    ae = AE(ae_title=calling_ae_title)
    ae.connection_timeout = ae.acse_timeout = ae.network_timeout = _TIMEOUT_S
    ae.dimse_timeout = answer_within_s
    return ae.associate(
        called.host,
        called.port,
        contexts=list(contexts),
        ae_title=called.ae_title,
        ext_neg=list(roles) or None,
        max_pdu=0,
        evt_handlers=[(evt.EVT_CONN_OPEN, _send_without_delay), *handlers],
    )


def _send_without_delay(event: Any) -> None:
    """Switch Nagle's algorithm off: with it, each small PDU waits for the peer's delayed acknowledgement."""
    connection = event.assoc.dul.socket.socket
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
