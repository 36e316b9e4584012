"""The audit trail: each act a message of the standard's schema, on one line of a private file, and at the collector."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import stat
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from dicom_node.audit.message import INSTANCES_ACCESSED, Participant, StudyPart, audit_message
from dicom_node.audit.message import Event as AuditEvent
from dicom_node.audit.trail import Actor, AuditTrail
from dicom_node.settings import AuditSettings

NOON = 1_700_000_000.0  # 2023-11-14T22:13:20Z
PART = StudyPart("1.2.3", "P1", {"1.2.840.10008.5.1.4.1.1.2": 3})
FAILED = replace(PART, failed=2)
CODE = {"csd-code", "codeSystemName", "originalText"}
#: PS3.15 A.5.1: each element's children in their order, required and other attributes.
SCHEMA = {
    "AuditMessage": (
        ["EventIdentification", "ActiveParticipant", "AuditSourceIdentification", "ParticipantObjectIdentification"],
        set(),
        set(),
    ),
    "EventIdentification": (
        ["EventID", "EventTypeCode", "EventOutcomeDescription"],
        {"EventDateTime", "EventOutcomeIndicator"},
        {"EventActionCode"},
    ),
    "ActiveParticipant": (
        ["RoleIDCode"],
        {"UserID", "UserIsRequestor"},
        {"AlternativeUserID", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
    ),
    "AuditSourceIdentification": (["AuditSourceTypeCode"], {"AuditSourceID"}, set()),
    "ParticipantObjectIdentification": (
        ["ParticipantObjectIDTypeCode", "ParticipantObjectName", "ParticipantObjectDescription"],
        {"ParticipantObjectID"},
        {"ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole"},
    ),
    "ParticipantObjectDescription": (["SOPClass"], set(), set()),
    "SOPClass": ([], {"NumberOfInstances"}, {"UID"}),
    "EventID": ([], CODE, set()),
    "EventTypeCode": ([], CODE, set()),
    "RoleIDCode": ([], CODE, set()),
    "ParticipantObjectIDTypeCode": ([], CODE, set()),
    "AuditSourceTypeCode": ([], {"csd-code"}, set()),
    "EventOutcomeDescription": ([], set(), set()),
    "ParticipantObjectName": ([], set(), set()),
}


def check(element: ET.Element) -> None:
    """Hold an element and what is in it against the schema."""
    children, required, others = SCHEMA[element.tag]
    assert required <= set(element.attrib) <= required | others
    places = [children.index(child.tag) for child in element]
    assert places == sorted(places)
    for child in element:
        check(child)


@pytest.fixture
def trail(tmp_path):
    trail = AuditTrail(tmp_path, AuditSettings(), clock=lambda: NOON)
    yield trail
    trail.close()


def messages(folder) -> list[ET.Element]:
    lines = [line for file in sorted((folder / "audit").iterdir()) for line in file.read_text().splitlines()]
    return [ET.fromstring(line) for line in lines]


def test_each_act_is_one_message_of_the_schema(tmp_path, trail):
    anna = Actor("anna", "10.1.2.3")
    acts = [
        (lambda: trail.started(["listener", "review"]), "110100", "110120", "0"),
        (lambda: trail.stopped(["listener", "review"]), "110100", "110121", "0"),
        (lambda: trail.received(Actor("PACS", "10.0.0.1"), "MARGINWATCH", [PART]), "110104", None, "0"),
        (lambda: trail.received(Actor("PACS", "fd00::1"), "MARGINWATCH", [FAILED]), "110104", None, "4"),
        (lambda: trail.received(Actor("PACS", "fd00::1"), "MARGINWATCH", [], failed=2), "110104", None, "4"),
        (lambda: trail.sent(Actor("PACS", "pacs.example"), "MARGINWATCH", [PART]), "110104", None, "0"),
        (lambda: trail.sent(Actor("PACS"), "MARGINWATCH", [PART], problem="away"), "110104", None, "4"),
        (lambda: trail.viewed(anna, PART, "/studies/1.2.3"), "110103", None, "0"),
        (lambda: trail.acted(anna, PART, "/studies/1.2.3/retry"), "110103", None, "0"),
        (lambda: trail.logged_in(anna), "110114", "110122", "0"),
        (lambda: trail.login_failed(anna, "wrong password"), "110114", "110122", "4"),
        (lambda: trail.logged_out(anna), "110114", "110123", "0"),
        (lambda: trail.turned_away(anna, "/x", "not an admin"), "110113", "110132", "8"),
        (lambda: trail.users_changed(Actor("root"), "added anna"), "110113", "110137", "0"),
    ]
    for act, *_ in acts:
        act()
    found = messages(tmp_path)
    assert len(found) == len(acts)
    for message, (_, kind, detail, outcome) in zip(found, acts, strict=True):
        check(message)
        assert message.find("EventIdentification/EventID").get("csd-code") == kind
        type_code = message.find("EventIdentification/EventTypeCode")
        assert (None if type_code is None else type_code.get("csd-code")) == detail
        assert message.find("EventIdentification").get("EventOutcomeIndicator") == outcome
        assert message.find("EventIdentification").get("EventDateTime") == "2023-11-14T22:13:20.000+00:00"
    received = found[2]
    assert [o.get("ParticipantObjectID") for o in received.iter("ParticipantObjectIdentification")] == ["1.2.3", "P1"]
    assert received.find(".//SOPClass").get("NumberOfInstances") == "3"
    told = [found[n].findtext("EventIdentification/EventOutcomeDescription") for n in (2, 3, 4)]
    assert told == [None, "2 instances were not stored", "2 instances were not stored"]
    assert found[4].find("ParticipantObjectIdentification") is None
    points = [x.get("NetworkAccessPointTypeCode") for n in (2, 3, 5) for x in found[n].iter("ActiveParticipant")]
    assert points == ["2", None, "2", None, None, "1"]


def test_the_file_is_private_and_another_one_each_day(tmp_path):
    now = [NOON]
    trail = AuditTrail(tmp_path, AuditSettings(), clock=lambda: now[0])
    trail.logged_in(Actor("anna"))
    now[0] += 86400
    trail.logged_out(Actor("anna"))
    trail.close()
    names = ["2023-11-14.log", "2023-11-15.log"]
    files = sorted((tmp_path / "audit").iterdir())
    assert [file.name for file in files] == names
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) == 0o700


def test_a_file_that_is_there_is_written_on(tmp_path):
    for _ in range(2):
        trail = AuditTrail(tmp_path, AuditSettings(), clock=lambda: NOON)
        trail.logged_in(Actor("anna"))
        trail.close()
    assert len(messages(tmp_path)) == 2


def test_no_text_breaks_the_line_or_the_xml(tmp_path, trail):
    evil = 'a\nb\r\n<x attr="1">&\x00\x1b\ud800]]>' + "z" * 5000
    trail.viewed(Actor(evil, evil), StudyPart(evil, evil), evil)
    (message,) = messages(tmp_path)
    check(message)
    assert message.find("ActiveParticipant").get("UserID").startswith('a b <x attr="1">&')
    assert len(message.find("ActiveParticipant").get("UserID")) < 1100


def test_a_message_needs_no_subject():
    text = audit_message(AuditEvent(INSTANCES_ACCESSED, "R", NOON), [Participant("x", True)], source="here")
    check(ET.fromstring(text))


def test_a_disk_that_does_not_take_it_is_told_and_stops_nobody(tmp_path, caplog):
    (tmp_path / "audit").write_text("in the way")
    trail = AuditTrail(tmp_path, AuditSettings(), clock=lambda: NOON)
    trail.logged_in(Actor("anna"))
    trail.close()
    assert "could not be written" in caplog.text


def test_a_line_that_the_disk_took_only_in_part_is_told_and_leaves_the_next_whole(tmp_path, trail, caplog, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:100]))
    trail.logged_in(Actor("anna"))
    monkeypatch.undo()
    assert "could not be written" in caplog.text
    trail.logged_out(Actor("anna"))
    (file,) = (tmp_path / "audit").iterdir()
    torn, whole = file.read_text().splitlines()
    assert len(torn) == 100
    check(ET.fromstring(whole))


def test_a_disk_that_does_not_keep_it_is_told_and_asked_again(trail, caplog, monkeypatch):
    """A failed sync is an error, and not taken for done."""
    asked: list[int] = []

    def broken(descriptor: int) -> None:
        asked.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    monkeypatch.setattr("dicom_node.audit.trail._SYNC_EVERY_S", 0.05)
    trail.logged_in(Actor("anna"))
    deadline = time.monotonic() + 10
    while len(asked) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "has not reached the disk: Input/output error" in caplog.text


# -- the collector

LINE = re.compile(
    rb"<85>1 2023-11-14T22:13:20\.000Z \S+ marginwatch \d+ DICOM\+RFC3881 - \xef\xbb\xbf(<AuditMessage>.*)"
)


@contextmanager
def collector(transport: str, tls: ssl.SSLContext | None = None, *, says: bytes = b""):
    """A collector on loopback: its port and what it heard, as bytes, once it is left."""
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    heard: list[bytes] = []
    with closing(socket.socket(socket.AF_INET, kind)) as server:
        server.settimeout(20)
        server.bind(("127.0.0.1", 0))
        if transport != "udp":
            server.listen()

        def listen() -> None:
            if transport == "udp":
                heard.append(server.recv(65535))
                return
            plain, _ = server.accept()
            with closing(tls.wrap_socket(plain, server_side=True) if tls else plain) as connection:
                connection.sendall(says)
                while chunk := connection.recv(4096):
                    heard.append(chunk)

        thread = threading.Thread(target=listen)
        thread.start()
        yield server.getsockname()[1], heard
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize("says", [b"", b"hello"])
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_message_after_message_goes_at_once_though_the_collector_says_something(
    tmp_path, transport, says, certificate, caplog
):
    """With TLS 1.3 the connection always becomes readable: session tickets come, and nothing is to be read of them."""
    tls, ca = None, ""
    if transport == "tls":
        tls, ca = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), str(certificate[0])
        tls.load_cert_chain(*certificate)
    with collector(transport, tls, says=says) as (port, heard):
        settings = AuditSettings(host="localhost", port=port, transport=transport, ca_file=ca)
        trail = AuditTrail(tmp_path / "data", settings, clock=lambda: NOON)
        for count in (1, 2, 3):
            trail.logged_in(Actor("anna"))
            deadline = time.monotonic() + 5
            while b"".join(heard).count(b"</AuditMessage>") < count:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        trail.close()
    assert not caplog.records


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_the_collector_gets_each_message(tmp_path, transport, certificate):
    tls, ca = None, ""
    if transport == "tls":
        tls, ca = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), str(certificate[0])
        tls.load_cert_chain(*certificate)
    with collector(transport, tls) as (port, heard):
        settings = AuditSettings(host="localhost", port=port, transport=transport, ca_file=ca)
        if transport == "udp":
            settings = AuditSettings(host="127.0.0.1", port=port, transport=transport)
        trail = AuditTrail(tmp_path / "data", settings, clock=lambda: NOON)
        trail.logged_in(Actor("anna"))
        trail.close()
    said = b"".join(heard)
    if transport != "udp":
        length, _, said = said.partition(b" ")
        assert int(length) == len(said)
    check(ET.fromstring(LINE.fullmatch(said)[1].decode()))


def test_a_collector_that_is_away_holds_nobody_up(tmp_path, caplog):
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = AuditSettings(host="127.0.0.1", port=nobody.getsockname()[1], transport="tcp")
        trail = AuditTrail(tmp_path, settings, clock=lambda: NOON)
        for _ in range(100):
            trail.logged_in(Actor("anna"))
        trail.close()
    assert len(messages(tmp_path)) == 100
    assert caplog.text.count("cannot be reached") == 1
