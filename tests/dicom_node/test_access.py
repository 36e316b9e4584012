"""Nobody gets in: what a running page answers to whom, from the first user on."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from dicom_node.accounts import Accounts
from dicom_node.identity import identity_of
from dicom_node.ledger import Ledger
from dicom_node.passwords import hashed, matches
from dicom_node.plans import register_plan
from dicom_node.records import ROUTED_PRIORITY
from dicom_node.refusal import Refused
from dicom_node.routing import Order, route
from dicom_node.schema import STUDIES
from dicom_node.serve import Node
from dicom_node.settings import ReviewSettings

PASSWORD = "correct horse"
TRACEBACK = "ChildBroke: it ended\nTraceback:\n  <script>alert(1)</script>"


class Site:
    """A served page with one failed study of a patient, and its users."""

    def __init__(self, bench, **changed: object) -> None:
        self.bench = bench
        port = bench.free_port()
        self.review = ReviewSettings(port=port, **changed)
        self.settings = replace(bench.settings, review=self.review)
        self.url = f"http://127.0.0.1:{port}"
        bench.settings.data_folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> Node:
        return self.bench.node("review", review=self.review)

    def browser(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, trust_env=False, timeout=30)

    def audit(self) -> list[ET.Element]:
        lines = [x for f in sorted((self.settings.data_folder / "audit").iterdir()) for x in f.read_text().splitlines()]
        return [ET.fromstring(line) for line in lines]

    def audited(self) -> list[tuple[str, str, str]]:
        """Event, who, and the path or study that each message is about."""
        return [
            (
                message.find("EventIdentification/EventID").get("originalText"),
                message.find("ActiveParticipant").get("UserID"),
                " ".join(o.get("ParticipantObjectID") for o in message.iter("ParticipantObjectIdentification")),
            )
            for message in self.audit()
        ]


def failed_study(bench, ledger: Ledger, patient_id: str = "P1") -> tuple[str, str]:
    """The UID of a study whose assessment failed, and the assessment's id; it has a picture and a report."""
    patient = bench.patient(patient_id)
    register_plan(patient.plan_folder(bench.folder / "plan"), ledger, bench.settings.data_folder)
    for study, date in (("baseline", "20260105"), ("followup", "20260215")):
        for dataset in patient.slices(study, date):
            ledger.arrived(identity_of(dataset), Path(f"{dataset.SOPInstanceUID}.dcm"))
        ledger.complete([patient.study_uid(study)])
    (record,) = route(ledger, Order(ROUTED_PRIORITY, "1"))
    folder = bench.settings.data_folder / record.folder
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "axial.png").write_bytes(b"\x89PNG")
    (folder / "report.pdf").write_bytes(b"%PDF-1.4")
    ledger.ended(record.assessment_id, "failed", code="failed", text=TRACEBACK)
    return patient.study_uid("followup"), record.assessment_id


def add_users(monkeypatch, ledger: Ledger, *roles: str) -> None:
    """A user of each role, called like it; their passwords cheap to hash."""
    monkeypatch.setattr("dicom_node.accounts.hashed", lambda password: hashed(password, (2**4, 8, 1)))
    for role in roles:
        Accounts(ledger.engine, clock=time.time).add(role, role, PASSWORD)


@pytest.fixture
def ledger(bench) -> Iterator[Ledger]:
    ledger = bench.ledger()
    yield ledger
    ledger.close()


@pytest.fixture
def site(bench, ledger, monkeypatch) -> Site:
    """With a reader, an admin and a sender."""
    add_users(monkeypatch, ledger, "reader", "admin", "sender")
    site = Site(bench)
    site.start()
    return site


def token_of(page: str) -> str:
    return re.search(r'name="token" value="([0-9a-f]{64})"', page)[1]


def log_in(browser: httpx.Client, name: str, password: str = PASSWORD, where: str = "/") -> httpx.Response:
    token = token_of(browser.get("/login").text)
    return browser.post("/login", data={"token": token, "name": name, "password": password, "next": where})


@contextmanager
def logged_in(site: Site, name: str) -> Iterator[httpx.Client]:
    with site.browser() as browser:
        assert log_in(browser, name).status_code == 303
        yield browser


