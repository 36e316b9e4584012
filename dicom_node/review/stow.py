"""STOW-RS (PS3.18 10.5): instances that come by HTTP go where those go that come by C-STORE."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol
from xml.etree import ElementTree as ET

import anyio
from anyio import to_thread
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from starlette.requests import ClientDisconnect

from dicom_node.audit.message import StudyPart
from dicom_node.audit.trail import AuditTrail
from dicom_node.logs import about
from dicom_node.multipart import Malformed, boundary_of
from dicom_node.records import Identity
from dicom_node.review.multipart import Caps, Part, TooLarge, read_parts
from dicom_node.review.visitor import visitor_of

_LOG = logging.getLogger("marginwatch.review")

_DICOM = "application/dicom"
_JSON, _XML = "application/dicom+json", "application/dicom+xml"
_ANSWERS = {"*/*": _JSON, "application/*": _JSON, "application/json": _JSON, _JSON: _JSON, _XML: _XML}
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_WARNINGS = range(0xB000, 0xC000)
_CANNOT_UNDERSTAND = 0xC000
_REQUESTS_AT_ONCE = 8
_STORED_AT_ONCE = 2
_COME_AGAIN = {"Retry-After": "30"}


class Reply(Protocol):
    """status: of C-STORE; identity: the instance's, as far as it could be read."""

    @property
    def status(self) -> int: ...
    @property
    def identity(self) -> Identity | None: ...


class Deposit(Protocol):
    """Stores one instance, a whole DICOM file; one of another study than the named one, if any, fails with A900."""

    def __call__(self, content: bytes, *, study_instance_uid: str) -> Reply: ...


@dataclass(frozen=True)
class Outcome:
    """What became of one part; see `Reply`."""

    status: int
    identity: Identity | None = None

    @property
    def is_stored(self) -> bool:
        return self.status == 0 or self.status in _WARNINGS


def add_stow(app: FastAPI, deposit: Deposit, trail: AuditTrail, caps: Caps) -> None:
    storing = anyio.CapacityLimiter(_STORED_AT_ONCE)
    numbers = itertools.count()
    at_work: set[int] = set()

    async def store(request: Request, study_instance_uid: str) -> Response:
        answer_type, boundary = _check_head(request, caps)
        if len(at_work) >= _REQUESTS_AT_ONCE:
            raise HTTPException(503, "too many requests at the same time; come again", headers=_COME_AGAIN)
        at_work.add(number := next(numbers))
        outcomes: list[Outcome] = []
        broken_off: str | None = None
        too_large = False
        try:
            async with aclosing(read_parts(request.stream(), boundary, caps)) as parts:
                async for part in parts:
                    too_large = too_large or part.is_too_large
                    outcome = await to_thread.run_sync(_stored, deposit, part, study_instance_uid, limiter=storing)
                    outcomes.append(outcome)
        except Malformed as problem:
            broken_off = str(problem)
        except TooLarge:
            too_large, broken_off = True, "The request is too large."
        except ClientDisconnect:
            broken_off = "The request was broken off."
        finally:  # also of what was stored before a fault, or before the node was stopped
            at_work.discard(number)
            _record(request, trail, outcomes)
        if broken_off is not None:
            outcomes.append(Outcome(_CANNOT_UNDERSTAND))
        return _answer(outcomes, answer_type, too_large=too_large, broken_off=broken_off)

    @app.post("/dicom-web/studies")
    async def store_any(request: Request) -> Response:
        return await store(request, "")

    @app.post("/dicom-web/studies/{study_instance_uid}")
    async def store_one_study(request: Request, study_instance_uid: str) -> Response:
        return await store(request, study_instance_uid)


def _check_head(request: Request, caps: Caps) -> tuple[str, bytes]:
    """The type of the answer and the boundary. Raises HTTPException for what is not taken, before it is read."""
    wanted = request.headers.get("accept", "*/*")
    known = [_ANSWERS.get(item.partition(";")[0].strip().lower()) for item in wanted.split(",")]
    answer_type = next((found for found in known if found is not None), None)
    if answer_type is None:
        raise HTTPException(406, f"the answer comes as {_JSON} or {_XML}")
    try:
        media_type, part_type, boundary = boundary_of(request.headers.get("content-type", ""))
    except Malformed as problem:
        raise HTTPException(415, f'send multipart/related; type="{_DICOM}". {problem}') from None
    if media_type != "multipart/related" or part_type not in ("", _DICOM):
        raise HTTPException(415, f'send multipart/related; type="{_DICOM}"')
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > caps.body_bytes:
        raise HTTPException(413, f"send at most {caps.body_bytes >> 20} MiB in one request")
    return answer_type, boundary


