"""Who is let in: by address, AE titles and number; counted per address, so that one peer cannot keep the others out."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from dicom_node.receive.negotiation import Rejection, Request

_MINUTE_S = 60.0
_MOST_ADDRESSES = 10_000
#: Connections that are told politely that they are too many, of all addresses and of one; more are closed unheard.
_WAITING_ROOM, _WAITING_OF_ONE = 32, 4
Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Rules:
    """networks, calling_ae_titles: empty, any; called_ae_title: empty, any. most_associations: at a time, of all peers;
    most_a_minute: begun by one address."""

    networks: tuple[Network, ...] = ()
    calling_ae_titles: tuple[str, ...] = ()
    called_ae_title: str = ""
    most_associations: int = 50
    most_a_minute: int = 600


class Gate:
    """Counts connections as they come and go; safe between threads."""

    def __init__(self, rules: Rules, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rules = rules
        self._clock = clock
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._begun: dict[str, deque[float]] = {}

    def admits(self, address: str) -> bool:
        """Whether a connection from this address is spoken to at all."""
        return not self._rules.networks or any(_plain(address) in network for network in self._rules.networks)

    def enter(self, address: str) -> Rejection | None:
        """Why a connection from this address gets no association, if so; else it counts until it leaves."""
        with self._lock:
            now = self._clock()
            if len(self._begun) > _MOST_ADDRESSES:
                self._begun = {
                    known: times for known, times in self._begun.items() if times and times[-1] > now - _MINUTE_S
                }
            begun = self._begun.setdefault(address, deque())
            while begun and begun[0] < now - _MINUTE_S:
                begun.popleft()
            if len(begun) >= self._rules.most_a_minute:
                return Rejection.CONGESTION  # and does not count, or an eager peer would never get in again
            begun.append(now)
            # The last quarter is for others.
            own_most = max(1, self._rules.most_associations * 3 // 4)
            if self._open.total() >= self._rules.most_associations or self._open[address] >= own_most:
                return Rejection.LIMIT
            self._open[address] += 1
            return None

    def wait(self, address: str) -> bool:
        """Whether one that gets no association is to be told so; then it counts as waiting until it leaves."""
        with self._lock:
            if self._waiting.total() >= _WAITING_ROOM or self._waiting[address] >= _WAITING_OF_ONE:
                return False
            self._waiting[address] += 1
            return True

    def leave(self, address: str, *, waited: bool = False) -> None:
        """A connection has ended. waited: it was one that got no association."""
        with self._lock:
            of = self._waiting if waited else self._open
            of[address] -= 1
            if not of[address]:
                del of[address]

    def refuses(self, request: Request) -> Rejection | None:
        """Why an association by these titles is refused, if so."""
        rules = self._rules
        if rules.called_ae_title and request.called_ae_title != rules.called_ae_title:
            return Rejection.CALLED_AE_TITLE
        if rules.calling_ae_titles and request.calling_ae_title not in rules.calling_ae_titles:
            return Rejection.CALLING_AE_TITLE
        return None


def _plain(address: str) -> IPv4Address | IPv6Address:
    """The address; an IPv4 one that came through an IPv6 socket as such."""
    found = ip_address(address.partition("%")[0])
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