def test_without_users_who_is_at_the_machine_sees_and_cannot_act(bench, ledger):
    site = Site(bench)
    site.start()
    uid, assessment_id = failed_study(bench, ledger)
    with site.browser() as browser:
        page = browser.get(f"/studies/{uid}")
        assert page.status_code == 200
        assert "ChildBroke: it ended" in page.text
        assert "<form" not in page.text
        answer = browser.post(f"/studies/{uid}/retry", data={"assessment_id": assessment_id})
        assert answer.status_code == 403
        assert "marginwatch user add" in answer.text
        assert browser.get("/login").headers["location"] == "/"
    assert ("DICOM Instances Accessed", "local", f"{uid} P1 /studies/{uid}") in site.audited()


def test_from_the_first_user_on_nothing_is_shown_without_a_login(bench, ledger, monkeypatch):
    site = Site(bench)
    site.start()
    uid, assessment_id = failed_study(bench, ledger)
    with site.browser() as browser:
        assert browser.get("/").status_code == 200
        add_users(monkeypatch, ledger, "reader")
        pages = ["/", f"/studies/{uid}", f"/results/{assessment_id}/report.pdf", "/nowhere", "/docs", "/openapi.json"]
        pages += [f"/results/{assessment_id}/images/axial.png", "//", "/static", "/healthz/", "/login/../studies"]
        for path in pages:
            answer = browser.get(path)
            assert (answer.status_code, answer.text) == (303, ""), path
            assert answer.headers["location"].startswith("/login?next=")
        for path in ("/api/studies", f"/api/studies/{uid}"):
            answer = browser.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Basic ")
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            for path in (f"/studies/{uid}/retry", "/", "/dicom-web/studies"):
                assert browser.request(method, path).status_code == 401, (method, path)
        for path in ("/static/..%2fapi/studies", "/static/../api/studies", "/login%2f..%2fapi/studies"):
            assert "P1" not in browser.get(path).text
        for path in ("/healthz", "/static/review.css", "/login"):
            assert browser.get(path).status_code == 200
        assert "P1" not in browser.get("/login").text


def test_login_gives_a_strict_cookie_and_goes_where_it_was_asked(site, bench, ledger):
    uid, _ = failed_study(bench, ledger)
    with site.browser() as browser:
        form = browser.get(browser.get(f"/studies/{uid}").headers["location"])
        assert f'name="next" value="/studies/{uid}"' in form.text
        assert "Not for primary diagnosis" in form.text
        answer = log_in(browser, " Reader ", where=f"/studies/{uid}")
        assert answer.headers["location"] == f"/studies/{uid}"
        cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("marginwatch="))
        for part in ("HttpOnly", "SameSite=strict", "Path=/"):
            assert part in cookie
        page = browser.get(f"/studies/{uid}")
        assert "reader (reader)" in page.text
        assert page.headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize(
    "where", ["//evil.example", "https://evil.example", "/\\evil.example", "/login", "javascript:x"]
)
def test_login_leads_nowhere_else(site, where):
    with site.browser() as browser:
        assert log_in(browser, "reader", where=where).headers["location"] == "/"


def test_a_session_cannot_be_planted_and_ends_with_the_logout(site):
    with site.browser() as browser:
        browser.cookies.set("marginwatch", "planted", domain="127.0.0.1")
        assert browser.get("/").status_code == 303
        log_in(browser, "reader")
        first = browser.cookies["marginwatch"]
        assert first != "planted"
        log_in(browser, "reader")
        assert browser.cookies["marginwatch"] != first
        with site.browser() as other:  # the session before the second login is over
            other.cookies.set("marginwatch", first)
            assert other.get("/").status_code == 303
        token = browser.cookies["marginwatch"]
        assert browser.post("/logout", data={"token": "0" * 64}).status_code == 403
        assert browser.get("/").status_code == 200
        assert browser.post("/logout", data={"token": token_of(browser.get("/").text)}).status_code == 303
        assert browser.get("/").status_code == 303
        browser.cookies.set("marginwatch", token, domain="127.0.0.1")
        assert browser.get("/").status_code == 303


