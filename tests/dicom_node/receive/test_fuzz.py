"""Mutated associations and data sets: no crash, no hang, no file outside its place, and the next good one passes."""

from __future__ import annotations

import random
import socket
import struct
import threading
from dataclasses import replace

import pytest
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.receive.association import Association, Limits
from dicom_node.receive.pdu import Connection, data_pdus

CT = "1.2.840.10008.5.1.4.1.1.2"
COMMITMENT = "1.2.840.10008.1.20.1"
STREAMS, DATA_SETS = 10_000, 2_000
_SLOWEST_S = 20.0


def item(kind, content):
    return struct.pack(">BxH", kind, len(content)) + content


def association_request():
    syntax = item(0x40, str(ExplicitVRLittleEndian).encode())
    contexts = b"".join(
        item(0x20, bytes([number, 0, 0, 0]) + item(0x30, name.encode()) + syntax)
        for number, name in ((1, CT), (3, "1.2.840.10008.1.1"), (5, COMMITMENT))
    )
    user = item(0x50, item(0x51, (16384).to_bytes(4, "big")) + item(0x52, b"1.2.3"))
    body = struct.pack(">Hxx", 1) + b"MARGINWATCH     " + b"SENDER          " + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + user
    return struct.pack(">BxL", 1, len(body)) + body


def command(**values):
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return encoded(dataset, ImplicitVRLittleEndian)


def encoded(dataset, syntax=ExplicitVRLittleEndian):
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = syntax == ImplicitVRLittleEndian, True
    write_dataset(file, dataset)
    return file.getvalue()


def ct(uid="1.2.3.4"):
    dataset = Dataset()
    dataset.SpecificCharacterSet, dataset.SOPClassUID, dataset.SOPInstanceUID = "ISO_IR 100", CT, uid
    dataset.StudyDate, dataset.AcquisitionDate, dataset.Modality = "20260101", "20260101", "CT"
    dataset.PatientID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "P1", "1.2.5", "1.2.6"
    dataset.Rows = dataset.Columns = 16
    dataset.BitsAllocated = 16
    dataset.PixelData = bytes(512)
    dataset["PixelData"].VR = "OW"
    return encoded(dataset)


def message(context_id, request, dataset=b""):
    pdus = data_pdus(context_id, request, kind="command", max_pdu_bytes=16384)
    return pdus + (data_pdus(context_id, dataset, kind="dataset", max_pdu_bytes=300) if dataset else b"")


def store(dataset, uid="1.2.3.4"):
    request = command(
        AffectedSOPClassUID=CT,
        CommandField=1,
        MessageID=1,
        Priority=0,
        CommandDataSetType=1,
        AffectedSOPInstanceUID=uid,
    )
    return message(1, request, dataset)


def good_stream():
    echo = command(AffectedSOPClassUID="1.2.840.10008.1.1", CommandField=0x30, MessageID=2, CommandDataSetType=0x0101)
    wanted = Dataset()
    wanted.TransactionUID = "1.2.7"
    wanted.ReferencedSOPSequence = [Dataset()]
    wanted.ReferencedSOPSequence[0].ReferencedSOPClassUID = CT
    wanted.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3.4"
    ask = command(
        RequestedSOPClassUID=COMMITMENT,
        CommandField=0x0130,
        MessageID=3,
        CommandDataSetType=1,
        RequestedSOPInstanceUID="1.2.840.10008.1.20.1.1",
        ActionTypeID=1,
    )
    parts = [association_request(), message(3, echo), store(ct()), message(5, ask, encoded(wanted))]
    return [*parts, struct.pack(">BxLL", 5, 4, 0)]