def _stored(deposit: Deposit, part: Part, study_instance_uid: str) -> Outcome:
    """What became of one part."""
    with about(study_instance_uid=study_instance_uid, step="store"):
        if part.content_type not in ("", _DICOM):
            return Outcome(_CANNOT_UNDERSTAND)
        try:
            content = part.content()
            if content is None:
                return Outcome(_OUT_OF_RESOURCES[0])
            reply = deposit(content, study_instance_uid=study_instance_uid)
        except OSError as problem:
            _LOG.error("an instance was not stored: the data folder cannot be used: %s", problem.strerror)
            return Outcome(_OUT_OF_RESOURCES[0])
        return Outcome(reply.status, reply.identity)


def _record(request: Request, trail: AuditTrail, outcomes: Sequence[Outcome]) -> None:
    """A message in the audit trail for each study, and one for what could not be read."""
    stored: dict[tuple[str, str], Counter[str]] = {}
    failed: Counter[tuple[str, str]] = Counter()
    unknown = 0
    for outcome in outcomes:
        if (identity := outcome.identity) is None:
            unknown += not outcome.is_stored
            continue
        key = (identity.study_instance_uid, identity.patient_id)
        counts = stored.setdefault(key, Counter())
        if outcome.is_stored:
            counts[identity.sop_class_uid] += 1
        else:
            failed[key] += 1
    parts = [StudyPart(*key, counts, failed[key]) for key, counts in stored.items()]
    trail.received(visitor_of(request).actor, request.url.path, parts, failed=unknown)


def _answer(outcomes: Sequence[Outcome], answer_type: str, *, too_large: bool, broken_off: str | None) -> Response:
    """The response of PS3.18 10.5.3: what was stored and what was not, and why."""
    stored = [outcome for outcome in outcomes if outcome.is_stored]
    status, headers = 202, {}
    if not stored and (too_large or broken_off):
        status = 413 if too_large else 400
    elif not stored:
        if outcomes and all(outcome.status in _OUT_OF_RESOURCES for outcome in outcomes):
            status, headers = 503, _COME_AGAIN
        else:
            status = 409 if outcomes else 400
    elif all(outcome.status == 0 for outcome in outcomes):
        status = 200
    document = _response_dataset(outcomes)
    if answer_type == _XML:
        return Response(_as_xml(document), status, headers, media_type=_XML)
    return JSONResponse(document.to_json_dict(), status, headers, media_type=_JSON)


def _response_dataset(outcomes: Sequence[Outcome]) -> Dataset:
    response = Dataset()
    response.RetrieveURL = ""  # nothing can be retrieved here
    for outcome in outcomes:
        item = Dataset()
        if outcome.identity is not None:
            item.ReferencedSOPClassUID = outcome.identity.sop_class_uid
            item.ReferencedSOPInstanceUID = outcome.identity.sop_instance_uid
        if not outcome.is_stored:
            item.FailureReason = outcome.status
            name = "FailedSOPSequence" if outcome.identity else "OtherFailuresSequence"
        else:
            name = "ReferencedSOPSequence"
            if outcome.status:
                item.WarningReason = outcome.status
        if name not in response:
            setattr(response, name, [])
        response[name].value.append(item)
    return response


def _as_xml(dataset: Dataset) -> bytes:
    """The Native DICOM Model of PS3.19 A.1, of what a response holds: UIDs, numbers and sequences."""
    root = ET.Element("NativeDicomModel", {"xmlns": "http://dicom.nema.org/PS3.19/models/NativeDICOM"})
    _add_attributes(root, dataset)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _add_attributes(parent: ET.Element, dataset: Dataset) -> None:
    for element in dataset:
        attributes = {"tag": f"{element.tag:08X}", "vr": element.VR, "keyword": keyword_for_tag(element.tag)}
        node = ET.SubElement(parent, "DicomAttribute", attributes)
        if element.VR == "SQ":
            for number, item in enumerate(element.value, 1):
                _add_attributes(ET.SubElement(node, "Item", {"number": str(number)}), item)
        elif element.value not in ("", None):
            ET.SubElement(node, "Value", {"number": "1"}).text = str(element.value)
