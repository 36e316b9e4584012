"""What a site sets: TOML → frozen dataclasses; an unknown key is refused by name."""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from ipaddress import ip_network
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from dicom_node.peers import CompleteSettings, FetchSettings, Pacs, check_url
from dicom_node.peers import check_ae_title as _check_ae_title
from dicom_node.peers import check_port as _check_port
from dicom_node.refusal import Refused

DEFAULT_DATA_FOLDER = Path("~/.local/share/marginwatch")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def in_url(host: str) -> str:
    """The host as it stands in an address: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True)
class DatabaseSettings:
    url: str = ""
    """Empty: SQLite files in the data folder. Else a PostgreSQL URL, for ledger and queue."""
    password_file: str = ""
    """A file whose first line is the password of the user in `url`."""

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith("postgresql://"):
            raise ValueError("database.url must be empty or start with postgresql://")
        user, _, password = urlsplit(self.url).netloc.rpartition("@")[0].partition(":")
        if self.password_file and (not user or password):
            raise ValueError("database.password_file needs a database.url with a user and without a password")

    def with_password(self) -> DatabaseSettings:
        """With the password from the file in the URL. Raises ValueError where the file cannot be read."""
        if not self.password_file:
            return self
        try:
            password = Path(self.password_file).read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
        except (OSError, UnicodeDecodeError):
            name = Path(self.password_file).name
            raise ValueError(f"database.password_file: {name} cannot be read by the node's user") from None
        user, _, rest = self.url.partition("@")
        return DatabaseSettings(f"{user.removesuffix(':')}:{quote(password, safe='')}@{rest}")


@dataclass(frozen=True)
class TlsSettings:
    """Files in PEM form. certificate, key: this node's; empty: no TLS. ca: who signs the peers' certificates; without
    it no peer has to show one."""

    certificate: str = ""
    key: str = ""
    ca: str = ""

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("listener.tls.certificate and listener.tls.key are needed together")
        if self.ca and not self.certificate:
            raise ValueError("listener.tls.ca needs listener.tls.certificate and listener.tls.key")

    @property
    def is_on(self) -> bool:
        return bool(self.certificate)


@dataclass(frozen=True)
class ListenerSettings:
    ae_title: str = "MARGINWATCH"
    host: str = "127.0.0.1"
    port: int = 11112
    quiet_time_s: float = 30.0
    calling_ae_titles: tuple[str, ...] = ()
    """Empty: any calling AE title."""
    max_pdu_bytes: int = 131072
    minimum_free_gib: float = 2.0
    check_called_ae_title: bool = False
    allowed_addresses: tuple[str, ...] = ()
    """Addresses and networks, e.g. 192.0.2.0/24; empty: any."""
    max_associations: int = 50
    associations_a_minute: int = 600
    """From one address."""
    idle_s: float = 300.0
    max_instance_gib: float = 4.0
    durability: str = "answer"
    tls: TlsSettings = field(default_factory=TlsSettings)

    def __post_init__(self) -> None:
        _check_ae_title("listener.ae_title", self.ae_title)
        for network in self.allowed_addresses:
            try:
                ip_network(network)
            except ValueError as problem:
                raise ValueError(f"listener.allowed_addresses: {problem}") from None
        if self.max_associations < 1 or self.associations_a_minute < 1:
            raise ValueError("listener.max_associations and listener.associations_a_minute must be at least 1")
        if self.idle_s <= 0 or self.max_instance_gib <= 0:
            raise ValueError("listener.idle_s and listener.max_instance_gib must be above 0")
        if self.durability not in ("answer", "complete"):
            raise ValueError("listener.durability must be answer or complete")
        for title in self.calling_ae_titles:
            _check_ae_title("listener.calling_ae_titles", title)
        _check_port("listener.port", self.port)
        if self.quiet_time_s <= 0:
            raise ValueError("listener.quiet_time_s must be above 0")
        if not 4096 <= self.max_pdu_bytes <= 1 << 24:
            raise ValueError("listener.max_pdu_bytes must be 4096 to 16777216")
        if self.minimum_free_gib < 0:
            raise ValueError("listener.minimum_free_gib cannot be negative")

    @property
    def minimum_free_bytes(self) -> int:
        return int(self.minimum_free_gib * 2**30)


@dataclass(frozen=True)
class WorkerSettings:
    concurrency: int = 1
    attempts: int = 3
    time_limit_s: float = 1800.0
    gpus: int = 0
    takeovers: int = 5
    heartbeat_s: float = 5.0
    takeover_after_s: float = 30.0

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.attempts < 1:
            raise ValueError("worker.concurrency and worker.attempts must be at least 1")
        if self.time_limit_s <= 0:
            raise ValueError("worker.time_limit_s must be above 0")
        if self.gpus < 0 or self.takeovers < 0:
            raise ValueError("worker.gpus and worker.takeovers cannot be negative")
        if self.heartbeat_s <= 0:
            raise ValueError("worker.heartbeat_s must be above 0")
        if self.takeover_after_s < 4 * self.heartbeat_s:
            raise ValueError("worker.takeover_after_s must be at least four times worker.heartbeat_s")


@dataclass(frozen=True)
class ReviewSettings:
    host: str = "127.0.0.1"
    port: int = 8080
    host_names: tuple[str, ...] = ()
    """The names it is asked for by; empty: on loopback only this machine's, elsewhere any."""
    behind_proxy: bool = False
    """A proxy on this machine stands in front and speaks TLS."""
    tls_certificate: str = ""
    tls_key: str = ""
    session_idle_min: float = 30.0
    session_hours: float = 12.0
    metrics_token_file: str = ""
    stow_instance_mib: int = 1024
    stow_request_mib: int = 8192

    def __post_init__(self) -> None:
        _check_port("review.port", self.port)
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("review.tls_certificate and review.tls_key are given together or not at all")
        if self.behind_proxy and not self.host_names:
            raise ValueError("review.behind_proxy needs review.host_names: the names that the proxy is asked for by")
        if self.session_idle_min <= 0 or self.session_hours <= 0:
            raise ValueError("review.session_idle_min and review.session_hours must be above 0")
        if self.stow_instance_mib < 1 or self.stow_request_mib < self.stow_instance_mib:
            raise ValueError("review.stow_instance_mib must be at least 1, review.stow_request_mib no less than it")

    @property
    def is_local(self) -> bool:
        """Whether only who is on this machine can reach it."""
        return self.host in LOOPBACK and not self.behind_proxy and set(self.host_names) <= set(LOOPBACK)

    @property
    def url(self) -> str:
        """The address of the page itself, without a proxy in front."""
        return f"{'https' if self.tls_certificate else 'http'}://{in_url(self.host)}:{self.port}/"

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach it by TLS."""
        return bool(self.tls_certificate) or self.behind_proxy


@dataclass(frozen=True)
class AuditSettings:
    """Who watches: the audit trail is always written to the data folder, and sent to a collector where one is named."""

    source: str = "marginwatch"
    host: str = ""
    port: int = 6514
    transport: str = "tls"
    ca_file: str = ""

    def __post_init__(self) -> None:
        _check_port("audit.port", self.port)
        if not self.source.strip():
            raise ValueError("audit.source cannot be empty")
        if self.transport not in ("udp", "tcp", "tls"):
            raise ValueError("audit.transport must be udp, tcp or tls")


@dataclass(frozen=True)
class LogSettings:
    format: str = "text"
    level: str = "info"
    patient_data: bool = False

    def __post_init__(self) -> None:
        if self.format not in ("text", "json"):
            raise ValueError("logs.format must be text or json")
        if self.level not in ("debug", "info", "warning", "error"):
            raise ValueError("logs.level must be debug, info, warning or error")


@dataclass(frozen=True)
class SimulatedZone:
    """How a zone is simulated where a plan brings none."""

    isotherm_c: float = -20.0
    dose: str = "arrhenius"
    probes: str = ""
    """A site's own probe table; empty: none."""

    def __post_init__(self) -> None:
        if not -80.0 <= self.isotherm_c <= 0.0:
            kelvin = "; it looks like kelvin" if self.isotherm_c > 100 else ""
            raise ValueError(f"simulation.isotherm_c must be between -80 and 0 °C{kelvin}")
        if self.dose not in ("arrhenius", "cem43"):
            raise ValueError("simulation.dose must be arrhenius or cem43")


