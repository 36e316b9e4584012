"""DICOMweb (PS3.18): what a PACS has by QIDO-RS, images by WADO-RS."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from dicom_node.exchange.answers import (
    ASK_WITHIN_S,
    MOST_INSTANCES,
    MOST_SERIES,
    MOST_STUDIES,
    NoAnswer,
    RemoteInstance,
    RemoteSeries,
    RemoteStudy,
    Wanted,
)
from dicom_node.exchange.multipart import parts

_TIMEOUT = httpx.Timeout(30.0, read=300.0)
_MOST_INSTANCE_BYTES = 4 << 30
_PAGE = 500
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_JSON = {"Accept": "application/dicom+json"}
#: As the PACS keeps them, in whatever transfer syntax.
_FILES = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
_TAGS = {
    "PatientID": "00100020",
    "IssuerOfPatientID": "00100021",
    "StudyDate": "00080020",
    "StudyInstanceUID": "0020000D",
    "SeriesInstanceUID": "0020000E",
    "SOPInstanceUID": "00080018",
    "SOPClassUID": "00080016",
    "Modality": "00080060",
    "NumberOfSeriesRelatedInstances": "00201209",
}


class _Limited(httpx.BaseTransport):
    """A transport by which nothing is read after a time, however little of it comes at once."""

    def __init__(self, transport: httpx.BaseTransport, within_s: float) -> None:
        self._transport = transport
        self._until_s = time.monotonic() + within_s

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        left_s = self._left_s()
        limits = {name: min(limit, left_s) for name, limit in request.extensions["timeout"].items()}
        request.extensions = {**request.extensions, "timeout": limits}
        response = self._transport.handle_request(request)
        response.stream = _LimitedStream(response.stream, self._left_s)
        return response

    def close(self) -> None:
        self._transport.close()

    def _left_s(self) -> float:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise httpx.ReadTimeout("all in all it takes too long")
        return left_s


@dataclass(frozen=True, eq=False)
class _LimitedStream(httpx.SyncByteStream):
    """left_s: raises httpx.ReadTimeout where there is none left."""

    stream: Any
    left_s: Callable[[], float]

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.stream:
            self.left_s()
            yield chunk

    def close(self) -> None:
        self.stream.close()


@contextmanager
def web_client(url: str, token_file: str, *, within_s: float = ASK_WITHIN_S) -> Iterator[httpx.Client]:
    """A client of the DICOMweb service at `url`. Raises `NoAnswer` for what goes wrong with it, also in the block.

    within_s: how long all that is read in the block may take.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs the address of each request: patient IDs in QIDO
    try:
        headers = {"Authorization": f"Bearer {_token(token_file)}"} if token_file else {}
        # The system's own authorities, as a site's PACS is seldom certified by a public one; plain HTTP has none.
        verify: ssl.SSLContext | bool = ssl.create_default_context() if url.startswith("https:") else False
        base = url.rstrip("/") + "/"
        transport = _Limited(httpx.HTTPTransport(verify=verify, trust_env=False), within_s)
        with httpx.Client(base_url=base, headers=headers, timeout=_TIMEOUT, transport=transport) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        raise NoAnswer(f"the PACS at {url} cannot be reached ({type(problem).__name__})") from None


def _token(file: str) -> str:
    try:
        return Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise NoAnswer(f"the token file {Path(file).name} cannot be read; correct token_file in the settings") from None


@dataclass(frozen=True, eq=False)
class WebQuery:
    """QIDO-RS; every method raises `NoAnswer`."""

    client: httpx.Client

    def studies(self, *, patient_id: str = "", study_instance_uid: str = "", dates: str = "") -> list[RemoteStudy]:
        """The studies with these values; dates: YYYYMMDD-YYYYMMDD."""
        keys = {"PatientID": patient_id, "StudyInstanceUID": study_instance_uid, "StudyDate": dates}
        asked = {key: value for key, value in keys.items() if value}
        found = self._search("studies", MOST_STUDIES, asked, ["IssuerOfPatientID"])
        return [RemoteStudy.read(partial(_text, item)) for item in found]

    def series(self, study_instance_uid: str) -> list[RemoteSeries]:
        """The series of a study; they are counted image by image where the PACS does not say how many each has."""
        path = f"studies/{study_instance_uid}/series"
        found = self._search(path, MOST_SERIES, {}, ["NumberOfSeriesRelatedInstances"])

        def counted(series_instance_uid: str) -> int:
            return len(self.instances(study_instance_uid, series_instance_uid))

        return [RemoteSeries.read(partial(_text, item), counted) for item in found]

    def instances(self, study_instance_uid: str, series_instance_uid: str) -> list[RemoteInstance]:
        """The instances of a series."""
        path = f"studies/{study_instance_uid}/series/{series_instance_uid}/instances"
        found = self._search(path, MOST_INSTANCES, {}, [])
        return [RemoteInstance(_text(item, "SOPInstanceUID"), _text(item, "SOPClassUID")) for item in found]

    def _search(self, path: str, most: int, keys: dict[str, str], fields: list[str]) -> list[dict[str, Any]]:
        """All matches, page by page until one brings nothing new: a PACS may give fewer at once than were asked for."""
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        while True:
            query: dict[str, Any] = {**keys, "includefield": fields, "limit": str(_PAGE), "offset": str(len(found))}
            response = self.client.get(path, params=query, headers=_JSON)
            page = [] if response.status_code == 204 else _answer(response)
            before = len(found)
            for item in page:
                found.setdefault(tuple(_text(item, keyword) for keyword in _UIDS), item)
            if len(found) > most:
                raise NoAnswer("the PACS answers the search with far too much")
            if len(found) == before:
                return list(found.values())


def fetch(client: httpx.Client, wanted: Wanted, take: Callable[[bytes], None]) -> None:
    """Bring what is wanted by WADO-RS. take: is handed the file content of each. Raises `NoAnswer`."""
    series = f"studies/{wanted.study_instance_uid}/series/{wanted.series_instance_uid}"
    paths = [f"{series}/instances/{uid}" for uid in wanted.sop_instance_uids] or [series]
    for path in paths:
        with client.stream("GET", path, headers=_FILES) as response:
            _check(response)
            content_type = response.headers.get("Content-Type", "")
            for content in parts(response.iter_bytes(), content_type, most_bytes=_MOST_INSTANCE_BYTES):
                take(content)


def _answer(response: httpx.Response) -> list[dict[str, Any]]:
    _check(response)
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise NoAnswer("the PACS answers the search with what is no DICOM JSON")
    return document


def _check(response: httpx.Response) -> None:
    if response.status_code != 200:
        raise NoAnswer(f"the PACS answered HTTP {response.status_code}")


def _text(item: dict[str, Any], keyword: str) -> str:
    element = item.get(_TAGS[keyword])
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]).strip() if isinstance(values, list) and values and values[0] is not None else ""
