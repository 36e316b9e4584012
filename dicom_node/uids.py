"""UIDs that are made from what they name, so that the same thing has the same UID whenever it is written."""

from __future__ import annotations

import json
from uuid import UUID, uuid5

#: By which a peer knows this software (PS3.7 D.3.3.2), whatever its version.
IMPLEMENTATION_CLASS_UID = "2.25.95483186497132718049310829316640571261"
IMPLEMENTATION_VERSION_NAME = "MARGINWATCH"


def derived_uid(namespace: UUID, *parts: object) -> str:
    """A UID under the UUID root 2.25 (PS3.5 annex B.2), always the same for the same parts; parts: JSON values."""
    return f"2.25.{uuid5(namespace, json.dumps(parts)).int}"
