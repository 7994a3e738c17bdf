"""Time stamps made fit to write: joined recordings start their clock anew, broken ones repeat or lack a stamp.

A clock that jumps back by more than a second begins a new recording, which is moved behind the one before, all streams
by the same time. Smaller steps back are nudged forward. A sound file's time stamps are not touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

JUMP_S = 1  # a step back from which it is another recording


@dataclass(slots=True)
class _Clock:
    recording: int = 0
    offset: Fraction = Fraction(0)  # seconds added to every time stamp
    last_dts: int | None = None  # as written
    last_raw: int | None = None  # as read


class Timeline:
    """One clock for every stream of a source."""

    def __init__(self) -> None:
        self._clocks: dict[int, _Clock] = {}
        self._recording, self._offset = 0, Fraction(0)
        self.mended = 0  # time stamps that were changed

    def fix(self, packet: Any) -> None:
        """Move a packet's pts and dts so that the dts of its stream rise."""
        if packet.dts is None:
            return
        base = packet.time_base
        clock = self._clocks.setdefault(packet.stream.index, _Clock())
        if clock.last_raw is not None and (clock.last_raw - packet.dts) * base > JUMP_S:
            self._next_recording(clock, packet)
        clock.last_raw = packet.dts
        if clock.offset:
            shift = round(clock.offset / base)
            packet.dts += shift
            packet.pts = None if packet.pts is None else packet.pts + shift
        kind = packet.stream.type
        stuck = clock.last_dts is not None and packet.dts < clock.last_dts + (kind == "audio")
        if stuck and kind != "video":  # frames are put in order once they are decoded
            assert clock.last_dts is not None
            self.mended += 1
            packet.dts = clock.last_dts + 1
            packet.pts = None if packet.pts is None else max(packet.pts, packet.dts)
        clock.last_dts = packet.dts

    def _next_recording(self, clock: _Clock, packet: Any) -> None:
        """The first stream whose clock jumps says by how much; the others follow it."""
        self.mended += 1
        if clock.recording == self._recording:
            assert clock.last_dts is not None
            step = packet.duration or 1
            self._recording += 1
            self._offset = (clock.last_dts + step - packet.dts) * packet.time_base
        clock.recording, clock.offset = self._recording, self._offset
