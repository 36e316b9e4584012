"""One file's pixels: stored values in every transfer syntax, and the values they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import UID, ImplicitVRLittleEndian, RLELossless

from dicom_node.broken import BROKEN
from dicom_node.decode.files import Header, quiet
from dicom_node.refusal import Refused

#: JPEG processes 1 to 14, retired ones included, are read by GDCM: pydicom leaves 12 bit and the retired ones out.
_JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55, 57, 70))
#: What the pixel decoders need to know of a file.
_PIXEL_TAGS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "PixelRepresentation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "PixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
AIR_HU = -1024
"""What a voxel outside the reconstructed field of view (pixel padding) of a CT reads as."""


@dataclass(frozen=True)
class Rescale:
    """Stored value to meaning: ``slope * stored + intercept``; padded pixels read as `outside`.

    padding: lowest and highest stored value that marks a pixel outside the image, or None.
    """

    slope: float = 1.0
    intercept: float = 0.0
    padding: tuple[int, int] | None = None
    outside: int = 0

    def __call__(self, stored: NDArray[Any]) -> NDArray[Any]:
        """int16 where every value is exact in it, else float32; never wraps. stored: any integer array."""
        exact = self.slope == int(self.slope) and self.intercept == int(self.intercept)
        values: NDArray[Any]
        if exact:
            values = stored.astype(np.int64 if stored.dtype.itemsize > 2 else np.int32)
            if self.slope != 1:
                values *= int(self.slope)
            if self.intercept != 0:
                values += int(self.intercept)
        else:
            values = stored.astype(np.float32)
            values *= np.float32(self.slope)
            values += np.float32(self.intercept)
        if self.padding is not None:
            low, high = self.padding
            values[(stored >= low) & (stored <= high)] = self.outside
        fits = exact and values.min(initial=0) >= -32768 and values.max(initial=0) <= 32767
        return values.astype(np.int16 if fits else np.float32)


def rescale_of(header: Header, functional: Dataset | None = None) -> Rescale:
    """How this image's (or, with its functional groups merged in `functional`, this frame's) values are meant.

    Raises Refused: ``not_hounsfield`` for a CT in another unit, ``modality_lut`` for a look-up table,
    ``rescale_slope_zero`` for a CT whose values would all be one.
    """
    source = header.dataset if functional is None else functional
    is_ct = header.text("Modality") == "CT"
    if "ModalityLUTSequence" in source:
        raise Refused("modality_lut", f"{header.name} stores its values by a look-up table; send original images.")
    unit = str(source.get("RescaleType") or "HU").strip().upper()
    if is_ct and unit not in ("HU", "US", "HU_MOD"):
        raise Refused("not_hounsfield", f"{header.name} is a CT map in {unit}, not in Hounsfield units.")
    slope, intercept = _number(source, "RescaleSlope", 1.0), _number(source, "RescaleIntercept", 0.0)
    if slope == 0 and is_ct:
        text = f"{header.name} has a RescaleSlope of 0, which makes all its pixels one value; export it again."
        raise Refused("rescale_slope_zero", text)
    # MR has no unit: any slope will do.
    return Rescale(slope or 1.0, intercept, _padding(header.dataset), AIR_HU if is_ct else 0)


def stored_values(header: Header) -> NDArray[Any]:
    """(frames, rows, columns) integers as stored, in native byte order.

    Raises Refused: no_pixel_data, truncated_file, unsupported_transfer_syntax, undecodable_pixels.
    """
    name = header.name
    if header.pixels == "missing":
        raise Refused("no_pixel_data", f"{name} holds no pixel data; send the images themselves.")
    if header.pixels == "cut_short":
        raise Refused("truncated_file", f"{name} is cut short inside its pixel data; export it again.")
    with quiet():
        syntax = UID(header.meta("TransferSyntaxUID") or ImplicitVRLittleEndian)
        values = _by_gdcm(header) if syntax in _JPEG else _by_pydicom(header, syntax)
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def check_grayscale(header: Header) -> None:
    """Raises Refused ``not_grayscale`` for color and palette images."""
    samples, kind = header.text("SamplesPerPixel") or "1", header.text("PhotometricInterpretation")
    if samples != "1" or kind not in ("", "MONOCHROME1", "MONOCHROME2"):
        raise Refused("not_grayscale", f"{header.name} is a color picture ({kind}), no CT or MR slice; remove it.")


def _by_pydicom(header: Header, syntax: UID) -> NDArray[Any]:
    name = header.name
    try:
        decoder = get_decoder(syntax)
        usable = decoder.is_available
    except NotImplementedError:  # how pydicom says that it knows no decoder for a syntax
        usable = False
    if not usable:
        raise Refused("unsupported_transfer_syntax", _syntax_text(name, syntax))
    try:
        dataset = dcmread(header.path, specific_tags=list(_PIXEL_TAGS), force=True)
        if "PixelData" not in dataset:
            raise Refused("truncated_file", f"{name} is cut short inside its pixel data; export it again.")
        if dataset.get("BitsAllocated") == 1 and syntax == RLELossless:  # which packs whole bytes
            raise Refused("unsupported_transfer_syntax", _syntax_text(name, syntax))
        if dataset.get("BitsAllocated") == 1 and not syntax.is_encapsulated:
            return _bit_by_bit(dataset, decoder, name)
        frames = [frame for frame, _ in decoder.iter_array(dataset, raw=True)]
    except BROKEN as problem:
        raise Refused("undecodable_pixels", f"The pixel data of {name} are damaged; export it again.") from problem
    return np.stack(frames)


def _bit_by_bit(dataset: Dataset, decoder: Decoder, name: str) -> NDArray[np.uint8]:
    """(frames, rows, columns) of 0 and 1, of uncompressed pixels of one bit.

    They follow one another without a gap, so that a frame may begin inside a byte (PS3.5 8.1.1). They are read all at
    once: frame by frame pydicom 3.0 takes a byte too few for a frame that reaches into one more.
    """
    rows, columns, frames = int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    length = len(dataset.PixelData)
    gapless, padded = -(-frames * rows * columns // 8), frames * -(-rows * columns // 8)
    # Frames that each fill whole bytes have this length too. Nothing but the length tells them from gapless ones with
    # bytes to spare, and read the wrong way a region is another region; so they are not read at all.
    if length in (padded, padded + padded % 2) and length > gapless + gapless % 2:
        text = f"{name} begins each frame on a byte of its own, but one-bit pixels must follow without a gap"
        raise Refused("undecodable_pixels", f"{text}; export it with another program, or as NIfTI.")
    values: NDArray[np.uint8] = decoder.as_array(dataset, raw=True)[0].reshape(-1, rows, columns)
    return values


def _by_gdcm(header: Header) -> NDArray[Any]:
    name = header.name
    gdcm.Trace.ErrorOff()
    gdcm.Trace.WarningOff()
    reader = gdcm.ImageReader()
    reader.SetFileName(str(header.path))
    if not reader.Read():
        raise Refused("undecodable_pixels", f"The pixel data of {name} are damaged; export it again.")
    image = reader.GetImage()
    kind = {"UINT8": "u1", "INT8": "i1", "UINT12": "u2", "INT12": "i2", "UINT16": "u2", "INT16": "i2"}.get(
        image.GetPixelFormat().GetScalarTypeAsString()
    )
    buffer = image.GetBuffer()
    if kind is None or not buffer:
        raise Refused("undecodable_pixels", f"The pixel data of {name} are damaged; export it again.")
    # GDCM's Python layer hands bytes over as text.
    flat = np.frombuffer(buffer.encode("utf-8", errors="surrogateescape"), kind)
    columns, rows = image.GetDimension(0), image.GetDimension(1)
    return flat.reshape(-1, rows, columns)


def _syntax_text(name: str, syntax: UID) -> str:
    return f"{name} is stored in a transfer syntax that cannot be read here ({syntax.name}); send it uncompressed."


def _number(source: Dataset, keyword: str, default: float) -> float:
    try:
        value = source.get(keyword)
        return default if value is None or value == "" else float(value)
    except BROKEN:
        return default


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """The padded range as stored values; vendors write it unsigned for signed pixels, so it is folded back."""
    try:
        value = dataset.get("PixelPaddingValue")
        if value is None or value == "":
            return None
        limit = dataset.get("PixelPaddingRangeLimit", value)
        bits, signed = int(dataset.get("BitsAllocated", 16)), int(dataset.get("PixelRepresentation", 0)) == 1
        ends = sorted(_folded(int(v), bits, signed) for v in (value, limit))
    except BROKEN:
        return None
    return ends[0], ends[1]


def _folded(value: int, bits: int, signed: bool) -> int:
    if signed and value >= 1 << (bits - 1):
        return value - (1 << bits)
    return value & ((1 << bits) - 1) if not signed and value < 0 else value
