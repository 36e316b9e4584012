"""What a folder holds: headers, and every other file with its reason."""

from __future__ import annotations

import shutil

import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from dicom_node.decode.files import INDEX_TAGS, read_header, scan
from dicom_node.refusal import Refused


def test_every_other_file_is_listed_by_reason(kit, tmp_path):
    series = kit.Series(kit.ramp())
    kit.write(series.images(), tmp_path / "deep" / "er")
    whole = (tmp_path / "deep" / "er" / "000").read_bytes()
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "notes.txt").write_text("no image here")
    (tmp_path / "cut").write_bytes(whole[:160])
    index = series.image(0)
    index.SOPClassUID = MediaStorageDirectoryStorage
    kit.save(index, tmp_path / "DICOMDIR")

    found = scan([tmp_path])

    assert len(found.headers) == 6
    assert {item.path.name: item.code for item in found.skipped} == {
        "empty.dcm": "empty_file",
        "notes.txt": "not_dicom",
        "cut": "truncated_file",
        "DICOMDIR": "dicomdir",
    }
    for item in found.skipped:
        assert item.text.startswith(f"{tmp_path.name}/{item.path.name}")
        assert item.text.endswith(".")


def test_a_file_is_named_by_its_path_from_the_folder_given(kit, tmp_path):
    """Exports name slices alike in every folder: the file name alone would not find the broken one."""
    study = tmp_path / "study"
    for name in ("one", "two"):
        kit.write(kit.Series(kit.ramp(2), name=name).images(), study / name)
    (study / "two" / "001").write_bytes(b"broken")
    found = scan([study])
    assert [header.name for header in found.headers] == ["study/one/000", "study/one/001", "study/two/000"]
    assert found.skipped[0].text.startswith("study/two/001 ")
    files = sorted(path for path in study.rglob("*") if path.is_file())
    assert [header.name for header in scan(files).headers] == [header.name for header in found.headers]
    assert scan(files[:1]).headers[0].name == "one/000"


def test_files_and_folders_given_twice_count_once(kit, tmp_path):
    kit.write(kit.Series(kit.ramp()).images(), tmp_path)
    assert len(scan([tmp_path, tmp_path / "000", tmp_path]).headers) == 6


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(Refused) as refused:
        scan([tmp_path / "nowhere"])
    assert refused.value.code == "path_missing"


def test_only_the_asked_elements_are_kept(kit, tmp_path):
    kit.write(kit.Series(kit.ramp()).images(), tmp_path)
    header = scan([tmp_path], tags=INDEX_TAGS).headers[0]
    assert header.text("PatientID") == "MADE-1"
    assert "Rows" not in header.dataset
    assert header.pixels == "present"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, None])
def test_whether_pixels_follow(kit, tmp_path, syntax):
    series = kit.Series(kit.ramp())
    syntaxes = {} if syntax is None else {"syntax": syntax}
    image = series.image(0)
    if syntax == ExplicitVRBigEndian:
        image["PixelData"].value = series.values[0].astype(">i2").tobytes()
    path = kit.save(image, tmp_path / "a", **syntaxes)
    bare = series.image(1)
    del bare.PixelData
    assert read_header(path).pixels == "present"
    if syntax != DeflatedExplicitVRLittleEndian:
        assert read_header(kit.save(bare, tmp_path / "b", **syntaxes)).pixels == "missing"
        path.write_bytes(path.read_bytes()[:-20])
        assert read_header(path).pixels == "cut_short"
    else:
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(Refused) as refused:
            read_header(path)
        assert refused.value.code == "truncated_file"


def test_a_data_set_without_preamble_is_read(kit, tmp_path):
    path = kit.save(kit.Series(kit.ramp()).image(0), tmp_path / "a", syntax=ImplicitVRLittleEndian)
    whole = path.read_bytes()
    length = int.from_bytes(whole[140:144], "little")
    path.write_bytes(whole[144 + length :])
    assert read_header(path).text("PatientID") == "MADE-1"


def test_odd_values_neither_warn_nor_break(kit, tmp_path):
    image = kit.Series(kit.ramp()).image(0)
    path = kit.save(image, tmp_path / "a")
    data = path.read_bytes()
    uid = str(image.SeriesInstanceUID).encode()
    path.write_bytes(data.replace(uid, b"not-a-uid".ljust(len(uid), b"x")).replace(b"MADE-1", b"M\xff\xfe\xfd-1"))
    header = read_header(path)
    assert header.text("SeriesInstanceUID").startswith("not-a-uid")
    assert header.text("Modality") == "CT"


def test_real_folder(shared):
    found = scan([shared / "real" / "soft_tissue_STS_005"])
    assert len(found.headers) == 160
    assert {item.code for item in found.skipped} == {"not_dicom"}


def test_an_unreadable_file_is_listed(kit, tmp_path):
    kit.write(kit.Series(kit.ramp()).images(), tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    shutil.copy(tmp_path / "000", tmp_path / "copy")
    found = scan([tmp_path])
    assert len(found.headers) == 7
    assert [item.code for item in found.skipped] == ["unreadable"]
