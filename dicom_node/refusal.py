"""Input that cannot be used: refused by name, with a sentence that says what to do."""

from __future__ import annotations


class Refused(Exception):
    """Broken or unfit input. code: stable, lower_snake_case; text: one plain sentence for a person."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
