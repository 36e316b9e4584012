"""A process's clock that jumps: by SIGUSR1 a day ahead, by SIGUSR2 a day back; the same signal again sets it right."""

from __future__ import annotations

import signal
import time

_DAY_S = 86400.0
_off_s = {signal.SIGUSR1: 0.0, signal.SIGUSR2: 0.0}
_right_time = time.time


def wrong_time() -> float:
    """Takes the place of `time.time`."""
    return _right_time() + sum(_off_s.values())


def jump(number: int, _frame: object) -> None:
    day_s = _DAY_S if number == signal.SIGUSR1 else -_DAY_S
    _off_s[signal.Signals(number)] = 0.0 if _off_s[signal.Signals(number)] else day_s


signal.signal(signal.SIGUSR1, jump)
signal.signal(signal.SIGUSR2, jump)
time.time = wrong_time
