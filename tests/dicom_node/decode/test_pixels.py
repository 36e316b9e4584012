"""Stored values to what they mean: exact, padded, never wrapped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, UID, ExplicitVRBigEndian, JPEGLSLossless

from dicom_node.decode.files import read_header
from dicom_node.decode.frames import check_image, frames_of
from dicom_node.decode.pixels import AIR_HU, Rescale, stored_values
from dicom_node.refusal import Refused

WHOLE = st.integers(-3000, 3000)


@given(
    stored=arrays(np.dtype("i2"), (3, 4)) | arrays(np.dtype("u2"), (3, 4)) | arrays(np.dtype("u1"), (3, 4)),
    slope=st.sampled_from([1.0, 2.0, -1.0, 0.5, 1.2798, 32.1216]),
    intercept=st.one_of(WHOLE.map(float), st.just(-1024.5)),
)
def test_rescale_never_wraps(stored, slope, intercept):
    values = Rescale(slope, intercept)(stored)
    expected = stored.astype(np.float64) * slope + intercept
    assert np.allclose(values, expected, rtol=1e-6, atol=0.02)
    if values.dtype == np.int16:
        assert np.array_equal(values, expected)
    else:
        whole = slope == int(slope) and intercept == int(intercept)
        assert values.dtype == np.float32
        assert not whole or expected.min() < -32768 or expected.max() > 32767


@pytest.mark.parametrize(
    ("tags", "padded"),
    [
        ({"PixelPaddingValue": -2000}, [-2000]),
        ({"PixelPaddingValue": -32768, "PixelPaddingRangeLimit": -1500}, [-32768, -2000, -1500]),
        ({}, []),
    ],
)
def test_padding_reads_as_air(kit, tmp_path, tags, padded):
    values = np.array([[[-32768, -2000, -1500], [0, 7, 1000]]], np.int16)
    series = kit.Series(values, intercept=-24, tags=tags)
    header = read_header(kit.save(series.image(0), tmp_path / "a"))
    found = frames_of(header)[0].rescale(stored_values(header)[0])
    expected = np.where(np.isin(values[0], padded), AIR_HU, values[0].astype(int) - 24)
    assert np.array_equal(found, expected)


def test_padding_written_unsigned_for_signed_pixels(kit, tmp_path):
    image = kit.Series(np.array([[[-2000, 5], [6, 7]]], np.int16)).image(0)
    image.add_new("PixelPaddingValue", "US", 63536)
    header = read_header(kit.save(image, tmp_path / "a"))
    assert frames_of(header)[0].rescale(stored_values(header)[0])[0, 0] == AIR_HU


def test_big_endian(kit, tmp_path):
    series = kit.Series(kit.ramp(1))
    image = series.image(0)
    image["PixelData"].value = series.values[0].astype(">i2").tobytes()
    found = stored_values(read_header(kit.save(image, tmp_path / "a", ExplicitVRBigEndian)))
    assert np.array_equal(found[0], series.values[0])
    assert found.dtype.isnative


def refusal(call, *args):
    with pytest.raises(Refused) as refused:
        call(*args)
    assert refused.value.text.endswith(".")
    return refused.value.code


def test_unknown_transfer_syntax(kit, tmp_path):
    for number, syntax in enumerate((UID("1.2.3.4.5"), MPEG2MPML)):
        image = kit.Series(kit.ramp(1)).image(0)
        image.PixelData = encapsulate([b"1234"])
        image["PixelData"].VR = "OB"
        path = kit.save(image, tmp_path / f"{number}", syntax if syntax.is_transfer_syntax else JPEGLSLossless)
        if not syntax.is_transfer_syntax:
            path.write_bytes(path.read_bytes().replace(str(JPEGLSLossless).encode(), b"1.2.840.10008.1.2.4.99"))
        assert refusal(stored_values, read_header(path)) == "unsupported_transfer_syntax"


def test_compressed_pixels_that_end_early(shared, tmp_path):
    path = tmp_path / "a"
    path.write_bytes((shared / "cases" / "dev1" / "baseline" / "IM0005.dcm").read_bytes()[:-20_000])
    assert refusal(stored_values, read_header(path)) in ("truncated_file", "undecodable_pixels")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "not_grayscale"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "not_grayscale"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary_capture"),
        ({"Modality": "US"}, "not_ct_or_mr"),
        ({"Rows": None}, "no_pixel_data"),
        ({"PixelData": None}, "no_pixel_data"),
        ({"Rows": None, "Modality": "SR"}, "not_an_image"),
    ],
)
def test_what_is_no_slice(kit, tmp_path, changes, code):
    path = kit.save(kit.Series(kit.ramp(1)).image(0, **changes), tmp_path / "a")
    assert refusal(check_image, read_header(path)) == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"PixelSpacing": None}, "no_pixel_spacing"),
        ({"PixelSpacing": [0, 1]}, "no_pixel_spacing"),
        ({"ImagePositionPatient": None}, "no_position"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no_position"),
        ({"FrameOfReferenceUID": None}, "no_frame_of_reference"),
        ({"RescaleType": "mgml"}, "not_hounsfield"),
        ({"NumberOfFrames": 3}, "no_position"),
    ],
)
def test_what_cannot_be_measured(kit, tmp_path, changes, code):
    path = kit.save(kit.Series(kit.ramp(1)).image(0, **changes), tmp_path / "a")
    assert refusal(frames_of, read_header(path)) == code
