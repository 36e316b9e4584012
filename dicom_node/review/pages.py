"""The pages: the list of studies, and a study."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from dicom_node.audit.message import StudyPart
from dicom_node.audit.trail import AuditTrail
from dicom_node.ledger import Ledger
from dicom_node.notice import NOT_FOR_DIAGNOSIS
from dicom_node.results.legend import FINDING_NAMES, percent
from dicom_node.review.visitor import visitor_of
from dicom_node.review.words import OUTCOMES, REQUESTS, STATES
from dicom_node.worklist import Entry, worklist

_TEMPLATES = Path(__file__).parent / "templates"


def renderer() -> Callable[..., Response]:
    """What makes a page: from request, template name, values and status. Every page knows its visitor."""
    templates = Jinja2Templates(directory=_TEMPLATES, context_processors=[_visitor])
    templates.env.globals.update(
        outcomes=OUTCOMES, states=STATES, requests=REQUESTS, findings=FINDING_NAMES, notice=NOT_FOR_DIAGNOSIS
    )
    templates.env.filters.update(day=_day, utc=_utc, mm=_mm, percent=percent)

    def render(request: Request, name: str, values: dict[str, Any], status: int = 200) -> Response:
        return templates.TemplateResponse(request, name, values, status_code=status)

    return render


def add_pages(
    app: FastAPI, ledger: Ledger, data_folder: Path, trail: AuditTrail, *, render: Callable[..., Response]
) -> None:
    @app.get("/", response_class=HTMLResponse)
    def list_page(request: Request) -> Response:
        return render(request, "worklist.html", {"entries": worklist(ledger)})

    @app.get("/studies/{study_instance_uid}", response_class=HTMLResponse)
    def study_page(request: Request, study_instance_uid: str) -> Response:
        entries = entries_of(ledger, study_instance_uid)
        views = [
            {"entry": entry, "images": _images(entry, data_folder), "pdf": _has_pdf(entry, data_folder)}
            | {"sends": ledger.sends(entry.record.assessment_id) if entry.record else []}
            for entry in entries
        ]
        visitor = visitor_of(request)
        conflicts = ledger.conflicts(study_instance_uid) if visitor.may("support") else []
        trail.viewed(visitor.actor, part_of(entries[0]), request.url.path)
        values = {"uid": study_instance_uid, "views": views, "conflicts": conflicts}
        return render(request, "study.html", values)


def entries_of(ledger: Ledger, study_instance_uid: str) -> list[Entry]:
    """The study, once for each plan it belongs to. Raises HTTPException 404."""
    found = [entry for entry in worklist(ledger) if entry.study.study_instance_uid == study_instance_uid]
    if not found:
        raise HTTPException(404, "no such study")
    return found


def part_of(entry: Entry) -> StudyPart:
    """The study as the audit trail names it."""
    return StudyPart(entry.study.study_instance_uid, entry.study.patient_id)


def _visitor(request: Request) -> dict[str, Any]:
    return {"visitor": request.scope.get("visitor")}


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
