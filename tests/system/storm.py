"""Studies through a node on which everything is killed, stopped or away in turn: each assessed once, each result in the
PACS once.

    python tests/system/storm.py --studies 200 [--seed 1] [--json]

A listener and three workers in processes of their own, on a PostgreSQL and an Orthanc of their own. A second PACS
rejects what it likes. Assessments are played by a process that sleeps (`parts/stand_in.py`). Prints what was done to
the node and what came of it; exit status 1 where a study or a result is missing or there twice, 77 where a
program is missing that it needs.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "parts"))
sys.path.insert(0, str(Path(__file__).parent))

from conftest import Orthanc
from fleet import (
    HEARTBEAT_S,
    TAKEOVER_AFTER_S,
    Fleet,
    MadeStudies,
    Missing,
    Postgres,
    all_done,
    assessments,
    stop_process,
)
from peers import Rejecter, Wire
from sqlalchemy.exc import DBAPIError

from dicom_node.ledger import Ledger
from dicom_node.send import NotSent, send_files
from dicom_node.settings import Destination

WORKERS = 3
OBJECTS = 2
#: Whatever is done to the node, this much longer and everything must have come right.
PATIENCE_S = 240.0
#: So much that it is filled in no time.
DISK_MIB = 256


@dataclass
class Storm:
    """What runs, and what is done to it."""

    fleet: Fleet
    postgres: Postgres
    orthanc: Orthanc
    wire: Wire
    rejecter: Rejecter
    random: random.Random
    disk: Path | None = None
    """The data folder where it is a small disk of its own, which takes root."""
    workers: list[Any] = field(default_factory=list)
    listener: Any = None
    done_to_it: Counter[str] = field(default_factory=Counter)
    _next: list[int] = field(default_factory=list)

    def start(self) -> None:
        self.listener = self.fleet.start(parts="listener", wait=False)
        self.workers = [self.fleet.start(wait=False) for _ in range(WORKERS)]

    def revive(self) -> None:
        """Start again whatever has ended, also a process that could not start while the database was away."""
        if self.listener.poll() is not None:
            self.listener = self._again(self.listener, "listener")
        self.workers = [w if w.poll() is None else self._again(w, "worker") for w in self.workers]

    def strike(self) -> None:
        """Do something to the node; everything there is to do in turn, in an order that is drawn."""
        strikes: list[Callable[[], None]] = [
            self.kill_worker,
            self.kill_worker,
            self.kill_listener,
            self.kill_both,
            self.stop_worker,
            self.restart_postgres,
            self.pacs_away,
            self.pacs_slow,
            self.pacs_rejects,
            self.clock_jumps,
            *([self.disk_full] if self.disk is not None else []),
        ]
        if not self._next:
            self._next = self.random.sample(range(len(strikes)), len(strikes))
        strike = strikes[self._next.pop()]
        self.done_to_it[strike.__name__.replace("_", " ")] += 1
        strike()

    def kill_worker(self) -> None:
        stop_process(self.random.choice(self.workers), signal.SIGKILL)

    def kill_listener(self) -> None:
        stop_process(self.listener, signal.SIGKILL)

    def kill_both(self) -> None:
        self.kill_worker()
        self.kill_listener()

    def stop_worker(self) -> None:
        """Until the others have taken over; then it wakes up."""
        worker = self.random.choice(self.workers)
        worker.send_signal(signal.SIGSTOP)
        time.sleep(TAKEOVER_AFTER_S + 3 * HEARTBEAT_S + self.random.random())
        worker.send_signal(signal.SIGCONT)

    def restart_postgres(self) -> None:
        self.postgres.stop(self.random.choice([signal.SIGQUIT, signal.SIGINT]))
        time.sleep(self.random.random() * 1.5)
        self.postgres.start()

    def pacs_away(self) -> None:
        self.wire.cut_now()
        time.sleep(1.5)
        self.wire.cut = False

    def pacs_slow(self) -> None:
        self.wire.slow = True
        time.sleep(1.5)
        self.wire.slow = False

    def pacs_rejects(self) -> None:
        self.rejecter.rejects = True
        time.sleep(1.5)
        self.rejecter.rejects = False

    def clock_jumps(self) -> None:
        """Of the whole node, a day ahead or back, and right again after a while."""
        number = self.random.choice([signal.SIGUSR1, signal.SIGUSR2])
        for _ in range(2):
            for process in self.fleet.processes:
                process.send_signal(number)
            time.sleep(1.5)

    def disk_full(self) -> None:
        assert self.disk is not None
        ballast = self.disk / ".ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        time.sleep(1.5)
        ballast.unlink()

    def _again(self, ended: Any, parts: str) -> Any:
        if ended.stdout is not None:
            ended.stdout.close()
        self.fleet.processes.remove(ended)
        return self.fleet.start(parts=parts, wait=False)


def small_disk(folder: Path) -> Path | None:
    """The folder, with a disk in memory of its own mounted on it; None where that is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False) if shutil.which("mount") else None
    return folder if done is not None and done.returncode == 0 else None


