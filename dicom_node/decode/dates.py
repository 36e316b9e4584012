"""When a series was acquired, and how long after the contrast injection."""

from __future__ import annotations

from datetime import date, datetime

from dicom_node import identity
from dicom_node.decode.files import Header
from dicom_node.refusal import Refused

#: An injection is followed by its scan within minutes; tags that say otherwise were written by hand or shifted.
LONGEST_DELAY_S = 600.0


def acquired_on(header: Header) -> date:
    """The day of acquisition (see `identity.acquired_on`). Raises Refused ``no_date``."""
    day = identity.acquired_on(header.text)
    if day is None:
        raise Refused("no_date", f"{header.name} does not say when it was acquired; send images with a Study Date.")
    return day


def seconds_after_injection(header: Header) -> float | None:
    """Seconds from Contrast/Bolus Start Time to Acquisition Time; None where missing or not plausible."""
    start, end = _time(header, "ContrastBolusStartTime"), _time(header, "AcquisitionTime")
    if start is None or end is None:
        return None
    delay = (end - start).total_seconds()
    return delay if 0 < delay <= LONGEST_DELAY_S else None


def _time(header: Header, keyword: str) -> datetime | None:
    text = header.text(keyword).split(".")[0]
    try:
        return datetime.strptime(f"20000101{text}+0000", "%Y%m%d%H%M%S%z") if len(text) == 6 else None
    except ValueError:
        return None
