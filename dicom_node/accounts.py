"""Who may look and act: users with their roles, and the sessions of those who have logged in."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import Engine, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from dicom_node.passwords import NOBODYS, check_password, hashed, matches
from dicom_node.refusal import Refused
from dicom_node.schema import SESSIONS, USERS

#: reader: sees; admin: also retries and sees what failed and why; sender: a machine that only brings instances.
Role = Literal["reader", "admin", "sender"]
ROLES: tuple[Role, ...] = get_args(Role)
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}\Z")
_TOKEN_BYTES = 32
#: A session's last use is written at most so often: a page with many pictures is one use.
_SEEN_EVERY_S = 60.0


@dataclass(frozen=True)
class User:
    name: str
    role: Role
    added_at: float


@dataclass(frozen=True)
class SessionLimits:
    """When a session ends by itself: so long after its last use, and so long after the login."""

    idle_s: float
    longest_s: float


class Accounts:
    """Users and sessions in the ledger's database. Every method is one transaction; safe between threads.

    clock: seconds since the epoch.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock

    # -- users

    def add(self, name: str, role: Role, password: str) -> None:
        """Raises `Refused` for a name that is none or is taken, and for a password that is too short."""
        if not _NAME.match(name):
            text = f'"{name}" cannot be a user\'s name: take small letters, digits and . _ - @, up to 64 of them.'
            raise Refused("bad_user_name", text)
        check_password(password)
        row = {"name": name, "role": role, "password": hashed(password), "added_at": self._clock()}
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(USERS).values(row))
        except IntegrityError:
            text = f"There is a user {name} already; change the password with: marginwatch user password {name}"
            raise Refused("user_exists", text) from None

    def remove(self, name: str) -> None:
        """The user is logged out everywhere too. Raises `Refused` ("no_such_user")."""
        with self._engine.begin() as connection:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.name == name))
            if not connection.execute(delete(USERS).where(USERS.c.name == name)).rowcount:
                raise _no_such_user(name)

    def set_password(self, name: str, password: str) -> None:
        """The user is logged out everywhere. Raises `Refused` ("no_such_user", "bad_password")."""
        check_password(password)
        kept = hashed(password)
        with self._engine.begin() as connection:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.name == name))
            if not connection.execute(update(USERS).where(USERS.c.name == name).values(password=kept)).rowcount:
                raise _no_such_user(name)

    def users(self) -> list[User]:
        query = select(USERS.c.name, USERS.c.role, USERS.c.added_at).order_by(USERS.c.name)
        with self._engine.connect() as connection:
            return [User(name, role, added_at) for name, role, added_at in connection.execute(query)]

    def exist(self) -> bool:
        """Whether there is any user."""
        with self._engine.connect() as connection:
            return bool(connection.execute(select(func.count()).select_from(USERS)).scalar())

    def verified(self, name: str, password: str) -> tuple[User, str] | None:
        """The user with this name and password, and what is kept of the password (see `still`); None otherwise, after
        the same time whether the name is known."""
        found = self._row(name)
        # Held against something in any case: an answer that comes faster would tell which names there are.
        right = matches(password, found[1] if found else NOBODYS)
        return found if right else None

    def still(self, name: str, password_kept: str) -> User | None:
        """The user, where the password kept is still this one: for who was verified a moment ago."""
        found = self._row(name)
        return found[0] if found and found[1] == password_kept else None

    def _row(self, name: str) -> tuple[User, str] | None:
        with self._engine.connect() as connection:
            row = connection.execute(select(USERS).where(USERS.c.name == name)).mappings().one_or_none()
        return None if row is None else (User(row["name"], row["role"], row["added_at"]), str(row["password"]))

    # -- sessions

    def log_in(self, user: User, limits: SessionLimits) -> str:
        """The token of a new session. Only its hash is kept, so that who reads the database cannot use it."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        now = self._clock()
        row = {"token_sha256": _digest(token), "name": user.name, "started_at": now, "seen_at": now}
        over = (SESSIONS.c.seen_at < now - limits.idle_s) | (SESSIONS.c.started_at < now - limits.longest_s)
        with self._engine.begin() as connection:
            connection.execute(delete(SESSIONS).where(over))
            connection.execute(insert(SESSIONS).values(row))
        return token

    def session_user(self, token: str, limits: SessionLimits) -> User | None:
        """Whose session this is; None where there is none or it has ended."""
        now = self._clock()
        mine = SESSIONS.c.token_sha256 == _digest(token)
        query = select(USERS.c.name, USERS.c.role, USERS.c.added_at, SESSIONS.c.seen_at).where(
            mine,
            SESSIONS.c.name == USERS.c.name,
            SESSIONS.c.seen_at >= now - limits.idle_s,
            SESSIONS.c.started_at >= now - limits.longest_s,
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        if row.seen_at < now - min(_SEEN_EVERY_S, limits.idle_s / 2):
            with self._engine.begin() as connection:
                connection.execute(update(SESSIONS).where(mine).values(seen_at=now))
        return User(row.name, row.role, row.added_at)

    def log_out(self, token: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.token_sha256 == _digest(token)))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _no_such_user(name: str) -> Refused:
    return Refused("no_such_user", f"There is no user {name}; see: marginwatch user list")
