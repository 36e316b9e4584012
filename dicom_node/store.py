"""Received instances on disk: each appears whole or not at all, under a path made of its checked UIDs."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from uuid import uuid4

from dicom_node.digest import digest_of
from dicom_node.durable import sync_entry
from dicom_node.records import Identity
from dicom_node.refusal import Refused

#: What a file system says that has no hard links, or none from here to there.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS)


class Store:
    """A folder of instances: `instances/STUDY/SERIES/INSTANCE.dcm`; those that contradict one lie in `conflicts/`.

    For one thread. What was taken is on the disk for certain after `sync`.
    """

    def __init__(self, root: Path, *, minimum_free_bytes: int) -> None:
        self._root = root
        self._minimum_free_bytes = minimum_free_bytes
        self._changed: set[Path] = set()
        root.mkdir(parents=True, exist_ok=True)

    def require_space(self) -> None:
        """Raises `Refused` ("disk_full") when less than the minimum is free."""
        if shutil.disk_usage(self._root).free < self._minimum_free_bytes:
            raise Refused("disk_full", "The node's disk is almost full; nothing more is stored until there is room.")

    def take(self, identity: Identity, file: Path) -> Path:
        """The path, relative to the root, at which the file of an instance now lies too; one that was there gives way.

        The file stays where it is, for the case that what follows is broken off.
        """
        relative = _place_of(identity)
        self._link(file, self._root / relative)
        return relative

    def take_first(self, identity: Identity, file: Path) -> tuple[Path, str | None]:
        """As `take`, but a file that lies there already stays, and the hash of its data set is returned too."""
        relative = _place_of(identity)
        while not self._link(file, self._root / relative, replace=False):
            there = self.sha256(str(relative))
            if there is not None:
                return relative, there
        return relative, None

    def located(self, path: Path) -> Path:
        """Where a path relative to the root is."""
        return self._root / path

    def forget(self, path: Path) -> None:
        """Take the file at this relative path out of the store."""
        self.located(path).unlink(missing_ok=True)

    def take_aside(self, identity: Identity, file: Path, sha256: str) -> Path:
        """The same for an instance that has the UID of a stored one and other bytes."""
        relative = Path("conflicts", identity.sop_instance_uid, f"{sha256}.dcm")
        self._link(file, self._root / relative)
        return relative

    def sync(self) -> None:
        """Bring the names of what was taken to the disk."""
        for folder in sorted(self._changed):
            sync_entry(folder)
        self._changed.clear()

    def sha256(self, path: str) -> str | None:
        """The hash of a stored instance's data set as it lies on the disk; None where it is not there any more.

        Raises OSError where it is there and cannot be read at the moment.
        """
        digest = digest_of(self._root / path)
        return None if digest is None else digest.dataset

    def _link(self, file: Path, target: Path, *, replace: bool = True) -> bool:
        """Whether the file lies at the target now."""
        folder = target.parent
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            while folder != self._root:
                folder = folder.parent
                self._changed.add(folder)
        self._changed.add(target.parent)
        if _linked(file, target):
            return True
        if not replace:
            return False
        fresh = target.with_name(f".{uuid4().hex}.arriving")
        try:
            _linked(file, fresh)
            os.replace(fresh, target)
        finally:
            fresh.unlink(missing_ok=True)
        return True


def _place_of(identity: Identity) -> Path:
    name = f"{identity.sop_instance_uid}.dcm"
    return Path("instances", identity.study_instance_uid, identity.series_instance_uid, name)


def _linked(file: Path, target: Path) -> bool:
    """Whether the target is the file now; False where something lies there already. Raises OSError."""
    try:
        os.link(file, target)
        return True
    except FileExistsError:
        return False
    except OSError as problem:
        if problem.errno not in _NO_LINKS:
            raise
    copied = target.with_name(f".{uuid4().hex}.arriving")
    try:
        shutil.copyfile(file, copied)
        sync_entry(copied)
        if target.exists():
            return False
        os.replace(copied, target)
        return True
    finally:
        copied.unlink(missing_ok=True)
