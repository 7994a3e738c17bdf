"""One timeline for what comes in: it never steps back, whatever the source's own clock does.

A source's times are moved by one offset, all streams alike, so that sound and picture keep their distance. A new offset
is taken where a connection begins, and where a clock jumps: it restarts, or wraps.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

BACK_S = Fraction(1, 2)  # a step back from which a clock has begun anew
AHEAD_S = 2  # and one ahead of the time that has passed
BEHIND_S = 0.5  # how long a source may be behind what bridged its gap: old pictures come in a burst, or it stood still


@dataclass(slots=True)
class _Seen:
    epoch: int
    offset: Fraction
    raw: Fraction
    arrived: float


class RelayClock:
    """Seconds since the relay began, for times in the clock of a source that may begin anew."""

    def __init__(self, began: float) -> None:
        """`began` is the monotonic time that is 0 of the timeline."""
        self.began = began
        self.jumps = 0
        self._offset: Fraction | None = None
        self._epoch = 0
        self._seen: dict[int, _Seen] = {}
        self._last = Fraction(0)  # the highest time given, or told by `passed`
        self._bridged = Fraction(0)  # what was told by `passed`
        self._behind_since: float | None = None

    def restart(self) -> None:
        """A new connection: what comes next is now."""
        self._offset = None
        self._seen.clear()

    def passed(self, at: Fraction) -> None:
        """Something else stands at that time already, such as a picture that bridged a gap."""
        self._bridged = max(self._bridged, at)
        self._last = max(self._last, at)

    def offset(self, stream: int, raw: Fraction, arrived: float) -> Fraction:
        """Seconds to add to the times of a packet of `stream` whose decoding time is `raw`, which came at `arrived`."""
        seen = self._seen.get(stream)
        if self._offset is None:
            self._begin(raw, max(self._now(arrived), self._last))
        offset, epoch = self._offset or Fraction(0), self._epoch
        if seen is not None and not _has_jumped(seen, raw, arrived):
            offset, epoch = seen.offset, seen.epoch  # another stream's clock may have jumped: this one's has not yet
        elif seen is not None:
            passed = Fraction(max(arrived - seen.arrived, 0.0)).limit_denominator(90000)
            due = seen.raw + seen.offset + passed
            if seen.epoch == epoch or abs(raw + offset - due) > AHEAD_S:
                self.jumps += 1
                self._begin(raw, max(due, self._last))
                offset, epoch = self._offset or Fraction(0), self._epoch
        if self._is_behind(raw + offset, arrived):  # it goes on where it stood still: all streams are moved
            self.jumps += 1
            self._begin(raw, self._last)
            self._seen.clear()
            offset, epoch = self._offset or Fraction(0), self._epoch
        self._seen[stream] = _Seen(epoch, offset, raw, arrived)
        self._last = max(self._last, raw + offset)
        return offset

    def _now(self, arrived: float) -> Fraction:
        return Fraction(arrived - self.began).limit_denominator(90000)

    def _is_behind(self, placed: Fraction, arrived: float) -> bool:
        """Whether it has been behind for so long that it will not catch up."""
        if placed >= self._bridged:
            self._behind_since = None
            return False
        self._behind_since = arrived if self._behind_since is None else self._behind_since
        return arrived - self._behind_since > BEHIND_S

    def _begin(self, raw: Fraction, at: Fraction) -> None:
        self._offset = at - raw
        self._epoch += 1


def _has_jumped(seen: _Seen, raw: Fraction, arrived: float) -> bool:
    step = raw - seen.raw
    return step < -BACK_S or step > Fraction(max(arrived - seen.arrived, 0.0)) + AHEAD_S
