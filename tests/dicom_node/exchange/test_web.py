"""DICOMweb as servers really answer: in pages, with failures in the body, behind a token."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
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
    """Answers every request with what `answer` gives: a status and a JSON document, or bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answer: Callable[[], tuple[int, Any]] = lambda: (200, b"")
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
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
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


def told(bench, stored: Iterable[int] = (), failed: dict[int, int] | None = None, other: int = 0) -> dict[str, Any]:
    """A store instances response. stored, failed: numbers of the files, failed with a reason; other: without UID."""

    def reference(number: int) -> dict[str, Any]:
        return {"00081155": {"vr": "UI", "Value": [bench.uid_of("P1", "result", number)]}}

    reason = {n: {"00081197": {"vr": "US", "Value": [code]}} for n, code in (failed or {}).items()}
    document = {
        "00081199": [reference(n) for n in stored],
        "00081198": [reference(n) | reason[n] for n in reason],
        "0008119A": [{"00081197": {"vr": "US", "Value": [other]}}] if other else [],
    }
    return {tag: {"vr": "SQ", "Value": items} for tag, items in document.items() if items}


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


ALL = range(3)


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (202, {"stored": [0, 1], "failed": {2: 0x0110}}, r"did not store 1 of 3 objects \(0x0110\)"),
        (202, {"stored": [0, 1], "other": 0xC000}, r"did not store 1 of 3 objects \(0xc000\)"),
        (202, {"stored": [0]}, r"did not store 2 of 3 objects \(it does not name them\)"),
        (202, {"stored": ALL, "failed": {0: 0x0110}}, "did not store 1 of 3"),
        (200, {"stored": [0, 1]}, "did not store 1 of 3"),
        (409, {"failed": {0: 0x0110, 1: 0x0111}}, "did not store 2 of 3"),
        (401, {}, "HTTP 401"),
    ],
)
def test_what_is_not_stored_is_an_error(server, files, bench, status, answer, message):
    server.answer = lambda: (status, told(bench, **answer))
    with pytest.raises(NotSent, match=message):
        deliver(files, Destination("WEB", dicomweb_url=server.url), calling_ae_title="NODE")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (202, b""),
        (202, b"<NativeDicomModel/>"),
        (200, b"<html>Welcome</html>"),
        (200, {"00081198": {"vr": "SQ", "Value": ["rubbish"]}}),
        (200, {"00081198": {"vr": "SQ", "Value": [{"00081197": {"Value": "rubbish"}}]}}),
        (500, None),
    ],
)
def test_an_answer_that_cannot_be_read_is_no_yes(server, files, status, body):
    server.answer = lambda: (status, body)
    with pytest.raises(NotSent, match=f"HTTP {status} with what is no DICOM JSON"):
        deliver(files, Destination("WEB", dicomweb_url=server.url), calling_ae_title="NODE")


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, {"stored": ALL}),
        (202, {"stored": ALL}),  # with warnings
        (202, {"stored": ALL, "other": 0x0110}),  # of something that is not ours
        (409, {"failed": dict.fromkeys(ALL, 0x0111)}),
        (202, {"stored": [0], "failed": {1: 0x0111, 2: 0x0111}}),
    ],
)
def test_what_is_stored_or_was_there_already_counts(server, files, bench, status, answer):
    server.answer = lambda: (status, told(bench, **answer))
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


def test_a_server_that_trickles_is_left_after_a_time():
    over = threading.Event()

    class Trickling(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            while not over.wait(0.1):
                self.wfile.write(b" ")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Trickling)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    began = time.monotonic()
    try:
        with (
            pytest.raises(NoAnswer, match="cannot be reached"),
            web_client(f"http://127.0.0.1:{server.server_port}", "", within_s=1.0) as client,
        ):
            WebQuery(client).studies(patient_id="P1")
        assert time.monotonic() - began < 5
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
