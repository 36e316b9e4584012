"""The files of a result: pictures and the report."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse

from dicom_node.audit.message import StudyPart
from dicom_node.audit.trail import AuditTrail
from dicom_node.ledger import Ledger
from dicom_node.records import AssessmentRecord
from dicom_node.review.visitor import visitor_of


def add_files(app: FastAPI, ledger: Ledger, data_folder: Path, trail: AuditTrail) -> None:
    def shown(request: Request, record: AssessmentRecord) -> None:
        part = StudyPart(record.study_instance_uid, ledger.patient_id(record.study_instance_uid))
        trail.viewed(visitor_of(request).actor, part, request.url.path)

    @app.get("/results/{assessment_id}/images/{name}")
    def picture(request: Request, assessment_id: str, name: str) -> Response:
        record = _record(ledger, assessment_id)
        # only a name that the folder itself lists is opened, so nothing outside it can be
        for file in (data_folder / record.folder / "images").glob("*.png"):
            if file.name == name:
                shown(request, record)
                return FileResponse(file, media_type="image/png")
        raise HTTPException(404, "no such picture")

    @app.get("/results/{assessment_id}/report.pdf")
    def report(request: Request, assessment_id: str) -> Response:
        record = _record(ledger, assessment_id)
        file = data_folder / record.folder / "report.pdf"
        if not file.is_file():
            raise HTTPException(404, "no such report")
        shown(request, record)
        return FileResponse(file, media_type="application/pdf")


def _record(ledger: Ledger, assessment_id: str) -> AssessmentRecord:
    try:
        return ledger.assessment(assessment_id)
    except KeyError:
        raise HTTPException(404, "no such result") from None
