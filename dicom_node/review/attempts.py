"""How often a password may be tried: slower after each failure, by address and name; nobody locks out others."""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

#: Failures before the first wait: of one name from one address, and of all names from one address.
_FREE_FOR_NAME = 5
_FREE_FOR_ADDRESS = 50
_LONGEST_WAIT_S = 300.0
#: Without a new failure for so long, they are forgotten.
_FORGOTTEN_AFTER_S = 1800.0
_REMEMBERED_AT_MOST = 10_000


@dataclass
class _Failures:
    count: int = 0
    last: float = 0.0


class Attempts:
    """Counts failed logins. A name is never locked: the same name from another address has a count of its own.

    clock: seconds that only go forward. Safe between threads.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    def begin(self, address: str, name: str) -> float:
        """How long to wait before the next try, s; 0 where it may be made now.

        It then counts as failed until it succeeds: counted afterwards, many tries at the same time would all pass.
        """
        network = _network(address)
        with self._lock:
            now = self._clock()
            mine, all_mine = self._of((network, name)), self._of((network, ""))
            wait_s = max(_wait_s(mine, _FREE_FOR_NAME, now), _wait_s(all_mine, _FREE_FOR_ADDRESS, now))
            if wait_s > 0:
                return wait_s
            for failures in (mine, all_mine):
                failures.count += 1
                failures.last = now
            while len(self._failures) > _REMEMBERED_AT_MOST:
                self._failures.popitem(last=False)
        return 0.0

    def succeeded(self, address: str, name: str) -> None:
        network = _network(address)
        with self._lock:
            self._failures.pop((network, name), None)
            if (all_mine := self._failures.get((network, ""))) is not None:
                all_mine.count = max(0, all_mine.count - 1)

    def _of(self, key: tuple[str, str]) -> _Failures:
        failures = self._failures.setdefault(key, _Failures())
        self._failures.move_to_end(key)
        if self._clock() - failures.last > _FORGOTTEN_AFTER_S:
            failures.count = 0
        return failures


def _wait_s(failures: _Failures, free: int, now: float) -> float:
    if failures.count < free:
        return 0.0
    wait_s = min(2.0 ** min(failures.count - free, 20), _LONGEST_WAIT_S)
    return max(0.0, failures.last + wait_s - now)


def _network(address: str) -> str:
    """The address; of IPv6 the first 64 bits, which one machine has all to itself."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if ip.version == 6 and ip.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)
