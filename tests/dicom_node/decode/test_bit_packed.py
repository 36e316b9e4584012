"""Pixels of one bit in frames that do not fill whole bytes: what was written is read, bit by bit."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicom_node.decode.files import quiet, read_header
from dicom_node.decode.pixels import stored_values
from dicom_node.decode.region_ref import RegionRef
from dicom_node.refusal import Refused
from dicom_node.results.identifiers import Identifiers
from dicom_node.results.segmentation import Segment, segmentation
from dicom_node.results.sources import source_heads
from dicom_node.study import SourceImages
from pipeline.geometry import Geometry, upright_grid
from pipeline.volume import Mask

#: Slices, rows, columns; frames of 6, 5, 1, 4, 7 bits more than whole bytes, of 9 bits in all, and one that fills them.
SIZES = [(4, 42, 47), (3, 95, 103), (9, 5, 5), (8, 6, 2), (3, 13, 15), (17, 3, 3), (5, 7, 8)]
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]


def scattered(shape, seed=0):
    """A mask with something in each slice."""
    out = np.random.default_rng(seed).random(shape) < 0.4
    out[:, 0, -1] = True
    return out


def grid_of(kit, shape) -> Geometry:
    return upright_grid(shape, (2.0, 1.5, 1.25), (-10.0, -20.0, 30.0), kit.frame)


def ref(uid, number) -> RegionRef:
    return RegionRef("lesions[0].tumor", sop_instance_uid=uid, segment_number=number)


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_our_own_segmentation_is_read_as_it_was_drawn(kit, read, shape):
    images = tuple(kit.Series(np.zeros(shape, np.int16)).images())
    grid = grid_of(kit, shape)
    drawn = [scattered(shape, seed) for seed in range(3)]
    drawn[1][0] = False  # a frame that is left out
    segments = [Segment(n, "L1", "zone", Mask(voxels, grid)) for n, voxels in enumerate(drawn, 1)]
    heads = source_heads(SourceImages(images, grid))
    with quiet():
        made = segmentation(
            segments, heads, "liver", Identifiers("1.2", "1.3", "P", "0", "0" * 64, datetime(2026, 1, 1, tzinfo=UTC))
        )
    assert made.BitsAllocated == 1
    for segment in segments:
        found = read(ref(made.SOPInstanceUID, segment.number), made, grid=grid)
        assert np.array_equal(found.voxels, segment.mask.voxels)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_each_uncompressed_transfer_syntax(kit, read, shape, syntax):
    drawn = {1: scattered(shape, 1), 3: scattered(shape, 2)}
    dataset = kit.segmentation(kit.Series(np.zeros(shape, np.int16)), drawn)
    for number, voxels in drawn.items():
        found = read(ref(dataset.SOPInstanceUID, number), dataset, grid=grid_of(kit, shape), syntax=syntax)
        assert np.array_equal(found.voxels, voxels)


def test_one_frame(kit, tmp_path):
    drawn = scattered((1, 5, 7))
    dataset = kit.segmentation(kit.Series(np.zeros((1, 5, 7), np.int16)), {1: drawn})
    del dataset.NumberOfFrames
    assert np.array_equal(stored_values(read_header(kit.save(dataset, tmp_path / "seg"))), drawn)


def refusal(dataset, kit, tmp_path, syntax=ExplicitVRLittleEndian):
    with pytest.raises(Refused) as refused:
        stored_values(read_header(kit.save(dataset, tmp_path / "seg", syntax)))
    return refused.value.code, refused.value.text


def odd(kit):
    return kit.segmentation(kit.Series(np.zeros((40, 5, 5), np.int16)), {1: scattered((40, 5, 5))})


def test_frames_that_each_begin_a_byte_are_not_taken_for_gapless_ones(kit, tmp_path):
    dataset = odd(kit)
    rows = np.packbits(scattered((40, 5, 5)).reshape(40, 25), axis=1, bitorder="little")
    dataset["PixelData"].value = rows.tobytes()
    code, text = refusal(dataset, kit, tmp_path)
    assert code == "undecodable_pixels"
    assert text.startswith("seg begins each frame on a byte of its own")
    assert text.endswith("export it with another program, or as NIfTI.")


def test_too_few_bits_too_many_frames_and_none_at_all(kit, tmp_path):
    short = odd(kit)
    short["PixelData"].value = short.PixelData[:-2]
    assert refusal(short, kit, tmp_path)[0] == "undecodable_pixels"
    many = odd(kit)
    many.NumberOfFrames = 2_000_000_000
    assert refusal(many, kit, tmp_path)[0] == "undecodable_pixels"
    none = odd(kit)
    del none.PixelData
    assert refusal(none, kit, tmp_path)[0] == "no_pixel_data"


def test_run_lengths_are_of_bytes_not_of_bits(kit, tmp_path):
    packed = odd(kit)
    packed.PixelData = encapsulate([b"\0" * 66] * 40)
    code, text = refusal(packed, kit, tmp_path, RLELossless)
    assert code == "unsupported_transfer_syntax"
    assert "send it uncompressed" in text
