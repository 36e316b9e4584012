"""STOW-RS on a running page: what a DICOMweb client gets to hear, and what then lies in store and ledger."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest
import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.accounts import Accounts
from dicom_node.audit.trail import AuditTrail
from dicom_node.identity import identity_of
from dicom_node.ledger import Ledger
from dicom_node.passwords import hashed
from dicom_node.receive.association import Reply
from dicom_node.receive.inbox import Inbox
from dicom_node.review.app import Connections
from dicom_node.serve import _Page
from dicom_node.settings import ReviewSettings
from dicom_node.store import Store

PASSWORD = "correct horse"
BOUNDARY = "0f3cf5c0"
MULTIPART = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'


@dataclass
class Site:
    """A served page that takes instances. answer: the status instead of storing, where a test wants another."""

    url: str
    ledger: Ledger
    folder: Path
    store: Store
    answer: Callable[[Dataset], int | None] = lambda _: None
    sizes: list[int] = field(default_factory=list)

    def deposit(self, content: bytes, *, study_instance_uid: str) -> Reply:
        """Stores like the listener does."""
        self.sizes.append(len(content))
        try:
            dataset = dcmread(BytesIO(content), stop_before_pixels=True)
        except InvalidDicomError:
            return Reply(0xC000)
        identity = identity_of(dataset)
        if study_instance_uid not in ("", identity.study_instance_uid):
            return Reply(0xA900, identity=identity)
        if (status := self.answer(dataset)) is not None:
            return Reply(status, identity=identity)
        file = self.folder / "came.dcm"
        file.write_bytes(content)
        path = self.store.take(identity, file)
        file.unlink()
        self.ledger.arrived(identity, path, sha256=hashlib.sha256(content).hexdigest())
        return Reply(0, identity=identity)

    def post(self, *contents: bytes, path: str = "/dicom-web/studies", **headers: str) -> httpx.Response:
        body = b"".join(
            f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + content + b"\r\n"
            for content in contents
        )
        return self.post_body(body + f"--{BOUNDARY}--\r\n".encode(), path=path, **headers)

    def post_body(self, body: object, *, path: str = "/dicom-web/studies", **headers: str) -> httpx.Response:
        given = {"content-type": MULTIPART} | {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(self.url + path, content=body, headers=given, trust_env=False, timeout=30)

    def audited(self) -> list[ET.Element]:
        text = "".join(file.read_text() for file in sorted((self.folder / "audit").iterdir()))
        return [ET.fromstring(line) for line in text.splitlines()]


@pytest.fixture
def start(bench) -> Iterator[Callable[..., Site]]:
    stops: list[Callable[[], None]] = []

    def start(**changed: object) -> Site:
        settings = replace(bench.settings, review=ReviewSettings(port=bench.free_port(), **changed))
        ledger = bench.ledger()
        trail = AuditTrail(settings.data_folder, settings.audit, clock=time.time)
        store = Store(settings.data_folder, minimum_free_bytes=0)
        site = Site(f"http://127.0.0.1:{settings.review.port}", ledger, settings.data_folder, store)
        page = _Page(settings, Connections(ledger, trail, deposit=site.deposit))
        page.start()
        stops.extend((page.stop, trail.close, ledger.close))
        return site

    yield start
    for stop in stops:
        stop()


@pytest.fixture
def site(start) -> Site:
    return start()


def client(site: Site, name: str = "") -> DICOMwebClient:
    session = requests.Session()
    session.trust_env = False
    if name:
        session.auth = (name, PASSWORD)
    return DICOMwebClient(f"{site.url}/dicom-web", session=session, chunk_size=200_000)


def as_files(bench, datasets: list[Dataset]) -> list[Dataset]:
    """As read from files, with the preamble that the client sends along."""
    return [dcmread(BytesIO(bench.file_bytes(dataset))) for dataset in datasets]


def uids(sequence: object) -> list[str]:
    return [str(item.ReferencedSOPInstanceUID) for item in sequence or ()]


def test_a_dicomweb_client_stores_a_study(site, bench):
    slices = bench.patient().slices("baseline", "20260105")
    answer = client(site).store_instances(as_files(bench, slices), study_instance_uid=str(slices[0].StudyInstanceUID))
    assert uids(answer.ReferencedSOPSequence) == [str(s.SOPInstanceUID) for s in slices]
    assert "FailedSOPSequence" not in answer
    stored = site.ledger.instances(str(slices[0].StudyInstanceUID))
    assert len(stored) == 3
    kept = (site.folder / stored[0].path).read_bytes()
    assert kept in [bench.file_bytes(s) for s in slices]
    message = site.audited()[-1]
    assert message.find("EventIdentification/EventID").get("csd-code") == "110104"
    assert message.find(".//SOPClass").get("NumberOfInstances") == "3"
    named = [o.get("ParticipantObjectID") for o in message.iter("ParticipantObjectIdentification")]
    assert named == [str(slices[0].StudyInstanceUID), "P1"]


def test_a_large_instance_comes_in_chunks_and_byte_for_byte(site, bench):
    dataset = bench.patient().slice("baseline", "20260105", 0)
    dataset.Rows = dataset.Columns = 2400
    dataset.PixelData = bytes(range(256)) * (2400 * 2400 * 2 // 256)
    client(site).store_instances(as_files(bench, [dataset]))
    (stored,) = site.ledger.instances(str(dataset.StudyInstanceUID))
    kept = (site.folder / stored.path).read_bytes()
    assert len(kept) > 11e6
    assert kept == bench.file_bytes(dataset)


def test_what_was_and_what_was_not_stored_is_told(site, bench):
    patient = bench.patient()
    slices = patient.slices("baseline", "20260105")
    refused, warned = str(slices[1].SOPInstanceUID), str(slices[2].SOPInstanceUID)
    statuses = {refused: 0xC000, warned: 0xB000}
    site.answer = lambda dataset: statuses.get(str(dataset.SOPInstanceUID))
    other = patient.slice("other study", "20260105", 0)
    contents = [bench.file_bytes(d) for d in (*slices, other)] + [b"no DICOM at all"]
    answer = site.post(*contents, path=f"/dicom-web/studies/{patient.study_uid('baseline')}")
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/dicom+json")
    told = Dataset.from_json(answer.json())
    assert uids(told.ReferencedSOPSequence) == [str(slices[0].SOPInstanceUID), warned]
    assert told.ReferencedSOPSequence[1].WarningReason == 0xB000
    assert uids(told.FailedSOPSequence) == [refused, str(other.SOPInstanceUID)]
    assert [item.FailureReason for item in told.FailedSOPSequence] == [0xC000, 0xA900]
    assert [item.FailureReason for item in told.OtherFailuresSequence] == [0xC000]
    study, of_other, unknown = site.audited()[-3:]
    assert {m.find("EventIdentification").get("EventOutcomeIndicator") for m in (study, of_other, unknown)} == {"4"}
    assert study.find(".//SOPClass").get("NumberOfInstances") == "2"
    assert study.find(".//EventOutcomeDescription").text == "1 instances were not stored"
    assert of_other.find("ParticipantObjectIdentification").get("ParticipantObjectID") == str(other.StudyInstanceUID)
    assert unknown.find("ParticipantObjectIdentification") is None


def test_the_answer_comes_as_xml_where_that_is_asked_for(site, bench):
    dataset = bench.patient().slice("baseline", "20260105", 0)
    answer = site.post(bench.file_bytes(dataset), accept="application/dicom+xml")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+xml")
    root = ET.fromstring(answer.content)
    name = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    values = [v.text for a in root.iter(f"{name}DicomAttribute") if a.get("tag") == "00081155" for v in a]
    assert values == [str(dataset.SOPInstanceUID)]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [([0, 0], 200), ([0, 0xB007], 202), ([0, 0xC000], 202), ([0xC000, 0x0122], 409), ([0xA700, 0xA700], 503)],
)
def test_the_status_sums_up(site, bench, statuses, expected):
    slices = bench.patient().slices("baseline", "20260105", count=2)
    given = {str(d.SOPInstanceUID): status for d, status in zip(slices, statuses, strict=True)}
    site.answer = lambda dataset: given[str(dataset.SOPInstanceUID)]
    assert site.post(*[bench.file_bytes(d) for d in slices]).status_code == expected


def test_what_is_not_taken_is_refused_before_it_is_read(site, bench):
    content = bench.file_bytes(bench.patient().slice("baseline", "20260105", 0))
    for content_type in (
        "application/dicom",
        "multipart/related",
        f"multipart/form-data; boundary={BOUNDARY}",
        f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}',
    ):
        assert site.post(content, content_type=content_type).status_code == 415
    assert site.post(content, accept="text/html").status_code == 406
    assert site.post(content, accept="text/html, application/json;q=0.5").status_code == 200
    assert site.post_body(b"rubbish").status_code == 400
    assert site.post().status_code == 400
    assert site.post(content, origin="https://evil.example").status_code == 403
    assert len(site.sizes) == 1


def test_caps_hold_for_an_instance_and_a_request(start, bench):
    site = start(stow_instance_mib=1, stow_request_mib=3)
    dataset = bench.patient().slice("baseline", "20260105", 0)
    small = bench.file_bytes(dataset)
    large = bytes(2**20 + 1)
    assert site.post(large).status_code == 413
    answer = site.post(large, small)
    assert answer.status_code == 202
    assert uids(Dataset.from_json(answer.json()).ReferencedSOPSequence) == [str(dataset.SOPInstanceUID)]
    assert site.post(large, large, large).status_code == 413  # announced: not read at all

    def unannounced() -> Iterator[bytes]:
        yield f"--{BOUNDARY}\r\n\r\n".encode() + small + f"\r\n--{BOUNDARY}\r\n\r\n".encode()
        for _ in range(3):
            yield bytes(2**20)

    answer = site.post_body(unannounced())
    assert answer.status_code == 202
    assert uids(Dataset.from_json(answer.json()).ReferencedSOPSequence) == [str(dataset.SOPInstanceUID)]
    assert site.sizes == [len(small)] * 2


def test_an_instance_that_was_broken_off_is_not_stored(site, bench):
    first, second = (bench.file_bytes(d) for d in bench.patient().slices("baseline", "20260105", count=2))
    start = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    answer = site.post_body(start + first + b"\r\n" + start + second[:-10])
    assert answer.status_code == 202
    told = Dataset.from_json(answer.json())
    assert len(told.ReferencedSOPSequence) == len(told.OtherFailuresSequence) == 1
    assert site.sizes == [len(first)]


def test_what_was_stored_before_a_fault_is_in_the_audit_trail(site, bench):
    first, second = bench.patient().slices("baseline", "20260105", count=2)

    def fails_at_second(dataset: Dataset) -> None:
        if dataset.SOPInstanceUID == second.SOPInstanceUID:
            raise RuntimeError("a bug")

    site.answer = fails_at_second
    assert site.post(bench.file_bytes(first), bench.file_bytes(second)).status_code == 500
    assert site.audited()[-1].find(".//SOPClass").get("NumberOfInstances") == "1"


def test_a_disk_that_takes_nothing_more_is_told_of_each_instance(site, bench, monkeypatch):
    small, large = bench.patient().slices("baseline", "20260105", count=2)
    large.PixelData = bytes(9 << 20)

    def full(_path: Path) -> Any:
        return SimpleNamespace(free=0)

    monkeypatch.setattr("dicom_node.review.multipart.shutil.disk_usage", full)
    answer = site.post(bench.file_bytes(large), bench.file_bytes(small))
    assert answer.status_code == 202
    told = Dataset.from_json(answer.json())
    assert uids(told.ReferencedSOPSequence) == [str(small.SOPInstanceUID)]
    assert [item.FailureReason for item in told.OtherFailuresSequence] == [0xA700]
    assert site.post(bench.file_bytes(large)).status_code == 503


def test_with_users_only_a_sender_sends(site, bench, monkeypatch):
    monkeypatch.setattr("dicom_node.accounts.hashed", lambda password: hashed(password, (2**4, 8, 1)))
    for role in ("reader", "admin", "sender"):
        Accounts(site.ledger.engine, clock=time.time).add(role, role, PASSWORD)
    slices = as_files(bench, bench.patient().slices("baseline", "20260105"))
    assert site.post(bench.file_bytes(slices[0])).status_code == 401
    for role in ("reader", "admin"):
        with pytest.raises(requests.HTTPError, match="403"):
            client(site, role).store_instances(slices)
    assert site.sizes == []
    assert len(client(site, "sender").store_instances(slices).ReferencedSOPSequence) == 3
    transfer = site.audited()[-1]
    assert transfer.find("ActiveParticipant").get("UserID") == "sender"


def test_a_page_without_a_deposit_takes_nothing(bench):
    node = bench.node("review")
    url = f"http://127.0.0.1:{node.settings.review.port}/dicom-web/studies"
    assert httpx.post(url, content=b"", trust_env=False).status_code == 404


def test_the_inbox_is_tidied_up_before_the_page_takes_anything(bench, monkeypatch):
    """What is being written at the start is not whole yet, and would be taken for left over."""
    served: list[bool] = []

    def left_over(inbox: Inbox) -> Iterator[Path]:
        with socket.socket() as probe:
            served.append(probe.connect_ex(("127.0.0.1", bench.settings.review.port)) == 0)
        return whole(inbox)

    whole = Inbox.left_over
    monkeypatch.setattr(Inbox, "left_over", left_over)
    bench.node("listener", "review")
    assert served == [False]


def test_a_request_that_does_not_end_holds_the_stop_up_only_for_a_moment(bench, monkeypatch):
    monkeypatch.setattr("dicom_node.serve._STOP_WITHIN_S", 1)
    node = bench.node("listener", "review")
    content = bench.file_bytes(bench.patient().slice("baseline", "20260105", 0))
    part = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + content + f"\r\n--{BOUNDARY}".encode()
    with socket.create_connection(("127.0.0.1", node.settings.review.port)) as slow:
        head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {MULTIPART}\r\n"
        slow.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode() + part)
        bench.wait_until(lambda: node.ledger.studies())
        began = time.monotonic()
        bench.stop(node)
        assert time.monotonic() - began < 10
    lines = "".join(file.read_text() for file in (bench.settings.data_folder / "audit").iterdir()).splitlines()
    assert [str(bench.patient().study_uid("baseline")) in line for line in lines] == [False, True, False]
