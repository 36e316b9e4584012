"""The other systems that a site names: what may be asked of a PACS, how often, and when a study counts as whole."""

from __future__ import annotations

import re
from dataclasses import dataclass

RETRIEVALS = ("c-get", "c-move", "dicomweb")


@dataclass(frozen=True)
class Pacs:
    """A PACS that may be asked what it has, and for it."""

    ae_title: str
    host: str = ""
    port: int = 0
    retrieve: str = "c-get"
    """How images are brought: "c-get", "c-move" (to the listener; the PACS has to know this node) or "dicomweb"."""
    dicomweb_url: str = ""
    token_file: str = ""
    """A file with the bearer token for `dicomweb_url`; empty: none is shown."""

    def __post_init__(self) -> None:
        check_ae_title("pacs.ae_title", self.ae_title)
        if self.retrieve not in RETRIEVALS:
            raise ValueError(f"pacs.retrieve must be one of {', '.join(RETRIEVALS)}")
        check_url("pacs.dicomweb_url", self.dicomweb_url)
        if self.retrieve == "dicomweb":
            if not self.dicomweb_url:
                raise ValueError('pacs.dicomweb_url is missing, which retrieve = "dicomweb" needs')
            return
        if not self.host:
            raise ValueError("pacs.host is missing")
        check_port("pacs.port", self.port)

    @property
    def name(self) -> str:
        where = self.dicomweb_url if self.retrieve == "dicomweb" else f"{self.host}:{self.port}"
        return f"{self.ae_title}@{where}"


@dataclass(frozen=True)
class FetchSettings:
    """What the node asks of the PACSs named in `pacs`, and how often."""

    baseline: bool = True
    earlier_followups: bool = True
    back_days: int = 3650
    first_retry_s: float = 60.0
    longest_retry_s: float = 21600.0

    def __post_init__(self) -> None:
        if self.back_days < 1:
            raise ValueError("fetch.back_days must be at least 1")
        if not 0 < self.first_retry_s <= self.longest_retry_s:
            raise ValueError("fetch.first_retry_s must be above 0 and at most fetch.longest_retry_s")


@dataclass(frozen=True)
class ExpectedSeries:
    """A series that a study of this modality is to have before it is assessed."""

    modality: str
    description: str = ""
    """A regular expression found in the Series Description, upper or lower case; empty: any."""
    at_least: int = 1

    def __post_init__(self) -> None:
        if self.modality not in ("CT", "MR"):
            raise ValueError("complete.expected_series.modality must be CT or MR")
        if self.at_least < 1:
            raise ValueError("complete.expected_series.at_least must be at least 1")
        try:
            re.compile(self.description)
        except re.error as problem:
            text = f"complete.expected_series.description is no regular expression: {problem}"
            raise ValueError(text) from None


@dataclass(frozen=True)
class CompleteSettings:
    """When a study counts as whole; the quiet time is the listener's."""

    settle_s: float = 5.0
    wait_for_answer_s: float = 300.0
    hold_missing_slices: bool = True
    expected_series: tuple[ExpectedSeries, ...] = ()

    def __post_init__(self) -> None:
        if self.settle_s < 0:
            raise ValueError("complete.settle_s cannot be negative")
        if self.wait_for_answer_s < 0:
            raise ValueError("complete.wait_for_answer_s cannot be negative")


def check_port(key: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise ValueError(f"{key} must be 1 to 65535")


def check_ae_title(key: str, title: str) -> None:
    if not 1 <= len(title.strip()) <= 16 or "\\" in title or not title.isascii() or not title.isprintable():
        raise ValueError(f"{key} must be 1 to 16 printable ASCII characters without a backslash")


def check_url(key: str, url: str) -> None:
    if url and not re.match(r"https?://[^\s/@?#]+(/[^\s?#]*)?\Z", url):
        raise ValueError(f"{key} must be empty or an http(s) address without user name, query or fragment")
