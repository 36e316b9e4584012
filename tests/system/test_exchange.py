"""What the node asks of a real PACS and gives to it: Orthanc by DIMSE and DICOMweb, down for a while, committing."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import StorageCommitmentPushModel
from sqlalchemy import update

from dicom_node.audit.message import StudyPart
from dicom_node.back_off import BackOff
from dicom_node.claims import Claims, Station
from dicom_node.exchange.commitment import CommitmentReports, take_report
from dicom_node.exchange.completeness import Completeness
from dicom_node.exchange.deposit import Keep
from dicom_node.exchange.fetcher import Fetcher
from dicom_node.exchange.requests import requests_by_subject
from dicom_node.exchange.stow import deliver
from dicom_node.identity import identity_of
from dicom_node.ledger import Ledger
from dicom_node.outbox import Outbox
from dicom_node.peers import CompleteSettings, FetchSettings, Pacs
from dicom_node.records import AssessmentRecord, RegisteredPlan, Study, WorkerRecord
from dicom_node.schema import SENDS
from dicom_node.send import NotSent, send_files
from dicom_node.settings import Destination, ListenerSettings, Settings
from dicom_node.store import Store

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore:Exception ignored in")]

NODE = "EXCHANGENODE"
KINDS = ("c-get", "c-move", "dicomweb")


def uid_of(*names: object) -> str:
    return str(generate_uid(entropy_srcs=[str(name) for name in names]))


def image(patient: str, study: str, number: int, *, date: str, issuer: str = "", pixels: int = 64) -> Dataset:
    """A small slice, evenly spaced by its number."""
    made = Dataset()
    made.SOPClassUID = CTImageStorage
    made.SOPInstanceUID = uid_of(patient, study, number)
    made.StudyInstanceUID, made.SeriesInstanceUID = uid_of(patient, study), uid_of(patient, study, "series")
    made.StudyDate = made.AcquisitionDate = date
    made.PatientID, made.PatientName, made.Modality = patient, "Made^Up", "CT"
    if issuer:
        made.IssuerOfPatientID = issuer
    made.FrameOfReferenceUID, made.SeriesNumber, made.InstanceNumber = uid_of(study, "frame"), 1, number
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.ImagePositionPatient, made.ImageOrientationPatient = [0, 0, 2.0 * number], [1, 0, 0, 0, 1, 0]
    made.PixelSpacing, made.SliceThickness = [1, 1], 2
    made.Rows, made.Columns = 8, pixels // 8
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation, made.SamplesPerPixel = 15, 1, 1
    made.RescaleSlope, made.RescaleIntercept = 1, 0
    made.PhotometricInterpretation = "MONOCHROME2"
    made.PixelData = bytes(2 * pixels)
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def content_of(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def images(patient: str, study: str, date: str, count: int = 6, **more: Any) -> list[Dataset]:
    return [image(patient, study, number, date=date, **more) for number in range(1, count + 1)]


@dataclass
class NodeListener:
    """A provider in the place of the node's listener: what C-MOVE sends, and storage commitment reports."""

    port: int
    deposit: Callable[..., None] | None = None
    reports: CommitmentReports | None = None
    server: Any = field(default=None)

    def start(self) -> None:
        ae = AE(ae_title=NODE)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        handlers = [(evt.EVT_C_STORE, self._on_store), (evt.EVT_N_EVENT_REPORT, self._on_report)]
        self.server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def _on_store(self, event: Any) -> int:
        assert self.deposit is not None
        self.deposit(event.encoded_dataset(include_meta=True), received_from="ORTHANC")
        return 0

    def _on_report(self, event: Any) -> tuple[int, None]:
        assert self.reports is not None
        return take_report(event.event_information, self.reports.reported), None


@pytest.fixture(scope="module")
def listener(tools) -> Iterator[NodeListener]:
    listener = NodeListener(tools.free_port())
    listener.start()
    yield listener
    listener.server.shutdown()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory, listener, tools) -> Iterator[Any]:
    known = {"AET": NODE, "Host": "127.0.0.1", "Port": listener.port, "AllowStorageCommitment": True}
    pacs = tools.orthanc(tmp_path_factory.mktemp("pacs"), modalities={"NODE": known}, dicomweb=True)
    pacs.start()
    yield pacs
    pacs.stop()


