"""DICOMweb as servers really answer: in pages, with failures in the body, behind a token."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from dicom_node.exchange.answers import NoAnswer
from dicom_node.exchange.stow import deliver
from dicom_node.exchange.web import WebQuery, web_client
from dicom_node.send import NotSent
from dicom_node.settings import Destination


class Server(ThreadingHTTPServer):
    """Answers every request with what `answer` gives: a status and a JSON document."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answer: Callable[[], tuple[int, Any]] = lambda: (200, {})
        self.requests: list[Any] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/dicom-web"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers)))
        status, document = self.server.answer()
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def failures(*reasons: int) -> dict[str, Any]:
    return {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}} for reason in reasons]}}


def test_results_are_posted_with_the_token_of_the_file(server, files, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    destination = Destination("WEB", dicomweb_url=server.url + "/", token_file=str(tmp_path / "token"))
    assert deliver(files, destination, calling_ae_title="NODE") == 3
    ((path, headers),) = server.requests
    assert path == "/dicom-web/studies"
    assert headers["Authorization"] == "Bearer secret"
    (tmp_path / "token").unlink()
    with pytest.raises(NotSent, match="token_file"):
        deliver(files, destination, calling_ae_title="NODE")


@pytest.mark.parametrize(
    ("status", "document", "message"),
    [
        (202, failures(0x0110), r"did not store 1 of 3 objects \(0x0110\)"),
        (409, failures(0x0110, 0x0111), "did not store 1 of 3"),
        (401, {}, "HTTP 401"),
        (500, None, "HTTP 500"),
    ],
)
def test_what_is_not_stored_is_an_error(server, files, status, document, message):
    server.answer = lambda: (status, document)
    with pytest.raises(NotSent, match=message):
        deliver(files, Destination("WEB", dicomweb_url=server.url), calling_ae_title="NODE")


def test_objects_that_are_there_already_are_no_error(server, files):
    server.answer = lambda: (409, failures(0x0111, 0x0111, 0x0111))
    assert deliver(files, Destination("WEB", dicomweb_url=server.url), calling_ae_title="NODE") == 3


def test_a_search_goes_on_until_a_page_brings_nothing_new():
    instances = [{"00080018": {"vr": "UI", "Value": [f"1.2.{n}"]}} for n in range(7)]

    def page(request: httpx.Request) -> httpx.Response:
        start = int(request.url.params["offset"])
        return httpx.Response(200, json=instances[start : start + 3]) if start < 7 else httpx.Response(204)

    with httpx.Client(transport=httpx.MockTransport(page), base_url="http://pacs/") as client:
        found = WebQuery(client).instances("1.2", "1.2.3")
    assert [x.sop_instance_uid for x in found] == [f"1.2.{n}" for n in range(7)]


@pytest.mark.parametrize("answer", [httpx.Response(200, json={"a": 1}), httpx.Response(200, text="<html>")])
def test_what_is_no_answer_to_a_search_is_told(answer):
    with (
        httpx.Client(transport=httpx.MockTransport(lambda _: answer), base_url="http://pacs/") as client,
        pytest.raises(NoAnswer, match="no DICOM JSON"),
    ):
        WebQuery(client).studies(patient_id="P1")


def test_a_server_that_is_away_is_told_by_its_address():
    with (
        pytest.raises(NoAnswer, match=r"http://127\.0\.0\.1:1/dicom-web cannot be reached"),
        web_client("http://127.0.0.1:1/dicom-web", "") as client,
    ):
        WebQuery(client).studies(patient_id="P1")
