"""Instances taken a second by C-STORE: this node, dcmtk's storescp and Orthanc, in shuffled rounds of one run.

Each round sends a made CT of 600 slices (512 x 512, int16) with dcmtk's storescu over loopback to a fresh receiver, by
one association or by four at a time. "best": senders and peers with TCP_NODELAY, which both peers take from the
environment; "Nagle": senders without it, as storescu is by default, and peers as they are installed; "Nagle, peers
best": only the senders without it. With Nagle fewer slices are sent, as 40 ms may pass for each. "ours" and Orthanc
have each instance on the disk before they answer (durability "answer", Orthanc's default); "ours, complete" syncs it
soon after, before its study counts as complete; dcmtk leaves that to the system.

A round counts only when every slice lies at its place on the receiver's disk; by when is told too, as this node sorts
what it has answered a moment later. Medians over the rounds; ratios are between medians of one run. Memory: what the
node holds after 2000 and after 20,000 instances. --quick: 40 slices, one association, one round, 400 instances for the
memory.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from document import goal, options, report
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

STORESCU, STORESCP = Path("/usr/bin/storescu"), Path("/usr/bin/storescp")
ORTHANC = Path("/usr/sbin/Orthanc")


@dataclass(frozen=True)
class Size:
    slices: int
    slices_with_nagle: int
    rounds: int
    associations: tuple[int, ...]
    for_memory: tuple[int, int]


FULL = Size(600, 60, 3, (1, 4), (2000, 20_000))
QUICK = Size(40, 8, 1, (1,), (100, 400))


@dataclass(frozen=True)
class Delays:
    """Who sends small segments at once (TCP_NODELAY)."""

    name: str
    sender_no_delay: bool
    receiver_no_delay: bool


DELAYS = (Delays("best", True, True), Delays("Nagle", False, False), Delays("Nagle, peers best", False, True))


@dataclass
class Receiver:
    """A program that receives. count: the instances at their place on its disk."""

    process: subprocess.Popen[bytes]
    port: int
    count: Callable[[], int]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ours(folder: Path, durability: str = "answer", *, no_delay: bool = False) -> Receiver:
    port = free_port()
    config = folder / "node.toml"
    listener = f'port = {port}, minimum_free_gib = 0, durability = "{durability}"'
    config.write_text(f'data_folder = "data"\nlistener = {{ {listener} }}\n')
    command = [sys.executable, "-m", "dicom_node.cli", "serve", "--only", "listener", "--config", str(config)]
    count = partial(_dicom_files, folder / "data" / "instances")
    return _started(command, port, count, no_delay=no_delay)


def _dicom_files(folder: Path) -> int:
    return len(list(folder.rglob("*.dcm")))


def dcmtk(folder: Path, *, no_delay: bool) -> Receiver:
    port = free_port()
    command = [str(STORESCP), "--fork", "-aet", "MARGINWATCH", "-pdu", "131072", "-od", str(folder), str(port)]
    return _started(command, port, lambda: len(list(folder.glob("CT.*"))), no_delay=no_delay)


def orthanc(folder: Path, *, no_delay: bool) -> Receiver:
    import json

    port = free_port()
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "TemporaryDirectory": str(folder),
        "RemoteAccessAllowed": False,
        "HttpServerEnabled": False,
        "DicomPort": port,
        "DicomAet": "MARGINWATCH",
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "OverwriteInstances": False,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    database = folder / "db"

    def count() -> int:
        """Instances lie in two levels of folders; the index and small files with tags do not count."""
        found = (path.stat() for path in database.glob("*/*/*"))
        return sum(1 for status in found if status.st_size > 100_000)

    return _started([str(ORTHANC), str(folder / "orthanc.json")], port, count, no_delay=no_delay)


def _environment(*, no_delay: bool) -> dict[str, str]:
    """With or without what dcmtk, and Orthanc with it, takes as the wish for TCP_NODELAY."""
    others = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    return others | ({"TCP_NODELAY": "1"} if no_delay else {})


def _started(command: list[str], port: int, count: Callable[[], int], *, no_delay: bool) -> Receiver:
    environment = _environment(no_delay=no_delay)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return Receiver(process, port, count)
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
    process.kill()
    raise SystemExit(f"{command[0]} does not answer")


RECEIVERS: dict[str, Callable[..., Receiver]] = {
    "ours": ours,
    "ours, complete": partial(ours, durability="complete"),
    "dcmtk": dcmtk,
    "orthanc": orthanc,
}


def made_ct(folder: Path, slices: int, *, side: int = 512) -> list[Path]:
    """The files of a made CT."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 1200, (side, side), np.int16)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    files = []
    for number in range(slices):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.PatientID, dataset.PatientName, dataset.Modality = "MADE", "MADE", "CT"
        dataset.StudyDate = dataset.AcquisitionDate = "20260112"
        dataset.Rows = dataset.Columns = side
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness, dataset.InstanceNumber = [0.8, 0.8], 1, number + 1
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.PixelData = np.roll(pixels, number, 0).tobytes()
        path = folder / f"{number:05d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def send(files: list[Path], port: int, *, associations: int, no_delay: bool) -> float:
    """Seconds until every sender is done."""
    environment = _environment(no_delay=no_delay)
    command = [str(STORESCU), "-aec", "MARGINWATCH", "127.0.0.1", str(port)]
    shares = [files[n::associations] for n in range(associations)]
    started = time.perf_counter()
    senders = [subprocess.Popen([*command, *map(str, share)], env=environment) for share in shares]
    if any([sender.wait() for sender in senders]):
        raise SystemExit("a sender failed")
    return time.perf_counter() - started


