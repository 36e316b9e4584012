"""How long to wait between two tries of what does not succeed yet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BackOff:
    """Twice as long each time, up to the longest."""

    first_s: float = 2.0
    longest_s: float = 600.0

    def after(self, waited_s: float) -> float:
        """The wait that follows one of `waited_s`; 0 before the first."""
        return min(2 * waited_s or self.first_s, self.longest_s)


@dataclass
class Delay:
    """When something is tried again. Times are a clock's that only goes forward, s."""

    wait_s: float = 0.0
    until_s: float = 0.0

    def lengthen(self, back_off: BackOff, now_s: float) -> None:
        """It has failed again."""
        self.wait_s = back_off.after(self.wait_s)
        self.until_s = now_s + self.wait_s
