"""Process CPU time, contenders interleaved: on a shared machine nothing else counts."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Call = Callable[[], Any]


def cpu_seconds(call: Call) -> tuple[float, Any]:
    """Return the process CPU seconds of ``call()`` and what it returned."""
    began = time.process_time()
    value = call()
    return time.process_time() - began, value


def interleaved(calls: Mapping[str, Call], repeats: int) -> dict[str, list[float]]:
    """Time every call ``repeats`` times, in rounds; the order rotates.

    Each is run once before, untimed. A slow minute of the machine then meets all of
    the ``calls``, and no one always runs on another's warm caches.
    """
    names = list(calls)
    for name in names:
        calls[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            times[name].append(cpu_seconds(calls[name])[0])
    return times


def ratio(times: Mapping[str, list[float]], name: str, base: str) -> float:
    """Return the median time of ``name`` over that of ``base``."""
    return statistics.median(times[name]) / statistics.median(times[base])


@dataclass(frozen=True)
class Row:
    """One line of the table: what was compared, the number, the goal if there is one.

    ``goal`` is "<= a" or ">= a"; ``note`` says what else there is to know, above all
    why a peer has no number (``value`` None).
    """

    group: str
    setting: str
    measure: str
    value: float | None
    goal: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        """Return "met" or "MISSED", or nothing where no goal was set."""
        if not self.goal:
            return ""
        if self.value is None:
            return "not measured"
        sign, number = self.goal.split()
        gap = self.value - float(number)
        return "met" if (gap <= 0 if sign == "<=" else gap >= 0) else "MISSED"

    def record(self) -> dict:
        """Return the row as a dictionary, verdict included."""
        return asdict(self) | {"verdict": self.verdict}
