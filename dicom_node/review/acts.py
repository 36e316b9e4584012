"""What an admin can do to a study, each by a form on its page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from anyio import to_thread
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from dicom_node.audit.trail import AuditTrail
from dicom_node.ledger import Ledger
from dicom_node.review.forms import read_form
from dicom_node.review.pages import entries_of, part_of
from dicom_node.review.visitor import visitor_of


@dataclass(frozen=True)
class Act:
    """do: acts on the assessment with this id, or on the study with this UID, False where that is not possible;
    otherwise: then says why."""

    do: Callable[[Ledger, str], bool]
    otherwise: str
    of_study: bool = False


ACTS: Mapping[str, Act] = {
    "retry": Act(
        Ledger.reopen, "this assessment has neither failed nor been called off, or is being made again already"
    ),
    "cancel": Act(Ledger.cancel, "this assessment has ended already"),
    "release": Act(Ledger.release, "this study is not held", of_study=True),
}


def add_acts(app: FastAPI, ledger: Ledger, trail: AuditTrail) -> None:
    """Adds /studies/UID/ACT for each act. The gate lets only those in who may act."""
    for name, wanted in ACTS.items():
        app.post(f"/studies/{{study_instance_uid}}/{name}")(_route(wanted, ledger, trail))


def _route(wanted: Act, ledger: Ledger, trail: AuditTrail) -> Callable[[Request, str], Awaitable[Response]]:
    async def act(request: Request, study_instance_uid: str) -> Response:
        visitor = visitor_of(request)
        form = await read_form(request, visitor.session)
        entries = await to_thread.run_sync(entries_of, ledger, study_instance_uid)
        subject = study_instance_uid if wanted.of_study else form.get("assessment_id", "")
        known = wanted.of_study or any(entry.record and entry.record.assessment_id == subject for entry in entries)
        if not known:
            raise HTTPException(404, "no such assessment of this study")
        if not await to_thread.run_sync(wanted.do, ledger, subject):
            raise HTTPException(409, wanted.otherwise)
        trail.acted(visitor.actor, part_of(entries[0]), request.url.path)
        return RedirectResponse(f"/studies/{study_instance_uid}", 303)

    return act
