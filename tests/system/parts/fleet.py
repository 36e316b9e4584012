"""Several nodes on one PostgreSQL (or one on SQLite), and made studies for them; for tests and `storm.py`."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from dicom_node.identity import identity_of
from dicom_node.ledger import Ledger, open_ledger
from dicom_node.plans import register_plan
from dicom_node.records import Arrival, AssessmentRecord
from dicom_node.settings import Settings, load_settings

HERE = Path(__file__).parent
#: So that a takeover takes seconds.
HEARTBEAT_S, TAKEOVER_AFTER_S = 0.5, 2.5


class Missing(Exception):
    """A part that these tests drive is not here; text: how to get it."""


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], *, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s")


def stop_process(process: subprocess.Popen[Any], number: int = signal.SIGTERM) -> None:
    if process.poll() is None:
        process.send_signal(number)
        if number != signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
    process.wait(30)


class Postgres:
    """A PostgreSQL of its own on a free port, made by the machine's own programs; run by another user than root."""

    def __init__(self) -> None:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not programs:
            raise Missing("PostgreSQL is not installed (apt-get install postgresql)")
        self._bin = programs[-1].parent
        self._port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="marginwatch-postgresql-"))
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # initdb refuses root
            if shutil.which("setpriv") is None:
                raise Missing("root cannot run PostgreSQL and setpriv is not installed (apt-get install util-linux)")
            shutil.chown(self._folder, "nobody", "nogroup")
            self._as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        self._run("initdb", "-D", "data", "-U", "marginwatch", "--auth=trust", "--encoding=UTF8", "--no-sync")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://marginwatch@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        command = [*self._as_user, str(self._bin / "postgres"), "-D", "data", "-p", str(self._port)]
        command += ["-k", str(self._folder), "-c", "listen_addresses=127.0.0.1"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        ready = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, seconds=30)

    def stop(self, number: int = signal.SIGINT) -> None:
        """SIGINT: a fast shutdown; SIGQUIT: an immediate one, as after a crash."""
        assert self._process is not None
        stop_process(self._process, number)

    def create(self, name: str) -> str:
        """The URL of a new database."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", "marginwatch", name)
        return self.url.replace("/postgres", f"/{name}")

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, str(self._bin / program), *arguments]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@dataclass
class Fleet:
    """Nodes with one data folder and one database; url: PostgreSQL's, or empty for SQLite."""

    folder: Path
    url: str = ""
    send: tuple[int, ...] = ()
    """Ports of the PACSs on this machine."""
    concurrency: int = 1
    sleep_s: float = 0.5
    attempts: int = 1
    takeovers: int = 50
    listener_port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        sends = ", ".join(f'{{ ae_title = "PACS", host = "127.0.0.1", port = {port} }}' for port in self.send)
        lines = [
            'data_folder = "data"',
            f"database = {{ url = {json.dumps(self.url)} }}",
            f"listener = {{ port = {self.listener_port}, quiet_time_s = 1.0, minimum_free_gib = 0 }}",
            f"worker = {{ concurrency = {self.concurrency}, attempts = {self.attempts}, takeovers = {self.takeovers}, "
            f"heartbeat_s = {HEARTBEAT_S}, takeover_after_s = {TAKEOVER_AFTER_S} }}",
            f"send = [{sends}]",
        ]
        self.config.write_text("\n".join(lines))

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def settings(self) -> Settings:
        return load_settings(self.config)

    @property
    def log(self) -> str:
        return (self.folder / "node.log").read_text()

    def ledger(self) -> Ledger:
        return open_ledger(self.settings)

    def start(self, *options: str, parts: str = "worker", wait: bool = True) -> subprocess.Popen[str]:
        """A new process; with wait, once it has started."""
        command = [sys.executable, str(HERE / "made_node.py"), str(self.config), "--parts", parts]
        command += ["--sleep", str(self.sleep_s), *options]
        with (self.folder / "node.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.processes.append(process)
        if wait:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n", self.log
        return process

    def stop(self, number: int = signal.SIGTERM) -> None:
        for process in self.processes:
            stop_process(process, number)
            if process.stdout is not None:
                process.stdout.close()
        self.processes.clear()

    def results(self) -> list[Path]:
        """Every result folder, half-written ones too."""
        return list((self.folder / "data" / "results").glob("*/*"))


@dataclass(frozen=True)
class MadeStudies:
    """A patient with a plan, a baseline and one follow-up, as small as can be."""

    folder: Path
    patient_id: str

    @property
    def followup_uid(self) -> str:
        return _uid(self.patient_id, "followup")

    def files(self) -> list[Path]:
        """Baseline and follow-up, written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        written = []
        for study, date, count in (("baseline", "20260105", 1), ("followup", "20260215", 2)):
            for number in range(count):
                file = self.folder / f"{study}-{number}.dcm"
                dcmwrite(file, self._slice(study, date, number), enforce_file_format=True)
                written.append(file)
        return written

    def register(self, ledger: Ledger, data_folder: Path) -> None:
        """Give the node the plan; only then its follow-up can be due."""
        plan = self.folder / "plan"
        plan.mkdir(exist_ok=True)
        lesion = {"lesion_id": "L1", "required_margin_mm": 5.0, "tumor": {"path": "tumor.nii.gz"}}
        document = {
            "plan_id": f"{self.patient_id}-plan",
            "patient_id": self.patient_id,
            "organ": "liver",
            "procedure": {"date": "20260110", "energy": "microwave"},
            "baseline": {
                "study_instance_uid": _uid(self.patient_id, "baseline"),
                "series_instance_uid": _uid(self.patient_id, "baseline", "series"),
            },
            "lesions": [lesion],
        }
        (plan / "plan.json").write_text(json.dumps(document))
        image = nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4))
        (plan / "tumor.nii.gz").write_bytes(gzip.compress(image.to_bytes(), mtime=0))
        register_plan(plan, ledger, data_folder)

    def enter(self, ledger: Ledger, data_folder: Path) -> None:
        """Plan and studies as if they had arrived, complete."""
        arrivals = []
        for file in self.files():
            identity = identity_of(_read(file))
            kept = Path("instances", identity.study_instance_uid, identity.series_instance_uid, file.name)
            (data_folder / kept).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, data_folder / kept)
            arrivals.append(Arrival(identity, kept))
        ledger.arrived_together(arrivals)
        ledger.complete([arrival.identity.study_instance_uid for arrival in arrivals])
        self.register(ledger, data_folder)

    def _slice(self, study: str, date: str, number: int) -> Dataset:
        dataset = Dataset()
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = _uid(self.patient_id, study, number)
        dataset.StudyDate = dataset.AcquisitionDate = date
        dataset.Modality, dataset.PatientName, dataset.PatientID = "CT", "Made^Up", self.patient_id
        dataset.StudyInstanceUID = _uid(self.patient_id, study)
        dataset.SeriesInstanceUID = _uid(self.patient_id, study, "series")
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return dataset


def assessments(ledger: Ledger, studies: list[MadeStudies]) -> list[AssessmentRecord]:
    """The current assessments of these patients."""
    mine = {made.followup_uid for made in studies}
    return [record for record in ledger.current_assessments() if record.study_instance_uid in mine]


def all_done(ledger: Ledger, studies: list[MadeStudies]) -> bool:
    """Whether each was assessed and nothing is owed to a PACS any more."""
    states = [record.state for record in assessments(ledger, studies)]
    return states == ["done"] * len(studies) and not ledger.owed()


def _uid(*names: object) -> str:
    return str(generate_uid(entropy_srcs=[str(name) for name in names]))


def _read(file: Path) -> Dataset:
    from pydicom import dcmread

    return dcmread(file)
