"""Ctrl+C: the work is left in order and soon, with one line instead of a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: What a shell gives a program that was ended by SIGINT: 128 and the signal's number.
INTERRUPTED = 130
_SENTENCE = "marginwatch: Stopped; nothing half-done is left, start it again as you like."
#: Clears the line at work and shows the cursor, which a progress display may have hidden.
_CLEAN_LINE = "\r\x1b[K\x1b[?25h"


class Interrupted(BaseException):
    """Ctrl+C was pressed. Not a KeyboardInterrupt, which typer ends in its own way, without a word."""


@contextmanager
def ended_by_ctrl_c(*, grace_s: float = 2.0) -> Iterator[None]:
    """Ends the process with status 130 and one line when Ctrl+C is pressed in the block. For the main thread only.

    grace_s: for so long the block's own endings are waited for (files closed, a worker stopped); what still computes
    then, as the registration's threads do, is cut off. Whatever is written appears whole or not at all, so nothing is
    lost by that.
    """
    before = signal.signal(signal.SIGINT, lambda *_: _interrupt(grace_s))
    try:
        yield
    except Interrupted:
        _end()
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(grace_s: float) -> None:
    signal.signal(signal.SIGINT, _not_again)
    cut_off = threading.Timer(grace_s, _end)
    cut_off.daemon = True
    cut_off.start()
    raise Interrupted


def _not_again(_number: int, _frame: FrameType | None) -> None:
    """A second Ctrl+C, while the first one's endings run."""


def _end() -> None:
    clean = _CLEAN_LINE if sys.stderr.isatty() else ""
    os.write(sys.stderr.fileno(), f"{clean}{_SENTENCE}\n".encode())
    os._exit(INTERRUPTED)
