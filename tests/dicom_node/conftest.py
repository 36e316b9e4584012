"""Made instances, plans and a running node with a stand-in for the assessment, for the tests of the node."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from sqlalchemy import update

from dicom_node.back_off import BackOff
from dicom_node.ledger import Ledger
from dicom_node.queue import Tools
from dicom_node.schema import SENDS
from dicom_node.serve import Node, Part
from dicom_node.settings import ListenerSettings, ReviewSettings, Settings, WorkerSettings


def uid_of(*names: object) -> str:
    return str(generate_uid(entropy_srcs=[str(name) for name in names]))


@dataclass(frozen=True)
class MadePatient:
    """A patient with a baseline, a plan and follow-ups of a few small slices; the node never decodes them."""

    patient_id: str

    def study_uid(self, name: str) -> str:
        return uid_of(self.patient_id, name)

    def slices(self, study: str, date: str, *, count: int = 3, modality: str = "CT") -> list[Dataset]:
        return [self.slice(study, date, number, modality=modality) for number in range(count)]

    def slice(self, study: str, date: str, number: int, *, modality: str = "CT", fill: int = 0) -> Dataset:
        dataset = Dataset()
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = uid_of(self.patient_id, study, number)
        dataset.StudyDate = dataset.AcquisitionDate = date
        dataset.Modality = modality
        dataset.PatientName = "Made^Up"
        dataset.PatientID = self.patient_id
        dataset.StudyInstanceUID = self.study_uid(study)
        dataset.SeriesInstanceUID = uid_of(self.patient_id, study, "series")
        dataset.Rows = dataset.Columns = 4
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 1, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.PixelData = bytes([fill]) * 32
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return dataset

    def plan_folder(self, folder: Path, *, required_margin_mm: float = 5.0) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        document = {
            "plan_id": f"{self.patient_id}-plan".replace("/", ""),
            "patient_id": self.patient_id,
            "organ": "liver",
            "procedure": {"date": "20260110", "energy": "microwave"},
            "baseline": {
                "study_instance_uid": self.study_uid("baseline"),
                "series_instance_uid": uid_of(self.patient_id, "baseline", "series"),
            },
            "lesions": [
                {"lesion_id": "L1", "required_margin_mm": required_margin_mm, "tumor": {"path": "tumor.nii.gz"}}
            ],
        }
        (folder / "plan.json").write_text(json.dumps(document))
        (folder / "tumor.nii.gz").write_bytes(made_region())
        return folder


@cache
def made_region() -> bytes:
    """A NIfTI file of eight voxels."""
    return gzip.compress(nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4)).to_bytes(), mtime=0)


def file_bytes(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def made_document(study_instance_uid: str, outcome: str = "complete", margin_mm: float = 5.2) -> dict[str, Any]:
    lesion = {
        "lesion_id": "L1",
        "outcome": outcome,
        "minimal_margin_mm": margin_mm,
        "minimal_margin_interval_mm": [margin_mm - 1, margin_mm + 1],
        "minimal_margin_point_lps_mm": [0.0, 0.0, 0.0],
        "required_margin_mm": 5.0,
        "tumor_volume_ml": 4.6,
        "zone_volume_ml": 23.5,
        "covered_fraction": 1.0,
        "uncovered_volume_ml": 0.0,
        "surface_fraction_below_0mm": 0.0,
        "surface_fraction_below_5mm": 0.1,
        "simulated_zone": None,
        "findings": [],
    }
    return {
        "schema": "marginwatch/assessment/1",
        "study_instance_uid": study_instance_uid,
        "days_since_procedure": 33,
        "outcome": outcome,
        "needs_review": outcome != "complete",
        "reasons": [{"code": "made_up", "text": "A stand-in was asked."}],
        "registration": {"accepted": True, "expected_error_mm": 1.1, "minimum_jacobian": 0.6},
        "lesions": [lesion],
        "provenance": {"software_version": "0.1.0", "weights_sha256": None, "settings_sha256": "0"},
        "timing_s": {"total": 0.1},
    }


class StandIn:
    """Takes the place of the assessment: records each job and answers at once."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []
        self.answer: Callable[[Any], dict[str, Any]] = lambda _: made_document("1.2")

    def __call__(self, job: Any, **_: Any) -> dict[str, Any]:
        self.jobs.append(job)
        document = self.answer(job)
        out = Path(job.out)
        (out / "images").mkdir(parents=True)
        (out / "assessment.json").write_text(json.dumps(document))
        return document


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    """What the condition gave once it was true. Fails after the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


@dataclass(frozen=True)
class Bench:
    """What the tests of the node work with; handed out as a fixture because test modules cannot import each other."""

    folder: Path
    stand_in: StandIn
    settings: Settings
    nodes: list[Node]

    def patient(self, patient_id: str = "P1") -> MadePatient:
        return MadePatient(patient_id)

    def node(self, *parts: Part, **changed: Any) -> Node:
        settings = replace(self.settings, **changed)
        node = Node(settings, parts=parts, tools=Tools(assess=self.stand_in, back_off=BackOff(0.01, 0.05)))
        self.nodes.append(node)
        node.start()
        return node

    def stop(self, node: Node) -> None:
        self.nodes.remove(node)
        node.stop()

    def ledger(self, clock: Callable[[], float] = time.time) -> Ledger:
        self.settings.data_folder.mkdir(parents=True, exist_ok=True)
        return Ledger(self.settings.ledger_url, clock=clock)

    def set_send(self, ledger: Ledger, assessment_id: str, state: str) -> None:
        """Let everything that is owed of an assessment be in a state."""
        with ledger.transaction() as connection:
            mine = SENDS.c.assessment_id == assessment_id
            connection.execute(update(SENDS).where(mine).values(state=state, text=""))

    document = staticmethod(made_document)
    file_bytes = staticmethod(file_bytes)
    free_port = staticmethod(free_port)
    uid_of = staticmethod(uid_of)
    wait_until = staticmethod(wait_until)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    settings = Settings(
        data_folder=tmp_path / "data",
        listener=ListenerSettings(port=free_port(), quiet_time_s=0.5, minimum_free_gib=0.0),
        worker=WorkerSettings(attempts=2),
        review=ReviewSettings(port=free_port()),
    )
    bench = Bench(tmp_path, StandIn(), settings, [])
    yield bench
    for node in bench.nodes:
        node.stop()


@pytest.fixture
def ledger(bench: Bench) -> Iterator[Ledger]:
    ledger = bench.ledger()
    yield ledger
    ledger.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
