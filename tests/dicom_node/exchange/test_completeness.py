"""Complete at once when the sender or the site's expectation says so; held when anything speaks for a missing image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    """A study that arrives, a PACS that answers as it is told, the wall's clock and one that only goes on."""

    def __init__(self, bench, *, longest_step_s: float = 1e9, **complete) -> None:
        self.now_s = 1000.0
        self.ticks_s = 0.0
        self.images_there: int | None = None
        self.listed: Iterable[int] | None = None
        self.asked = 0
        self._bench = bench
        self.ledger = bench.ledger(lambda: self.now_s)
        self.settings = replace(
            bench.settings,
            listener=ListenerSettings(quiet_time_s=30),
            complete=CompleteSettings(**{"settle_s": 5, "wait_for_answer_s": 100, **complete}),
            pacs=(Pacs("PACS", "127.0.0.1", 104),),
        )
        self._completeness = Completeness(
            self.settings, self.ledger, clock=lambda: self.ticks_s, longest_step_s=longest_step_s
        )

    def arrive(self, numbers, *, received_from: str = "PACS", description: str = "") -> None:
        for number in numbers:
            dataset = self._bench.patient().slice("followup", "20260301", number)
            dataset.SeriesDescription = description
            path = self.settings.data_folder / f"{number}.dcm"
            path.write_bytes(self._bench.file_bytes(dataset))
            self.ledger.arrived(identity_of(dataset), Path(path.name), received_from=received_from)
        self._completeness.look()

    def after(self, seconds: float):
        """The study after so many seconds and a look."""
        self.now_s += seconds
        self.ticks_s += seconds
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
        there = range(self.images_there or 0) if self.listed is None else self.listed
        return [RemoteInstance(self._bench.uid_of("P1", "followup", number), "") for number in there]


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
    assert not one.after(0).complete
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


@pytest.mark.parametrize("jump_s", [100_000.0, -100_000.0])
def test_a_wall_clock_that_jumps_neither_ends_nor_prolongs_the_wait(scene, jump_s):
    one = scene()
    one.arrive(range(3), received_from="SCANNER")
    assert not one.after(20).complete
    one.now_s += jump_s
    assert not one.after(9).complete
    assert one.after(2).complete


def test_an_answer_holds_for_what_was_here_when_it_was_given_whatever_the_clocks_say(scene):
    one = scene()
    one.images_there = 5
    one.arrive(range(3))
    assert one.after(31).held
    one.images_there = 4
    one.now_s -= 500  # of the machine on which the next image arrives
    one.arrive([3])
    assert one.after(6).complete
    one.images_there = 6
    one.arrive([4])
    assert one.after(31).held


def test_time_in_which_nobody_looked_is_no_silence(scene):
    """The database was away: what was received meanwhile is not in the ledger yet."""
    one = scene(longest_step_s=10)
    one.arrive(range(3), received_from="SCANNER")
    for _ in range(3):
        assert not one.after(9).complete
    assert not one.after(600).complete
    assert not one.after(2).complete
    assert one.after(2).complete


def test_a_listing_of_some_is_no_word_on_all(scene):
    one = scene()
    one.images_there, one.listed = 5, range(3)
    one.arrive(range(3))
    assert not one.after(6).complete
    one.listed = [0, 1, 7]
    one.images_there = 3
    assert "PACS has 1 more image" in one.after(61).held


def test_a_silent_pacs_that_has_said_that_it_has_more_holds_also_while_it_is_spared(scene):
    one = scene()
    one.images_there = 5
    one.arrive(range(3))
    assert one.after(31).held
    one.arrive([3])
    one._completeness._silent.add(one.settings.pacs[0].name)
    one.ticks_s += 125
    one._completeness._silent.add(one.settings.pacs[0].name)
    assert one.after(6).held


def test_a_study_at_which_the_node_fails_is_held_and_stops_no_other(scene, bench, monkeypatch):
    one = scene()
    broken = [bench.uid_of("P1", "followup")]
    facts_of = completeness.facts_of
    looked = []

    def failing(paths):
        looked.append([path.name for path in paths])
        if looked[-1] != ["other.dcm"]:
            raise IndexError("a header of a kind that nobody thought of")
        return facts_of([])

    monkeypatch.setattr(completeness, "facts_of", failing)
    one.arrive(range(3), received_from="SCANNER")
    dataset = bench.patient("P2").slice("other", "20260301", 0)
    (one.settings.data_folder / "other.dcm").write_bytes(bench.file_bytes(dataset))
    one.ledger.arrived(identity_of(dataset), Path("other.dcm"))
    one._completeness.look()
    one.ticks_s += 31
    one._completeness.look()
    states = {study.study_instance_uid: study for study in one.ledger.studies()}
    assert "fault of the node (IndexError)" in states[broken[0]].held
    assert states[bench.patient("P2").study_uid("other")].complete
    tries = len(looked)
    one._completeness.look()
    assert len(looked) == tries  # not again at once
    one.ledger.release(broken[0])
    one._completeness.look()
    assert all(study.complete for study in one.ledger.studies())


def test_a_round_that_is_stopped_goes_no_further(scene):
    one = scene()
    one.arrive(range(3), received_from="SCANNER")
    one.ticks_s += 31
    one._completeness.look(lambda: True)
    assert not one.ledger.studies()[0].complete
    one._completeness.look()
    assert one.ledger.studies()[0].complete
