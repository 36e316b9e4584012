"""From the connection to store and ledger: large data sets, what a crash leaves, who gets in, what is committed to."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from dicom_node.receive.association import Association, Limits, Message, Reply
from dicom_node.receive.command import Command, Field, Status
from dicom_node.receive.gate import Gate, Rules
from dicom_node.receive.inbox import Inbox
from dicom_node.receive.incoming import IN_MEMORY_BYTES, Incoming
from dicom_node.receive.negotiation import STORAGE_COMMITMENT, Context, Rejection, Request
from dicom_node.receive.pdu import Connection
from dicom_node.refusal import Refused
from dicom_node.settings import TlsSettings

CT = "1.2.840.10008.5.1.4.1.1.2"
PUSH_INSTANCE = "1.2.840.10008.1.20.1.1"


@pytest.mark.parametrize(
    "length", [0, 1, 99_999, 3_000_000, IN_MEMORY_BYTES, IN_MEMORY_BYTES + 1, 2 * IN_MEMORY_BYTES + 7]
)
def test_a_data_set_of_any_size_is_kept_as_it_came(filled, tmp_path, length):
    inbox = Inbox(tmp_path / "inbox", durable=True)
    content = os.urandom(1000) * (length // 1000) + b"x" * (length % 1000)
    incoming = filled(Incoming(b"head", part=inbox.part, most_bytes=1 << 40), content)
    assert incoming.start()[:1000] == content[:1000]
    path = inbox.keep(incoming)
    assert path.read_bytes() == b"head" + content
    assert list(inbox.left_over()) == [path]
    assert oct(path.stat().st_mode)[-3:] == "600"


def test_what_is_too_large_is_read_and_forgotten(filled, tmp_path):
    inbox = Inbox(tmp_path / "inbox", durable=True)
    incoming = filled(
        Incoming(b"", part=inbox.part, most_bytes=IN_MEMORY_BYTES + 200_000), bytes(IN_MEMORY_BYTES + 600_000)
    )
    assert incoming.is_too_large
    assert list((tmp_path / "inbox").iterdir()) == []


def test_a_disk_that_takes_no_more_is_told_and_the_rest_is_read(filled, tmp_path):
    incoming = Incoming(b"", part=lambda: tmp_path / "no folder" / "x", most_bytes=1 << 40)
    filled(incoming, bytes(IN_MEMORY_BYTES + 400_000))
    assert isinstance(incoming.problem, FileNotFoundError)
    assert incoming.length == IN_MEMORY_BYTES + 400_000


def test_of_what_a_crash_leaves_only_whole_files_count(filled, tmp_path):
    inbox = Inbox(tmp_path / "inbox", durable=True)
    whole = inbox.keep(filled(Incoming(b"ab", part=inbox.part, most_bytes=99), b"cde"))
    for name, content in (("1f-6.dcm", b"12345"), ("2f.part", b"12"), ("3f-2.dcm", b""), ("notes", b"1")):
        (tmp_path / "inbox" / name).write_bytes(content)
    assert list(inbox.left_over()) == [whole]
    assert [path.name for path in (tmp_path / "inbox").iterdir()] == [whole.name]


# -- who is let in


def request(calling="PACS", called="MARGINWATCH"):
    return Request(called, calling, "", (), 0, b"")


def test_addresses_titles_and_numbers():
    from ipaddress import ip_network

    now = [100.0]
    rules = Rules((ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")), ("PACS",), "MARGINWATCH", 4, 6)
    gate = Gate(rules, clock=lambda: now[0])
    assert [gate.admits(a) for a in ("192.0.2.9", "192.0.3.9", "::ffff:192.0.2.1", "2001:db8::1%eth0")] == [
        True,
        False,
        True,
        True,
    ]
    assert gate.refuses(request()) is None
    assert gate.refuses(request(calling="OTHER")) is Rejection.CALLING_AE_TITLE
    assert gate.refuses(request(called="OTHER")) is Rejection.CALLED_AE_TITLE
    assert [gate.enter("192.0.2.1") for _ in range(4)] == [None, None, None, Rejection.LIMIT]
    gate.leave("192.0.2.1")
    assert [gate.enter(f"192.0.2.{n}") for n in (2, 3, 4)] == [None, None, Rejection.LIMIT]  # places kept for others
    for _ in range(2):
        gate.leave("192.0.2.1")
    assert [gate.enter("192.0.2.1"), gate.enter("192.0.2.1"), gate.enter("192.0.2.1")] == [
        None,
        None,
        Rejection.CONGESTION,
    ]
    now[0] += 61
    gate.leave("192.0.2.1")
    assert gate.enter("192.0.2.1") is None


def test_one_who_is_refused_again_and_again_keeps_nobody_out():
    gate = Gate(Rules(most_associations=8, most_a_minute=1000))
    refused = [gate.enter("192.0.2.1") for _ in range(100)][6:]
    assert set(refused) == {Rejection.LIMIT}
    waiting = [gate.wait("192.0.2.1") for _ in refused]
    assert sum(waiting) == 4
    assert [gate.enter("192.0.2.2"), gate.enter("192.0.2.3")] == [None, None]
    assert gate.wait("192.0.2.4")  # the room is not full of one
    gate.leave("192.0.2.1", waited=True)
    assert gate.wait("192.0.2.1")


def test_only_known_addresses_are_spoken_to(bench):
    node = bench.node("listener", listener=replace(bench.settings.listener, allowed_addresses=("192.0.2.0/24",)))
    ae = AE()
    ae.add_requested_context(Verification)
    assert not ae.associate("127.0.0.1", node.settings.listener.port).is_established


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pynetdicom leaves its socket open
def test_more_associations_than_allowed_are_told_so(bench):
    node = bench.node("listener", listener=replace(bench.settings.listener, max_associations=4))
    ae = AE()
    ae.add_requested_context(Verification)
    port = node.settings.listener.port
    some = [ae.associate("127.0.0.1", port) for _ in range(4)]
    assert [a.is_established for a in some] == [True, True, True, False]
    assert some[3].is_rejected
    some[0].release()
    bench.wait_until(lambda: ae.associate("127.0.0.1", port).is_established)
    ae.shutdown()
    gc.collect()


@pytest.mark.parametrize("content", [b"", b"\x01\0\0\0", b"GET / HTTP/1.1\r\n\r\n"])
def test_who_says_nothing_or_nonsense_is_cut_off(bench, monkeypatch, content):
    monkeypatch.setattr("dicom_node.receive.listener._WATCH_EVERY_S", 0.1)
    monkeypatch.setattr("dicom_node.receive.listener.Limits", lambda **given: Limits(**given, request_s=0.5))
    node = bench.node("listener")
    with closing(socket.create_connection(("127.0.0.1", node.settings.listener.port), timeout=10)) as peer:
        peer.sendall(content)
        started_at = time.monotonic()
        while peer.recv(100):
            pass
        assert time.monotonic() - started_at < 5


def test_a_trickle_does_not_hold_an_association_open(bench, monkeypatch):
    monkeypatch.setattr("dicom_node.receive.listener._WATCH_EVERY_S", 0.1)
    monkeypatch.setattr("dicom_node.receive.listener.Limits", lambda **given: Limits(**given, request_s=1.0))
    node = bench.node("listener")
    sent = 0
    with closing(socket.create_connection(("127.0.0.1", node.settings.listener.port), timeout=10)) as peer:
        try:
            for byte in b"\x01\0\0\0\1\0" + bytes(200):
                peer.sendall(bytes([byte]))
                sent += 1
                time.sleep(0.1)
        except OSError:
            pass
    assert sent < 60


# -- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl(*new, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("node", "peer"):
        ask = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}")
        openssl(*ask, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-days",
            "2",
            "-out",
            f"{name}.pem",
        )
    openssl(*new, "-subj", "/CN=stranger", "-keyout", "stranger.key", "-out", "stranger.pem")
    return folder


def test_with_tls_only_peers_with_a_certificate_get_in(bench, certificates):
    echoscu = Path("/usr/bin/echoscu")
    if not echoscu.exists():
        pytest.skip("echoscu is not installed (apt-get install dcmtk)")
    tls = TlsSettings(*(str(certificates / name) for name in ("node.pem", "node.key", "ca.pem")))
    node = bench.node("listener", listener=replace(bench.settings.listener, tls=tls))

    def gets_in(*options):
        command = [str(echoscu), *options, "-to", "5", "-ta", "5", "127.0.0.1", str(node.settings.listener.port)]
        return subprocess.run(command, cwd=certificates, capture_output=True, timeout=30, check=False).returncode == 0

    assert gets_in("+tls", "peer.key", "peer.pem", "+cf", "ca.pem")
    assert not gets_in("+tls", "stranger.key", "stranger.pem", "+cf", "ca.pem")
    assert not gets_in("+tla", "+cf", "ca.pem")
    assert not gets_in()

    def shakes_hands(*options):
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{node.settings.listener.port}", "-CAfile", "ca.pem"]
        command += ["-cert", "peer.pem", "-key", "peer.key", "-tls1_2", *options]
        return (
            subprocess.run(
                command, cwd=certificates, input=b"", capture_output=True, timeout=30, check=False
            ).returncode
            == 0
        )

    assert shakes_hands("-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")
    assert not shakes_hands("-cipher", "ECDHE-ECDSA-AES128-SHA")  # not of BCP 195


def test_certificates_that_cannot_be_used_are_refused_by_key(bench, certificates):
    for files in (
        (certificates / "none.pem", certificates / "node.key"),
        (certificates / "node.pem", certificates / "ca.key"),
    ):
        with pytest.raises(
            Refused, match=r"listener\.tls: the certificate files cannot be used \((No such file.*none\.pem|\[)"
        ):
            bench.node("listener", listener=replace(bench.settings.listener, tls=TlsSettings(*map(str, files))))


# -- storage commitment


def commitment(node, references):
    """Status of the request, and the event type with the committed and the failed that are reported."""
    reports = []

    def on_report(event):
        information = event.event_information
        reports.append((event.event_type, information))
        return 0x0000, None

    ae = AE(ae_title="TESTER")
    ae.add_requested_context(StorageCommitmentPushModel, [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
    association = ae.associate(
        "127.0.0.1", node.settings.listener.port, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)]
    )
    assert association.is_established
    wanted = Dataset()
    wanted.TransactionUID = "1.2.3.4"
    wanted.ReferencedSOPSequence = []
    for sop_class, uid in references:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = sop_class, uid
        wanted.ReferencedSOPSequence.append(one)
    status, _ = association.send_n_action(wanted, 1, StorageCommitmentPushModel, PUSH_INSTANCE)
    deadline = time.monotonic() + 10
    while not reports and time.monotonic() < deadline:
        time.sleep(0.02)
    association.release()
    ((event_type, information),) = reports
    assert information.TransactionUID == "1.2.3.4"
    done = {str(x.ReferencedSOPInstanceUID) for x in information.get("ReferencedSOPSequence") or ()}
    failed = {str(x.ReferencedSOPInstanceUID): x.FailureReason for x in information.get("FailedSOPSequence") or ()}
    return status.Status, event_type, done, failed


def test_only_what_lies_whole_on_the_disk_is_committed_to(bench):
    node = bench.node("listener")
    slices = bench.patient().slices("baseline", "20260105")[:3]
    ae = AE()
    ae.add_requested_context(CT, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", node.settings.listener.port)
    assert {association.send_c_store(dataset).Status for dataset in slices} == {0}
    association.release()
    uids = [str(dataset.SOPInstanceUID) for dataset in slices]
    assert commitment(node, [(CT, uid) for uid in uids]) == (0, 1, set(uids), {})
    stored = {i.sop_instance_uid: node.settings.data_folder / i.path for i in node.ledger.known(uids)}
    stored[uids[0]].write_bytes(stored[uids[0]].read_bytes()[:-2])
    stored[uids[1]].unlink()
    wanted = [(CT, uids[0]), (CT, uids[1]), (CT, "1.2.3.99"), ("1.2.840.10008.5.1.4.1.1.4", uids[2])]
    status, event_type, done, failed = commitment(node, wanted)
    assert (status, event_type, done) == (0, 2, set())
    assert failed == {uids[0]: 0x0112, uids[1]: 0x0112, "1.2.3.99": 0x0112, uids[2]: 0x0119}


def test_who_asks_for_nothing_is_promised_nothing(bench):
    node = bench.node("listener")
    with pytest.raises(ValueError, match="unpack"):  # no report comes
        commitment(node, [])


# -- an association that is killed in the middle


def test_half_an_instance_leaves_nothing(bench):
    node = bench.node("listener")
    dataset = bench.patient().slice("baseline", "20260105", 0)
    dataset.PixelData = bytes(40_000_000)
    dataset.Rows, dataset.Columns = 4000, 5000
    ae = AE()
    ae.add_requested_context(CT, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", node.settings.listener.port)
    sender = threading.Thread(target=association.send_c_store, args=(dataset,))
    sender.start()
    inbox = node.settings.data_folder / "inbox"
    bench.wait_until(lambda: list(inbox.glob("*.part")) or not sender.is_alive())
    association.abort()
    sender.join()
    bench.wait_until(lambda: not list(inbox.glob("*.part")))
    assert [path for path in inbox.iterdir() if path.suffix == ".part"] == []


def test_the_due_time_moves_with_what_is_at_work():
    now = [10.0]
    here, there = socket.socketpair()
    association = Association(Connection(here, max_pdu_bytes=4096), None, Limits(), clock=lambda: now[0])  # type: ignore[arg-type]
    assert association.due == 40.0
    here.close()
    there.close()


def test_the_peer_does_not_pay_for_the_nodes_own_work():
    """The time in which it works on a request does not count against the peer."""
    seen = []

    class Slow:
        def refuses(self, _):
            return None

        def commit(self, *_):
            seen.append(association.due)
            return Reply(Status.SUCCESS)

    here, there = socket.socketpair()
    association = Association(Connection(here, max_pdu_bytes=16384), Slow(), Limits(), clock=lambda: 10.0)  # type: ignore[arg-type]
    context = Context(STORAGE_COMMITMENT, str(ImplicitVRLittleEndian))
    association._request = request()
    association._answer(Message(Command(Field.N_ACTION, 1, False, STORAGE_COMMITMENT, "", 1), context, None), 1)
    assert seen == [float("inf")]
    assert association.due == 70.0
    association._connection.close()
    here.close()
    there.close()


def test_one_data_folder_has_one_listener(bench):
    bench.node("listener")
    other = replace(bench.settings.listener, port=bench.free_port())
    with pytest.raises(Refused, match="Another listener"):
        bench.node("listener", listener=other)