@dataclass
class Side:
    """The node's side: ledger, rounds, and a clock that is moved by hand."""

    folder: Path
    settings: Settings
    listener: NodeListener
    ahead_s: float = 0.0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(self.settings.ledger_url, clock=lambda: time.time() + self.ahead_s)
        self.keep = Keep(
            Store(self.settings.data_folder, minimum_free_bytes=0), self.ledger, self.settings.data_folder / "fetching"
        )
        self.listener.deposit = self.keep
        self.told: list[tuple[str, int]] = []
        self.fetcher = Fetcher(self.settings, self.ledger, self.keep, told=self.tell, clock=self.counter_s)
        self.completeness = Completeness(self.settings, self.ledger, clock=self.counter_s, longest_step_s=1e9)

    def counter_s(self) -> float:
        return time.monotonic() + self.ahead_s

    def tell(self, pacs: Pacs, part: StudyPart) -> None:
        assert (pacs.ae_title, part.failed) == ("ORTHANC", 0)
        self.told.append((part.study_instance_uid, sum(part.instances.values())))

    def receive(self, datasets: list[Dataset], *, received_from: str = "ORTHANC") -> None:
        for dataset in datasets:
            self.keep(content_of(dataset), received_from=received_from)
        self.completeness.look()

    def plan(self, patient: str, *, issuer: str = "") -> None:
        plan = RegisteredPlan(f"{patient}-plan", patient, "20260110", uid_of(patient, "baseline"), "0", "plans/0", 0.0)
        self.ledger.add_plan(replace(plan, issuer_of_patient_id=issuer))

    def study(self, patient: str, name: str) -> Study | None:
        wanted = uid_of(patient, name)
        return next((study for study in self.ledger.studies() if study.study_instance_uid == wanted), None)

    def asked(self, patient: str, name: str) -> dict[str, str]:
        """The state of what was asked about a study, by purpose."""
        return {x.purpose: x.state for x in requests_by_subject(self.ledger).get(uid_of(patient, name), [])}