def mutated(parts, draw):
    """A stream with bytes changed, cut, doubled, inserted or parts in another order."""
    parts = list(parts)
    kind = draw.randrange(7)
    if kind == 0:
        draw.shuffle(parts)
    elif kind == 1:
        parts.insert(draw.randrange(len(parts) + 1), draw.choice(parts))
    elif kind == 2:
        del parts[draw.randrange(len(parts))]
    stream = bytearray(b"".join(parts))
    for _ in range(draw.choice((0, 1, 1, 2, 8, 40)) or kind > 2):
        at = draw.randrange(len(stream))
        stream[at] = draw.choice((0, 1, 0x7F, 0xFF, draw.randrange(256)))
    if kind == 3:
        del stream[draw.randrange(len(stream)) :]
    elif kind == 4:
        at = draw.randrange(len(stream))
        stream[at:at] = draw.randbytes(draw.randrange(40))
    elif kind == 5:
        at = draw.randrange(len(stream) - 4)
        stream[at : at + 4] = draw.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1", b"\x7f\xff\xff\xff"))
    return bytes(stream)


@pytest.fixture
def served(bench):
    """Serves a stream of bytes as an association of a node; returns what the node answered and how it ended."""
    node = bench.node("listener", listener=replace(bench.settings.listener, durability="complete"))
    listener = node._listener

    def serve(stream):
        here, there = socket.socketpair()
        for one in (here, there):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        there.sendall(stream)
        there.shutdown(socket.SHUT_WR)
        association = Association(Connection(here, max_pdu_bytes=16384), listener._reception, Limits())
        association.serve()
        answer = b""
        there.settimeout(5)
        while part := there.recv(1 << 16):
            answer += part
        there.close()
        return answer, association.tally

    serve.node = node
    return serve


def answers_in_time(work):
    """Runs the work in a thread that must end."""
    failed = []

    def run():
        try:
            work()
        except BaseException as problem:
            failed.append(problem)
            raise

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_SLOWEST_S * 15)
    assert not thread.is_alive(), "an association hangs"
    assert not failed


def stays_in_place(node):
    folder = node.settings.data_folder
    assert {path.name for path in folder.iterdir()} <= {"instances", "inbox", "conflicts", "audit", "ledger.sqlite"} | {
        f"ledger.sqlite-{end}" for end in ("wal", "shm")
    } | {"worker.lock", "listener.lock"}
    for path in (folder / "instances").rglob("*"):
        assert path.is_dir() or path.suffix == ".dcm"
        assert len(path.relative_to(folder).parts) <= 4
    assert not list((folder / "inbox").glob("*.part"))


def test_the_good_stream_is_served_to_its_end(served):
    answer, tally = served(b"".join(good_stream()))
    assert (tally.ended, tally.stored, tally.refused) == ("released", 1, 0)
    assert answer[0] == 2
    assert answer[-10] == 6


@pytest.mark.filterwarnings("ignore")
def test_mutated_streams(served):
    draw = random.Random(20261122)
    parts = good_stream()

    def work():
        for _ in range(STREAMS):
            answer, tally = served(mutated(parts, draw))
            assert not answer or answer[0] in (2, 3, 7), answer[:16]
            assert tally.ended.split(":")[0] in ("released", "broken off", "aborted", "aborted by the peer", "rejected")

    answers_in_time(work)
    served.node.settle()
    stays_in_place(served.node)
    good = b"".join([association_request(), store(ct("1.2.3.5"), "1.2.3.5"), parts[-1]])
    assert served(good)[1].stored == 1
    served.node.settle()
    kept = served.node.ledger.instance("1.2.3.5")
    assert dcmread(served.node.settings.data_folder / kept.path).PatientID == "P1"


@pytest.mark.filterwarnings("ignore")
def test_mutated_data_sets(served):
    draw = random.Random(7)
    content = ct()

    def work():
        for _ in range(DATA_SETS):
            dataset = bytearray(content)
            for _ in range(draw.choice((1, 1, 2, 5, 30))):
                dataset[draw.randrange(len(dataset) if draw.random() < 0.3 else 260)] = draw.choice(
                    (0, 46, 47, 255, draw.randrange(256))
                )
            if draw.random() < 0.2:
                del dataset[draw.randrange(1, len(dataset)) :]
            stream = b"".join([association_request(), store(bytes(dataset)), good_stream()[-1]])
            answer, tally = served(stream)
            assert tally.stored + tally.refused == 1
            assert any(
                status in answer for status in (b"\0\x09\2\0\0\0" + end for end in (b"\0\0", b"\0\xc0", b"\0\xa9"))
            )

    answers_in_time(work)
    served.node.settle()
    stays_in_place(served.node)
