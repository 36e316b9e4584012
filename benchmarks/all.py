"""Runs every benchmark beside this file, or those named, and writes their sections of docs/benchmarks.md.

A name that ends in .json is a file with what a benchmark printed with --json: its section is written from that.
--quick: the short form.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from document import options, tables

HERE = Path(__file__).resolve().parent
NOT_BENCHMARKS = {
    "all.py",
    "document.py",
    "registration_pairs.py",
    "registration_peers.py",
    "simulate_exact.py",
    "simulate_grid.py",
    "simulate_published.py",
    "simulate_speed.py",
}


def run(script: Path, *, quick: bool) -> dict[str, Any] | None:
    """The document of one benchmark, or None when it failed."""
    print(f"{script.stem} …", file=sys.stderr, flush=True)
    started = time.monotonic()
    command = [sys.executable, str(script), "--json", *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(f"{script.stem}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    document: dict[str, Any] | None = json.loads(done.stdout) if done.returncode == 0 else None
    return document


def section(document: dict[str, Any]) -> str:
    """The Markdown of one benchmark: when, on what and with what it was measured, then its tables."""
    machine = document["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    how = (
        f"Measured {document['measured']} by `{document['command']}`: {machine['cores']} cores ({machine['cpu']}), "
        f"{machine['cuda'] or 'no accelerator'}, {versions}."
    )
    script = HERE / f"{document['benchmark']}.py"
    return f"{about(script)}\n\n{how}\n\n{tables(document)}\n"


def about(script: Path) -> str:
    """What a benchmark says of itself, without its options."""
    return (ast.get_docstring(ast.parse(script.read_text())) or "").split("--quick:")[0].strip()


def updated(page: str, sections: dict[str, str]) -> str:
    """The page with these sections in place of those of the same name; the others stay as they are."""
    parts = re.split(r"^## (.+)\n\n", page, flags=re.MULTILINE)
    kept = dict(zip(parts[1::2], parts[2::2], strict=True))
    both = {name: text.strip() for name, text in {**kept, **sections}.items()}
    return "\n\n".join(["# Benchmarks", *(f"## {name}\n\n{both[name]}" for name in sorted(both))]) + "\n"


def main() -> None:
    """Runs them all; exits 1 when one failed (a missed goal is no failure)."""
    chosen = options(__doc__, names=True)
    scripts = {path.stem: path for path in sorted(HERE.glob("*.py")) if path.name not in NOT_BENCHMARKS}
    printed = [Path(name) for name in chosen.names if name.endswith(".json")]
    names = [name for name in chosen.names if not name.endswith(".json")]
    unknown = set(names) - set(scripts)
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(sorted(unknown))}")
    found = {}
    for path in printed:
        document = json.loads(path.read_text())
        found[document["benchmark"]] = document
    for name in names or ([] if printed else scripts):
        found[name] = run(scripts[name], quick=chosen.quick)
    sections = {name: section(document) for name, document in found.items() if document is not None}
    target = HERE.parent / "docs" / "benchmarks.md"
    target.write_text(updated(target.read_text() if target.exists() else "", sections))
    print(json.dumps(found) if chosen.json else f"wrote {target.relative_to(HERE.parent)}")
    raise SystemExit(any(document is None for document in found.values()))


if __name__ == "__main__":
    main()
