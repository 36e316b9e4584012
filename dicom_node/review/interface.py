"""What programs ask: the studies as JSON, whether the node is well, its figures."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from dicom_node.audit.trail import AuditTrail
from dicom_node.health import Health
from dicom_node.ledger import Ledger
from dicom_node.metrics import CONTENT_TYPE, NodeMetrics
from dicom_node.review.pages import entries_of, part_of
from dicom_node.review.visitor import visitor_of
from dicom_node.settings import ReviewSettings
from dicom_node.worklist import worklist


def add_interface(app: FastAPI, ledger: Ledger, trail: AuditTrail) -> None:
    @app.get("/api/studies")
    def list_studies() -> list[dict[str, Any]]:
        return [entry.as_json() for entry in worklist(ledger)]

    @app.get("/api/studies/{study_instance_uid}")
    def show_study(request: Request, study_instance_uid: str) -> list[dict[str, Any]]:
        """One item for each plan that the study belongs to, with the whole `assessment.json`."""
        entries = entries_of(ledger, study_instance_uid)
        trail.viewed(visitor_of(request).actor, part_of(entries[0]), request.url.path)
        return [entry.as_json() | {"assessment": dict(entry.document) or None} for entry in entries]


def add_watching(app: FastAPI, settings: ReviewSettings, metrics: NodeMetrics, health: Callable[[], Health]) -> None:
    """Adds /healthz and /metrics, which hold no patient data."""

    @app.get("/healthz")
    def healthz() -> Response:
        found = health()
        return JSONResponse(found.as_json(), 200 if found.status == "ok" else 503)

    @app.get("/metrics")
    def figures(request: Request) -> Response:
        if not (settings.is_local or request.scope.get("visitor") or _has_token(request, settings)):
            text = "give the bearer token of review.metrics_token_file, or log in as admin"
            raise HTTPException(401, text, headers={"WWW-Authenticate": "Bearer"})
        return Response(metrics.text(), media_type=CONTENT_TYPE)


def _has_token(request: Request, settings: ReviewSettings) -> bool:
    """Whether the request brings the token of the file, which may be changed while the node runs."""
    if not settings.metrics_token_file:
        return False
    try:
        wanted = Path(settings.metrics_token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return False
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return bool(wanted) and scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), wanted.encode())
