"""UIDs that are made from what they name, so that the same thing has the same UID whenever it is written."""

from __future__ import annotations

import json
from uuid import UUID, uuid5


def derived_uid(namespace: UUID, *parts: object) -> str:
    """A UID under the UUID root 2.25 (PS3.5 annex B.2), always the same for the same parts; parts: JSON values."""
    return f"2.25.{uuid5(namespace, json.dumps(parts)).int}"