def test_wrong_names_and_passwords_get_the_same_answer_and_then_a_wait(site):
    with site.browser() as browser:
        answers = [log_in(browser, name, "wrong password") for name in ("reader", "nobody")]
        assert {answer.status_code for answer in answers} == {401}
        assert len({re.sub(r"[0-9a-f]{64}", "", answer.text) for answer in answers}) == 1
        for _ in range(4):
            log_in(browser, "reader", "wrong password")
        answer = log_in(browser, "reader")
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert log_in(browser, "admin").status_code == 303  # another name from there
    failures = [who for event, who, _ in site.audited() if event == "User Authentication"]
    assert failures == ["reader", "nobody", *["reader"] * 4, "admin"]


def test_a_form_without_its_token_or_from_elsewhere_does_nothing(site, bench, ledger):
    uid, assessment_id = failed_study(bench, ledger)
    with logged_in(site, "admin") as browser:
        path = f"/studies/{uid}/retry"
        form = {"token": token_of(browser.get(f"/studies/{uid}").text), "assessment_id": assessment_id}
        for bad in ({}, {"token": "0" * 64}, {"token": ""}, {"token": "ä"}):
            assert browser.post(path, data={"assessment_id": assessment_id, **bad}).status_code == 403
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": site.url, "sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ):
            assert browser.post(path, data=form, headers=headers).status_code == 403
        assert browser.post(path, json=form).status_code == 415
        assert browser.post(path, data={**form, "more": "x" * 20000}).status_code == 413
        assert browser.post("/login", data=form, headers={"origin": "https://evil.example"}).status_code == 403
        assert ledger.assessment(assessment_id).inputs
        with logged_in(site, "reader") as other:  # the token of another's session
            other_token = token_of(other.get("/").text)
        assert browser.post(path, data={**form, "token": other_token}).status_code == 403
        headers = {"origin": site.url, "sec-fetch-site": "same-origin"}
        assert browser.post(path, data=form, headers=headers).status_code == 303
    assert not ledger.assessment(assessment_id).inputs
    about = f"{uid} P1 /studies/{uid}/retry"
    assert ("DICOM Instances Accessed", "admin", about) in site.audited()


def test_an_admin_has_a_failed_study_assessed_again_once(site, bench, ledger):
    uid, assessment_id = failed_study(bench, ledger)
    with logged_in(site, "admin") as browser:
        form = {"token": token_of(browser.get(f"/studies/{uid}").text), "assessment_id": assessment_id}
        wrong = browser.post("/studies/1.2.3/retry", data=form)
        assert (wrong.status_code, "No such study." in wrong.text) == (404, True)
        assert browser.post(f"/studies/{uid}/delete", data=form).status_code == 404
        assert browser.post(f"/studies/{uid}/retry", data={**form, "assessment_id": "x"}).status_code == 404
        assert browser.post(f"/studies/{uid}/retry", data=form).headers["location"] == f"/studies/{uid}"
        (again,) = route(ledger, Order(ROUTED_PRIORITY, "1"))
        assert (again.study_instance_uid, again.number) == (uid, 2)
        assert browser.post(f"/studies/{uid}/retry", data=form).status_code == 404


def test_an_admin_releases_a_held_study(site, bench, ledger):
    dataset = bench.patient("P7").slice("followup", "20260215", 0)
    ledger.arrived(identity_of(dataset), Path("x.dcm"))
    uid = str(dataset.StudyInstanceUID)
    with ledger.transaction() as connection:
        connection.execute(update(STUDIES).values(held="1 slice is missing."))
    with logged_in(site, "reader") as browser:
        page = browser.get(f"/studies/{uid}").text
        assert "1 slice is missing." in page
        assert "/release" not in page
    with logged_in(site, "admin") as browser:
        form = {"token": token_of(browser.get(f"/studies/{uid}").text)}
        assert browser.post(f"/studies/{uid}/release", data=form).status_code == 303
        assert ledger.study(uid).released
        assert browser.post(f"/studies/{uid}/release", data=form).status_code == 409
    assert ("DICOM Instances Accessed", "admin", f"{uid} P7 /studies/{uid}/release") in site.audited()


