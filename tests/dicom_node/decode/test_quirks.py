"""The table: every file of quirks/ is either decoded to the pixels that others decode, or refused by name."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.decode.files import read_header
from dicom_node.decode.frames import frames_of
from dicom_node.decode.pixels import stored_values
from dicom_node.decode.series import read_series, read_volume
from dicom_node.refusal import Refused

QUIRKS = Path(__file__).parents[3].parent / "shared" / "quirks"
FILES = sorted(p for p in QUIRKS.rglob("*") if p.is_file() and not p.name.startswith("LICENSE"))
SLICE = "one_slice_in_15_syntaxes/CTImage.dcm"
#: Files of which no frame can be used, and why; every other file is decoded.
REFUSED = {
    "enhanced_multiframe/bad_sequence.dcm": "no_frame_of_reference",
    "enhanced_multiframe/emri_small.dcm": "no_position",
    "enhanced_multiframe/emri_small_RLE.dcm": "no_position",
    "enhanced_multiframe/emri_small_jpeg_2k_lossless_too_short.dcm": "no_position",
    "enhanced_multiframe/liver.dcm": "not_ct_or_mr",
    "one_slice_in_15_syntaxes/US-YBR_FULL_422-EVRLE.dcm": "not_ct_or_mr",
    "one_slice_in_15_syntaxes/no-pixel-data.dcm": "not_an_image",
    "one_slice_in_15_syntaxes/no-pixel-spacing.dcm": "not_ct_or_mr",
}
#: How far the lossy copies of the one slice may lie from the original on average, in HU: 8 bit, 12 bit, near-lossless.
LOSSY_HU = {"50": 20.0, "51": 5.0, "53": 5.0, "55": 5.0, "81": 1.0, "91": 1.0}

pytestmark = pytest.mark.skipif(not FILES, reason="the folder ../shared/quirks is not here")


def name_of(path: Path) -> str:
    return path.relative_to(QUIRKS).as_posix()


def by_gdcm(path: Path) -> np.ndarray:
    """The pixels as GDCM alone decodes them, flat."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    image = reader.GetImage()
    kind = {"UINT8": "u1", "UINT16": "u2", "INT16": "i2"}[image.GetPixelFormat().GetScalarTypeAsString()]
    return np.frombuffer(image.GetBuffer().encode("utf-8", errors="surrogateescape"), kind)


def outcome_of(path: Path) -> tuple[str, np.ndarray]:
    """The code of the refusal, or ``decoded`` and the stored values of all frames."""
    try:
        header = read_header(path)
        frames = frames_of(header)
        values = stored_values(header)
    except Refused as problem:
        return problem.code, np.empty(0)
    return ("decoded" if len(frames) == len(values) else "frames and pixels do not match"), values


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_decoded_right_or_refused_by_name(path):
    outcome, values = outcome_of(path)
    assert outcome == REFUSED.get(name_of(path), "decoded")
    assert outcome != "decoded" or np.array_equal(values.ravel(), by_gdcm(path))


def test_no_row_of_the_table_is_for_a_file_that_is_gone():
    assert set(REFUSED) <= {name_of(path) for path in FILES}


@pytest.mark.parametrize("path", [p for p in FILES if name_of(p).startswith(SLICE + "_")], ids=lambda p: p.name[12:30])
def test_the_one_slice_means_the_same_in_every_syntax(path):
    original = _hounsfield(QUIRKS / SLICE)
    values = _hounsfield(path)
    limit = LOSSY_HU.get(path.name.split(".")[-2], 0.0) if "1.2.4." in path.name else 0.0
    body = original > -1000
    assert np.abs(values.astype(float) - original)[body].mean() <= limit


def _hounsfield(path: Path) -> np.ndarray:
    header = read_header(path)
    return frames_of(header)[0].rescale(stored_values(header)[0])


@pytest.mark.parametrize(
    ("pattern", "tool"),
    [(f"*.1.2.4.{n}.dcm", "dcmdjpeg") for n in (50, 51, 53, 55, 57, 70)]
    + [("CT0012*", "dcmdjpeg"), ("CTImage.dcm_RLE*", "dcmdrle"), ("CTImage.dcm_Deflated*", "dcmconv")]
    + [("CTImage.dcm_BigEndian*", "dcmconv")],
)
def test_the_pixels_are_those_of_dcmtk(tmp_path, pattern, tool):
    command = Path("/usr/bin") / tool
    if not command.exists():
        pytest.skip(f"{tool} is not installed (apt-get install dcmtk)")
    (path,) = (QUIRKS / "one_slice_in_15_syntaxes").glob(pattern)
    plain = tmp_path / "plain.dcm"
    subprocess.run(
        [command, "+te", str(path), str(plain)] if tool == "dcmconv" else [command, str(path), str(plain)], check=True
    )
    assert np.array_equal(np.squeeze(stored_values(read_header(path))), dcmread(plain).pixel_array)


