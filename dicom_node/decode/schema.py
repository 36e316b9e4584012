"""Checked reading of a JSON document: every wrong value is refused by the path of its key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from dicom_node.refusal import Refused

#: What a DICOM long string (VR LO) holds.
_LONGEST_NAME = 64
#: JSON has whole numbers that no float holds.
_LARGEST = 1e300


@dataclass(frozen=True)
class Node:
    """A value of the document and the path of its key, e.g. ``lesions[0].tumor``. Every method may raise Refused
    ``plan_invalid``, naming that path.
    """

    value: Any
    key: str

    def wrong(self, what: str) -> Refused:
        """The refusal for this value: ``<key> <what>.``"""
        return Refused("plan_invalid", f"plan.json: {self.key or 'the document'} {what}.")

    def child(self, name: str) -> Node:
        return Node(self.value[name], f"{self.key}.{name}" if self.key else name)

    def has(self, name: str) -> bool:
        return name in self.value

    def object(self, *, required: Sequence[str], optional: Sequence[str] = ()) -> Node:
        """Itself, once it is an object with all required keys and no unknown one."""
        if not isinstance(self.value, dict):
            raise self.wrong("must be an object")
        for name in required:
            if name not in self.value:
                raise Node(None, f"{self.key}.{name}" if self.key else name).wrong("is missing")
        known = [*required, *optional]
        for name in self.value:
            if name not in known:
                text = f"is not a known key; known here: {', '.join(known)}"
                raise Node(None, f"{self.key}.{name}" if self.key else name).wrong(text)
        return self

    def list(self, *, at_least: int) -> list[Node]:
        if not isinstance(self.value, list) or len(self.value) < at_least:
            raise self.wrong(f"must be a list with at least {at_least} entry" if at_least else "must be a list")
        return [Node(item, f"{self.key}[{n}]") for n, item in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            raise self.wrong("must be a text that is not empty")
        return self.value.strip()

    def line(self) -> str:
        """A text that may stand in a line and a DICOM element."""
        text = self.text()
        if len(text) > _LONGEST_NAME:
            raise self.wrong(f"must have at most {_LONGEST_NAME} characters; it has {len(text)}")
        if not text.isprintable():
            raise self.wrong("must have no line break or control character")
        return text

    def name(self) -> str:
        """A text that may stand in a path, a line and a DICOM element."""
        text = self.line()
        if "/" in text or "\\" in text or text in (".", ".."):
            raise self.wrong("must have no slash or backslash, and be no path")
        return text

    def one_of(self, choices: Sequence[str]) -> str:
        if self.value not in choices:
            raise self.wrong(f"must be one of {', '.join(choices)}")
        return str(self.value)

    def number(self, *, above: float | None = None, least: float | None = None, most: float | None = None) -> float:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST < value < _LARGEST:
            raise self.wrong("must be a number")
        if above is not None and not value > above:
            raise self.wrong(f"must be above {above:g}")
        if least is not None and not value >= least:
            raise self.wrong(f"must be at least {least:g}")
        if most is not None and not value <= most:
            raise self.wrong(f"must be at most {most:g}")
        return float(value)

    def integer(self, *, least: int) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < least:
            raise self.wrong(f"must be a whole number of at least {least}")
        return self.value

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.wrong("must be true or false")
        return self.value

    def day(self) -> date:
        text = self.value if isinstance(self.value, str) else ""
        try:
            if len(text) != 8:
                raise ValueError
            return datetime.strptime(text + "+0000", "%Y%m%d%z").date()
        except ValueError as problem:
            raise self.wrong("must be a date written YYYYMMDD") from problem

    def point(self) -> tuple[float, float, float]:
        if not isinstance(self.value, list) or len(self.value) != 3:
            raise self.wrong("must be three numbers, LPS millimetres")
        x, y, z = (node.number() for node in self.list(at_least=3))
        return x, y, z


def read_document(path: Path) -> Node:
    """The JSON document of a plan file. Raises Refused: plan_missing, plan_unreadable, plan_invalid."""
    if not path.is_file():
        raise Refused("plan_missing", f"There is no plan at {path}; give the path of a plan.json.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise Refused("plan_unreadable", f"{path.name} cannot be read as UTF-8 text.") from problem
    try:
        return Node(json.loads(text, object_pairs_hook=_once), "")
    except (json.JSONDecodeError, RecursionError) as problem:
        where = f" at line {problem.lineno}" if isinstance(problem, json.JSONDecodeError) else ""
        raise Refused("plan_invalid", f"{path.name} is not valid JSON{where}.") from problem


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in pairs:
        if name in out:
            raise Refused("plan_invalid", f"plan.json: the key {name} is given twice.")
        out[name] = value
    return out