def test_roles_see_and_do_what_is_theirs(site, bench, ledger):
    uid, assessment_id = failed_study(bench, ledger)
    dataset = bench.patient("P1").slice("followup", "20260215", 0)
    ledger.conflict(identity_of(dataset), Path("conflicts/x.dcm"), sha256="ab" * 32)
    with logged_in(site, "reader") as browser:
        page = browser.get(f"/studies/{uid}").text
        assert "ChildBroke: it ended" in page
        assert "came again with other content" in page
        for hidden in ("Traceback", "/retry", "Instances put aside"):
            assert hidden not in page
        form = {"token": token_of(page), "assessment_id": assessment_id}
        assert browser.post(f"/studies/{uid}/retry", data=form).status_code == 403
        assert browser.post("/dicom-web/studies").status_code == 403
    with logged_in(site, "admin") as browser:
        page = browser.get(f"/studies/{uid}").text
        for shown in ("Traceback:\n  &lt;script&gt;", "/retry", "Instances put aside", str(dataset.SOPInstanceUID)):
            assert shown in page
        assert "<script" not in page
    with site.browser() as browser:
        assert log_in(browser, "sender").status_code == 403
        assert browser.get("/").status_code == 303
        for path in ("/", "/api/studies", f"/studies/{uid}", f"/results/{assessment_id}/report.pdf"):
            assert browser.get(path, auth=("sender", PASSWORD)).status_code == 403
    alerts = [(who, what) for event, who, what in site.audited() if event == "Security Alert"]
    assert ("reader", f"/studies/{uid}/retry") in alerts


def test_scripts_come_with_name_and_password(site, bench, ledger):
    failed_study(bench, ledger)
    with site.browser() as browser:
        for _ in range(3):
            assert browser.get("/api/studies", auth=("reader", PASSWORD)).json()[0]["patient_id"] == "P1"
        assert "set-cookie" not in browser.get("/api/studies", auth=("reader", PASSWORD)).headers
        for header in ("Basic", "Basic !!!", "Basic Og==", "Bearer x", "basic \xff"):
            assert browser.get("/api/studies", headers={"authorization": header.encode("latin-1")}).status_code == 401
        Accounts(ledger.engine, clock=time.time).set_password("reader", "another horse")
        assert browser.get("/api/studies", auth=("reader", PASSWORD)).status_code == 401
        assert browser.get("/api/studies", auth=("reader", "another horse")).status_code == 200
        Accounts(ledger.engine, clock=time.time).remove("reader")
        assert browser.get("/api/studies", auth=("reader", "another horse")).status_code == 401


def test_a_password_that_is_changed_while_it_is_checked_is_not_known_again(site, ledger, monkeypatch):
    def changed_meanwhile(password: str, kept: str) -> bool:
        right = matches(password, kept)
        monkeypatch.setattr("dicom_node.accounts.matches", matches)
        Accounts(ledger.engine, clock=time.time).set_password("reader", "another horse")
        return right

    monkeypatch.setattr("dicom_node.accounts.matches", changed_meanwhile)
    with site.browser() as browser:
        browser.get("/api/studies", auth=("reader", PASSWORD))
        assert browser.get("/api/studies", auth=("reader", PASSWORD)).status_code == 401
        assert browser.get("/api/studies", auth=("reader", "another horse")).status_code == 200


def test_every_look_is_in_the_audit_trail(site, bench, ledger):
    uid, assessment_id = failed_study(bench, ledger)
    paths = [f"/studies/{uid}", f"/results/{assessment_id}/report.pdf", f"/results/{assessment_id}/images/axial.png"]
    paths.append(f"/api/studies/{uid}")
    with logged_in(site, "reader") as browser:
        for path in paths:
            assert browser.get(path).status_code == 200
        browser.post("/logout", data={"token": token_of(browser.get("/").text)})
    events = site.audited()
    expected = [("DICOM Instances Accessed", "reader", f"{uid} P1 {path}") for path in paths]
    login = ("User Authentication", "reader", "")
    assert events[1:] == [login, *expected, login]
    assert events[0][0] == "Application Activity"


