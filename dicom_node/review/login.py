"""Logging in and out."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dicom_node.audit.trail import Actor, AuditTrail
from dicom_node.review.door import Door, TooOften
from dicom_node.review.forms import read_form
from dicom_node.review.gate import session_cookie, too_often
from dicom_node.review.visitor import address_of, form_token

#: Only our own pages are gone to after a login; an address from outside must not choose another.
_NEXT = re.compile(r"/(studies/[0-9A-Za-z._-]{1,64})?\Z")
_FORM_COOKIE = "marginwatch-form"
_WRONG = "Name or password is wrong."
_SENDER = "This user may only send images, not look at them."

Render = Callable[..., Response]


def add_login(app: FastAPI, door: Door, trail: AuditTrail, *, render: Render, secure: bool) -> None:
    """Adds the pages. render: makes a page from request, template name, values and status."""
    cookie = session_cookie(secure=secure)
    form_cookie = f"__Host-{_FORM_COOKIE}" if secure else _FORM_COOKIE

    def login_form(request: Request, where: str, problem: str = "", status: int = 200) -> Response:
        secret = request.cookies.get(form_cookie) or secrets.token_urlsafe(32)
        values = {"where": where, "problem": problem, "token": form_token(secret)}
        response = render(request, "login.html", values, status)
        _set_cookie(response, form_cookie, secret, secure=secure)
        return response

    @app.get("/login", response_class=HTMLResponse)
    async def login_page(request: Request) -> Response:
        if await door.is_open():
            return RedirectResponse("/", 303)
        return login_form(request, _own_page(request.query_params.get("next", "/")))

    @app.post("/login", response_class=HTMLResponse)
    async def log_in(request: Request) -> Response:
        form = await read_form(request, request.cookies.get(form_cookie, ""))
        where = _own_page(form.get("next", "/"))
        address = address_of(request.scope)
        user = await door.by_password(form.get("name", ""), form.get("password", ""), address)
        if isinstance(user, TooOften):
            return too_often(user)
        if user is None:
            return login_form(request, where, _WRONG, 401)
        if user.role == "sender":
            trail.login_failed(Actor(user.name, address), "a sender does not log in")
            return login_form(request, where, _SENDER, 403)
        # A session that the browser brought along ends here; the new one has a token that nobody could have planted.
        await to_thread.run_sync(door.accounts.log_out, request.cookies.get(cookie, ""))
        token = await to_thread.run_sync(door.accounts.log_in, user, door.limits)
        trail.logged_in(Actor(user.name, address))
        response = RedirectResponse(where, 303)
        _set_cookie(response, cookie, token, secure=secure)
        response.delete_cookie(form_cookie, secure=secure, httponly=True, samesite="strict")
        return response

    @app.post("/logout")
    async def log_out(request: Request) -> Response:
        token = request.cookies.get(cookie, "")
        user = await door.by_session(token)
        if user is not None:
            await read_form(request, token)
            await to_thread.run_sync(door.accounts.log_out, token)
            trail.logged_out(Actor(user.name, address_of(request.scope)))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(cookie, secure=secure, httponly=True, samesite="strict")
        return response


def _set_cookie(response: Response, name: str, value: str, *, secure: bool) -> None:
    """A cookie that no script reads, that no other site's page sends, and that ends with the browser."""
    response.set_cookie(name, value, path="/", secure=secure, httponly=True, samesite="strict")


def _own_page(path: str) -> str:
    return path if _NEXT.match(path) else "/"
