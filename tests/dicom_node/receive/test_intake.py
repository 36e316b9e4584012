"""From the inbox into store and ledger, whatever goes wrong in between."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.ledger import Ledger
from dicom_node.placing import Brought
from dicom_node.receive import intake as module
from dicom_node.receive.inbox import Inbox
from dicom_node.receive.intake import Intake
from dicom_node.records import Identity
from dicom_node.store import Store


def started(intake):
    intake.start()
    assert intake.settle()


def test_a_crash_at_any_moment_loses_and_doubles_nothing(bench, kept, monkeypatch):
    """In turn: before anything, after the link, after the ledger, before the inbox is emptied."""
    node = bench.node()
    ledger, folder = node.ledger, node.settings.data_folder
    inbox = Inbox(folder / "inbox", durable=True)
    patient = bench.patient()
    slices = patient.slices("baseline", "20260105")

    class Crash(BaseException):
        pass

    def crash(*_, **__):
        raise Crash

    for target, name in ((Store, "take_first"), (Store, "sync"), (type(ledger), "arrived_together"), (Path, "unlink")):
        kept(inbox, slices[:2])
        store = Store(folder, minimum_free_bytes=0)
        broken = Intake(inbox, store, ledger)
        batch = [Brought(path, _identity(path)) for path in inbox.left_over()]
        with monkeypatch.context() as patched:
            patched.setattr(target, name, crash)
            with pytest.raises(Crash):
                broken._enter(batch)
        again = Intake(inbox, Store(folder, minimum_free_bytes=0), ledger)
        started(again)
        again.stop()
        assert list((folder / "inbox").iterdir()) == []
        stored = ledger.instances(patient.study_uid("baseline"))
        assert len(stored) == 2
        assert ledger.studies()[0].images == 2
        assert ledger.conflict_counts() == {}
        assert all((folder / instance.path).is_file() for instance in stored)


def _identity(path):
    d = dcmread(path, stop_before_pixels=True)
    return Identity(d.SOPInstanceUID, d.SOPClassUID, d.StudyInstanceUID, d.SeriesInstanceUID, d.PatientID, d.StudyDate)


def test_two_of_one_uid_in_one_batch(bench, kept):
    node = bench.node()
    folder = node.settings.data_folder
    inbox = Inbox(folder / "inbox", durable=False)
    patient = bench.patient()
    first = patient.slice("baseline", "20260105", 0)
    other = patient.slice("baseline", "20260105", 0, fill=9)
    kept(inbox, [first, first, other])
    intake = Intake(inbox, Store(folder, minimum_free_bytes=0), node.ledger)
    started(intake)
    intake.stop()
    assert node.ledger.studies()[0].images == 1
    assert node.ledger.conflict_counts() == {patient.study_uid("baseline"): 1}
    (kept_one,) = node.ledger.instances(patient.study_uid("baseline"))
    assert dcmread(folder / kept_one.path).PixelData == first.PixelData


def test_a_file_system_without_links(bench, kept, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "no links here")

    node = bench.node()
    folder = node.settings.data_folder
    inbox = Inbox(folder / "inbox", durable=True)
    kept(inbox, bench.patient().slices("baseline", "20260105"))
    monkeypatch.setattr(os, "link", no_links)
    intake = Intake(inbox, Store(folder, minimum_free_bytes=0), node.ledger)
    started(intake)
    intake.stop()
    stored = node.ledger.instances(bench.patient().study_uid("baseline"))
    assert stored
    assert all((folder / instance.path).stat().st_size for instance in stored)


@pytest.fixture
def _quick(monkeypatch):
    monkeypatch.setattr(module, "_RETRY_S", 0.05)
    monkeypatch.setattr(module, "_PUT_OFF_S", 0.05)
    monkeypatch.setattr(module, "_QUIET_S", 0.05)


@pytest.mark.usefixtures("_quick")
def test_what_cannot_be_placed_now_waits_and_keeps_nobody(bench, kept, monkeypatch):
    """A disk that fails for one instance: the others get their place, this one counts as taken only once it has too."""
    ledger, folder = bench.ledger(), bench.settings.data_folder
    inbox = Inbox(folder / "inbox", durable=True)
    patient = bench.patient()
    slices = patient.slices("baseline", "20260105")
    bad, broken = str(slices[0].SOPInstanceUID), threading.Event()
    broken.set()
    take_first = Store.take_first

    def failing(self, identity, file):
        if identity.sop_instance_uid == bad and broken.is_set():
            raise OSError(errno.EIO, "input/output error")
        return take_first(self, identity, file)

    monkeypatch.setattr(Store, "take_first", failing)
    kept(inbox, slices)
    intake = Intake(inbox, Store(folder, minimum_free_bytes=0), ledger)
    intake.start()
    bench.wait_until(lambda: len(ledger.instances(patient.study_uid("baseline"))) == len(slices) - 1)
    assert not intake.settle()  # and it is not waited for
    for path in kept(inbox, patient.slices("followup", "20260215")):  # while the first waits, more arrive
        intake.take(Brought(path, _identity(path)))
    followup = len(patient.slices("followup", "20260215"))
    bench.wait_until(lambda: len(ledger.instances(patient.study_uid("followup"))) == followup)
    assert not intake.settle()
    broken.clear()
    bench.wait_until(intake.settle)
    assert len(ledger.instances(patient.study_uid("baseline"))) == len(slices)
    intake.stop()
    assert list((folder / "inbox").iterdir()) == []
    ledger.close()


@pytest.mark.usefixtures("_quick")
def test_one_that_cannot_be_entered_keeps_nobody_out(bench, kept, monkeypatch):
    ledger, folder = bench.ledger(), bench.settings.data_folder
    inbox = Inbox(folder / "inbox", durable=True)
    patient = bench.patient()
    slices = patient.slices("baseline", "20260105")
    bad = str(slices[1].SOPInstanceUID)
    arrived_together = Ledger.arrived_together

    def poisoned(self, arrivals):
        arrivals = list(arrivals)
        if bad in [arrival.identity.sop_instance_uid for arrival in arrivals]:
            raise ValueError("what a database cannot hold")
        return arrived_together(self, arrivals)

    monkeypatch.setattr(Ledger, "arrived_together", poisoned)
    kept(inbox, slices)
    intake = Intake(inbox, Store(folder, minimum_free_bytes=0), ledger)
    intake.start()
    bench.wait_until(lambda: len(ledger.instances(patient.study_uid("baseline"))) == len(slices) - 1)
    assert not intake.settle()
    intake._stopping.set()
    intake._thread.join(5)
    (left,) = inbox.left_over()
    assert str(dcmread(left).SOPInstanceUID) == bad
    ledger.close()