@pytest.mark.parametrize(("folder", "count"), [("jpeg2000_ct", 20), ("one_slice_in_15_syntaxes", 1)])
def test_the_pixels_of_jpeg_2000_are_those_of_openjpeg(folder, count):
    """pydicom's own route, by another library than GDCM."""
    pytest.importorskip("openjpeg")
    paths = [p for p in FILES if p.parent.name == folder and ("CT.1.3" in p.name or "4.90" in p.name)]
    assert len(paths) == count
    for path in paths[:3]:
        assert np.array_equal(stored_values(read_header(path))[0], dcmread(path).pixel_array)


def test_one_slice_of_a_series_cut_short(tmp_path):
    source = QUIRKS / "jpeg2000_ct"
    for path in source.glob("CT*"):
        shutil.copy(path, tmp_path / path.name)
    victim = sorted(tmp_path.iterdir())[7]
    victim.write_bytes(victim.read_bytes()[:-30_000])
    (acquisition,) = read_series([read_header(p) for p in sorted(tmp_path.iterdir())]).acquisitions
    with pytest.raises(Refused) as refused:
        read_volume(acquisition)
    assert refused.value.code in ("truncated_file", "undecodable_pixels")
    assert victim.name in refused.value.text


def headers_of(folder: str):
    return [read_header(p) for p in FILES if name_of(p).startswith(folder)]


def test_jpeg_2000_series():
    """No Series UID, no SOP Class UID: the file says CT and is taken for one."""
    (acquisition,) = read_series(headers_of("jpeg2000_ct")).acquisitions
    volume = read_volume(acquisition)
    assert volume.voxels.shape == (20, 512, 512)
    assert volume.geometry.spacing_mm == pytest.approx([2.0, 0.9765625, 0.9765625])


def test_philips_field_map_is_two_volumes():
    series = read_series(headers_of("enhanced_multiframe/Philips"))
    magnitude, field_map = (read_volume(acquisition) for acquisition in series.acquisitions)
    assert magnitude.voxels.shape == field_map.voxels.shape == (32, 64, 64)
    assert magnitude.geometry.same_grid(field_map.geometry)
    assert field_map.voxels.min() == pytest.approx(-495.604, abs=1e-2)  # slope and intercept are the frame's own
    assert not series.acquisitions[0].slices_are_sources  # the object holds the other volume's frames too


def test_siemens_xa10_is_four_volumes_of_one_series():
    series = read_series(headers_of("enhanced_multiframe/Siemens"))
    assert [a.label for a in series.acquisitions] == [f"AcquisitionNumber {n}" for n in (1, 2, 3, 4)]
    for acquisition, header in zip(series.acquisitions, headers_of("enhanced_multiframe/Siemens"), strict=True):
        assert np.array_equal(read_volume(acquisition).voxels, stored_values(header))
        assert acquisition.slices_are_sources


def test_enhanced_ct_runs_upward_whatever_the_order_of_its_frames():
    (acquisition,) = read_series(headers_of("enhanced_multiframe/eCT")).acquisitions
    volume = read_volume(acquisition)
    assert volume.geometry.lps_from_index[:3, 3] == pytest.approx([99.5, -301.5, -149.0])
    assert volume.geometry.lps_from_index[:3, 0] == pytest.approx([0, 0, -10.0])  # the patient lies prone
    assert np.linalg.det(volume.geometry.lps_from_index[:3, 2::-1]) > 0


def test_a_jpeg_2000_file_cut_short():
    with pytest.raises(Refused) as refused:
        stored_values(read_header(QUIRKS / "enhanced_multiframe/emri_small_jpeg_2k_lossless_too_short.dcm"))
    assert refused.value.code == "truncated_file"


def test_tilted_gantry_is_set_upright():
    headers = headers_of("tilted_gantry")
    (acquisition,) = read_series(headers).acquisitions
    volume = read_volume(acquisition)
    assert [note.code for note in acquisition.stack.notes] == ["uneven_gaps", "gantry_tilt"]
    assert "18.5 degrees" in acquisition.stack.notes[1].text
    assert not acquisition.slices_are_sources
    axes = volume.geometry.lps_from_index[:3, :3] / volume.geometry.spacing_mm
    assert np.abs(axes - np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]])).max() < 1e-6
    # a pixel of the 10th slice is found again where that slice says it lies
    frame = acquisition.frames[9]
    values = frame.rescale(stored_values(frame.header)[0])
    row, column = np.mgrid[150:400:50, 150:400:50].reshape(2, -1)
    points = (
        frame.position_lps_mm
        + row[:, None] * frame.column_lps * frame.spacing_mm[0]
        + column[:, None] * frame.row_lps * frame.spacing_mm[1]
    )
    index = np.round(volume.geometry.index_of(points)).astype(int)
    found = volume.voxels[tuple(index.T)].astype(float)
    assert np.median(np.abs(found - values[row, column])) < 15
