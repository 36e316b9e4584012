"""A node in a process of its own, its assessments played by `stand_in.py`; it can kill itself at a chosen point.

made_node.py CONFIG --parts worker --sleep 0.5 [--die-at POINT]

Its clock jumps by signals (`wrong_clock.py`).
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wrong_clock  # noqa: F401  before others take `time.time` as a default

from dicom_node.back_off import BackOff
from dicom_node.child import assess_in_child
from dicom_node.claims import Claims
from dicom_node.ledger import Ledger
from dicom_node.queue import Tools
from dicom_node.send import send_files
from dicom_node.serve import Node
from dicom_node.settings import load_settings

HERE = Path(__file__).parent


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(function: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """The function, and the process dies before it does anything or after it has done something."""

    @functools.wraps(function)
    def last(*arguments: Any, **named: Any) -> Any:
        if not after:
            die()
        done = function(*arguments, **named)
        if done:
            die()
        return done

    return last


def dying_in_mid_send(files: list[Path], *arguments: Any, **named: Any) -> int:
    send_files(files[:1], *arguments, **named)
    die()
    return 1


def dying_in_mid_child(assess: Callable[..., Any]) -> Callable[..., Any]:
    def last(*arguments: Any, **named: Any) -> Any:
        def watch(child: Any) -> None:
            named["watch"](child)
            threading.Timer(0.2, die).start()

        return assess(*arguments, **{**named, "watch": watch})

    return last


#: Where a worker dies, in the order of its work.
POINTS = (
    "before claim",
    "after claim",
    "in child",
    "after child",
    "before record",
    "after record",
    "before send",
    "in send",
    "after send",
    "after sent",
)


def tools(point: str, child: tuple[str, ...]) -> Tools:
    assess: Callable[..., Any] = functools.partial(assess_in_child, command=child)
    send: Callable[..., Any] = send_files
    after = point.startswith("after")
    if point in ("before claim", "after claim"):
        Claims.claim = dying(Claims.claim, after=after)  # type: ignore[method-assign]
    elif point == "in child":
        assess = dying_in_mid_child(assess)
    elif point == "after child":
        assess = dying(assess, after=True)
    elif point in ("before record", "after record"):
        Ledger.ended = dying(Ledger.ended, after=after)  # type: ignore[method-assign]
    elif point in ("before send", "after send"):
        send = dying(send, after=after)
    elif point == "in send":
        send = dying_in_mid_send
    elif point == "after sent":
        Claims.sent = dying(Claims.sent, after=True)  # type: ignore[method-assign]
    return Tools(assess=assess, send=send, back_off=BackOff(0.2, 1.0))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--parts", default="worker")
    parser.add_argument("--sleep", default="0.5")
    parser.add_argument("--die-at", default="", choices=("", *POINTS))
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("marginwatch").setLevel(logging.INFO)
    child = (sys.executable, str(HERE / "stand_in.py"), options.sleep)
    made = tools(options.die_at, child)
    node = Node(load_settings(options.config), parts=tuple(options.parts.split(",")), tools=made)
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    node.start()
    print("started", flush=True)
    while not told.wait(0.2):
        pass
    node.stop()
    os._exit(0)


if __name__ == "__main__":
    main()
