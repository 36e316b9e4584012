"""What the headers of a study's images say of it: its series, and whether slices are missing in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from dicom_node.decode.files import Header, read_header
from dicom_node.decode.series import Series, read_series
from dicom_node.refusal import Refused


@dataclass(frozen=True)
class SeriesFacts:
    """One series as it lies here. missing: a sentence where slices are missing in it, else empty."""

    modality: str
    description: str
    images: int
    missing: str


def facts_of(paths: Iterable[Path]) -> list[SeriesFacts]:
    """The series among a study's image files; pixels are not read. A file that cannot be read is left out."""
    headers: dict[str, list[Header]] = {}
    for path in paths:
        try:
            header = read_header(path)
        except Refused:
            continue
        headers.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    return [_facts(of_one) for of_one in headers.values()]


def _facts(headers: Sequence[Header]) -> SeriesFacts:
    first = headers[0]
    description = first.text("SeriesDescription")
    told = _missing(headers)
    name = f"series {first.text('SeriesNumber') or '?'} ({description or 'no description'})"
    missing = f"In {name}, {told[0].lower()}{told[1:]}" if told else ""
    return SeriesFacts(first.text("Modality"), description, len(headers), missing)


def _missing(headers: Sequence[Header]) -> str:
    """A sentence on what is missing in the series; empty where nothing seems to be.

    The places of the slices decide. Where these are uneven, or the series' volumes differ in length, the images'
    numbers do: a hole in them is a slice that did not come. Numbers alone do not count, as scanners skip some.
    """
    if "LOCALIZER" in first_image_type(headers):
        return ""
    series = read_series(headers)
    for refused in series.refused:
        if refused.code == "missing_slices":
            return refused.text
    if not _is_uneven(series):
        return ""
    count = holes_in(int(n) for n in (header.text("InstanceNumber") for header in headers) if n.isdecimal())
    if not count:
        return ""
    return (
        f"{count} slice{'s are' if count > 1 else ' is'} missing by the images' numbers; send the whole series again."
    )


def first_image_type(headers: Sequence[Header]) -> str:
    return headers[0].text("ImageType").upper()


def _is_uneven(series: Series) -> bool:
    if any(refused.code == "uneven_gaps" for refused in series.refused):
        return True
    if any(note.code == "uneven_gaps" for acquired in series.acquisitions for note in acquired.stack.notes):
        return True
    return len({len(acquired.frames) for acquired in series.acquisitions}) > 1


def holes_in(numbers: Iterable[int]) -> int:
    """How many numbers are missing between the least and the greatest, counted in the usual step.

    More than are there means that the images are not numbered one by one: then none.
    """
    ordered = sorted(set(numbers))
    steps = [after - before for before, after in pairwise(ordered)]
    if not steps:
        return 0
    usual = min(Counter(steps).items(), key=lambda item: (-item[1], item[0]))[0]
    missing = sum(step // usual - 1 for step in steps if step % usual == 0)
    return missing if missing <= len(ordered) else 0
