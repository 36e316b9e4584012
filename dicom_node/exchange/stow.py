"""Results to a PACS by STOW-RS (PS3.18 10.5), or by C-STORE where it has no DICOMweb address."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from dicom_node.exchange.answers import NoAnswer
from dicom_node.exchange.multipart import wrapped
from dicom_node.exchange.web import web_client
from dicom_node.send import DUPLICATE, NotSent, send_files
from dicom_node.settings import Destination

_FAILED_SEQUENCE, _FAILURE_REASON = "00081198", "00081197"


def deliver(files: Sequence[Path], destination: Destination, *, calling_ae_title: str) -> int:
    """How many objects the destination has stored: all of them. Raises `NotSent` otherwise."""
    if destination.dicomweb_url:
        return stow_files(files, destination)
    return send_files(files, destination, calling_ae_title=calling_ae_title)


def stow_files(files: Sequence[Path], destination: Destination) -> int:
    """As `send_files`, by STOW-RS: all objects in one request."""
    if not files:
        return 0
    boundary = f"marginwatch-{uuid4().hex}"
    try:
        length = sum(len(piece) for piece in wrapped(files, boundary))
        headers = {
            "Accept": "application/dicom+json",
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(length),  # without it the body goes in chunks, which some servers do not take
        }
        with web_client(destination.dicomweb_url, destination.token_file) as client:
            response = client.post("studies", content=wrapped(files, boundary), headers=headers)
    except NoAnswer as problem:
        raise NotSent(str(problem)) from None
    except OSError as problem:
        raise NotSent(f"a result cannot be read: {problem.strerror or problem}") from None
    reasons = _failures(response)
    if response.status_code not in (200, 202) and not reasons:
        raise NotSent(f"{destination.name} answered HTTP {response.status_code}")
    if refused := [reason for reason in reasons if reason != DUPLICATE]:
        raise NotSent(f"{destination.name} did not store {len(refused)} of {len(files)} objects ({refused[0]:#06x})")
    return len(files)


def _failures(response: httpx.Response) -> list[int]:
    """The failure reason of each object that was not stored; 0 where none is given."""
    try:
        document: Any = response.json()
        items = document.get(_FAILED_SEQUENCE, {}).get("Value", [])
        return [int((item.get(_FAILURE_REASON, {}).get("Value") or [0])[0]) for item in items]
    except (ValueError, TypeError, AttributeError):
        return []
