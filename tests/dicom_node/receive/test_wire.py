"""PDUs, association requests, command sets and heads, held against pynetdicom and pydicom, which read them too."""

from __future__ import annotations

import socket
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from pynetdicom import AE, build_context
from pynetdicom.dsutils import decode
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)

from dicom_node.identity import read_identity
from dicom_node.receive.command import Command, Field, event_report, read_command, reply_to
from dicom_node.receive.head import file_head, quick_identity
from dicom_node.receive.negotiation import (
    STORAGE_COMMITMENT,
    VERIFICATION,
    Rejection,
    acceptance,
    granted,
    read_request,
)
from dicom_node.receive.pdu import BrokenOff, Connection, Kind, ProtocolError, abort, data_pdus
from dicom_node.refusal import Refused

CT = "1.2.840.10008.5.1.4.1.1.2"


def asked(*contexts, max_pdu_bytes=16384, also=()):
    """The body of an A-ASSOCIATE-RQ as pynetdicom writes it."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "SENDER", "MARGINWATCH"
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = list(contexts)
    longest = MaximumLengthNotification()
    longest.maximum_length_received = max_pdu_bytes
    ae = AE()
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = ae.implementation_class_uid
    primitive.user_information = [longest, implementation, *also]
    return A_ASSOCIATE_RQ(primitive).encode()[6:]


def test_a_request_is_read_as_pynetdicom_wrote_it():
    body = asked(
        build_context(CT, [ImplicitVRLittleEndian, ExplicitVRLittleEndian]),
        build_context(VERIFICATION),
        max_pdu_bytes=40000,
    )
    request = read_request(body)
    assert (request.calling_ae_title, request.called_ae_title) == ("SENDER", "MARGINWATCH")
    assert request.max_pdu_bytes == 40000
    assert [p.context_id for p in request.proposals] == [1, 3]
    assert request.proposals[0].abstract_syntax == CT
    assert request.proposals[0].transfer_syntaxes == (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


def test_the_answer_is_what_pynetdicom_reads():
    request = read_request(
        asked(
            build_context(CT, [ImplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian]),
            build_context(CT, [JPEG2000Lossless, ExplicitVRLittleEndian]),
            build_context(CT, ["1.2.3.4"]),
            build_context("1.2.840.10008.5.1.4.1.2.2.1", [ImplicitVRLittleEndian]),
        )
    )
    contexts = granted(request)
    assert {n: c.transfer_syntax for n, c in contexts.items()} == {1: ExplicitVRLittleEndian, 3: JPEG2000Lossless}
    answer = A_ASSOCIATE_AC()
    answer.decode(acceptance(request, contexts, max_pdu_bytes=131072))
    assert [(c.context_id, c.result) for c in answer.presentation_context] == [(1, 0), (3, 0), (5, 4), (7, 3)]
    assert answer.presentation_context[1].transfer_syntax == JPEG2000Lossless
    assert answer.user_information.maximum_length == 131072
    assert answer.user_information.role_selection == {}
    refusal = A_ASSOCIATE_RJ()
    refusal.decode(Rejection.CALLING_AE_TITLE.pdu())
    assert (refusal.result, refusal.source, refusal.reason_diagnostic) == (1, 1, 3)


def test_a_pacs_that_reports_may_be_the_provider():
    """Of storage commitment, and of nothing else (PS3.7 D.3.3.4)."""
    roles = []
    for uid in (STORAGE_COMMITMENT, CT):
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = uid, False, True
        roles.append(role)
    request = read_request(asked(build_context(STORAGE_COMMITMENT), build_context(CT), also=roles))
    assert request.roles == {STORAGE_COMMITMENT: (False, True), CT: (False, True)}
    answer = A_ASSOCIATE_AC()
    answer.decode(acceptance(request, granted(request), max_pdu_bytes=4096))
    assert {uid: (r.scu_role, r.scp_role) for uid, r in answer.user_information.role_selection.items()} == {
        STORAGE_COMMITMENT: (False, True)
    }


def test_commitment_is_asked_for_uncompressed():
    request = read_request(asked(build_context(STORAGE_COMMITMENT, [DeflatedExplicitVRLittleEndian])))
    assert granted(request) == {}
    answer = A_ASSOCIATE_AC()
    answer.decode(acceptance(request, {}, max_pdu_bytes=4096))
    assert [c.result for c in answer.presentation_context] == [4]


def test_titles_with_control_characters_are_no_titles():
    body = bytearray(asked(build_context(CT)))
    body[22] = 0
    with pytest.raises(ProtocolError, match="AE title"):
        read_request(bytes(body))


@settings(max_examples=2000, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6), cut=st.integers(0, 300))
def test_mutated_requests_are_read_or_refused(changes, cut):
    body = bytearray(asked(build_context(CT, [ImplicitVRLittleEndian]), build_context(VERIFICATION)))
    for place, value in changes:
        body[place % len(body)] = value
    try:
        request = read_request(bytes(body[: cut or None]))
    except ProtocolError:
        return
    assert len(request.proposals) <= 128
    A_ASSOCIATE_AC().decode(acceptance(request, granted(request), max_pdu_bytes=4096))


def test_commands_are_what_pydicom_reads():
    command = Command(Field.C_STORE, 7, True, CT, "1.2.3", 0)
    content = reply_to(command, 0xA700, comment="Full\\up, and rather long: " + "x" * 60)
    read = decode(BytesIO(content), True, True)
    assert read.CommandGroupLength == len(content) - 12
    assert (read.CommandField, read.MessageIDBeingRespondedTo, read.Status) == (0x8001, 7, 0xA700)
    assert (read.AffectedSOPClassUID, read.AffectedSOPInstanceUID) == (CT, "1.2.3")
    assert read.CommandDataSetType == 0x0101
    assert read.ErrorComment.startswith("Full/up")
    assert len(read.ErrorComment) <= 64
    report = decode(
        BytesIO(event_report("1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1", message_id=3, event_type=2)), True, True
    )
    assert (report.CommandField, report.MessageID, report.EventTypeID) == (0x0100, 3, 2)
    again = read_command(content)
    assert again.is_response
    assert (again.message_id, again.sop_instance_uid, again.has_dataset) == (7, "1.2.3", False)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 7, b"\x08\0\x16\0\2\0\0\0ab", b"\0\0\0\1\4\0\0\0abcd", b"\0\0\0\1\xff\xff\xff\xff"]
)
def test_broken_commands_are_refused(content):
    with pytest.raises(ProtocolError):
        read_command(content)


def connected(content, *, max_pdu_bytes=4096):
    here, there = socket.socketpair()
    there.sendall(content)
    there.shutdown(socket.SHUT_WR)
    return Connection(here, max_pdu_bytes=max_pdu_bytes), there


def test_pdus_are_what_pynetdicom_reads():
    content = bytes(range(256)) * 40
    pdus = data_pdus(5, content, kind="dataset", max_pdu_bytes=4096)
    read, at, lengths = b"", 0, []
    while at < len(pdus):
        length = int.from_bytes(pdus[at + 2 : at + 6], "big")
        pdu = P_DATA_TF()
        pdu.decode(pdus[at : at + 6 + length])
        (item,) = pdu.presentation_data_value_items
        assert item.presentation_context_id == 5
        read += item.presentation_data_value[1:]
        lengths.append((length, item.presentation_data_value[0]))
        at += 6 + length
    assert read == content
    assert max(length for length, _ in lengths) == 4096
    assert [flag for _, flag in lengths] == [0, 0, 2]
    connection, there = connected(pdus)
    got = b""
    for _ in lengths:
        kind, length = connection.next_pdu()
        assert kind is Kind.DATA
        part = connection.fragment(length)
        view = bytearray(part.length)
        connection.read_into(memoryview(view))
        got += view
    assert got == content
    assert part.is_last
    with pytest.raises(BrokenOff):
        connection.next_pdu()
    connection.close()
    there.close()


@pytest.mark.parametrize(
    "content",
    [
        b"\x09\0\0\0\0\4abcd",
        b"\x04\0\xff\xff\xff\xff",
        b"\x01\0\x7f\xff\xff\xff",
        b"\x04\0\0\0\0\x02ab",
        b"\x04\0\0\0\0\x06\0\0\0\x01\1\2",
        b"\x04\0\0\0\0\x06\0\0\xff\xff\1\2",
    ],
)
def test_pdus_beyond_the_protocol_are_refused(content):
    connection, there = connected(content)
    with pytest.raises(ProtocolError):
        connection.fragment(connection.next_pdu()[1])
    connection.close()
    there.close()
    assert abort(0)[0] == Kind.ABORT


SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def encoded(dataset, syntax):
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    write_dataset(file, dataset)
    return file.getvalue()


def header(**values):
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, "1.2.3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.4", "1.2.5"
    dataset.PatientID, dataset.StudyDate = "P1", "20260101"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def item():
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.9"
    return inner


@pytest.mark.parametrize("syntax", [*SYNTAXES[:3], JPEG2000Lossless])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"PatientID": "Ä 1", "SpecificCharacterSet": "ISO_IR 192"},
        {"PatientID": "a\\b"},
        {"PatientID": ""},
        {"AcquisitionDateTime": "20260104120000.5+0100", "AcquisitionDate": "20260103"},
        {"StudyDate": "not a date"},
        {"ReferencedImageSequence": [item()]},
        {"PixelData": b"\0\1" * 600},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_quick_way_finds_whose_it_is_as_pydicom_does(syntax, values):
    dataset = header(**values)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    content = encoded(dataset, syntax)
    assert quick_identity(lambda most: content[:most], syntax) == read_identity(content, syntax)


@pytest.mark.filterwarnings("ignore")
def test_a_patient_id_that_is_too_long_is_not_no_patient_id():
    content = encoded(header(PatientID="9" * 3000), ExplicitVRLittleEndian)
    assert quick_identity(lambda most: content[:most], ExplicitVRLittleEndian).patient_id == "9" * 3000


@settings(max_examples=1000, deadline=None)
@given(
    syntax=st.sampled_from(SYNTAXES[:2]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 400),
)
@pytest.mark.filterwarnings("ignore")
def test_mutated_data_sets_have_a_safe_identity_or_none(syntax, changes, cut):
    content = bytearray(encoded(header(PatientName="A"), syntax))
    for place, value in changes:
        content[place % len(content)] = value
    try:
        identity = quick_identity(lambda most: bytes(content[: cut or None])[:most], syntax)
    except Refused:
        return
    for uid in (identity.study_instance_uid, identity.series_instance_uid, identity.sop_instance_uid):
        assert "/" not in uid
        assert not uid.startswith(".")


def test_a_file_head_is_what_pydicom_reads():
    content = encoded(header(), ExplicitVRLittleEndian)
    head = file_head(CT, "1.2.3", ExplicitVRLittleEndian, source_ae_title="SENDER")
    dataset = dcmread(BytesIO(head + content))
    meta = dataset.file_meta
    assert meta.FileMetaInformationGroupLength == len(head) - 144
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT, "1.2.3")
    assert (meta.TransferSyntaxUID, meta.SourceApplicationEntityTitle) == (ExplicitVRLittleEndian, "SENDER")
    assert dataset.PatientID == "P1"
    assert read_dataset(BytesIO(content), False, True).PatientID == "P1"
