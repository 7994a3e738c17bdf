"""Where a smeared face is seen sharp: the last frame before, and the next one after, in which it hardly moved."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from stream.frame import MOST_WAITING, Frame, Mended, Packet, Patch, Sight
from stream.memory import apart_s
from stream.motion import need

LONGEST_S = 3.0  # seconds between two frames of which one shows what the other has lost,
AHEAD_S, AHEAD_BYTES = 2.0, 128_000_000  # and for how long, and how many decoded pictures, a later one is waited for


class Sighting:
    """Frames with restored patches in, the same out, smeared ones with the sharp sights of their face."""

    def __init__(self, still_px: float) -> None:
        """A face whose motion spreads less than `still_px` is sharp."""
        self._still_px = still_px
        self._before: dict[int, Sight] = {}  # of each track the last one that has gone,
        self._after: dict[int, deque[Sight]] = {}  # and those that wait

    def run(self, items: Iterator[Mended | Packet]) -> Iterator[Mended | Packet]:
        """The stage: packets pass, order is kept; a frame with a smeared face waits for the next sharp one."""
        waiting: deque[Mended | Packet] = deque()
        last: Frame | None = None
        for item in chain(items, (None,)):
            if item is not None:
                waiting.append(item)
            if isinstance(item, Mended):
                last = item.frame
                for sight in self._sights(item):
                    self._after.setdefault(sight.patch.crop.track.id, deque()).append(sight)
            while waiting and (
                item is None
                or len(waiting) >= MOST_WAITING
                or isinstance(first := waiting[0], Packet)
                or last is None
                or self._has_waited(first, last)
            ):
                first = waiting.popleft()
                yield first if isinstance(first, Packet) else self._sighted(first)

    def _has_waited(self, first: Mended, last: Frame) -> bool:
        """Whether a frame may go: a later sharp sight of each smeared face is there, or waited for long enough."""
        if all(patch.crop.track.id in self._after for patch in first.patches if _is_smeared(patch)):
            return True
        size = sum(plane.nbytes for plane in last.planes) * (last.index - first.frame.index)
        return size >= AHEAD_BYTES or apart_s(first.frame, last) >= AHEAD_S

    def _sights(self, item: Mended) -> list[Sight]:
        return [
            Sight(item.frame, patch)
            for patch in item.patches
            if patch.motion is not None and not patch.crop.track.lost and need(patch.motion, self._still_px) == 0
        ]

    def _sighted(self, item: Mended) -> Mended:
        """A frame that goes, with what its smeared faces are in sharp ones."""
        for sight in self._sights(item):
            track = sight.patch.crop.track.id
            self._before[track] = self._after[track].popleft()
            if not self._after[track]:
                del self._after[track]
        self._before = {k: sight for k, sight in self._before.items() if apart_s(item.frame, sight.frame) <= LONGEST_S}
        return replace(item, patches=tuple(self._seen(p, item.frame) if _is_smeared(p) else p for p in item.patches))

    def _seen(self, patch: Patch, frame: Frame) -> Patch:
        track = patch.crop.track.id
        sights = self._before.get(track), next(iter(self._after.get(track, ())), None)
        near = tuple(s for s in sights if s is not None and apart_s(s.frame, frame) <= LONGEST_S)
        return replace(patch, sights=near) if near else patch


def _is_smeared(patch: Patch) -> bool:
    return patch.strength > 0 and patch.motion is not None and patch.motion.spread_px > 0
