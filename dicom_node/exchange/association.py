"""An association to a PACS for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.presentation import PresentationContext

from dicom_node.exchange.answers import NoAnswer
from dicom_node.send import send_without_delay

_TIMEOUT_S = 30.0
#: A PACS may have to bring a study from its archive before it answers a C-FIND, C-GET or C-MOVE.
_ANSWER_WITHIN_S = 300.0


@dataclass(frozen=True)
class Called:
    """The peer of an association."""

    ae_title: str
    host: str
    port: int


@contextmanager
def associated(
    called: Called,
    calling_ae_title: str,
    contexts: Sequence[PresentationContext],
    *,
    roles: Sequence[Any] = (),
    handlers: Sequence[tuple[Any, ...]] = (),
) -> Iterator[Any]:
    """A pynetdicom association, released at the end. Raises `NoAnswer` where there is none to be had.

    roles: of the presentation contexts, where they are not the usual ones.
    """
    ae = AE(ae_title=calling_ae_title)
    ae.connection_timeout = ae.acse_timeout = ae.network_timeout = _TIMEOUT_S
    ae.dimse_timeout = _ANSWER_WITHIN_S
    association = ae.associate(
        called.host,
        called.port,
        contexts=list(contexts),
        ae_title=called.ae_title,
        ext_neg=list(roles) or None,
        max_pdu=0,
        evt_handlers=[(evt.EVT_CONN_OPEN, send_without_delay), *handlers],
    )
    if not association.is_established:
        raise NoAnswer(f"{called.ae_title} cannot be reached at {called.host}:{called.port} or refuses the association")
    try:
        yield association
    except BaseException:
        association.abort()
        raise
    association.release()