def test_a_page_for_others_needs_users_before_it_starts(bench, ledger, monkeypatch, caplog):
    for changed in ({"host": "0.0.0.0"}, {"host_names": ("node.example",)}):
        with pytest.raises(Refused, match="marginwatch user add NAME --role admin"):
            Site(bench, **changed).start()
    add_users(monkeypatch, ledger, "admin")
    site = Site(bench, host="0.0.0.0", metrics_token_file=str(bench.folder / "token"))
    site.start()
    assert "without TLS" in caplog.text
    (bench.folder / "token").write_text("secret-token\n")
    with site.browser() as browser:
        assert browser.get("/").status_code == 303
        assert browser.get("/healthz").status_code == 200
        assert browser.get("/metrics").status_code == 401
        assert browser.get("/metrics", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert browser.get("/metrics", headers={"authorization": "Bearer secret-token"}).status_code == 200
        assert browser.get("/metrics", auth=("admin", PASSWORD)).status_code == 200
        Accounts(ledger.engine, clock=time.time).remove("admin")  # the last user gone, it stays closed
        assert browser.get("/").status_code == 303


def test_behind_a_proxy_the_login_is_required_and_cookies_are_for_tls_only(bench, ledger, monkeypatch):
    add_users(monkeypatch, ledger, "reader")
    site = Site(bench, behind_proxy=True, host_names=("node.example",))
    site.start()
    proxied = {"host": "node.example", "x-forwarded-for": "10.1.2.3", "x-forwarded-proto": "https"}
    with site.browser() as browser:
        form = browser.get("/login", headers=proxied)
        assert "strict-transport-security" in form.headers
        (cookie,) = form.headers.get_list("set-cookie")
        assert cookie.startswith("__Host-")
        assert "Secure" in cookie
        data = {"token": token_of(form.text), "name": "reader", "password": PASSWORD}
        headers = {**proxied, "origin": "https://node.example", "cookie": cookie.partition(";")[0]}
        answer = browser.post("/login", data=data, headers=headers)
        assert answer.status_code == 303
        assert answer.headers.get_list("set-cookie")[0].startswith("__Host-marginwatch=")
        assert browser.get("/login", headers={**proxied, "host": "evil.example"}).status_code == 400
    (login,) = [m for m in site.audit() if "User Authentication" in ET.tostring(m, encoding="unicode")]
    assert login.find("ActiveParticipant").get("NetworkAccessPointID") == "10.1.2.3"


def test_without_a_proxy_nobody_says_where_they_come_from(site):
    with site.browser() as browser:
        browser.headers["x-forwarded-for"] = "10.9.9.9"
        log_in(browser, "reader", "wrong password")
    (failure,) = [m for m in site.audit() if "User Authentication" in ET.tostring(m, encoding="unicode")]
    assert failure.find("ActiveParticipant").get("NetworkAccessPointID") == "127.0.0.1"


def test_over_tls_cookies_are_for_tls_only(bench, ledger, monkeypatch, certificate):
    add_users(monkeypatch, ledger, "reader")
    site = Site(bench, tls_certificate=str(certificate[0]), tls_key=str(certificate[1]))
    site.start()
    url = site.url.replace("http:", "https:")
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    with httpx.Client(base_url=url, trust_env=False, verify=trusting) as browser:
        assert log_in(browser, "reader").status_code == 303
        page = browser.get("/")
        assert page.status_code == 200
        assert "strict-transport-security" in page.headers
        assert [cookie.name for cookie in browser.cookies.jar if cookie.secure] == ["__Host-marginwatch"]


def test_the_machines_own_ipv6_address_is_a_name_of_it(bench):
    site = Site(bench, host="::1")
    site.start()
    with httpx.Client(base_url=site.review.url, trust_env=False) as browser:
        assert browser.get("/").status_code == 200
        assert browser.get("/", headers={"host": "evil.example"}).status_code == 400


def test_faults_are_answered_with_the_strict_headers_too(bench, monkeypatch):
    site = Site(bench)
    site.start()
    faults = [
        (OperationalError("SELECT", {}, Exception("gone")), 503, "The database cannot be used"),
        (RuntimeError("a bug with DEV-0001"), 500, "log says why"),
    ]
    with site.browser() as browser:
        for fault, status, says in faults:

            def fails(_ledger: Ledger, fault: Exception = fault) -> None:
                raise fault

            monkeypatch.setattr("dicom_node.review.interface.worklist", fails)
            answer = browser.get("/api/studies")
            assert (answer.status_code, says in answer.text, "DEV-0001" in answer.text) == (status, True, False)
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            assert answer.headers["cache-control"] == "no-store"


def test_a_certificate_that_cannot_be_used_is_refused_in_a_sentence(bench, certificate):
    for pair in ((certificate[0], certificate[0]), (certificate[0], bench.folder / "none.pem")):
        with pytest.raises(Refused, match=r"review\.tls_certificate and review\.tls_key cannot be used"):
            Site(bench, tls_certificate=str(pair[0]), tls_key=str(pair[1])).start()
