"""Results to a PACS by STOW-RS (PS3.18 10.5), or by C-STORE where it has no DICOMweb address."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from dicom_node.exchange.answers import FETCH_WITHIN_S, NoAnswer
from dicom_node.exchange.multipart import wrapped
from dicom_node.exchange.web import web_client
from dicom_node.send import DUPLICATE, NotSent, send_files, sop_instance_of
from dicom_node.settings import Destination

#: The store instances response (PS3.18 10.5.3).
_STORED, _FAILED, _OTHER_FAILURES = "00081199", "00081198", "0008119A"
_INSTANCE_UID, _FAILURE_REASON = "00081155", "00081197"


@dataclass(frozen=True)
class _Told:
    """What a server says: the SOP Instance UIDs of what it stored, failure reasons of what it did not by theirs ("" for
    none), 0 for no reason.
    """

    stored: frozenset[str]
    failed: tuple[tuple[str, int], ...]


def deliver(files: Sequence[Path], destination: Destination, *, calling_ae_title: str) -> int:
    """How many objects the destination has stored: all of them. Raises `NotSent` otherwise."""
    if destination.dicomweb_url:
        return stow_files(files, destination)
    return send_files(files, destination, calling_ae_title=calling_ae_title)


def stow_files(files: Sequence[Path], destination: Destination) -> int:
    """As `send_files`, by STOW-RS: all objects in one request."""
    if not files:
        return 0
    sent = {uid for _, uid in map(sop_instance_of, files)}
    boundary = f"marginwatch-{uuid4().hex}"
    try:
        length = sum(len(piece) for piece in wrapped(files, boundary))
        headers = {
            "Accept": "application/dicom+json",
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(length),  # without it the body goes in chunks, which some servers do not take
        }
        with web_client(destination.dicomweb_url, destination.token_file, within_s=FETCH_WITHIN_S) as client:
            response = client.post("studies", content=wrapped(files, boundary), headers=headers)
    except NoAnswer as problem:
        raise NotSent(str(problem)) from None
    except OSError as problem:
        raise NotSent(f"a result cannot be read: {problem.strerror or problem}") from None
    if problem_told := _what_is_missing(sent, response):
        raise NotSent(f"{destination.name} {problem_told}")
    return len(files)


def _what_is_missing(sent: Set[str], response: httpx.Response) -> str:
    """What the server says against all of it being stored; empty where all is.

    200 means that all is stored, and may come without a word. Any other answer has to name each instance.
    """
    if response.status_code == 200 and not response.content.strip():
        return ""
    told = _told(response)
    if told is None:
        return f"answered HTTP {response.status_code} with what is no DICOM JSON"
    refused = [reason for uid, reason in told.failed if reason != DUPLICATE]
    lacking = sent - told.stored - {uid for uid, reason in told.failed if reason == DUPLICATE}
    lacking |= {uid for uid, reason in told.failed if reason != DUPLICATE} & sent
    if not lacking:
        return ""
    if not refused and response.status_code not in (200, 202):
        return f"answered HTTP {response.status_code}"
    why = f"{refused[0]:#06x}" if refused else "it does not name them"
    return f"did not store {len(lacking)} of {len(sent)} objects ({why})"


def _told(response: httpx.Response) -> _Told | None:
    """What the body says; None where it is not what a body has to be."""
    try:
        document: Any = response.json()
        datasets = document if isinstance(document, list) else [document]
        stored = [_value(item, _INSTANCE_UID) for dataset in datasets for item in _items(dataset, _STORED)]
        failed = [
            (str(_value(item, _INSTANCE_UID) or ""), int(_value(item, _FAILURE_REASON) or 0))
            for dataset in datasets
            for name in (_FAILED, _OTHER_FAILURES)
            for item in _items(dataset, name)
        ]
    except (ValueError, TypeError, AttributeError, LookupError):
        return None
    return _Told(frozenset(str(uid) for uid in stored if uid), tuple(failed))


def _items(dataset: dict[str, Any], sequence: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = dataset.get(sequence, {}).get("Value") or []
    return items


def _value(item: dict[str, Any], tag: str) -> Any:
    return (item.get(tag, {}).get("Value") or [None])[0]
