"""Two who bring the same instance at once, and disks that fail."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.digest import digest_of
from dicom_node.identity import identity_of
from dicom_node.placing import Brought, Placing
from dicom_node.records import Arrival
from dicom_node.store import Store


@pytest.fixture
def brought(bench):
    """A written instance; another fill is another content."""

    def bring(fill=1, *, series=""):
        dataset = bench.patient().slice("baseline", "20260105", 0, fill=fill)
        dataset.SeriesInstanceUID = series or dataset.SeriesInstanceUID
        path = bench.folder / f"brought-{fill}-{series}.dcm"
        path.write_bytes(bench.file_bytes(dataset))
        return Brought(path, identity_of(dataset), "PACS")

    return bring


@pytest.fixture
def store(bench):
    return Store(bench.settings.data_folder, minimum_free_bytes=0)


def place(store, ledger, *brought):
    return Placing(store, ledger, is_synced=True).place(brought)


def stored(bench, ledger):
    (instance,) = ledger.instances(bench.patient().study_uid("baseline"))
    content = digest_of(bench.settings.data_folder / instance.path)
    assert content is not None
    assert content.dataset == instance.sha256
    return instance


@pytest.mark.parametrize("second", [1, 2])
def test_another_process_was_faster_with_the_file(bench, ledger, store, brought, second):
    """It has put its file there and has yet to enter it, or died before: what lies there is entered, ours compared."""
    first = brought(1)
    store.take(first.identity, first.path)
    assert place(store, ledger, brought(second)) == {}
    assert stored(bench, ledger).sha256 == digest_of(first.path).dataset
    assert ledger.conflict_counts() == ({} if second == 1 else {first.identity.study_instance_uid: 1})
    assert place(store, ledger, first) == {}  # now the other enters its own
    assert ledger.studies()[0].images == 1
    assert stored(bench, ledger).sha256 == digest_of(first.path).dataset


@pytest.mark.parametrize("fill", [1, 2])
def test_another_process_was_faster_with_the_row(bench, ledger, store, brought, monkeypatch, fill):
    """Under another series: what we put beside it goes again, and is a conflict where it differs."""
    first, ours = brought(1, series="1.2.3"), brought(fill, series="1.2.4")
    path = store.take(first.identity, first.path)
    known = type(ledger).known

    def late(self, uids):
        found = known(self, uids)
        ledger.arrived_together([Arrival(first.identity, path, digest_of(first.path).dataset)])
        return found

    monkeypatch.setattr(type(ledger), "known", late)
    assert place(store, ledger, ours) == {}
    assert stored(bench, ledger).path == str(path)
    assert len(list((bench.settings.data_folder / "instances").rglob("*.dcm"))) == 1
    same_bytes = digest_of(first.path).dataset == digest_of(ours.path).dataset
    assert ledger.conflict_counts() == ({} if same_bytes else {first.identity.study_instance_uid: 1})


def test_a_full_disk_is_no_file_system_without_links(bench, ledger, store, brought, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    one = brought()
    monkeypatch.setattr(os, "link", full)
    assert [problem.errno for problem in place(store, ledger, one).values()] == [errno.ENOSPC]
    assert ledger.studies() == []
    assert [path for path in (bench.settings.data_folder / "instances").rglob("*") if path.is_file()] == []
    monkeypatch.undo()
    assert place(store, ledger, one) == {}
    assert dcmread(bench.settings.data_folder / stored(bench, ledger).path).PatientID == one.identity.patient_id


def test_without_links_a_failed_copy_leaves_nothing(bench, ledger, store, brought, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EOPNOTSUPP, "no links here")

    def half(_, target):
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "link", no_links)
    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfile", half)
        assert len(place(store, ledger, brought())) == 1
    assert [path for path in bench.settings.data_folder.rglob("*") if path.suffix in (".dcm", ".arriving")] == []
    assert place(store, ledger, brought(1)) == {}
    assert place(store, ledger, brought(2)) == {}
    assert stored(bench, ledger).sha256 == digest_of(brought(1).path).dataset
    assert ledger.conflict_counts() == {brought(1).identity.study_instance_uid: 1}
