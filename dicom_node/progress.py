"""How far a long work is, on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dicom_node.batch import Progress as Shown


class Bar:
    """A bar for the work at hand; items are printed above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def begin(self, what: str, total: int) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=total)

    def step(self, item: str = "") -> None:
        if item:
            self._progress.console.print(item, markup=False, highlight=False)
        if self._task is not None:
            self._progress.advance(self._task)


class Lines:
    """A line for each work begun and each item with a name."""

    def begin(self, what: str, total: int) -> None:
        print(f"{what}: {total}", file=sys.stderr, flush=True)

    def step(self, item: str = "") -> None:
        if item:
            print(f"  {item}", file=sys.stderr, flush=True)


@contextmanager
def shown() -> Iterator[Shown]:
    """Progress as stderr can show it."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Bar(progress)
