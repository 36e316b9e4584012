"""The listener: every class and syntax is stored as it came, bad datasets get a status, and the node stays up."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    ParametricMapStorage,
    RTDoseStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from dicom_node.identity import read_identity
from dicom_node.refusal import Refused


def associate(node, sop_class, syntax, ae_title="TESTER"):
    ae = AE(ae_title=ae_title)
    ae.add_requested_context(sop_class, syntax)
    return ae.associate("127.0.0.1", node.settings.listener.port)


def store(node, dataset, sop_class, syntax):
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    association = associate(node, sop_class, syntax)
    assert association.is_established
    assert association.accepted_contexts
    try:
        return association.send_c_store(dataset).Status
    finally:
        association.release()
        node.settle()


def test_echo(bench):
    node = bench.node("listener")
    association = associate(node, Verification, ImplicitVRLittleEndian)
    assert association.send_c_echo().Status == 0
    association.release()


@pytest.mark.parametrize(
    "sop_class",
    [
        SegmentationStorage,
        RTStructureSetStorage,
        RTDoseStorage,
        ParametricMapStorage,
        SecondaryCaptureImageStorage,
        EnhancedMRImageStorage,
    ],
)
def test_every_class_is_stored(bench, sop_class):
    node = bench.node("listener")
    dataset = bench.patient().slice("baseline", "20260105", 0)
    assert store(node, dataset, sop_class, ExplicitVRLittleEndian) == 0
    assert node.ledger.instance(dataset.SOPInstanceUID) is not None
    (study,) = node.ledger.studies()
    assert study.images == (1 if sop_class == EnhancedMRImageStorage else 0)


def test_every_transfer_syntax_is_accepted_and_nothing_is_decoded(bench):
    node = bench.node("listener")
    for syntax in AllTransferSyntaxes:
        association = associate(node, "1.2.840.10008.5.1.4.1.1.2", syntax)
        assert association.is_established, syntax.name
        association.release()
    dataset = bench.patient().slice("baseline", "20260105", 0)
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00junk"
    dataset["PixelData"].is_undefined_length = True
    assert store(node, dataset, dataset.SOPClassUID, JPEGLSLossless) == 0
    kept = dcmread(node.settings.data_folder / node.ledger.instance(dataset.SOPInstanceUID).path)
    assert kept.file_meta.TransferSyntaxUID == JPEGLSLossless
    assert kept.PixelData.startswith(dataset.PixelData)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", ["", None, "../../etc/passwd", "1.2.3/../4", "..", "1\\2", "1" * 65])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.filterwarnings("ignore:The value length")
def test_a_dataset_without_usable_uids_gets_a_status_and_leaves_nothing(bench, keyword, value):
    node = bench.node("listener")
    dataset = bench.patient().slice("baseline", "20260105", 0)
    if value is None:
        del dataset[keyword]
    else:
        setattr(dataset, keyword, value)
    assert store(node, dataset, dataset.SOPClassUID, ExplicitVRLittleEndian) == 0xC000
    assert node.ledger.studies() == []
    assert not (node.settings.data_folder / "instances").exists()
    good = bench.patient().slice("baseline", "20260105", 1)
    assert store(node, good, good.SOPClassUID, ExplicitVRLittleEndian) == 0


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_hash_for_a_uid_is_stored(bench):
    node = bench.node("listener")
    dataset = bench.patient().slice("baseline", "20260105", 0)
    dataset.StudyInstanceUID = "dccc9599087131742838cc1162a630fea87ba9bf61ac09bfda90d4adfa5ddaed"
    assert store(node, dataset, dataset.SOPClassUID, ExplicitVRLittleEndian) == 0


def test_a_full_disk_is_answered_with_out_of_resources(bench):
    node = bench.node("listener", listener=replace(bench.settings.listener, minimum_free_gib=1e9))
    dataset = bench.patient().slice("baseline", "20260105", 0)
    assert store(node, dataset, dataset.SOPClassUID, ExplicitVRLittleEndian) == 0xA700


def test_only_known_calling_titles_are_let_in_where_they_are_set(bench):
    node = bench.node("listener", listener=replace(bench.settings.listener, calling_ae_titles=("PACS",)))
    assert not associate(node, Verification, ImplicitVRLittleEndian).is_established
    association = associate(node, Verification, ImplicitVRLittleEndian, ae_title="PACS")
    assert association.is_established
    association.release()


def test_a_taken_port_is_refused_by_name(bench):
    bench.node("listener")
    with pytest.raises(Refused, match="cannot be opened"):
        bench.node("listener")
    bench.nodes.pop()


def encoded(dataset: Dataset, syntax: str) -> bytes:
    file = DicomBytesIO()
    file.is_implicit_VR = syntax == ImplicitVRLittleEndian
    file.is_little_endian = syntax != ExplicitVRBigEndian
    write_dataset(file, dataset)
    content = file.getvalue()
    if syntax == DeflatedExplicitVRLittleEndian:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        content = packer.compress(content) + packer.flush()
    return content


SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def header() -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.4", "1.2.5"
    dataset.PatientID, dataset.StudyDate, dataset.AcquisitionDate = "P1 ", "20260101", "20260102"
    return dataset


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_identity_is_read_in_every_encoding(syntax):
    identity = read_identity(encoded(header(), syntax), syntax)
    assert identity.study_instance_uid == "1.2.4"
    assert (identity.patient_id, identity.acquired, identity.is_image) == ("P1", "20260102", True)


@settings(max_examples=300, deadline=None)
@given(
    syntax=st.sampled_from(SYNTAXES),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 400),
)
@pytest.mark.filterwarnings("ignore")
def test_mutated_datasets_are_read_or_refused(syntax, changes, cut):
    content = bytearray(encoded(header(), syntax))
    for place, value in changes:
        content[place % len(content)] = value
    try:
        identity = read_identity(bytes(content[: cut or None]), syntax)
    except Refused:
        return
    assert "/" not in identity.study_instance_uid
