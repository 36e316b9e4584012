"""How long one assessment takes from a cold start, and how much memory it holds.

Each follow-up is assessed by `marginwatch assess` in a fresh process, three times; the median counts. The cases are
those of ../shared/cases where that folder is, else a full-size phantom. --quick: a small phantom, once.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from document import goal, measured, options, report

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
WALL_S, PEAK_GIB = 60, 4


@dataclass(frozen=True)
class Work:
    """One patient: follow-ups in time order, each assessed with the results of those before it."""

    name: str
    plan: Path
    baseline: Path
    followups: tuple[Path, ...]


def works(folder: Path, *, quick: bool) -> Iterator[Work]:
    """The patients to assess; phantoms are written below `folder`."""
    found = [] if quick else sorted(CASES.glob("dev[1-4]/plan/plan.json"))
    for plan in found:
        case = plan.parents[1]
        yield Work(case.name, plan, case / "baseline", tuple(sorted(case.glob("followup-*"))))
    if not found:
        from dicom_node.phantom_series import write_phantom

        size: Literal["small", "full"] = "small" if quick else "full"
        made = write_phantom(folder / "phantom", story="incomplete", size=size)
        yield Work(f"{size} phantom", made.plan, made.baseline, made.followups)


def assess(work: Work, out: Path, *, runs: int) -> Iterator[dict[str, Any]]:
    """One row for each follow-up of a patient."""
    command = [sys.executable, "-m", "dicom_node.cli", "assess", "--plan", str(work.plan)]
    previous: list[Path] = []
    for followup in work.followups:
        results = [out / f"{followup.name}-run-{run}" for run in range(runs)]
        arguments = [*command, "--baseline", str(work.baseline), "--followup", str(followup)]
        for earlier in previous:
            arguments += ["--previous", str(earlier)]
        found = [measured([*arguments, "--out", str(result)]) for result in results]
        record = results[0] / "assessment.json"
        document = json.loads(record.read_text()) if record.exists() else {}
        yield {
            "case": work.name,
            "followup": followup.name,
            "outcome": document.get("outcome", f"failed with status {found[0].status}"),
            "wall_s": statistics.median(run.wall_s for run in found) if document else None,
            "peak_gib": max(run.peak_mib for run in found) / 1024 if document else None,
            **{f"{stage}_s": seconds for stage, seconds in document.get("timing_s", {}).items()},
        }
        previous.append(results[0])


def worst(rows: list[dict[str, Any]], key: str) -> float | None:
    """The greatest value of a column; None where one is missing."""
    values = [row[key] for row in rows]
    return None if not values or None in values else max(values)


def main() -> None:
    """Runs the benchmark."""
    chosen = options(__doc__)
    with tempfile.TemporaryDirectory(prefix="marginwatch-bench-") as name:
        folder = Path(name)
        rows = [
            row
            for work in works(folder, quick=chosen.quick)
            for row in assess(work, folder / work.name.replace(" ", "-"), runs=1 if chosen.quick else 3)
        ]
    goals = [
        goal("wall seconds of the slowest assessment, cold start", worst(rows, "wall_s"), f"<= {WALL_S}"),
        goal("peak memory of the largest assessment, GiB", worst(rows, "peak_gib"), f"<= {PEAK_GIB}"),
    ]
    report("assess", rows, goals, as_json=chosen.json)


if __name__ == "__main__":
    main()
