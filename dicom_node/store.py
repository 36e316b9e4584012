"""Received instances on disk: each appears whole or not at all, under a path made of its checked UIDs."""

from __future__ import annotations

import shutil
from pathlib import Path

from dicom_node.digest import digest_of
from dicom_node.durable import write_file
from dicom_node.records import Identity
from dicom_node.refusal import Refused


class Store:
    """A folder of instances: `instances/STUDY/SERIES/INSTANCE.dcm`; those that contradict one lie in `conflicts/`."""

    def __init__(self, root: Path, *, minimum_free_bytes: int) -> None:
        self._root = root
        self._minimum_free_bytes = minimum_free_bytes
        root.mkdir(parents=True, exist_ok=True)

    def require_space(self) -> None:
        """Raises `Refused` ("disk_full") when less than the minimum is free."""
        if shutil.disk_usage(self._root).free < self._minimum_free_bytes:
            raise Refused("disk_full", "The node's disk is almost full; nothing more is stored until there is room.")

    def put(self, identity: Identity, content: bytes) -> Path:
        """The path of the instance, relative to the root, after its bytes have reached the disk."""
        relative = Path(
            "instances",
            identity.study_instance_uid,
            identity.series_instance_uid,
            f"{identity.sop_instance_uid}.dcm",
        )
        write_file(self._root / relative, content)
        return relative

    def put_aside(self, identity: Identity, content: bytes, sha256: str) -> Path:
        """The relative path of an instance that has the UID of a stored one and other bytes."""
        relative = Path("conflicts", identity.sop_instance_uid, f"{sha256}.dcm")
        write_file(self._root / relative, content)
        return relative

    def sha256(self, path: str) -> str | None:
        """The hash of a stored instance's data set as it lies on the disk; None where it is not there any more.

        Raises OSError where it is there and cannot be read at the moment.
        """
        digest = digest_of(self._root / path)
        return None if digest is None else digest.dataset
