"""Who an instance is: the ledger, the archive and the decoder must not disagree on the day it was taken."""

from __future__ import annotations

import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.decode.dates import acquired_on
from dicom_node.decode.files import INDEX_TAGS, read_header
from dicom_node.identity import identity_of, read_identity
from dicom_node.records import IMAGE_CLASSES, Identity
from dicom_node.refusal import Refused

DATES = {
    "the acquisition": ({"AcquisitionDate": "20260216", "StudyDate": "20260215"}, "20260216"),
    "date and time before date": (
        {"AcquisitionDateTime": "20260216093000.5", "AcquisitionDate": "20260215", "StudyDate": "20260215"},
        "20260216",
    ),
    "shifted apart": ({"AcquisitionDate": "20010101", "SeriesDate": "20010101", "StudyDate": "20260215"}, "20260215"),
    "no acquisition": ({"SeriesDate": "20260216", "StudyDate": "20260215"}, "20260215"),
    "content only": ({"ContentDate": "20260215"}, "20260215"),
    "date and time only": ({"AcquisitionDateTime": "20260215093000"}, "20260215"),
    "no day of the calendar": ({"AcquisitionDate": "20261399", "StudyDate": "20260215"}, "20260215"),
    "none": ({}, ""),
}


@pytest.mark.parametrize(("elements", "expected"), DATES.values(), ids=DATES.keys())
@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
def test_every_reader_finds_the_same_day(bench, elements, expected):
    dataset = bench.patient().slice("followup", "20260215", 0)
    for keyword in ("AcquisitionDate", "StudyDate"):
        del dataset[keyword]
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    path = bench.folder / "slice.dcm"
    path.write_bytes(bench.file_bytes(dataset))

    received = DicomBytesIO()
    received.is_implicit_VR, received.is_little_endian = False, True
    write_dataset(received, dataset)
    assert read_identity(received.getvalue(), ExplicitVRLittleEndian).acquired == expected
    assert identity_of(read_header(path, tags=INDEX_TAGS).dataset).acquired == expected
    if expected:
        assert acquired_on(read_header(path)).strftime("%Y%m%d") == expected
    else:
        with pytest.raises(Refused, match="when it was acquired"):
            acquired_on(read_header(path))


def test_the_image_classes_are_those_of_the_standard():
    assert {UID(uid).name for uid in IMAGE_CLASSES} == {
        "CT Image Storage",
        "Enhanced CT Image Storage",
        "Legacy Converted Enhanced CT Image Storage",
        "MR Image Storage",
        "Enhanced MR Image Storage",
        "Legacy Converted Enhanced MR Image Storage",
    }


@pytest.mark.parametrize("patient_id", ["P\x001", "P\t1", "P\ud800"])
def test_control_characters_are_no_patient_id(patient_id):
    with pytest.raises(Refused, match="control characters"):
        Identity("1.2", "1.3", "1.4", "1.5", patient_id, "")
    assert Identity("1.2", "1.3", "1.4", "1.5", "\u5c71\u7530\u3000\u00a01", "").patient_id