def warm(folder: Path, count: int) -> None:
    """Use as much memory for files as a round will, and free it.

    On a virtual machine whose host takes unused memory back, its first use costs several times the writing itself, and
    would hit whoever is slowest to start.
    """
    content = bytes(1 << 19)
    for number in range(count):
        (folder / f"warm-{number}").write_bytes(content)
    for number in range(count):
        (folder / f"warm-{number}").unlink()


def measured(name: str, files: list[Path], work: Path, *, associations: int, delays: Delays) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(dir=work))
    receiver = RECEIVERS[name](folder, no_delay=delays.receiver_no_delay)
    try:
        warm(folder, len(files))
        cpu_s = -_cpu_s(receiver.process.pid)
        started = time.perf_counter()
        seconds = send(files, receiver.port, associations=associations, no_delay=delays.sender_no_delay)
        while receiver.count() < len(files):
            if time.perf_counter() - started > 120:
                raise SystemExit(f"{name} has {receiver.count()} of {len(files)} instances")
            time.sleep(0.05)
        in_place = time.perf_counter() - started
        cpu_s += _cpu_s(receiver.process.pid)
    finally:
        receiver.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "method": name,
        "associations": associations,
        "sockets": delays.name,
        "instances_a_second": len(files) / seconds,
        "mib_a_second": sum(f.stat().st_size for f in files) / seconds / 2**20,
        "in_place_a_second": len(files) / in_place,
        "cpu_ms_an_instance": 1000 * cpu_s / len(files),
    }


def memory(work: Path, counts: tuple[int, int]) -> dict[str, Any]:
    """MiB that the node holds after the first and after all of many small instances."""
    folder = Path(tempfile.mkdtemp(dir=work))
    small = Path(tempfile.mkdtemp(dir=work))
    files = made_ct(small, 100, side=64)
    receiver = ours(folder)
    command = [str(STORESCU), "+II", "--repeat", "0", "-aec", "MARGINWATCH", "127.0.0.1", str(receiver.port)]
    mib = []
    sent = 0
    try:
        for count in counts:
            while sent < count:
                command[3] = str(min(10, (count - sent) // len(files)))
                subprocess.run([*command, *map(str, files)], check=True, env=_environment(no_delay=True))
                sent += int(command[3]) * len(files)
            time.sleep(1)
            mib.append(_held_mib(receiver.process.pid))
        arrived = receiver.count()
    finally:
        receiver.stop()
        shutil.rmtree(folder, ignore_errors=True)
    if arrived != counts[1]:
        raise SystemExit(f"{arrived} of {counts[1]} instances arrived")
    return {"method": "ours", "instances": counts[1], "first_mib": mib[0], "last_mib": mib[1]}


def _held_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def _cpu_s(pid: int) -> float:
    """Of the process and the children that have ended."""
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(part) for part in parts[11:15]) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    asked = options(__doc__)
    size = QUICK if asked.quick else FULL
    work = Path(tempfile.mkdtemp(prefix="ingest-"))
    try:
        (work / "ct").mkdir()
        files = made_ct(work / "ct", size.slices)
        rows: list[dict[str, Any]] = []
        plan = [
            (name, associations, delays)
            for name in RECEIVERS
            for associations in size.associations
            for delays in DELAYS
            for _ in range(size.rounds)
        ]
        random.Random(1).shuffle(plan)
        for name, associations, delays in plan:
            some = files if delays.sender_no_delay else files[: size.slices_with_nagle]
            rows.append(measured(name, some, work, associations=associations, delays=delays))
            print(rows[-1], file=sys.stderr)
        held = memory(work, size.for_memory)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    report("ingest", [*_medians(rows), held], _goals(rows, held), as_json=asked.json)


def _medians(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds = sorted({(row["sockets"], row["associations"], row["method"]) for row in rows}, reverse=True)
    out = []
    for sockets, associations, name in kinds:
        mine = [r for r in rows if (r["sockets"], r["associations"], r["method"]) == (sockets, associations, name)]
        row = {"method": name, "associations": associations, "sockets": sockets}
        for key in ("instances_a_second", "mib_a_second", "in_place_a_second", "cpu_ms_an_instance"):
            row[key] = statistics.median(r[key] for r in mine)
        out.append(row | {"rounds": len(mine)})
    return out


def _goals(rows: list[dict[str, Any]], held: dict[str, Any]) -> list[dict[str, Any]]:
    rate = {(r["sockets"], r["associations"], r["method"]): r["instances_a_second"] for r in _medians(rows)}
    wanted = {("best", "orthanc"): ">= 1.5", ("best", "dcmtk"): ">= 0.7"}
    found = []
    for name in ("ours", "ours, complete"):
        for associations in sorted({row["associations"] for row in rows}):
            for delays in DELAYS:
                for peer in ("orthanc", "dcmtk"):
                    ratio = rate[delays.name, associations, name] / rate[delays.name, associations, peer]
                    text = f"{name}: times {peer}, {associations} associations, {delays.name}"
                    found.append(goal(text, ratio, wanted.get((delays.name, peer), ">= 5")))
    growth = held["last_mib"] / held["first_mib"]
    return [*found, goal("memory at the last over the first of many instances", growth, "<= 1.1")]


if __name__ == "__main__":
    main()
