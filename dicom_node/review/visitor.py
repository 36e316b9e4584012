"""Who is asking, and what they may do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import HTTPException, Request

from dicom_node.accounts import Role
from dicom_node.audit.trail import Actor

#: see: studies and results; support: also tracebacks and conflicts; act: change what becomes of a study; send: STOW-RS.
Right = Literal["see", "support", "act", "send"]
_RIGHTS: Mapping[Role, frozenset[Right]] = {
    "reader": frozenset({"see"}),
    "admin": frozenset({"see", "support", "act"}),
    "sender": frozenset({"send"}),
}
#: Whoever sits at this machine, as long as nobody has been added as a user. Acts want a name, so these wait for one.
_LOCAL_RIGHTS: frozenset[Right] = frozenset({"see", "support", "send"})
_LOCAL_NAME = "local"


@dataclass(frozen=True)
class Visitor:
    """role: None for who is at this machine while there are no users; session: the token of the login, if any."""

    name: str
    role: Role | None
    address: str
    session: str = ""

    def may(self, right: Right) -> bool:
        return right in (_LOCAL_RIGHTS if self.role is None else _RIGHTS[self.role])

    @property
    def actor(self) -> Actor:
        return Actor(self.name, self.address)

    @property
    def form_token(self) -> str:
        """What a form of this visitor has to bring along; empty without a session."""
        return form_token(self.session) if self.session else ""


def local_visitor(address: str) -> Visitor:
    return Visitor(_LOCAL_NAME, None, address)


def visitor_of(request: Request) -> Visitor:
    """The visitor whom the gate has let in."""
    visitor: Visitor | None = request.scope.get("visitor")
    if visitor is None:  # a page that the gate does not guard asked for its visitor
        raise HTTPException(401, "log in first")
    return visitor


def form_token(secret: str) -> str:
    """A form's token, made from a cookie that no other site can read: the token shows that the form is ours."""
    return hashlib.sha256(b"marginwatch form " + secret.encode()).hexdigest()


def address_of(scope: Mapping[str, Any]) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
