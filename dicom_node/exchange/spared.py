"""What failed is left alone for a while, so that it does not hold the others up."""

from __future__ import annotations

from collections.abc import Callable, Collection

from dicom_node.back_off import BackOff, Delay

#: Of a PACS that did not answer, whatever else is wanted of it: each try may take half a minute.
SILENT_PACS = BackOff(10.0, 10.0)


class Spared:
    """By name, for one thread. clock: seconds that only go forward."""

    def __init__(self, back_off: BackOff, clock: Callable[[], float]) -> None:
        self._back_off = back_off
        self._clock = clock
        self._delays: dict[str, Delay] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._delays and self._clock() < self._delays[name].until_s

    def add(self, name: str) -> None:
        """It has failed, perhaps once more."""
        self._delays.setdefault(name, Delay()).lengthen(self._back_off, self._clock())

    def keep(self, names: Collection[str]) -> None:
        """Forget all others."""
        self._delays = {name: delay for name, delay in self._delays.items() if name in names}
