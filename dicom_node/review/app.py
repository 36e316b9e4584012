"""The web side of the node: who may come in, the pages, the files, the interface, STOW-RS. Never calls the pipeline."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicom_node.accounts import Accounts
from dicom_node.audit.trail import AuditTrail
from dicom_node.health import HealthLimits, health_of
from dicom_node.ledger import Ledger
from dicom_node.metrics import NodeMetrics
from dicom_node.review.acts import add_acts
from dicom_node.review.door import Door
from dicom_node.review.files import add_files
from dicom_node.review.gate import FOR_PROGRAMS, Gate
from dicom_node.review.interface import add_interface, add_watching
from dicom_node.review.login import add_login
from dicom_node.review.multipart import Caps
from dicom_node.review.pages import add_pages, renderer
from dicom_node.review.stow import Deposit, add_stow
from dicom_node.settings import LOOPBACK, ReviewSettings, Settings, in_url

_LOG = logging.getLogger("marginwatch.review")

_STATIC = Path(__file__).parent / "static"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # not no-referrer: with that, browsers hide the origin of our own forms too
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_ONLY_TLS = {"Strict-Transport-Security": "max-age=31536000"}


@dataclass(frozen=True)
class Connections:
    """What the web side reads and feeds.

    deposit: takes what comes by STOW-RS; None: there is none. worker_seen_s_ago: since a worker last gave a sign, None
    where nobody knows.
    """

    ledger: Ledger
    trail: AuditTrail
    deposit: Deposit | None = None
    worker_seen_s_ago: Callable[[], float | None] = lambda: None


def create_app(settings: Settings, connections: Connections) -> FastAPI:
    """The web application."""
    review, ledger, trail = settings.review, connections.ledger, connections.trail
    door = Door(Accounts(ledger.engine, clock=time.time), review, trail)
    app = FastAPI(title="Marginwatch", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.mount("/static", StaticFiles(directory=_STATIC))
    render = renderer()
    headers = _HEADERS | (_ONLY_TLS if review.is_secure else {})
    _add_problems(app, render, headers)
    add_login(app, door, trail, render=render, secure=review.is_secure)
    add_pages(app, ledger, settings.data_folder, trail, render=render)
    add_acts(app, ledger, trail)
    add_files(app, ledger, settings.data_folder, trail)
    add_interface(app, ledger, trail)
    limits = HealthLimits(settings.listener.minimum_free_bytes, settings.worker.takeover_after_s)
    add_watching(
        app,
        review,
        NodeMetrics(ledger, settings.data_folder),
        lambda: health_of(ledger, settings.data_folder, limits, connections.worker_seen_s_ago),
    )
    if connections.deposit is not None:
        most_bytes = review.stow_instance_mib * 2**20, review.stow_request_mib * 2**20
        caps = Caps(*most_bytes, settings.data_folder, settings.listener.minimum_free_bytes)
        add_stow(app, connections.deposit, trail, caps)
    # The last one added sees a request first.
    app.add_middleware(Gate, door=door, trail=trail, secure=review.is_secure)
    if names := _host_names(review):
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)
    app.add_middleware(_Headers, headers=headers)
    return app


def _add_problems(app: FastAPI, render: Callable[..., Response], headers: Mapping[str, str]) -> None:
    """Tells people what went wrong on a page, and programs in JSON."""

    def told(request: Request, text: str, status: int, more: Mapping[str, str] | None = None) -> Response:
        if request.url.path.startswith(FOR_PROGRAMS):
            return JSONResponse({"detail": text}, status, more)
        page = render(request, "problem.html", {"problem": text}, status)
        page.headers.update(more or {})
        return page

    @app.exception_handler(HTTPException)
    async def problem(request: Request, wrong: HTTPException) -> Response:
        return told(request, str(wrong.detail), wrong.status_code, wrong.headers)

    @app.exception_handler(SQLAlchemyError)
    async def database_away(request: Request, wrong: SQLAlchemyError) -> Response:
        _LOG.error("a request was not answered, the database cannot be used: %s", wrong)
        return told(request, "The database cannot be used; try again later.", 503)

    @app.exception_handler(Exception)
    async def bug(_request: Request, _wrong: Exception) -> Response:
        """Its answer does not pass the middleware below, so it brings the headers itself. It is raised again."""
        return PlainTextResponse("This did not work; the node's log says why.", 500, headers)


def _host_names(review: ReviewSettings) -> list[str]:
    """The names it may be asked for by; empty: any.

    On loopback a foreign page could else reach it by pointing its own name here.
    """
    if not review.host_names and review.host not in LOOPBACK:
        return []
    return [in_url(name) for name in (*review.host_names, *LOOPBACK)]


class _Headers:
    """ASGI middleware: the same strict headers on every answer."""

    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)
