"""Runs every benchmark beside this file, or those named, and writes docs/benchmarks.md. --quick: the short form."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from argparse import Namespace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from document import cuda_name, options, tables

HERE = Path(__file__).resolve().parent
NOT_BENCHMARKS = {"all.py", "document.py", "registration_pairs.py", "registration_peers.py"}
PEERS = ("torch", "SimpleITK", "numpy", "scipy", "pydicom", "highdicom")


def run(script: Path, *, quick: bool) -> dict[str, Any] | None:
    """The document of one benchmark, or None when it failed."""
    print(f"{script.stem} …", file=sys.stderr, flush=True)
    started = time.monotonic()
    command = [sys.executable, str(script), "--json", *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(f"{script.stem}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    document: dict[str, Any] | None = json.loads(done.stdout) if done.returncode == 0 else None
    return document


def page(found: dict[str, dict[str, Any] | None], arguments: str) -> str:
    """The Markdown page: when, on what and with what it was measured, then every benchmark."""
    model = next((line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")), "unknown CPU")
    versions = ", ".join(f"{name} {version(name)}" for name in PEERS)
    lines = [
        "# Benchmarks",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by `make bench{arguments}`: "
        f"{len(os.sched_getaffinity(0))} cores ({model}), {cuda_name() or 'no accelerator'}, "
        f"Python {platform.python_version()}, Marginwatch {version('marginwatch')}, {versions}.",
    ]
    for name, document in found.items():
        lines += ["", f"## {name}", "", "This benchmark failed." if document is None else tables(document)]
    return "\n".join(lines) + "\n"


def _arguments(chosen: Namespace) -> str:
    words = [*chosen.names, *(["--quick"] if chosen.quick else [])]
    return f' ARGS="{" ".join(words)}"' if words else ""


def _cpu_lines() -> list[str]:
    info = Path("/proc/cpuinfo")
    return info.read_text().splitlines() if info.exists() else []


def main() -> None:
    """Runs them all; exits 1 when one failed (a missed goal is no failure)."""
    chosen = options(__doc__, names=True)
    scripts = [path for path in sorted(HERE.glob("*.py")) if path.name not in NOT_BENCHMARKS]
    unknown = set(chosen.names) - {path.stem for path in scripts}
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(sorted(unknown))}")
    scripts = [path for path in scripts if not chosen.names or path.stem in chosen.names]
    found = {path.stem: run(path, quick=chosen.quick) for path in scripts}
    target = HERE.parent / "docs" / "benchmarks.md"
    target.write_text(page(found, _arguments(chosen)))
    print(json.dumps(found) if chosen.json else f"wrote {target.relative_to(HERE.parent)}")
    raise SystemExit(any(document is None for document in found.values()))


if __name__ == "__main__":
    main()