def patiently(do: Callable[[], Any], *problems: type[Exception]) -> None:
    """Do it until it works, as a sender or a person would."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            do()
            return
        except problems:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def send_all(fleet: Fleet, ledger: Ledger, studies: list[MadeStudies], pause_s: float) -> None:
    """Each study by C-STORE until the node has acknowledged everything; then its plan, so that it is due once."""
    node = Destination("MARGINWATCH", "127.0.0.1", fleet.listener_port)
    for made in studies:
        files = made.files()
        patiently(lambda files=files: send_files(files, node, calling_ae_title="STORM"), NotSent)
        patiently(lambda made=made: made.register(ledger, fleet.settings.data_folder), DBAPIError)
        time.sleep(pause_s)


def came_right(ledger: Ledger, studies: list[MadeStudies]) -> bool:
    try:
        return all_done(ledger, studies)
    except DBAPIError:
        return False


def report(storm: Storm, ledger: Ledger, studies: list[MadeStudies], seconds: float) -> dict[str, Any]:
    """What came of it."""
    records = assessments(ledger, studies)
    counts = Counter(record.study_instance_uid for record in records if record.state == "done" and record.number == 1)
    once = sum(counts[made.followup_uid] == 1 for made in studies)
    orthanc = Counter(
        {made.followup_uid: len(storm.orthanc.find(made.followup_uid, "SOPInstanceUID")) for made in studies}
    )
    rejecter = Counter(study for study, _ in storm.rejecter.taken)
    folders = Counter(folder.parent.name for folder in storm.fleet.results())
    return {
        "studies": len(studies),
        "assessed_once": once,
        "one_result_folder": sum(folders[made.followup_uid] == 1 for made in studies),
        "in_the_pacs_once": sum(orthanc[made.followup_uid] == OBJECTS for made in studies),
        "in_the_rejecting_pacs_once": sum(rejecter[made.followup_uid] == OBJECTS for made in studies),
        "rejected_objects": storm.rejecter.rejected,
        "taken_over_from_the_dead": sum(record.takeovers for record in records),
        "strikes": dict(storm.done_to_it),
        "seconds": round(seconds, 1),
        "states": dict(Counter(record.state for record in records)),
    }


def run_storm(folder: Path, count: int, seed: int, *, sleep_s: float, strikes: int) -> dict[str, Any]:
    postgres, orthanc = Postgres(), Orthanc(folder / "orthanc")
    rejecter = Rejecter(seed)
    disk: Path | None = None
    try:
        postgres.start()
        orthanc.start()
        wire = Wire(orthanc.dicom_port)
        disk = small_disk(folder / "node" / "data")
        fleet = Fleet(folder / "node", postgres.create("storm"), (wire.port, rejecter.port), sleep_s=sleep_s)
        storm = Storm(fleet, postgres, orthanc, wire, rejecter, random.Random(seed), disk)
        with closing(fleet.ledger()) as ledger:
            studies = [MadeStudies(folder / f"made{n}", f"STORM-{n:03}") for n in range(count)]
            started = time.monotonic()
            storm.start()
            try:
                sender = threading.Thread(target=send_all, args=(fleet, ledger, studies, sleep_s / 4), daemon=True)
                sender.start()
                while sender.is_alive() or sum(storm.done_to_it.values()) < strikes or not came_right(ledger, studies):
                    storm.revive()
                    if sum(storm.done_to_it.values()) < strikes:
                        time.sleep(storm.random.random())
                        storm.strike()
                    else:
                        time.sleep(0.5)
                    if time.monotonic() - started > PATIENCE_S + 10 * count:
                        break
            finally:
                fleet.stop()
            return report(storm, ledger, studies, time.monotonic() - started)
    finally:
        if disk is not None:
            subprocess.run(["umount", "--lazy", disk], check=False)
        rejecter.stop()
        orthanc.stop()
        postgres.stop(signal.SIGQUIT)
        postgres.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--strikes", type=int, help="How much is done to the node; else one for every second study.")
    parser.add_argument("--sleep", type=float, default=1.0, help="How long an assessment takes, in seconds.")
    parser.add_argument("--out", type=Path, help="Where everything is kept; else a temporary folder.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    folder = options.out or Path(tempfile.mkdtemp(prefix="marginwatch-storm-"))
    strikes = options.studies // 2 if options.strikes is None else options.strikes
    found = run_storm(folder, options.studies, options.seed, sleep_s=options.sleep, strikes=strikes)
    if options.json:
        print(json.dumps(found))
    else:
        for key, value in found.items():
            print(f"{key.replace('_', ' '):28} {value}")
    kinds = ("assessed_once", "one_result_folder", "in_the_pacs_once", "in_the_rejecting_pacs_once")
    sys.exit(0 if all(found[kind] == found["studies"] for kind in kinds) else 1)


if __name__ == "__main__":
    try:
        main()
    except Missing as missing:
        print(missing, file=sys.stderr)
        sys.exit(77)
