"""How the node logs: text or JSON lines on stderr, with the study, the step and the patient that a line is about.

Patient data goes into `about`, or a log call's `extra={"patient_id": …}`, and nowhere else; it is written only where
the site allows it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from dicom_node.settings import LogSettings

#: What of a record is written beside its message, where it is there.
_FIELDS = ("study_instance_uid", "step")
_PATIENT_FIELDS = ("patient_id", "patient_name")

_about: ContextVar[dict[str, str] | None] = ContextVar("marginwatch_log_about", default=None)


@contextmanager
def about(*, study_instance_uid: str = "", patient_id: str = "", step: str = "") -> Iterator[None]:
    """What is logged in the block, by this thread, says which study, patient and step it is about."""
    given = {"study_instance_uid": study_instance_uid, "patient_id": patient_id, "step": step}
    before = _about.set({**(_about.get() or {}), **{name: value for name, value in given.items() if value}})
    try:
        yield
    finally:
        _about.reset(before)


def set_up_logs(settings: LogSettings) -> None:
    """Log as the settings say, in place of whatever was set up before. For the running node, once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(settings))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.ERROR)  # what libraries say of their own working is not for the site's log
    # A peer that is away is no error of the node's, and the node says itself which it is.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger("marginwatch").setLevel(settings.level.upper())


def formatter(settings: LogSettings) -> logging.Formatter:
    """One record as one line of JSON, or as text."""
    return _JsonLines(settings) if settings.format == "json" else _TextLines(settings)


class _JsonLines(logging.Formatter):
    def __init__(self, settings: LogSettings) -> None:
        super().__init__()
        self._settings = settings

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _moment(record), "level": record.levelname.lower(), "logger": record.name}
        line["message"] = record.getMessage()
        line |= _known(record, self._settings)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _TextLines(logging.Formatter):
    def __init__(self, settings: LogSettings) -> None:
        super().__init__()
        self._settings = settings

    def format(self, record: logging.LogRecord) -> str:
        known = "".join(f" {name}={value}" for name, value in _known(record, self._settings).items())
        line = f"{_moment(record)} {record.levelname} {record.name}: {record.getMessage()}{known}"
        # Whoever sends us an instance must not write lines of their own into the log.
        line = line.replace("\r", "\\r").replace("\n", "\\n")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _known(record: logging.LogRecord, settings: LogSettings) -> dict[str, str]:
    """Study, step and, where allowed, patient: from the log call itself, else from the block it stands in."""
    names = _FIELDS + (_PATIENT_FIELDS if settings.patient_data else ())
    found = {**(_about.get() or {}), **{name: str(vars(record)[name]) for name in names if name in vars(record)}}
    return {name: found[name] for name in names if name in found}
