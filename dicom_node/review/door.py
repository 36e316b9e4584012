"""Whether somebody is who they say: by password or by session, at a bounded cost."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass

import anyio
from anyio import to_thread

from dicom_node.accounts import Accounts, SessionLimits, User
from dicom_node.audit.trail import Actor, AuditTrail
from dicom_node.review.attempts import Attempts
from dicom_node.settings import ReviewSettings

#: Hashing takes a core and 32 MiB: so many at a time, and so many that may wait for it.
_HASHED_AT_ONCE = 2
_WAITING_AT_MOST = 32
_BASIC_KNOWN_AT_MOST = 256
_LONGEST_NAME = 64


@dataclass(frozen=True)
class TooOften:
    """Too many tries: come again after so long."""

    wait_s: float


class Door:
    """Checks passwords and sessions, and keeps the trail of logins."""

    def __init__(self, accounts: Accounts, settings: ReviewSettings, trail: AuditTrail) -> None:
        self.accounts = accounts
        self.limits = SessionLimits(settings.session_idle_min * 60, settings.session_hours * 3600)
        self._is_local = settings.is_local
        self._trail = trail
        self._attempts = Attempts(time.monotonic)
        self._hashing = anyio.CapacityLimiter(_HASHED_AT_ONCE)
        self._waiting = 0
        self._secret = secrets.token_bytes(32)
        self._basic: OrderedDict[bytes, tuple[str, str]] = OrderedDict()

    async def is_open(self) -> bool:
        """Whether nobody has to log in: only this machine reaches the page, and there are no users."""
        return self._is_local and not await to_thread.run_sync(self.accounts.exist)

    async def by_session(self, token: str) -> User | None:
        return await to_thread.run_sync(self.accounts.session_user, token, self.limits) if token else None

    async def by_password(self, name: str, password: str, address: str) -> User | TooOften | None:
        """The user; None for a wrong name or password."""
        found = await self._verified(name, password, address)
        return found[0] if isinstance(found, tuple) else found

    async def _verified(self, name: str, password: str, address: str) -> tuple[User, str] | TooOften | None:
        """The user and what is kept of the password, as it was when it was held against it."""
        name = name.strip().lower()[:_LONGEST_NAME]
        wait_s = self._attempts.begin(address, name)
        if wait_s == 0 and self._waiting >= _WAITING_AT_MOST:
            wait_s = 5.0
        if wait_s > 0:
            return TooOften(wait_s)
        self._waiting += 1
        try:
            found = await to_thread.run_sync(self.accounts.verified, name, password, limiter=self._hashing)
        finally:
            self._waiting -= 1
        if found is None:
            self._trail.login_failed(Actor(name, address), "the name or the password is wrong")
            return None
        self._attempts.succeeded(address, name)
        return found

    async def by_basic(self, header: str, address: str) -> User | TooOften | None:
        """The user of an HTTP Basic header. Who was verified before is known again without another slow hash."""
        digest = hmac.digest(self._secret, header.encode(), hashlib.sha256)
        if (known := self._basic.get(digest)) is not None:
            self._basic.move_to_end(digest)
            return await to_thread.run_sync(self.accounts.still, *known)
        try:
            text = base64.b64decode(header.partition(" ")[2], validate=True).decode()
        except ValueError:  # not base64, or not UTF-8
            return None
        name, _, password = text.partition(":")
        found = await self._verified(name, password, address)
        if not isinstance(found, tuple):
            return found
        user, kept = found
        self._basic[digest] = (user.name, kept)
        while len(self._basic) > _BASIC_KNOWN_AT_MOST:
            self._basic.popitem(last=False)
        self._trail.logged_in(Actor(user.name, address))
        return user
