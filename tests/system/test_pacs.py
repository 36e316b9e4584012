"""From a PACS and back: storescu → node, killed in the middle → verdict → Orthanc, and the page in a browser."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from pydicom import dcmread

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(2000)]

RESULT_CLASSES = {
    "SegmentationStorage",
    "Comprehensive3DSRStorage",
    "SecondaryCaptureImageStorage",
    "EncapsulatedPDFStorage",
}
BROWSER_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def sent(node, tools, plan: Path, baseline: Path, followup: Path) -> str:
    """The follow-up's Study Instance UID; plan and studies are with the node."""
    tools.run("plan", "add", plan, "--config", node.config)
    node.send(baseline)
    node.send(followup)
    return str(dcmread(next(followup.glob("*")), stop_before_pixels=True).StudyInstanceUID)


def ended(node, tools, study_instance_uid: str) -> dict:
    """The follow-up's entry in the interface, once it has a verdict."""

    def found():
        study = node.study(study_instance_uid=study_instance_uid)
        return study if study and study["state"] in ("done", "refused", "failed") else None

    return tools.wait_until(found, seconds=800)


def results(node) -> list[Path]:
    return list((node.folder / "data").glob("results/*/[!.]*/assessment.json"))


@pytest.fixture(scope="module")
def verdict(node_with_pacs, phantom, tools) -> dict:
    """What comes of the made patient, though the node is killed while it assesses."""
    node = node_with_pacs
    uid = sent(node, tools, phantom.plan.parent, phantom.baseline, phantom.followups[0])
    tools.wait_until(lambda: node.study(state="running"), seconds=60)
    node.stop(signal.SIGKILL)
    assert results(node) == []
    node.start()
    return ended(node, tools, uid)


def test_the_phantoms_verdict_is_in_the_interface(verdict, phantom):
    expected = json.loads(phantom.truth.read_text())["followups"][0]
    assert verdict["state"] == "done", verdict["error"]
    assert verdict["outcome"] == "incomplete_coverage"
    assert verdict["needs_review"] is True
    assert verdict["minimal_margin_mm"] == pytest.approx(expected["minimal_margin_mm"], abs=1.5)


def test_a_killed_node_went_on_and_made_one_result(verdict, node_with_pacs, phantom):
    node = node_with_pacs
    assert len(results(node)) == 1
    # sent again after all that: known, nothing new begins
    node.send(phantom.followups[0])
    node.stop()
    node.start()
    assert node.study(study_instance_uid=verdict["study_instance_uid"]) == verdict
    with closing(sqlite3.connect(node.folder / "data" / "ledger.sqlite")) as ledger:
        assert ledger.execute("select count(*) from assessments").fetchone() == (1,)


def test_the_results_are_in_the_pacs(verdict, node_with_pacs, tools):
    check_results_in(node_with_pacs.pacs, verdict["study_instance_uid"], tools)


def check_results_in(pacs, study_instance_uid, tools):
    def classes():
        found = pacs.find(study_instance_uid, "SOPClassUID")
        return found if set(found) >= RESULT_CLASSES else None

    tools.wait_until(classes, seconds=60)
    uids = pacs.find(study_instance_uid, "SOPInstanceUID")
    assert len(uids) == len(set(uids))


@pytest.mark.usefixtures("verdict")
def test_the_page_shows_the_verdict_in_a_browser(node_with_pacs, tools, tmp_path):
    chromium = tools.need("chromium", "chromium")
    from playwright.sync_api import sync_playwright

    complaints, requests = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium, args=BROWSER_ARGUMENTS
        )
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(node_with_pacs.url)
        assert page.get_by_text("Not for primary diagnosis").first.is_visible()
        page.get_by_role("link", name="Incomplete coverage").first.click()
        assert page.get_by_role("heading", name="Incomplete coverage").first.is_visible()
        assert page.get_by_text("Not for primary diagnosis").first.is_visible()
        assert page.get_by_text("days after the procedure").first.is_visible()
        pictures = page.locator("figure img")
        assert pictures.count() > 0
        for number in range(pictures.count()):
            assert pictures.nth(number).evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        page.screenshot(path=tmp_path / "study.png", full_page=True)
        browser.close()
    assert complaints == []
    assert all(url.startswith(node_with_pacs.url) for url in requests)


def test_dev2_goes_from_storescu_to_orthanc(node_with_pacs, tools, shared):
    case = shared / "cases" / "dev2"
    uid = sent(node_with_pacs, tools, case / "plan", case / "baseline", case / "followup-1")
    study = ended(node_with_pacs, tools, uid)
    assert study["outcome"] == "incomplete_coverage", study
    check_results_in(node_with_pacs.pacs, study["study_instance_uid"], tools)
