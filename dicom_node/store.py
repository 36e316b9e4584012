"""Received instances on disk: each appears whole or not at all, under a path made of its checked UIDs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from uuid import uuid4

from dicom_node.digest import digest_of
from dicom_node.durable import sync_entry
from dicom_node.records import Identity
from dicom_node.refusal import Refused


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
        relative = Path(
            "instances",
            identity.study_instance_uid,
            identity.series_instance_uid,
            f"{identity.sop_instance_uid}.dcm",
        )
        self._link(file, self._root / relative)
        return relative

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

    def _link(self, file: Path, target: Path) -> None:
        folder = target.parent
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            while folder != self._root:
                folder = folder.parent
                self._changed.add(folder)
        self._changed.add(target.parent)
        fresh = target.with_name(f".{uuid4().hex}.arriving")
        try:
            os.link(file, target)
            return
        except FileExistsError:
            os.link(file, fresh)
        except OSError:  # a file system without links
            shutil.copyfile(file, fresh)
            sync_entry(fresh)
        os.replace(fresh, target)
