"""Where a result folder may go: asked before the work, so that a mistyped folder is told in seconds."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from dicom_node.refusal import Refused


def check_place(out: Path, *, replaces: str = "assessment.json") -> None:
    """Raises `Refused` (`cannot_write_results`) where no result folder can appear at `out`; nothing is changed.

    A mistyped `--out` must not cost somebody a folder: only an empty folder or an earlier result of the same kind,
    known by the file that it `replaces`, is replaced.
    """
    target = out.resolve()
    try:
        obstacle = _in_the_way(target, replaces)
        if obstacle:
            raise Refused("cannot_write_results", obstacle)
        above = next(folder for folder in target.parents if folder.exists())
        if not above.is_dir():
            text = f"{above} is a file, so there can be no folder {target}; name another folder for the results."
            raise Refused("cannot_write_results", text)
        with TemporaryDirectory(dir=above, prefix=".marginwatch-"):
            pass
    except OSError as problem:
        raise not_written(target, problem) from problem


def not_written(target: Path, problem: OSError) -> Refused:
    """The refusal for a disk that does not take the results."""
    why = problem.strerror or str(problem)
    return Refused("cannot_write_results", f"The results could not be written to {target}: {why}; nothing was changed.")


def _in_the_way(target: Path, replaces: str) -> str:
    """What stands where the results should; empty where nothing does that may not be replaced."""
    if not target.exists():
        return ""
    if not target.is_dir():
        return f"{target} is a file; name a new folder or an empty one for the results."
    if os.path.ismount(target):  # it cannot be exchanged as a whole
        return f"{target} is a mounted disk; name a folder in it for the results."
    if (target / replaces).is_file() or not any(target.iterdir()):
        return ""
    return f"{target} exists and is not a result folder; name a new folder or an empty one for the results."
