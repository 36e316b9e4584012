"""What the commands open of a configured node: its ledger, its audit trail, and who is at the keyboard.

Heavy modules are imported inside, so that each command starts fast.
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicom_node.audit.trail import Actor, AuditTrail
    from dicom_node.ledger import Ledger
    from dicom_node.settings import Settings


@contextmanager
def opened_ledger(config: Path | None) -> Iterator[tuple[Settings, Ledger]]:
    """The settings and the ledger. Raises `Refused` for what is wrong with either, also in the block."""
    from dicom_node.ledger import open_ledger
    from dicom_node.schema import reaching
    from dicom_node.settings import load_settings

    settings = load_settings(config)
    with closing(open_ledger(settings)) as ledger, reaching(settings.ledger_url):
        yield settings, ledger


@contextmanager
def opened_trail(settings: Settings) -> Iterator[AuditTrail]:
    from dicom_node.audit.trail import AuditTrail

    with closing(AuditTrail(settings.data_folder, settings.audit, clock=time.time)) as trail:
        yield trail


def operator() -> Actor:
    """Who gives the command, as the audit trail names them."""
    from dicom_node.audit.trail import Actor

    try:
        return Actor(getpass.getuser(), "localhost")
    except (KeyError, OSError):  # a container's user without a name
        return Actor(f"uid {os.getuid()}", "localhost")
