"""The node's own copy of a plan: whole, on the disk, and mended when a crash cut an earlier copy short."""

from __future__ import annotations

import os

from dicom_node.plans import register_plan


def test_the_copy_is_on_the_disk_when_the_plan_is_registered(bench, monkeypatch):
    synced: set[int] = set()
    fsync = os.fsync

    def recording(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    ledger = bench.ledger()
    plan = register_plan(bench.patient().plan_folder(bench.folder / "plan"), ledger, bench.settings.data_folder)
    copy = bench.settings.data_folder / plan.folder
    assert {path.stat().st_ino for path in (copy.parent, copy, *copy.rglob("*"))} <= synced
    ledger.close()


def test_a_copy_cut_short_by_a_crash_is_replaced(bench):
    ledger = bench.ledger()
    source = bench.patient().plan_folder(bench.folder / "plan")
    plan = register_plan(source, ledger, bench.settings.data_folder)
    copy = bench.settings.data_folder / plan.folder
    (copy / "tumor.nii.gz").unlink()
    (copy / "plan.json").write_bytes(b"")
    again = register_plan(source, ledger, bench.settings.data_folder)
    assert again.folder == plan.folder
    for name in ("plan.json", "tumor.nii.gz"):
        assert (copy / name).read_bytes() == (source / name).read_bytes()
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    ledger.close()


def test_the_same_plan_again_leaves_its_copy_alone(bench):
    ledger = bench.ledger()
    source = bench.patient().plan_folder(bench.folder / "plan")
    copy = bench.settings.data_folder / register_plan(source, ledger, bench.settings.data_folder).folder
    before = copy.stat().st_ino
    register_plan(source, ledger, bench.settings.data_folder)
    assert copy.stat().st_ino == before
    ledger.close()
