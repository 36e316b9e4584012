"""What stands under every result: that it is no diagnosis."""

from __future__ import annotations

NOT_FOR_DIAGNOSIS = "Not for primary diagnosis."
RADIOLOGIST_DECIDES = f"{NOT_FOR_DIAGNOSIS} A radiologist decides."
