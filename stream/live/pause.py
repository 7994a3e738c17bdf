"""Waiting that grows: between attempts to connect, and until restoring is tried again after it was late or failed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Seconds until the next attempt: about the shortest for a first while, then doubling up to the longest."""

    shortest_s: float = 1.0
    longest_s: float = 30.0
    patient_for_s: float = 60.0  # what was just lost comes back soon, more often than not
    chance: random.Random = field(default_factory=random.Random)
    attempts: int = 0
    _since: float | None = None
    _next: float = 0.0

    def after_fault(self, now: float) -> float:
        """An attempt has failed."""
        self.attempts += 1
        if self._since is None:
            self._since, self._next = now, self.shortest_s
        elif now - self._since > self.patient_for_s:
            self._next = min(self._next * 2, self.longest_s)
        return self._next * self.chance.uniform(0.75, 1.0)  # so that many streams do not come all at once

    def reset(self) -> None:
        """It works again."""
        self.attempts, self._since = 0, None


@dataclass(slots=True)
class Pause:
    """Something is left out for a while, for longer each time that it has to be soon again."""

    shortest_s: float
    longest_s: float
    faults: int = 1  # in a row that begin a pause
    _row: int = 0
    _until: float = float("-inf")
    _length: float = 0.0

    def fault(self, now: float) -> None:
        """It went wrong."""
        self._row += 1
        if self._row >= self.faults and now >= self._until:
            recent = now - self._until < 2 * self._length
            self._length = min(self._length * 2, self.longest_s) if recent else self.shortest_s
            self._until, self._row = now + self._length, 0

    def success(self) -> None:
        """It went well."""
        self._row = 0

    def active(self, now: float) -> bool:
        """Whether to leave it out now."""
        return now < self._until
