"""What every benchmark shares: its document, its table, its options, and how a process is measured."""

from __future__ import annotations

import argparse
import importlib.util
import json
import operator
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_MOST_ROWS = 100
PACKAGES = ("marginwatch", "torch", "SimpleITK", "itk-elastix", "monai", "numpy", "scipy", "pydicom", "highdicom")
_COMPARE = {"<=": operator.le, ">=": operator.ge, "==": operator.eq, ">": operator.gt}


def options(description: str | None, *, names: bool = False, rows: bool = False) -> argparse.Namespace:
    """The command line of a benchmark: ``--json`` and ``--quick``; with `names` also which benchmarks to run, with
    `rows` also ``--rows``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else there")
    parser.add_argument("--quick", action="store_true", help="the short form that the tests run")
    if names:
        parser.add_argument("names", nargs="*", help="the benchmarks to run, instead of all")
    if rows:
        parser.add_argument("--rows", type=Path, help="a file that keeps each row, so that a run cut short goes on")
    return parser.parse_args()


def read_rows(path: Path | None) -> list[dict[str, Any]]:
    """The rows that an earlier run kept in the file, one JSON document a line; none without one."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []


def add_rows(path: Path | None, rows: Sequence[dict[str, Any]]) -> None:
    """Keeps the rows in the file, if there is one."""
    if path:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def goal(name: str, value: float | None, wanted: str) -> dict[str, Any]:
    """One goal, e.g. ``goal("wall", 41.0, "<= 60")``; a value that could not be measured misses it."""
    sign, limit = wanted.split()
    return {
        "name": name,
        "value": value,
        "goal": wanted,
        "met": value is not None and bool(_COMPARE[sign](value, float(limit))),
    }


def report(name: str, rows: Sequence[dict[str, Any]], goals: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Prints the benchmark's document, or its rows and goals as tables."""
    document = {
        "benchmark": name,
        "command": f"python benchmarks/{name}.py{' --quick' if '--quick' in sys.argv else ''}",
        "measured": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": machine(),
        "rows": list(rows),
        "goals": list(goals),
        "all_met": all(g["met"] for g in goals),
    }
    print(json.dumps(document, indent=1) if as_json else tables(document))


def tables(document: dict[str, Any]) -> str:
    """The rows and goals as Markdown; of very many rows, their number alone."""
    rows = document["rows"]
    shown = _table(rows) if len(rows) <= _MOST_ROWS else f"{len(rows)} rows: `--json` prints them."
    marks = [{**g, "met": "yes" if g["met"] else "**no**"} for g in document["goals"]]
    return "\n\n".join(part for part, there in ((shown, rows), (_table(marks), marks)) if there)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def machine() -> dict[str, Any]:
    """What a benchmark ran on and with."""
    numbers = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            numbers[package] = "not installed"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return {"cores": len(os.sched_getaffinity(0)), "cpu": cpu, "cuda": cuda_name(), "versions": numbers}


def cuda_name() -> str | None:
    """The accelerator's name, or None without one."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None


@dataclass(frozen=True)
class Measured:
    """One run of a process. peak_mib: the most memory that it held at once (resident)."""

    status: int
    wall_s: float
    peak_mib: float


def measured(command: Sequence[str]) -> Measured:
    """Runs a command as a fresh process; what it prints goes to this one's stderr."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Measured(process.returncode, time.monotonic() - started, usage.ru_maxrss / 1024)
