"""An association to a PACS for as long as a block lasts."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pynetdicom.presentation import PresentationContext

from dicom_node.connection import Called, connect
from dicom_node.exchange.answers import ASK_WITHIN_S, NoAnswer

#: A PACS may have to bring a study from its archive before it answers a C-FIND, C-GET or C-MOVE.
_ANSWER_WITHIN_S = 300.0


@contextmanager
def associated(
    called: Called,
    calling_ae_title: str,
    contexts: Sequence[PresentationContext],
    *,
    roles: Sequence[Any] = (),
    handlers: Sequence[tuple[Any, ...]] = (),
    within_s: float = ASK_WITHIN_S,
) -> Iterator[Any]:
    """A pynetdicom association, released at the end. Raises `NoAnswer` where there is none to be had.

    roles: of the presentation contexts, where they are not the usual ones; within_s: how long the block may take,
    after which the association is aborted.
    """
    with speaking(called.ae_title):
        association = connect(
            called, calling_ae_title, contexts, answer_within_s=_ANSWER_WITHIN_S, roles=roles, handlers=handlers
        )
    if not association.is_established:
        raise NoAnswer(f"{called.ae_title} cannot be reached at {called.host}:{called.port} or refuses the association")
    limit = threading.Timer(within_s, _end, (association,))
    limit.daemon = True
    limit.start()
    try:
        yield association
    except BaseException:
        association.abort()
        raise
    finally:
        limit.cancel()
    association.release()


@contextmanager
def speaking(peer: str = "the PACS") -> Iterator[None]:
    """Turns what pynetdicom raises into `NoAnswer`: for an association that was lost between two requests, and for
    what it cannot write or send.
    """
    try:
        yield
    except (RuntimeError, ValueError) as problem:
        raise NoAnswer(f"{peer} has left the association, or cannot be spoken to ({problem})") from problem


def _end(association: Any) -> None:
    """Abort, and wake up who waits for an answer."""
    association.abort()
    association.dimse.msg_queue.put((None, None))
