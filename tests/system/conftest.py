"""Real parts on loopback, on free ports, stopped by their own process: the node, Orthanc, dcmtk, a browser."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from dicom_node.phantom_series import PhantomFolder

#: Ours, not pynetdicom's commands of the same names, which a virtual environment puts in front of them.
DCMTK = Path("/usr/bin")


def _part(name: str) -> Any:
    """A module of `parts/`; test modules cannot import each other."""
    spec = importlib.util.spec_from_file_location(f"parts_{name}", Path(__file__).parent / "parts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


_FLEET = _part("fleet")
free_port, wait_until, ended = _FLEET.free_port, _FLEET.wait_until, _FLEET.stop_process


def need(program: str, package: str) -> str:
    """The program's path; skips the test by name where it is not installed."""
    places = (DCMTK / program, Path("/usr/sbin", program), Path("/usr/share/orthanc/plugins", program))
    path = next((place for place in places if place.exists()), shutil.which(program))
    if path is None:
        pytest.skip(f"{program} is not installed (apt-get install {package})")
    return str(path)


def marginwatch(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dicom_node.cli", *map(str, arguments)]


def run(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(marginwatch(*arguments), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


@dataclass
class ServedNode:
    """A `marginwatch serve` in a process of its own."""

    folder: Path
    pacs: Orthanc | None = None
    quiet_time_s: float = 1.5
    dicom_port: int = field(default_factory=free_port)
    page_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.page_port}"

    def write_config(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [
            'data_folder = "data"',
            f"listener = {{ port = {self.dicom_port}, quiet_time_s = {self.quiet_time_s}, minimum_free_gib = 0 }}",
            f"review = {{ port = {self.page_port} }}",
        ]
        if self.pacs is not None:
            lines.append(f'send = [{{ ae_title = "ORTHANC", host = "127.0.0.1", port = {self.pacs.dicom_port} }}]')
        self.config.write_text("\n".join(lines))

    def start(self) -> None:
        self.write_config()
        with (self.folder / "node.log").open("ab") as log:
            self.process = subprocess.Popen(marginwatch("serve", "--config", self.config), stderr=log)
        wait_until(self.answers, seconds=60)

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "node.log").read_text()
        try:
            with closing(socket.create_connection(("127.0.0.1", self.dicom_port), timeout=1)):
                return httpx.get(f"{self.url}/healthz", trust_env=False).status_code == 200
        except (httpx.TransportError, OSError):
            return False

    def studies(self) -> list[dict[str, Any]]:
        return list(httpx.get(f"{self.url}/api/studies", trust_env=False, timeout=30).json())

    def study(self, **wanted: Any) -> dict[str, Any] | None:
        """The first study with these values."""
        return next((s for s in self.studies() if all(s[key] == value for key, value in wanted.items())), None)

    def send(self, folder: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """dcmtk's storescu sends every file of a folder."""
        command = [need("storescu", "dcmtk"), "-aec", "MARGINWATCH", "+sd", "+r", "-nh"]
        command += ["127.0.0.1", str(self.dicom_port), str(folder)]
        environment = {**os.environ, "TCP_NODELAY": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert not check or done.returncode == 0, done.stderr
        return done

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            ended(self.process, number)
            self.process = None


@dataclass
class Orthanc:
    """A test PACS."""

    folder: Path
    dicom_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    modalities: dict[str, Any] = field(default_factory=dict)
    """Orthanc's DicomModalities: whom it knows, for C-MOVE and storage commitment."""
    dicomweb: bool = False
    lua_scripts: list[str] = field(default_factory=list)

    @property
    def dicomweb_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def start(self) -> None:
        program = need("Orthanc", "orthanc")
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "Name": "TESTPACS",
            "StorageDirectory": str(self.folder / "db"),
            "IndexDirectory": str(self.folder / "db"),
            "Plugins": [need("libOrthancDicomWeb.so", "orthanc-dicomweb")] if self.dicomweb else [],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True},
            "DicomModalities": self.modalities,
            "LuaScripts": self.lua_scripts,
            "StorageCommitmentReportsSize": 100,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "OverwriteInstances": False,
        }
        (self.folder / "orthanc.json").write_text(json.dumps(settings))
        with (self.folder / "orthanc.log").open("wb") as log:
            self.process = subprocess.Popen([program, str(self.folder / "orthanc.json")], stdout=log, stderr=log)
        wait_until(self.answers, seconds=30)

    def answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.http_port}/system", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def find(self, study_instance_uid: str, keyword: str) -> list[str]:
        """A UID attribute of every instance of a study, by dcmtk's findscu; known UIDs come as their keyword."""
        command = [need("findscu", "dcmtk"), "-S", "-aec", "ORTHANC", "127.0.0.1", str(self.dicom_port)]
        keys = ["QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={study_instance_uid}"]
        keys += ["SeriesInstanceUID", "SOPInstanceUID", keyword]
        for key in keys:
            command += ["-k", key]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        # "(0008,0016) UI =SegmentationStorage # 26, 1 SOPClassUID" or "(0008,0018) UI [1.2.3] # 6, 1 SOPInstanceUID"
        found = re.findall(rf"\) UI (?:=(\w+)|\[([^]]*)\]).* {keyword}$", done.stdout + done.stderr, re.MULTILINE)
        return [name or uid.rstrip("\0 ") for name, uid in found]

    def stop(self) -> None:
        if self.process is not None:
            ended(self.process, signal.SIGTERM)
            self.process = None


@pytest.fixture(scope="session")
def phantom(written_phantom: PhantomFolder) -> PhantomFolder:
    """A made patient whose ablation zone left tumor uncovered."""
    return written_phantom


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    pacs = Orthanc(tmp_path_factory.mktemp("orthanc"))
    pacs.start()
    yield pacs
    pacs.stop()


@pytest.fixture(scope="module")
def node_with_pacs(tmp_path_factory: pytest.TempPathFactory, orthanc: Orthanc) -> Iterator[ServedNode]:
    node = ServedNode(tmp_path_factory.mktemp("node"), pacs=orthanc)
    node.start()
    yield node
    node.stop()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ServedNode]:
    node = ServedNode(tmp_path / "node")
    yield node
    node.stop()


@dataclass(frozen=True)
class Tools:
    """For test modules, which cannot import each other."""

    run = staticmethod(run)
    marginwatch = staticmethod(marginwatch)
    wait_until = staticmethod(wait_until)
    need = staticmethod(need)
    free_port = staticmethod(free_port)
    orthanc = Orthanc


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools()


@pytest.fixture(scope="session")
def fleet() -> Any:
    """The module `parts/fleet.py`, which `storm.py` uses too."""
    return _FLEET


@pytest.fixture(scope="module")
def postgres(fleet: Any) -> Iterator[Any]:
    """A running PostgreSQL; skips by name where there is none."""
    try:
        server = fleet.Postgres()
    except fleet.Missing as missing:
        pytest.skip(str(missing))
    server.start()
    yield server
    server.stop(signal.SIGQUIT)
    server.remove()
