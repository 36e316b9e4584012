"""The review page: studies with their verdicts, most urgent first. Reads the ledger and the result folders, no more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates

from dicom_node.ledger import Ledger
from dicom_node.notice import NOT_FOR_DIAGNOSIS
from dicom_node.results.legend import FINDING_NAMES, percent
from dicom_node.review.words import OUTCOMES, REQUESTS, STATES
from dicom_node.worklist import Entry, worklist

_HERE = Path(__file__).parent
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def create_app(ledger: Ledger, data_folder: Path, *, host: str = "127.0.0.1") -> FastAPI:
    """The web application. host: where it is served; on loopback, requests under any other name are turned away."""
    app = FastAPI(title="Marginwatch", docs_url=None, redoc_url=None, openapi_url=None)
    if host in _LOOPBACK:  # a foreign page cannot reach it by pointing its own name here
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(_LOOPBACK))
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    app.middleware("http")(_add_headers)
    _add_pages(app, ledger, data_folder)
    _add_files(app, ledger, data_folder)
    _add_interface(app, ledger)
    return app


async def _add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response


def _add_pages(app: FastAPI, ledger: Ledger, data_folder: Path) -> None:
    templates = Jinja2Templates(directory=_HERE / "templates")
    templates.env.globals.update(
        outcomes=OUTCOMES, states=STATES, requests=REQUESTS, findings=FINDING_NAMES, notice=NOT_FOR_DIAGNOSIS
    )
    templates.env.filters.update(day=_day, utc=_utc, mm=_mm, percent=percent)

    @app.get("/", response_class=HTMLResponse)
    def list_page(request: Request) -> Response:
        return templates.TemplateResponse(request, "worklist.html", {"entries": worklist(ledger)})

    @app.get("/studies/{study_instance_uid}", response_class=HTMLResponse)
    def study_page(request: Request, study_instance_uid: str) -> Response:
        views = [
            {"entry": entry, "images": _images(entry, data_folder), "pdf": _has_pdf(entry, data_folder)}
            | {"sends": ledger.sends(entry.record.assessment_id) if entry.record else []}
            for entry in _entries(ledger, study_instance_uid)
        ]
        return templates.TemplateResponse(request, "study.html", {"uid": study_instance_uid, "views": views})


def _add_files(app: FastAPI, ledger: Ledger, data_folder: Path) -> None:
    @app.get("/results/{assessment_id}/images/{name}")
    def picture(assessment_id: str, name: str) -> Response:
        folder = _result_folder(ledger, data_folder, assessment_id) / "images"
        # only a name that the folder itself lists is opened, so nothing outside it can be
        for file in folder.glob("*.png"):
            if file.name == name:
                return FileResponse(file, media_type="image/png")
        raise HTTPException(404, "no such picture")

    @app.get("/results/{assessment_id}/report.pdf")
    def report(assessment_id: str) -> Response:
        file = _result_folder(ledger, data_folder, assessment_id) / "report.pdf"
        if not file.is_file():
            raise HTTPException(404, "no such report")
        return FileResponse(file, media_type="application/pdf")


def _add_interface(app: FastAPI, ledger: Ledger) -> None:
    @app.get("/api/studies")
    def list_studies() -> list[dict[str, Any]]:
        return [entry.as_json() for entry in worklist(ledger)]

    @app.get("/api/studies/{study_instance_uid}")
    def show_study(study_instance_uid: str) -> list[dict[str, Any]]:
        """One item for each plan that the study belongs to, with the whole `assessment.json`."""
        entries = _entries(ledger, study_instance_uid)
        return [entry.as_json() | {"assessment": dict(entry.document) or None} for entry in entries]

    @app.get("/healthz")
    def health() -> dict[str, str]:
        ledger.plans()  # answers only while the database does
        return {"status": "ok"}


def _entries(ledger: Ledger, study_instance_uid: str) -> list[Entry]:
    found = [entry for entry in worklist(ledger) if entry.study.study_instance_uid == study_instance_uid]
    if not found:
        raise HTTPException(404, "no such study")
    return found


def _result_folder(ledger: Ledger, data_folder: Path, assessment_id: str) -> Path:
    try:
        return data_folder / ledger.assessment(assessment_id).folder
    except KeyError:
        raise HTTPException(404, "no such result") from None


def _images(entry: Entry, data_folder: Path) -> list[str]:
    if entry.record is None or not entry.document:
        return []
    return sorted(file.name for file in (data_folder / entry.record.folder / "images").glob("*.png"))


def _has_pdf(entry: Entry, data_folder: Path) -> bool:
    return entry.record is not None and (data_folder / entry.record.folder / "report.pdf").is_file()


def _day(yyyymmdd: str) -> str:
    return f"{yyyymmdd[:4]}-{yyyymmdd[4:6]}-{yyyymmdd[6:]}" if len(yyyymmdd) == 8 else "date unknown"


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _mm(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} mm".replace("-", "−")
