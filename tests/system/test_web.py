"""The page of a running node in a real browser: nobody in without a login, no foreign page acts, all on record."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

BROWSER_ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
BROWSER_ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
EVIL = "<script>document.title=1</script>"
STUDY = str(generate_uid())


@pytest.fixture
def instances(tmp_path: Path) -> Path:
    """A folder with one slice of a patient whose ID is a script."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, generate_uid()
    dataset.PatientID, dataset.PatientName, dataset.StudyDescription = EVIL, "Made^Up", EVIL
    dataset.StudyDate = dataset.AcquisitionDate = "20260215"
    dataset.Modality = "CT"
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 1, 1
    dataset.PhotometricInterpretation, dataset.PixelData = "MONOCHROME2", bytes(32)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    (tmp_path / "slices").mkdir()
    dataset.save_as(tmp_path / "slices" / "1.dcm", enforce_file_format=True)
    return tmp_path / "slices"


@pytest.fixture
def foreign(node) -> Iterator[str]:
    """The address of another site's page with a form that would log our user out."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            form = f'<form method="post" action="{node.url}/logout"><button>Win a prize</button></form>'
            self.wfile.write(form.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def audited(node) -> list[tuple[str, str, str]]:
    """Event, first participant, and what it was about."""
    text = "".join(file.read_text() for file in sorted((node.folder / "data" / "audit").iterdir()))
    return [
        (
            message.find("EventIdentification/EventID").get("originalText"),
            message.find("ActiveParticipant").get("UserID"),
            " ".join(o.get("ParticipantObjectID") for o in message.iter("ParticipantObjectIdentification")),
        )
        for message in map(ET.fromstring, text.splitlines())
    ]


def test_from_login_to_logout(node, tools, instances, foreign, tmp_path):
    chromium = tools.need("chromium", "chromium")
    from playwright.sync_api import sync_playwright

    node.write_config()
    (tmp_path / "password").write_text("correct horse")
    tools.run("user", "add", "anna", "--role=admin", "--password-file", tmp_path / "password", "--config", node.config)
    node.start()
    node.send(instances)
    assert httpx.get(f"{node.url}/api/studies", trust_env=False).status_code == 401
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium, args=BROWSER_ARGUMENTS
        )
        page = browser.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if "Content Security" in message.text else 0)
        page.goto(f"{node.url}/studies/{STUDY}")
        assert page.url.startswith(f"{node.url}/login")
        for password in ("wrong horse", "correct horse"):
            page.get_by_label("Name").fill("anna")
            page.get_by_label("Password").fill(password)
            page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{node.url}/studies/{STUDY}")
        assert page.get_by_text(EVIL).first.is_visible()
        assert page.title() == f"{EVIL} – Marginwatch"
        (cookie,) = browser.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("marginwatch", True, "Strict")
        page.goto(foreign)
        page.get_by_role("button", name="Win a prize").click()
        assert page.get_by_text("Requests from other pages are refused").is_visible()
        page.goto(node.url)
        assert page.get_by_text(EVIL).first.is_visible()
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url(f"{node.url}/login")
        assert browser.cookies(node.url)[0]["name"] == "marginwatch-form"
        page.goto(f"{node.url}/studies/{STUDY}")
        assert page.url.startswith(f"{node.url}/login")
        page.screenshot(path=tmp_path / "login.png")
        browser.close()
    assert complaints == []
    node.stop()
    acts = audited(node)
    assert acts.count(("User Authentication", "anna", "")) == 3  # failed, in, out
    assert ("DICOM Instances Accessed", "anna", f"{STUDY} {EVIL} /studies/{STUDY}") in acts
    assert [event for event, *_ in acts].count("Application Activity") == 2
    assert EVIL not in (node.folder / "node.log").read_text()
