"""Nobody gets past this without a right to what they ask for; what is not named here as open is closed."""

from __future__ import annotations

import logging
import math
from urllib.parse import quote, urlsplit

from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dicom_node.audit.trail import AuditTrail
from dicom_node.review.door import Door, TooOften
from dicom_node.review.visitor import Right, Visitor, address_of, local_visitor

_LOG = logging.getLogger("marginwatch.review")

_OPEN = ("/healthz", "/login", "/logout", "/metrics")
"""These ask for nothing, or (the last two) look themselves."""
_SAFE = ("GET", "HEAD")
FOR_PROGRAMS = ("/api/", "/dicom-web/")
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="Marginwatch", charset="UTF-8"'}


def session_cookie(*, secure: bool) -> str:
    """The cookie's name. A browser takes a __Host- cookie only by TLS and from this host alone."""
    return "__Host-marginwatch" if secure else "marginwatch"


def needed(method: str, path: str) -> Right | None:
    """The right that a request needs; None for what is open to all."""
    if path in _OPEN or path.startswith("/static/"):
        return None
    if path.startswith("/dicom-web/"):
        return "send"
    return "see" if method in _SAFE else "act"


class Gate:
    """ASGI middleware: finds out who asks and turns away who may not. What it lets in has `scope["visitor"]`."""

    def __init__(self, app: ASGIApp, door: Door, trail: AuditTrail, *, secure: bool) -> None:
        self._app = app
        self._door = door
        self._trail = trail
        self._cookie = session_cookie(secure=secure)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no websockets here
            return
        try:
            refusal = await self._refusal(scope)
        except SQLAlchemyError as problem:
            _LOG.error("nobody can be let in, the database cannot be used: %s", problem)
            refusal = PlainTextResponse("The database cannot be used; try again later.", 503)
        await (refusal or self._app)(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Response | None:
        """The answer to who is turned away; None for who is let in."""
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        right = needed(method, path)
        is_ours = method in _SAFE or not is_foreign(headers)
        if right is None:
            if path == "/metrics":
                scope["visitor"] = await self._admin(scope, headers)
            return None if is_ours else PlainTextResponse("Requests from other pages are refused.", 403)
        visitor = await self._visitor(scope, headers)
        if isinstance(visitor, TooOften):
            return too_often(visitor)
        if visitor is None:
            return _log_in_first(method, path)
        if not is_ours:
            self._trail.turned_away(visitor.actor, path, "the request came from a foreign page")
            return PlainTextResponse("Requests from other pages are refused.", 403)
        if not visitor.may(right):
            if visitor.role is None:
                return PlainTextResponse(
                    "Acts want a name: add a user with marginwatch user add NAME --role admin, and log in.", 403
                )
            self._trail.turned_away(visitor.actor, path, f"the role {visitor.role} does not allow it")
            return PlainTextResponse(f"Your role ({visitor.role}) does not allow this.", 403)
        scope["visitor"] = visitor
        return None

    async def _visitor(self, scope: Scope, headers: Headers) -> Visitor | TooOften | None:
        address = address_of(scope)
        if await self._door.is_open():
            return local_visitor(address)
        token = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        # A session may not send: a form of another page could, with the cookie that the browser adds by itself.
        if (user := await self._door.by_session(token)) is not None:
            return Visitor(user.name, user.role, address, token)
        if (header := headers.get("authorization", "")).lower().startswith("basic "):
            known = await self._door.by_basic(header, address)
            return known if known is None or isinstance(known, TooOften) else Visitor(known.name, known.role, address)
        return None

    async def _admin(self, scope: Scope, headers: Headers) -> Visitor | None:
        """The visitor, where an admin; looked up only where something could show it."""
        if "cookie" not in headers and not headers.get("authorization", "").lower().startswith("basic "):
            return None
        visitor = await self._visitor(scope, headers)
        return visitor if isinstance(visitor, Visitor) and visitor.role == "admin" else None


def is_foreign(headers: Headers) -> bool:
    """Whether a browser sends this on behalf of another site's page. Programs that are no browser say neither."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


def too_often(answer: TooOften) -> Response:
    wait_s = math.ceil(answer.wait_s)
    text = f"Too many attempts; wait {wait_s} s and try again."
    return PlainTextResponse(text, 429, headers={"Retry-After": str(wait_s)})


def _log_in_first(method: str, path: str) -> Response:
    if path.startswith(FOR_PROGRAMS):
        return PlainTextResponse("Name and password are needed.", 401, headers=_CHALLENGE)
    if method in _SAFE:
        return RedirectResponse(f"/login?next={quote(path, safe='/')}", 303)
    return PlainTextResponse("Log in first.", 401)
