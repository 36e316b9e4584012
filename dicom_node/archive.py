"""A folder of studies and plans, named and sorted anyhow: everything is found by content and entered in the ledger."""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.decode.files import INDEX_TAGS, quiet, read_header
from dicom_node.identity import Identity, identity_of
from dicom_node.ledger import Ledger
from dicom_node.plans import register_plan
from dicom_node.refusal import Refused

_ENTERED_TOGETHER = 500
_LARGEST_PLAN_BYTES = 1 << 20


@dataclass(frozen=True)
class PassedOver:
    """A file of the archive that nothing can be made of, and why."""

    path: Path
    code: str
    text: str


@dataclass
class Archive:
    """What was found. studies: Study Instance UIDs; plans: plan ids."""

    studies: set[str] = field(default_factory=set)
    plans: set[str] = field(default_factory=set)
    passed_over: list[PassedOver] = field(default_factory=list)


def files_of(source: Path, *, leave_out: Path) -> list[Path]:
    """Every file under a folder, in name order; `leave_out` is the folder with the node's own results."""
    return list(_walk(source.resolve(), leave_out.resolve()))


def enter_archive(
    files: Sequence[Path], ledger: Ledger, data_folder: Path, *, step: Callable[[], None] = lambda: None
) -> Archive:
    """What the files hold, after studies and plans have been entered in the ledger. step: called after each file.

    DICOM files are read where they lie; only plans are copied. A file that is already known changes nothing.
    """
    archive = Archive()
    objects: dict[str, Path] = {}
    plans: list[Path] = []
    waiting: list[tuple[Identity, Path]] = []
    with quiet():
        for file in files:
            if _is_plan(file):
                plans.append(file)
            else:
                try:
                    identity = identity_of(read_header(file, tags=INDEX_TAGS).dataset)
                    objects.setdefault(identity.sop_instance_uid, file)
                    waiting.append((identity, file))
                except Refused as refused:
                    archive.passed_over.append(PassedOver(file, refused.code, refused.text))
            if len(waiting) >= _ENTERED_TOGETHER:
                _enter(waiting, ledger, archive)
            step()
        _enter(waiting, ledger, archive)
        ledger.complete(sorted(archive.studies))
        for file in plans:
            try:
                archive.plans.add(register_plan(file, ledger, data_folder, objects=objects).plan_id)
            except Refused as refused:
                archive.passed_over.append(PassedOver(file, refused.code, refused.text))
    archive.passed_over.sort(key=lambda item: item.path)
    return archive


def _enter(waiting: list[tuple[Identity, Path]], ledger: Ledger, archive: Archive) -> None:
    """Enter the files that wait, and say of each instance that was known under another path how the two compare."""
    known = set(ledger.arrived_together(waiting))
    for identity, path in waiting:
        archive.studies.add(identity.study_instance_uid)
        if path not in known:
            continue
        entered = ledger.instance(identity.sop_instance_uid)
        if entered is None or entered.path == str(path) or entered.sha256:  # the last: received by C-STORE before
            continue
        if not Path(entered.path).exists():
            ledger.moved(identity.sop_instance_uid, path)
        elif filecmp.cmp(entered.path, path, shallow=False):
            text = f"The same instance lies at {entered.path}; it is used once."
            archive.passed_over.append(PassedOver(path, "duplicate", text))
        else:
            with path.open("rb") as content:
                ledger.conflict(identity, path, sha256=hashlib.file_digest(content, "sha256").hexdigest())
            text = f"Another instance with the same UID lies at {entered.path}; the first one is used."
            archive.passed_over.append(PassedOver(path, "conflict", text))
    waiting.clear()


def _is_plan(file: Path) -> bool:
    """Whether the file is a plan, under whatever name: JSON with a plan_id that is no result of ours."""
    if file.suffix.lower() != ".json":
        return False
    if file.name == "plan.json":
        return True
    try:
        if file.stat().st_size > _LARGEST_PLAN_BYTES:
            return False
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "plan_id" in document and "schema" not in document


def _walk(folder: Path, leave_out: Path) -> Iterator[Path]:
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if Path(base, name) != leave_out)
        yield from (Path(base, name) for name in sorted(names))
