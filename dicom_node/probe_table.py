"""The table of devices: `probes.toml` of this package, with a site's own entries before it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from dicom_node.refusal import Refused
from pipeline.probe import CryoProbe, Energy, HeatProbe, Probe, TabledZone

_KINDS: dict[str, type[CryoProbe] | type[HeatProbe] | type[TabledZone]] = {
    "cryoprobe": CryoProbe,
    "heat_probe": HeatProbe,
    "tabled_zone": TabledZone,
}
_OPTIONAL: dict[type, tuple[str, ...]] = {CryoProbe: ("thaw_c",), HeatProbe: ("coolant_c", "limit_c"), TabledZone: ()}
_OF_ENTRY = ("kind", "energy", "aliases", "fallback_for", "generic")


@dataclass(frozen=True)
class Device:
    """An entry of the table."""

    probe: Probe
    energy: Energy
    names: tuple[str, ...]
    fallback_for: Energy | None


@dataclass(frozen=True)
class ProbeTable:
    """Devices by name; the first that has a name goes."""

    devices: tuple[Device, ...]

    def find(self, model: str, energy: Energy) -> tuple[Probe, bool]:
        """The device of that name, and whether the table knows it; else the generic one of its energy."""
        wanted = _plain(model)
        for device in self.devices:
            if device.energy == energy and wanted in device.names:
                return device.probe, True
        return next(device.probe for device in self.devices if device.fallback_for == energy), False


@cache
def probe_table(site: Path | None = None) -> ProbeTable:
    """This package's table, with a site's entries before it. Raises Refused ``bad_probe_table``, naming the entry."""
    own = resources.files("dicom_node").joinpath("probes.toml").read_text(encoding="utf-8")
    added = () if site is None else _devices(_text_of(site), site.name)
    return ProbeTable((*added, *_devices(own, "probes.toml")))


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        why = "does not exist" if not path.exists() else "cannot be read as UTF-8 text"
        text = f"The probe table {path} {why}; simulation.probes in the configuration names it."
        raise Refused("bad_probe_table", text) from problem


def _devices(text: str, name: str) -> tuple[Device, ...]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise Refused("bad_probe_table", f"{name}: {problem}.") from None
    entries = document.get("probe", [])
    if set(document) - {"probe"} or not isinstance(entries, list):
        raise Refused("bad_probe_table", f"{name}: holds only [[probe]] entries; see configs/probes.example.toml.")
    return tuple(_device(entry, f"{name}: probe[{n}]") for n, entry in enumerate(entries))


def _device(entry: Any, key: str) -> Device:
    def wrong(what: str) -> Refused:
        return Refused("bad_probe_table", f"{key}{what}.")

    kind = _kind(entry, wrong)
    wanted = [f.name for f in fields(kind) if f.name != "is_generic"]
    for name in entry:
        if name not in wanted and name not in _OF_ENTRY:
            raise wrong(f".{name} is not a known key; known here: {', '.join((*wanted, *_OF_ENTRY))}")
    values: dict[str, Any] = {
        name: None if name in _OPTIONAL[kind] and name not in entry else _given(entry, name, wrong) for name in wanted
    }
    try:
        probe = kind(**values, is_generic=entry.get("generic", False))
    except ValueError as problem:
        raise wrong(f": {problem}") from None
    names = tuple(_plain(name) for name in (probe.model, *entry.get("aliases", [])))
    return Device(probe, entry["energy"], names, entry.get("fallback_for"))


def _kind(entry: Any, wrong: Callable[[str], Refused]) -> type[CryoProbe] | type[HeatProbe] | type[TabledZone]:
    """The kind of an entry, once what every entry has is right."""
    if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str) or entry["kind"] not in _KINDS:
        raise wrong(f".kind must be one of {', '.join(_KINDS)}")
    kind, energies = _KINDS[entry["kind"]], get_args(Energy)
    if entry.get("energy") not in energies:
        raise wrong(f".energy must be one of {', '.join(energies)}")
    if kind is not TabledZone and (entry["energy"] == "cryoablation") != (kind is CryoProbe):
        raise wrong(f".energy cannot be {entry['energy']} for a {entry['kind']}")
    if entry.get("fallback_for", entry["energy"]) != entry["energy"]:
        raise wrong(".fallback_for must be the entry's own energy")
    if not isinstance(entry.get("generic", False), bool):
        raise wrong(".generic must be true or false")
    aliases = entry.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise wrong(".aliases must be a list of texts")
    return kind


def _given(entry: Mapping[str, Any], name: str, wrong: Callable[[str], Refused]) -> Any:
    """A value of the entry of the right kind."""
    if name not in entry:
        raise wrong(f".{name} is missing")
    value = entry[name]
    is_text = name in ("model", "provenance")
    if is_text != isinstance(value, str) or (not is_text and (isinstance(value, bool) or not _is_number(value))):
        raise wrong(f".{name} must be a {'text' if is_text else 'number'}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _plain(name: str) -> str:
    """A name without what people write in different ways."""
    return re.sub(r"[^a-z0-9.]", "", name.lower())
