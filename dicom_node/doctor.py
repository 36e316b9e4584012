"""Whether a node can run as it is configured, and how to mend what keeps it from that."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from dicom_node.refusal import Refused
from dicom_node.settings import LOOPBACK, ReviewSettings, Settings, load_settings
from dicom_node.tls import listener_tls, review_tls

Level = Literal["good", "warning", "fault"]
_MEMORY_GIB = 4.0  # of one assessment (README)
_ECHO_WITHIN_S = 5.0
#: What os.link raises on file systems without hard links.
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: At these a server listens on every address of the machine.
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Check:
    """What was looked at and found; mend: what to do, empty where all is good.

    level: "fault" keeps the node from running; with a "warning" it runs, and does not all it should.
    """

    name: str
    level: Level
    text: str
    mend: str = ""


def examine(config: Path | None) -> list[Check]:
    """Every check, in the order in which faults should be mended; the first alone where the configuration is wrong."""
    try:
        settings = load_settings(config)
    except Refused as refused:
        return [Check("configuration", "fault", refused.text, "Correct that key; configs/node.example.toml lists all.")]
    named = str(config) if config else "none given, defaults are used"
    found = [Check("configuration", "good", named)]
    for look in (_data_folder, _disk, _database, _listener, _tls, _page, _memory, _probes):
        found.extend(look(settings))
    # A PACS that is asked and sent to is one, and DICOMweb has no C-ECHO.
    peers = {(x.ae_title, x.host, x.port) for x in settings.send if x.host}
    peers |= {(x.ae_title, x.host, x.port) for x in settings.pacs if x.host}
    return [*found, *(_echo(*peer, calling=settings.listener.ae_title) for peer in sorted(peers))]


def _data_folder(settings: Settings) -> Iterator[Check]:
    folder = settings.data_folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".doctor-") as here:
            one, other = Path(here) / "one", Path(here) / "other"
            one.write_bytes(b"1")
            os.link(one, other)
    except OSError as problem:
        if problem.errno in _NO_HARD_LINKS and os.access(folder, os.W_OK):
            text = f"{folder} has no hard links, so received instances are copied once more."
            yield Check("data folder", "warning", text, "Prefer a local ext4 or xfs file system.")
        elif problem.errno in _FULL:
            text = f"{folder} takes nothing more: {problem.strerror}."
            yield Check("data folder", "warning", text, "Free some room; until then nothing can be received.")
        else:
            mend = "Give the user that runs the node the right to write there, or set data_folder to another place."
            yield Check("data folder", "fault", f"{folder} cannot be written: {problem.strerror}.", mend)
        return
    waiting = len(list((folder / "inbox").glob("*.dcm"))) if (folder / "inbox").is_dir() else 0
    text = f"{folder}" + (f", {waiting} received instances wait to be sorted in" if waiting else "")
    yield Check("data folder", "good", text)


def _disk(settings: Settings) -> Iterator[Check]:
    try:
        usage = shutil.disk_usage(settings.data_folder)
    except OSError:
        return
    free_gib, least = usage.free / 2**30, settings.listener.minimum_free_gib
    text = f"{free_gib:.1f} GiB free"
    if free_gib < least:
        mend = "Free some room, or lower listener.minimum_free_gib; until then every C-STORE is answered with A700."
        yield Check("disk", "warning", f"{text}, less than listener.minimum_free_gib ({least:g})", mend)
    elif free_gib < least + 20:
        yield Check("disk", "warning", f"{text}; receiving stops at {least:g}", "Plan for more room.")
    else:
        yield Check("disk", "good", text)


def _database(settings: Settings) -> Iterator[Check]:
    from dicom_node.ledger import open_ledger

    try:
        ledger = open_ledger(settings)
    except (Refused, OSError) as problem:
        text = problem.text if isinstance(problem, Refused) else f"It cannot be opened: {problem.strerror}."
        yield Check("database", "fault", text, "Start or correct the database, then ask again.")
        return
    with closing(ledger):
        studies, plans = len(ledger.studies()), len(ledger.plans())
    kind = "PostgreSQL" if settings.database.url else "SQLite"
    yield Check("database", "good", f"{kind}, {studies} studies, {plans} plans")
    if not plans:
        yield Check(
            "plans", "warning", "No plan is registered, so nothing will be assessed.", "marginwatch plan add DIR"
        )


def _listener(settings: Settings) -> Iterator[Check]:
    listener = settings.listener
    where = f"{listener.ae_title} on {listener.host}:{listener.port}"
    if _can_bind(listener.host, listener.port):
        yield Check("DICOM listener", "good", f"{where}: the port is free")
    elif listener.tls.is_on:
        yield Check("DICOM listener", "good", f"{where}: something listens there (TLS, not asked)")
    elif _echo_status(listener.host, listener.port, listener.ae_title, calling=listener.ae_title) == "good":
        yield Check("DICOM listener", "good", f"{where} answers C-ECHO")
    else:
        mend = "Stop the other program, or set listener.port and listener.host to what is this machine's and free."
        yield Check("DICOM listener", "fault", f"{where} cannot be opened and answers no C-ECHO", mend)
    open_to_all = not (listener.allowed_addresses or listener.calling_ae_titles or listener.tls.ca)
    if listener.host not in LOOPBACK and open_to_all:
        text = "The listener is open to every address and AE title of the network"
        yield Check("who may send", "warning", text, "Set listener.allowed_addresses, or TLS with a ca.")


def _tls(settings: Settings) -> Iterator[Check]:
    tls = settings.listener.tls
    try:
        listener, review = listener_tls(tls), review_tls(settings.review)
    except Refused as refused:
        yield Check("TLS", "fault", refused.text, "Name readable PEM files that belong together.")
        return
    if listener is not None and not tls.ca:
        mend = "Set listener.tls.ca, so that peers have to show a certificate."
        yield Check("TLS", "warning", "Peers are not asked who they are", mend)
    elif listener is not None or review is not None:
        yield Check("TLS", "good", "certificate and key fit together")


def _page(settings: Settings) -> Iterator[Check]:
    review = settings.review
    if _can_bind(review.host, review.port):
        yield Check("review page", "good", f"{review.url}: the port is free")
    elif is_healthy(review):
        yield Check("review page", "good", f"{review.url} answers")
    else:
        mend = "Stop what is there, or set review.port."
        yield Check("review page", "fault", f"{review.url} is taken and not healthy", mend)


def is_healthy(review: ReviewSettings) -> bool:
    """Whether a node that is served with these settings says that it is well."""
    asked = replace(review, host=_ANY_ADDRESS.get(review.host, review.host)).url
    # The page is this machine's own, and its certificate is made out to the name that others ask for.
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=unverified))
    # By this name any page may be asked for, whatever review.host_names says.
    request = Request(f"{asked}healthz", headers={"Host": "localhost"})
    try:
        with opener.open(request, timeout=_ECHO_WITHIN_S) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False


def _memory(settings: Settings) -> Iterator[Check]:
    total_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    wanted_gib = _MEMORY_GIB * settings.worker.concurrency
    text = f"{total_gib:.0f} GiB for {settings.worker.concurrency} assessments at a time"
    if total_gib < wanted_gib:
        yield Check("memory", "fault", f"{text}; each takes up to {_MEMORY_GIB:g} GiB", "Lower worker.concurrency.")
    else:
        yield Check("memory", "good", text)


def _probes(settings: Settings) -> Iterator[Check]:
    from dicom_node.assessing import probes_of

    if not settings.simulation.probes:
        return
    try:
        probes_of(settings.simulation)
    except Refused as refused:
        yield Check("probe table", "fault", refused.text, "Correct the file; configs/probes.example.toml is a start.")
        return
    yield Check("probe table", "good", settings.simulation.probes)


def _echo(ae_title: str, host: str, port: int, *, calling: str) -> Check:
    status = _echo_status(host, port, ae_title, calling=calling)
    name = f"PACS {ae_title}@{host}:{port}"
    if status == "good":
        return Check(name, "good", "answers C-ECHO")
    mends = {
        "unreachable": "Check host, port and firewall.",
        "rejected": f"Let the PACS know this node as {calling}, and check its AE title.",
        "no answer": "Look into the PACS's log.",
    }
    return Check(name, "warning", f"C-ECHO: {status}; results wait and are sent once it answers", mends[status])


def _echo_status(host: str, port: int, ae_title: str, *, calling: str) -> str:
    """good, unreachable, rejected, or no answer."""
    from pynetdicom import AE
    from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

    ae = AE(ae_title=calling)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _ECHO_WITHIN_S
    ae.add_requested_context(Verification)
    association = ae.associate(host, port, ae_title=ae_title)
    if not association.is_established:
        return "rejected" if association.is_rejected else "unreachable"
    status = association.send_c_echo().get("Status")
    association.release()
    return "good" if status == 0 else "no answer"


def _can_bind(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError:
        return False
    return True
