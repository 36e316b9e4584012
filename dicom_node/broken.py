"""The errors by which a reader of DICOM says that bytes are broken."""

from __future__ import annotations

import struct
import zlib

from pydicom.errors import BytesLengthException, InvalidDicomError

#: What pydicom and the decoders raise for bytes that are not what they claim to be. RuntimeError is also what is nested
#: without end (RecursionError), or of a kind that pydicom does not read.
BROKEN = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
)