@dataclass(frozen=True)
class Destination:
    """A PACS that the results are sent to."""

    ae_title: str
    host: str = ""
    port: int = 0
    storage_commitment: bool = False
    """Whether a result counts as sent only once the PACS has committed itself to keep it."""
    dicomweb_url: str = ""
    """Where not empty, results go there by STOW-RS, and not by C-STORE."""
    token_file: str = ""
    """A file with the bearer token for `dicomweb_url`; empty: none is shown."""

    def __post_init__(self) -> None:
        _check_ae_title("send.ae_title", self.ae_title)
        check_url("send.dicomweb_url", self.dicomweb_url)
        if self.dicomweb_url and not self.storage_commitment:
            return
        for key, value in (("host", self.host), ("port", self.port)):
            if not value:
                raise ValueError(f"send.{key} is missing")
        _check_port("send.port", self.port)

    @property
    def name(self) -> str:
        if self.dicomweb_url:
            return f"{self.ae_title}@{self.dicomweb_url}"
        return f"{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True)
class Settings:
    data_folder: Path = DEFAULT_DATA_FOLDER
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    listener: ListenerSettings = field(default_factory=ListenerSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    review: ReviewSettings = field(default_factory=ReviewSettings)
    simulation: SimulatedZone = field(default_factory=SimulatedZone)
    audit: AuditSettings = field(default_factory=AuditSettings)
    logs: LogSettings = field(default_factory=LogSettings)
    send: tuple[Destination, ...] = ()
    complete: CompleteSettings = field(default_factory=CompleteSettings)
    fetch: FetchSettings = field(default_factory=FetchSettings)
    pacs: tuple[Pacs, ...] = ()

    def __post_init__(self) -> None:
        page, listener = self.review, self.listener
        if page.port == listener.port and page.host == listener.host:
            raise ValueError("review.port must be another port than listener.port")

    @property
    def ledger_url(self) -> str:
        """The SQLAlchemy URL of the ledger."""
        if self.database.url:
            return self.database.url.replace("postgresql://", "postgresql+psycopg://", 1)
        return f"sqlite:///{self.data_folder / 'ledger.sqlite'}"

    @property
    def queue_url(self) -> str:
        """The database URL of the durable queue."""
        return self.database.url or f"sqlite:///{self.data_folder / 'queue.sqlite'}"


def load_settings(file: Path | None) -> Settings:
    """The settings in a TOML file, or the defaults where there is none; `data_folder` is absolute.

    A relative path is meant from the file's own folder. Raises `Refused` naming the key that is wrong.
    """
    if file is None:
        return replace(Settings(), data_folder=DEFAULT_DATA_FOLDER.expanduser())
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        settings: Settings = _build(Settings, document, "")
        database = _from_folder(settings.database, file.parent, "password_file").with_password()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as problem:
        raise Refused("bad_settings", f"{file.name}: {problem}.") from None
    folder = settings.data_folder.expanduser()
    send = tuple(_from_folder(x, file.parent, "token_file") for x in settings.send)
    pacs = tuple(_from_folder(x, file.parent, "token_file") for x in settings.pacs)
    return replace(
        settings,
        send=send,
        pacs=pacs,
        data_folder=(file.parent / folder).resolve(),
        database=database,
        simulation=_from_folder(settings.simulation, file.parent, "probes"),
        review=_from_folder(settings.review, file.parent, "tls_certificate", "tls_key", "metrics_token_file"),
        listener=replace(
            settings.listener, tls=_from_folder(settings.listener.tls, file.parent, "certificate", "key", "ca")
        ),
        audit=_from_folder(settings.audit, file.parent, "ca_file"),
    )


def _from_folder(section: Any, folder: Path, *keys: str) -> Any:
    """The section with the files that these keys name made absolute; an empty one stays empty."""
    named = {key: getattr(section, key) for key in keys if getattr(section, key)}
    return replace(section, **{key: str((folder / Path(name).expanduser()).resolve()) for key, name in named.items()})


def _build(kind: type[Any], table: Mapping[str, Any], prefix: str) -> Any:
    """A dataclass from a TOML table. Raises ValueError for an unknown or missing key or a value of another type."""
    hints = typing.get_type_hints(kind)
    for key in table:
        if key not in hints:
            near = get_close_matches(key, hints, n=1, cutoff=0.5)
            advice = f"; did you mean {prefix}{near[0]}?" if near else f"; known here: {', '.join(hints)}"
            raise ValueError(f"unknown key {prefix}{key}{advice}")
    values = {key: _value(hints[key], value, prefix + key) for key, value in table.items()}
    missing = [f.name for f in fields(kind) if f.name not in values and _has_no_default(f)]
    if missing:
        raise ValueError(f"{prefix}{missing[0]} is missing")
    return kind(**values)


def _has_no_default(f: Any) -> bool:
    from dataclasses import MISSING

    return f.default is MISSING and f.default_factory is MISSING


def _value(hint: Any, value: Any, key: str) -> Any:
    """`value` as the type `hint` asks for."""
    if is_dataclass(hint):
        return _build(typing.cast(type, hint), _expect(value, dict, key), f"{key}.")
    if isinstance(hint, types.GenericAlias):
        (item, _) = typing.get_args(hint)
        return tuple(_value(item, x, key) for x in _expect(value, list, key))
    if hint is Path:
        return Path(_expect(value, str, key))
    if hint is float and type(value) is int:
        return float(value)
    if hint is float and not isfinite(_expect(value, float, key)):
        raise ValueError(f"{key} must be a finite number")
    return _expect(value, hint, key)


def _expect(value: Any, kind: type, key: str) -> Any:
    names = {dict: "a table", list: "a list", str: "a text", int: "a whole number", float: "a number"}
    names[bool] = "true or false"
    if type(value) is not kind:
        raise ValueError(f"{key} must be {names[kind]}")
    return value
