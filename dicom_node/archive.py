"""A folder of studies and plans, named and sorted anyhow: everything is found by content and entered in the ledger."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.decode.files import INDEX_TAGS, quiet, read_header
from dicom_node.digest import digest_of
from dicom_node.identity import identity_of
from dicom_node.ledger import Ledger
from dicom_node.plans import register_plan
from dicom_node.records import Arrival, Identity, Instance
from dicom_node.refusal import Refused

_ENTERED_TOGETHER = 500
_LARGEST_PLAN_BYTES = 1 << 20


@dataclass(frozen=True)
class PassedOver:
    """A file of the archive that nothing can be made of, and why. is_plan: whether it would have been a plan."""

    path: Path
    code: str
    text: str
    is_plan: bool = False


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

    DICOM files are read where they lie; only plans are copied. A file that is already known changes nothing; one whose
    content has changed is taken up anew.
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
                _enter(waiting, ledger, archive, data_folder)
            step()
        _enter(waiting, ledger, archive, data_folder)
        ledger.complete(sorted(archive.studies))
        for file in plans:
            try:
                archive.plans.add(register_plan(file, ledger, data_folder, objects=objects).plan_id)
            except Refused as refused:
                archive.passed_over.append(PassedOver(file, refused.code, refused.text, is_plan=True))
    archive.passed_over.sort(key=lambda item: item.path)
    return archive


def _enter(waiting: list[tuple[Identity, Path]], ledger: Ledger, archive: Archive, data_folder: Path) -> None:
    """Enter the files that wait; what is known from an earlier run and unchanged is not read again."""
    known = ledger.instances_at([str(path) for _, path in waiting])
    new = []
    for identity, path in waiting:
        archive.studies.add(identity.study_instance_uid)
        before, seen = known.get(str(path)), _seen(path)
        same = before is not None and before.sop_instance_uid == identity.sop_instance_uid
        if before is not None and same and before.sha256 and before.seen == seen:
            continue
        try:
            digest = digest_of(path)
        except OSError as problem:
            archive.passed_over.append(_unreadable(path, path, problem))
            continue
        if digest is None:  # it was taken away since the folder was walked
            continue
        arrival = Arrival(identity, path, digest.dataset, seen, digest.head)
        if before is not None and same:
            _update(before, arrival, ledger)
            continue
        if before is not None:
            ledger.gone(before.sop_instance_uid)
        new.append(arrival)
    for arrival in ledger.arrived_together(new):
        _compare(arrival, ledger, archive, data_folder)
    waiting.clear()


def _update(before: Instance, arrival: Arrival, ledger: Ledger) -> None:
    """Take up what was changed in a known file; one that only has another time is what it was."""
    was, now = (before.sha256, before.head_sha256), (arrival.sha256, arrival.head_sha256)
    if before.seen and was != now:
        ledger.replaced(arrival)
    else:
        ledger.noted(arrival)


def _compare(arrival: Arrival, ledger: Ledger, archive: Archive, data_folder: Path) -> None:
    """Say of an instance that was known under another path how the two compare."""
    entered = ledger.instance(arrival.identity.sop_instance_uid)
    if entered is None:
        return
    try:
        stored = digest_of(data_folder / entered.path)
    except OSError as problem:  # nothing can be said of it now, so the first one stays
        archive.passed_over.append(_unreadable(arrival.path, Path(entered.path), problem))
        return
    if stored is None:  # it was moved, or what had been received is lost
        if entered.sha256 in ("", arrival.sha256):
            ledger.noted(arrival)
        else:
            ledger.replaced(arrival)
    elif not Path(entered.path).is_absolute():  # received by C-STORE before
        return
    elif stored.dataset == arrival.sha256:
        text = f"The same instance lies at {entered.path}; it is used once."
        archive.passed_over.append(PassedOver(arrival.path, "duplicate", text))
    else:
        ledger.conflict(arrival.identity, arrival.path, sha256=arrival.sha256)
        text = f"Another instance with the same UID lies at {entered.path}; the first one is used."
        archive.passed_over.append(PassedOver(arrival.path, "conflict", text))


def _unreadable(path: Path, at_fault: Path, problem: OSError) -> PassedOver:
    """A file that is passed over because it, or the one it is to be compared with, cannot be read now."""
    cause = problem.strerror or "input error"
    return PassedOver(path, "unreadable", f"{at_fault.name} cannot be read ({cause}); mend that and run batch again.")


def _seen(path: Path) -> str:
    """By what a changed file is told without reading it: its size and its time."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


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
