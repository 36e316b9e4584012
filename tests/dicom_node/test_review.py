"""The page and its interface: order, numbers, escaping, headers, and no way out of the result folder."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from dicom_node.identity import identity_of
from dicom_node.ledger import Ledger
from dicom_node.plans import register_plan
from dicom_node.records import ROUTED_PRIORITY
from dicom_node.results.legend import FINDING_NAMES
from dicom_node.review.words import OUTCOMES, STATES
from dicom_node.routing import Order, route
from dicom_node.worklist import StudyState, worklist
from pipeline.assessment import URGENCY, FindingKind

PNG = b"\x89PNG\r\n\x1a\n"
VERDICTS = [
    ("P1", "complete", 6.0),
    ("P2", "local_progression", 3.0),
    ("P3", "incomplete_coverage", -1.0),
    ("P4", "incomplete_coverage", -3.4),
    ("P5", "narrow_margin", 2.0),
]


def assessed(bench, ledger: Ledger, patient_id: str, outcome: str, margin_mm: float, **changed: object) -> str:
    """The study UID of a follow-up with that verdict in the ledger and a result folder with a picture."""
    patient = bench.patient(patient_id)
    safe = "".join(c for c in patient_id if c.isalnum())
    register_plan(patient.plan_folder(bench.folder / safe), ledger, bench.settings.data_folder)
    for study, date in (("baseline", "20260105"), ("followup", "20260215")):
        for dataset in patient.slices(study, date):
            ledger.arrived(identity_of(dataset), Path(f"{dataset.SOPInstanceUID}.dcm"))
        ledger.complete([patient.study_uid(study)])
    record = next(
        r for r in route(ledger, Order(ROUTED_PRIORITY, "1")) if r.study_instance_uid == patient.study_uid("followup")
    )
    folder = bench.settings.data_folder / record.folder
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "axial.png").write_bytes(PNG)
    (folder / "report.pdf").write_bytes(b"%PDF-1.4")
    (folder / "secret.txt").write_text("secret")
    document = {**bench.document(patient.study_uid("followup"), outcome, margin_mm), **changed}
    ledger.ended(record.assessment_id, "done", document=document)
    return patient.study_uid("followup")


@pytest.fixture
def client(bench):
    node = bench.node("review")
    with httpx.Client(base_url=f"http://127.0.0.1:{node.settings.review.port}", trust_env=False) as client:
        yield client


def test_studies_are_listed_most_urgent_first(bench, ledger, client):
    for patient_id, outcome, margin_mm in VERDICTS:
        assessed(bench, ledger, patient_id, outcome, margin_mm)
    listed = client.get("/api/studies").json()
    with_verdict = [item for item in listed if item["outcome"]]
    assert listed[: len(with_verdict)] == with_verdict
    assert [item["patient_id"] for item in with_verdict] == ["P2", "P4", "P3", "P5", "P1"]
    assert with_verdict[1]["minimal_margin_mm"] == -3.4
    assert with_verdict[1]["minimal_margin_interval_mm"] == [-4.4, -2.4]
    page = client.get("/").text
    places = [page.index(f">{p}<") for p in ("P2", "P4", "P3", "P5", "P1")]
    assert places == sorted(places)
    assert "−3.4 mm" in page


def test_a_study_page_shows_verdict_numbers_pictures_and_report(bench, ledger, client):
    uid = assessed(bench, ledger, "P3", "incomplete_coverage", -3.4)
    page = client.get(f"/studies/{uid}").text
    for words in ("Incomplete coverage", "−3.4 mm", "33 days after the procedure", "A stand-in was asked.", "1.1 mm"):
        assert words in page
    assert "Not for primary diagnosis" in page
    identity = worklist(ledger)[0].record.assessment_id
    assert client.get(f"/results/{identity}/images/axial.png").content == PNG
    assert client.get(f"/results/{identity}/report.pdf").headers["content-type"] == "application/pdf"
    assert client.get(f"/api/studies/{uid}").json()[0]["assessment"]["outcome"] == "incomplete_coverage"


@pytest.mark.parametrize(
    "path",
    [
        "/results/ID/images/..%2Fsecret.txt",
        "/results/ID/images/%2e%2e/secret.txt",
        "/results/ID/images/..%2f..%2f..%2fledger.sqlite",
        "/results/ID/secret.txt",
        "/results/..%2f..%2fledger.sqlite/report.pdf",
        "/results/unknown/report.pdf",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/studies/..%2f..",
        "/api/studies/1.2.3",
        "/docs",
        "/openapi.json",
    ],
)
def test_nothing_else_is_served(bench, ledger, client, path):
    assessed(bench, ledger, "P3", "incomplete_coverage", -3.4)
    identity = worklist(ledger)[0].record.assessment_id
    answer = client.get(path.replace("ID", identity))
    assert answer.status_code == 404
    assert "secret" not in answer.text


@pytest.mark.parametrize("path", ["/", "/api/studies", "/healthz", "/static/review.css", "/nowhere"])
def test_every_answer_has_the_strict_headers(client, path):
    headers = client.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"


def test_people_are_told_on_a_page_and_programs_in_json(client):
    page = client.get("/studies/1.2.3%3Cscript%3E")
    assert page.status_code == 404
    assert "No such study." in page.text
    assert client.get("/api/studies/1.2.3").json() == {"detail": "no such study"}


def test_a_foreign_name_is_turned_away(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_what_a_file_says_is_never_markup(bench, ledger, client):
    evil = "<script>alert(1)</script>"
    reasons = [{"code": "x", "text": evil}]
    uid = assessed(bench, ledger, evil, "complete", 5.0, reasons=reasons)
    for path in ("/", f"/studies/{uid}"):
        page = client.get(path).text
        assert "<script" not in page
        assert "&lt;script" in page


def test_a_refused_and_a_failed_study_say_why(bench, ledger, client):
    patient = bench.patient("P9")
    uid = assessed(bench, ledger, "P9", "complete", 5.0)
    record = worklist(ledger)[0].record
    ledger.ended(record.assessment_id, "refused", code="one_slice", text="The series has a single slice.")
    item = next(i for i in client.get("/api/studies").json() if i["study_instance_uid"] == uid)
    assert item["state"] == "refused"
    assert item["error"] == {"code": "one_slice", "text": "The series has a single slice."}
    page = client.get(f"/studies/{patient.study_uid('followup')}").text
    assert "The series has a single slice." in page


def test_every_page_of_a_study_in_any_state_renders(bench, ledger, client):
    patient = bench.patient("P1")
    for dataset in patient.slices("alone", "20260215"):
        ledger.arrived(identity_of(dataset), Path("x.dcm"))
    assert "Receiving" in client.get("/").text
    ledger.complete([patient.study_uid("alone")])
    assert "No plan for this patient" in client.get(f"/studies/{patient.study_uid('alone')}").text


def test_there_is_a_word_for_everything():
    assert tuple(OUTCOMES) == URGENCY
    assert set(STATES) == set(StudyState.__args__)
    assert set(FINDING_NAMES) == set(FindingKind.__args__)
    assert len({word.text for word in (*OUTCOMES.values(), *STATES.values())}) == len(OUTCOMES) + len(STATES)