def to_pacs(pacs: Any, folder: Path, datasets: list[Dataset]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for dataset in datasets:
        files.append(folder / f"{dataset.SOPInstanceUID}.dcm")
        files[-1].write_bytes(content_of(dataset))
    send_files(files, Destination("ORTHANC", "127.0.0.1", pacs.dicom_port), calling_ae_title="SCANNER")


def configured(pacs: Any, kind: str) -> Pacs:
    if kind == "dicomweb":
        return Pacs("ORTHANC", retrieve=kind, dicomweb_url=pacs.dicomweb_url)
    return Pacs("ORTHANC", "127.0.0.1", pacs.dicom_port, retrieve=kind)


@pytest.fixture
def side(tmp_path, pacs, listener) -> Iterator[Callable[..., Side]]:
    made: list[Side] = []

    def make(kind: str = "c-get", **complete: Any) -> Side:
        settings = Settings(
            data_folder=tmp_path / f"data-{len(made)}",
            listener=ListenerSettings(ae_title=NODE, quiet_time_s=30.0, minimum_free_gib=0.0),
            pacs=(configured(pacs, kind),),
            complete=CompleteSettings(**{"settle_s": 5.0, "wait_for_answer_s": 100.0, **complete}),
            fetch=FetchSettings(first_retry_s=60.0, longest_retry_s=3600.0),
        )
        made.append(Side(settings.data_folder, settings, listener))
        return made[-1]

    yield make
    for one in made:
        one.ledger.close()
    gc.collect()


@pytest.mark.parametrize("kind", KINDS)
def test_baseline_and_earlier_follow_ups_are_fetched_and_nothing_else(kind, side, pacs, tmp_path):
    patient = f"FETCH-{kind}"
    there = {"baseline": "20260105", "first": "20260210", "second": "20260310", "later": "20260601", "old": "20250101"}
    for name, date in there.items():
        to_pacs(pacs, tmp_path / name, images(patient, name, date, issuer="HOSPITAL"))
    to_pacs(pacs, tmp_path / "other", images(patient, "of another issuer", "20260212", issuer="ELSEWHERE"))
    to_pacs(pacs, tmp_path / "unplanned", images(f"{patient}-2", "unplanned", "20260212"))
    node = side(kind)
    node.plan(patient, issuer="HOSPITAL")
    node.receive(images(patient, "third", "20260401", issuer="HOSPITAL"), received_from="SCANNER")
    node.fetcher.look()
    names = {name: node.study(patient, name) for name in (*there, "of another issuer", "third")}
    assert {name for name, study in names.items() if study} == {"baseline", "first", "second", "third"}
    assert len(node.ledger.studies()) == 4
    assert {study.images for study in node.ledger.studies()} == {6}
    assert node.asked(patient, "baseline") == {"baseline": "brought"}
    assert node.asked(patient, "third") == {"earlier": "answered"}
    brought = {(uid_of(patient, name), 6) for name in ("baseline", "first", "second")}
    assert set(node.told) == (
        set() if kind == "c-move" else brought
    )  # by C-MOVE they come to the listener, which tells
    # what came from the PACS is complete as soon as the PACS says so; what the scanner sent waits for the quiet time
    node.fetcher.look()  # for the fetched follow-ups, too, it is asked which are earlier
    node.completeness.look()  # from when it sees them their quiet time counts
    node.ahead_s = 6
    node.completeness.look()
    complete = {name for name, study in names.items() if study and node.study(patient, name).complete}
    assert complete == {"baseline", "first", "second"}
    node.ahead_s = 31
    node.completeness.look()
    assert node.study(patient, "third").complete


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_pacs_has_more_of_holds_a_study_until_it_is_fetched(kind, side, pacs, tmp_path):
    patient = f"MORE-{kind}"
    whole = images(patient, "followup", "20260301")
    to_pacs(pacs, tmp_path / "followup", whole)
    node = side(kind)
    node.receive(whole[:4])  # evenly spaced: nothing here tells that two are missing at the end
    node.ahead_s = 10_000
    node.completeness.look()
    held = node.study(patient, "followup")
    assert (held.complete, "2 more images" in held.held) == (False, True), held
    node.fetcher.look()
    assert node.study(patient, "followup").images == 4  # no plan for this patient: nothing of it is fetched
    node.plan(patient)
    node.fetcher.look()
    assert node.study(patient, "followup").images == 6
    node.completeness.look()
    node.ahead_s += 10
    node.completeness.look()
    assert node.study(patient, "followup").complete


def test_a_study_that_misses_a_slice_is_held_until_it_comes_or_a_person_releases_it(side):
    node = side()
    for name in ("sent later", "released"):
        whole = images("HOLE", name, "20260301")
        node.receive(whole[:2] + whole[3:], received_from="SCANNER")
    node.ahead_s = 31
    node.completeness.look()
    assert "1 slice is missing" in node.study("HOLE", "sent later").held
    assert not node.study("HOLE", "released").complete
    node.receive(images("HOLE", "sent later", "20260301")[2:3], received_from="SCANNER")
    node.ledger.release(uid_of("HOLE", "released"))
    node.ahead_s = 100
    node.completeness.look()
    assert node.study("HOLE", "sent later").complete
    assert node.study("HOLE", "released").complete


def test_the_pacs_that_has_no_more_either_releases_a_study_with_a_hole(side, pacs, tmp_path):
    whole = images("HOLED-THERE", "followup", "20260301")
    to_pacs(pacs, tmp_path / "holed", whole[:2] + whole[3:])
    node = side("dicomweb")
    node.receive(whole[:2] + whole[3:])
    node.ahead_s = 6
    node.completeness.look()
    assert node.study("HOLED-THERE", "followup").complete


def test_a_pacs_that_is_down_is_waited_for_and_asked_again(side, pacs, tmp_path):
    patient = "DOWN"
    to_pacs(pacs, tmp_path / "baseline", images(patient, "baseline", "20260105"))
    followup = images(patient, "followup", "20260301")
    to_pacs(pacs, tmp_path / "followup", followup)
    node = side()
    node.plan(patient)
    node.receive(followup[:4])
    pacs.stop()
    try:
        node.ahead_s = 31
        node.completeness.look()
        node.fetcher.look()
        assert node.asked(patient, "baseline") == {"baseline": "no_answer"}
        assert node.asked(patient, "followup") == {"count": "no_answer"}
        assert not node.study(patient, "followup").complete
    finally:
        pacs.start()
    node.ahead_s = 92
    for _ in range(2):
        node.completeness.look()
        node.fetcher.look()
    assert node.study(patient, "baseline").images == 6
    assert node.study(patient, "followup").images == 6
    node.ahead_s = 200
    node.completeness.look()
    assert {study.complete for study in node.ledger.studies()} == {True}


def result(node: Side, patient: str) -> AssessmentRecord:
    """An assessment with three result objects."""
    folder = node.folder / "results" / patient / "dicom"
    folder.mkdir(parents=True)
    for number, dataset in enumerate(images(patient, "result", "20260301", 3)):
        (folder / f"{number}.dcm").write_bytes(content_of(dataset))
    record = AssessmentRecord(
        assessment_id=f"{patient}-1",
        study_instance_uid=uid_of(patient, "result"),
        plan_id="plan",
        revision=1,
        number=1,
        priority=1,
        folder=f"results/{patient}",
    )
    node.ledger.queue(record)
    return record


def outbox(node: Side, destination: Destination) -> Outbox:
    listener = replace(node.settings.listener, ae_title=NODE)
    settings = replace(node.settings, data_folder=node.folder, listener=listener, send=(destination,))
    claims = Claims(node.ledger, WorkerRecord("sender", "host", "1", 0.0, 1, 0))
    claims.enter(alone=True)
    return Outbox(Station(settings, node.ledger, claims), back_off=BackOff(0.1, 0.3))


def test_results_go_by_stow_though_the_pacs_was_down_and_nothing_is_doubled(side, pacs, tools, tmp_path):
    node = side()
    destination = Destination("ORTHANC", dicomweb_url=pacs.dicomweb_url)
    record = result(node, "STOWED")
    node.ledger.ended(record.assessment_id, "done", document={}, send_to=[destination.name])
    pacs.stop()
    sending = outbox(node, destination)
    sending.start()
    try:
        tools.wait_until(lambda: node.ledger.sends(record.assessment_id)[0].state == "failed", seconds=20)
        pacs.start()
        tools.wait_until(lambda: node.ledger.sends(record.assessment_id)[0].state == "sent", seconds=20)
    finally:
        sending.stop()
    files = sorted((node.folder / record.folder / "dicom").glob("*.dcm"))
    assert deliver(files, destination, calling_ae_title=NODE) == 3  # once more, as after a lost answer
    uids = pacs.find(record.study_instance_uid, "SOPInstanceUID")
    assert sorted(uids) == sorted(str(dcmread(file).SOPInstanceUID) for file in files)
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM")
    with pytest.raises(NotSent):
        deliver([tmp_path / "broken.dcm"], destination, calling_ae_title=NODE)


def test_a_result_is_sent_only_once_the_pacs_has_committed_itself(side, pacs, listener, tools):
    """Orthanc reports on a new association, to the listener."""
    node = side()
    listener.reports = CommitmentReports(node.ledger)
    destination = Destination("ORTHANC", "127.0.0.1", pacs.dicom_port, storage_commitment=True)
    record = result(node, "COMMITTED")
    node.ledger.ended(record.assessment_id, "done", document={}, send_to=[destination.name])
    sending = outbox(node, destination)
    sending.start()
    try:
        tools.wait_until(lambda: node.ledger.owed() == [], seconds=20)
    finally:
        sending.stop()
    (send,) = node.ledger.sends(record.assessment_id)
    assert (send.state, send.text) == ("sent", "3 objects, committed")


def test_what_the_pacs_does_not_commit_is_sent_again(side, pacs, listener, tools):
    """The objects are said to be stored, and are not there: as after a disk failure of the PACS."""
    node = side()
    listener.reports = CommitmentReports(node.ledger)
    destination = Destination("ORTHANC", "127.0.0.1", pacs.dicom_port, storage_commitment=True)
    record = result(node, "LOST")
    node.ledger.ended(record.assessment_id, "done", document={}, send_to=[destination.name])
    with node.ledger.transaction() as connection:
        connection.execute(update(SENDS).values(state="stored"))
    sending = outbox(node, destination)
    sending.start()

    def is_sent() -> bool:
        (send,) = node.ledger.sends(record.assessment_id)
        return send.state == "sent"

    try:
        tools.wait_until(is_sent, seconds=30)
    finally:
        sending.stop()
    assert len(pacs.find(record.study_instance_uid, "SOPInstanceUID")) == 3


def test_an_instance_of_the_followup_keeps_its_sender(side):
    node = side()
    node.receive(images("SENDER", "followup", "20260301", 1))
    (instance,) = node.ledger.instances(uid_of("SENDER", "followup"))
    assert instance.received_from == "ORTHANC"
    identity = identity_of(images("SENDER", "followup", "20260301", 1, issuer="HOSPITAL")[0])
    assert identity.issuer_of_patient_id == "HOSPITAL"
