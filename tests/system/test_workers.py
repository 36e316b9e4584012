"""Several workers, and every way to stop one: each study is assessed once, each result is in the PACS once."""

from __future__ import annotations

import signal
import time
from contextlib import closing

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

#: `parts/made_node.py` dies at each of these.
POINTS = [
    *("before claim", "after claim", "in child", "after child", "before record", "after record"),
    *("before send", "in send", "after send", "after sent"),
]


@pytest.fixture
def crew(fleet, tmp_path, orthanc):
    """Makes a fleet that sends to Orthanc; all its processes are ended afterwards."""
    made = []

    def make(**wanted):
        made.append(fleet.Fleet(tmp_path / f"node{len(made)}", send=(orthanc.dicom_port,), **wanted))
        return made[-1]

    yield make
    for each in made:
        each.stop(signal.SIGKILL)


def entered(fleet, crew, ledger, count, *, name):
    studies = [fleet.MadeStudies(crew.folder / f"{name}{n}", f"{name}-{n}") for n in range(count)]
    for made in studies:
        made.enter(ledger, crew.settings.data_folder)
    return studies


def check_each_once(fleet, crew, ledger, studies, orthanc):
    """One assessment a study, one result folder and nothing half-written, its objects in the PACS and no others."""
    records = fleet.assessments(ledger, studies)
    assert sorted(record.study_instance_uid for record in records) == sorted(made.followup_uid for made in studies)
    assert {(record.state, record.number) for record in records} == {("done", 1)}
    whole = [crew.settings.data_folder / record.folder for record in records]
    mine = {made.followup_uid for made in studies}
    assert sorted(folder for folder in crew.results() if folder.parent.name in mine) == sorted(whole)
    for made in studies:
        assert len(orthanc.find(made.followup_uid, "SOPInstanceUID")) == 2


def test_a_worker_killed_at_every_point_of_its_work_doubles_and_loses_nothing(fleet, crew, orthanc):
    """Each process dies at its own point and leaves what it has to the next one; SQLite."""
    mine = crew(sleep_s=0.3)
    with closing(mine.ledger()) as ledger:
        studies = entered(fleet, mine, ledger, 3, name="KILLED")
        for point in POINTS:
            assert mine.start("--die-at", point).wait(40) == -signal.SIGKILL, point
        mine.start()
        fleet.wait_until(lambda: fleet.all_done(ledger, studies), seconds=60)
        check_each_once(fleet, mine, ledger, studies, orthanc)


def test_a_worker_that_wakes_up_after_its_work_was_taken_over_changes_nothing(fleet, crew, orthanc, postgres):
    mine = crew(url=postgres.create("zombie"), sleep_s=3.5)
    with closing(mine.ledger()) as ledger:
        studies = entered(fleet, mine, ledger, 1, name="ZOMBIE")
        zombie = mine.start()
        fleet.wait_until(lambda: [r for r in fleet.assessments(ledger, studies) if r.state == "running"], seconds=20)
        first = fleet.assessments(ledger, studies)[0]
        zombie.send_signal(signal.SIGSTOP)
        other = mine.start()
        taken = fleet.wait_until(lambda: [r for r in fleet.assessments(ledger, studies) if r.token > 2], seconds=20)[0]
        assert taken.takeovers == 1
        assert first.owner not in ("", taken.owner)
        fleet.wait_until(lambda: fleet.all_done(ledger, studies), seconds=30)
        zombie.send_signal(signal.SIGCONT)
        fleet.wait_until(lambda: "it begins anew" in mine.log, seconds=20)
        time.sleep(1.0)
        check_each_once(fleet, mine, ledger, studies, orthanc)
        # and it works again
        fleet.stop_process(other, signal.SIGKILL)
        studies += entered(fleet, mine, ledger, 1, name="AFTER")
        fleet.wait_until(lambda: fleet.all_done(ledger, studies), seconds=40)
        check_each_once(fleet, mine, ledger, studies, orthanc)


def test_two_workers_do_almost_twice_as_much_as_one(fleet, crew, orthanc, postgres):
    """Studies that sleep; no study twice."""
    seconds = {}
    for workers in (1, 2):
        mine = crew(url=postgres.create(f"scaling{workers}"), sleep_s=2.0)
        with closing(mine.ledger()) as ledger:
            for _ in range(workers):
                mine.start()
            studies = entered(fleet, mine, ledger, 4, name=f"SCALE{workers}")
            started = time.monotonic()
            fleet.wait_until(
                lambda ledger=ledger, studies=studies: (
                    all(record.state == "done" for record in fleet.assessments(ledger, studies))
                    and len(fleet.assessments(ledger, studies)) == 4
                ),
                seconds=60,
            )
            seconds[workers] = time.monotonic() - started
            fleet.wait_until(lambda ledger=ledger, studies=studies: fleet.all_done(ledger, studies), seconds=30)
            assert {record.token for record in fleet.assessments(ledger, studies)} == {1}
            check_each_once(fleet, mine, ledger, studies, orthanc)
        mine.stop()
    assert seconds[1] / seconds[2] >= 1.8, seconds
