"""Complete at once when the sender or the site's expectation says so; held when anything speaks for a missing image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_node.cli import app
from dicom_node.exchange import completeness
from dicom_node.exchange.answers import NoAnswer, RemoteInstance, RemoteSeries
from dicom_node.exchange.completeness import Completeness
from dicom_node.identity import identity_of
from dicom_node.peers import CompleteSettings, ExpectedSeries, Pacs
from dicom_node.plans import register_plan
from dicom_node.refusal import Refused
from dicom_node.settings import ListenerSettings
from dicom_node.worklist import worklist


class Scene:
    """A study that arrives, a PACS that answers as it is told, and a clock."""

    def __init__(self, bench, **complete) -> None:
        self.now_s = 1000.0
        self.images_there: int | None = None
        self.asked = 0
        self._bench = bench
        self.ledger = bench.ledger(lambda: self.now_s)
        self.settings = replace(
            bench.settings,
            listener=ListenerSettings(quiet_time_s=30),
            complete=CompleteSettings(**{"settle_s": 5, "wait_for_answer_s": 100, **complete}),
            pacs=(Pacs("PACS", "127.0.0.1", 104),),
        )
        self._completeness = Completeness(self.settings, self.ledger)

    def arrive(self, numbers, *, received_from: str = "PACS", description: str = "") -> None:
        for number in numbers:
            dataset = self._bench.patient().slice("followup", "20260301", number)
            dataset.SeriesDescription = description
            path = self.settings.data_folder / f"{number}.dcm"
            path.write_bytes(self._bench.file_bytes(dataset))
            self.ledger.arrived(identity_of(dataset), Path(path.name), received_from=received_from)

    def after(self, seconds: float):
        """The study after so many seconds and a look."""
        self.now_s += seconds
        self._completeness.look()
        (study,) = self.ledger.studies()
        return study

    # -- the PACS

    def series(self, _study: str) -> list[RemoteSeries]:
        self.asked += 1
        if self.images_there is None:
            raise NoAnswer("down")
        return [RemoteSeries(self._bench.uid_of("P1", "followup", "series"), "CT", self.images_there)]

    def instances(self, _study: str, _series: str) -> list[RemoteInstance]:
        uids = [self._bench.uid_of("P1", "followup", number) for number in range(self.images_there or 0)]
        return [RemoteInstance(uid, "") for uid in uids]


@pytest.fixture
def scene(bench, monkeypatch) -> Iterator:
    made: list[Scene] = []

    @contextmanager
    def asking(_pacs, _title):
        yield made[-1]

    def make(**complete) -> Scene:
        made.append(Scene(bench, **complete))
        return made[-1]

    monkeypatch.setattr(completeness, "asking", asking)
    yield make
    for one in made:
        one.ledger.close()


def test_a_study_is_complete_at_once_when_its_sender_has_no_more(scene):
    one = scene()
    one.images_there = 3
    one.arrive(range(3))
    assert not one.after(4).complete
    assert one.asked == 0  # it may still be sending
    assert one.after(1).complete


def test_a_study_of_a_sender_that_cannot_be_asked_waits_for_the_quiet_time(scene):
    one = scene()
    one.arrive(range(3), received_from="SCANNER")
    assert not one.after(29).complete
    assert one.after(2).complete
    assert one.asked == 0


def test_a_silent_pacs_is_waited_for_longer_but_not_for_ever(scene):
    one = scene()
    one.arrive(range(3))
    assert not one.after(31).complete
    assert not one.after(98).complete
    assert one.after(2).complete


def test_a_pacs_that_said_that_it_has_more_holds_the_study_though_it_falls_silent(scene):
    one = scene()
    one.images_there = 5
    one.arrive(range(3))
    study = one.after(31)
    assert "PACS has 2 more images of 1 series" in study.held
    assert [entry.state for entry in worklist(one.ledger)] == ["held"]
    one.images_there = None
    assert not one.after(100_000).complete
    one.arrive([3])
    assert one.after(0).held == ""
    assert not one.after(100_000).complete
    one.images_there = 5
    one.arrive([4])
    assert one.after(11).complete


def test_a_person_releases_a_study_and_another_image_revokes_that(scene):
    one = scene()
    one.images_there = 9
    one.arrive(range(3))
    assert one.after(31).held
    one.ledger.release(one.ledger.studies()[0].study_instance_uid)
    study = one.after(0)
    assert (study.complete, study.held) == (True, "")
    one.arrive([3])
    assert one.after(31).held
    assert one.ledger.studies()[0].revision == 2


def test_expected_series_complete_a_study_early_and_hold_it_without_them(scene):
    one = scene(expected_series=(ExpectedSeries("CT", "portal", 3), ExpectedSeries("MR", "", 10)))
    one.arrive(range(2), received_from="SCANNER", description="Portal venous")
    assert not one.after(6).complete
    assert 'named like "portal" with at least 3 images' in one.after(25).held
    one.arrive([2], received_from="SCANNER", description="Portal venous")
    assert not one.after(4).complete
    assert one.after(1).complete


def test_a_study_without_images_is_complete_after_the_quiet_time(scene, bench):
    one = scene()
    dataset = bench.patient().slice("report", "20260301", 0)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    one.ledger.arrived(identity_of(dataset), Path("report.dcm"))
    assert not one.after(29).complete
    assert one.after(2).complete


def test_a_follow_up_waits_until_it_is_known_which_are_earlier_or_nobody_says(scene, bench):
    one = scene()
    one.images_there = 3
    register_plan(bench.patient().plan_folder(bench.folder / "plan"), one.ledger, one.settings.data_folder)
    one.arrive(range(3))
    assert not one.after(31).complete
    assert one.after(100).complete


def test_what_arrives_while_it_is_judged_is_not_overlooked(scene):
    one = scene()
    one.arrive(range(3), received_from="SCANNER")
    (as_seen,) = one.ledger.studies()
    one.now_s += 1
    one.arrive([3], received_from="SCANNER")
    one.ledger.settle(as_seen)
    assert not one.ledger.studies()[0].complete


def test_the_command_releases_a_held_study_and_no_other(scene, tmp_path):
    one = scene()
    one.images_there = 9
    one.arrive(range(3))
    assert one.after(31).held
    uid = one.ledger.studies()[0].study_instance_uid
    (tmp_path / "node.toml").write_text('data_folder = "data"')
    run = CliRunner().invoke
    done = run(app, ["release", uid, "--config", str(tmp_path / "node.toml")])
    assert done.exit_code == 0, done.output
    assert one.after(0).complete
    again = run(app, ["release", uid, "--config", str(tmp_path / "node.toml")])
    assert isinstance(again.exception, Refused)
