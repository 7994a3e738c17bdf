"""Where a smeared face is seen sharp: the last frame before, and the next one after, in which it hardly moved."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from stream.frame import MOST_WAITING, Frame, Mended, Packet, Patch, Repeat, Sight
from stream.memory import apart_s
from stream.motion import is_known, need

LONGEST_S = 3.0  # seconds between two frames of which one shows what the other has lost,
AHEAD_S = 2.0  # and for how long a later one is waited for,
MOST_BYTES = 128_000_000  # unless the decoded pictures that wait, or those of earlier sights, come to more


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
        last: Mended | None = None
        held = 0  # decoded pictures that wait
        for item in chain(items, (None,)):
            if item is not None:
                waiting.append(item)
                held += isinstance(item, Mended | Repeat)
            if isinstance(item, Mended):
                last = item
                for sight in self._sights(item):
                    self._after.setdefault(sight.patch.crop.track.id, deque()).append(sight)
            while waiting and (
                item is None
                or len(waiting) >= MOST_WAITING
                or isinstance(first := waiting[0], Packet)
                or last is None
                or self._has_waited(first, last, held)
            ):
                first = waiting.popleft()
                held -= isinstance(first, Mended | Repeat)
                yield first if isinstance(first, Packet) else self._sighted(first)

    def _has_waited(self, first: Mended, last: Mended, held: int) -> bool:
        """Whether a frame may go: a later sharp sight of each smeared face is there, the face is gone, or it has waited
        for long enough."""
        still = {patch.crop.track.id for patch in last.patches}
        smeared = {patch.crop.track.id for patch in first.patches if _is_smeared(patch)}
        if self._still_px <= 0 or smeared & still <= self._after.keys():
            return True
        size = _size(last.frame) * (held - 1)
        return size >= MOST_BYTES or apart_s(first.frame, last.frame) >= AHEAD_S

    def _sights(self, item: Mended) -> list[Sight]:
        return [
            Sight(item.frame, patch)
            for patch in item.patches
            if patch.motion is not None
            and not patch.crop.track.lost
            and need(patch.motion, self._still_px) == 0
            and patch.kernel is not None
            and is_known(patch.kernel)
        ]

    def _sighted(self, item: Mended) -> Mended:
        """A frame that goes, with what its smeared faces are in sharp ones."""
        for sight in self._sights(item):
            track = sight.patch.crop.track.id
            self._before[track] = self._after[track].popleft()
            if not self._after[track]:
                del self._after[track]
        frames = sorted({sight.frame.index for sight in self._before.values()})
        kept = frames[-max(1, MOST_BYTES // _size(item.frame)) :]
        self._before = {
            track: sight
            for track, sight in self._before.items()
            if sight.frame.index in kept and apart_s(item.frame, sight.frame) <= LONGEST_S
        }
        return replace(item, patches=tuple(self._seen(p, item.frame) if _is_smeared(p) else p for p in item.patches))

    def _seen(self, patch: Patch, frame: Frame) -> Patch:
        track = patch.crop.track.id
        sights = self._before.get(track), next(iter(self._after.get(track, ())), None)
        near = tuple(s for s in sights if s is not None and apart_s(s.frame, frame) <= LONGEST_S)
        return replace(patch, sights=near) if near else patch


def _size(frame: Frame) -> int:
    return sum(plane.nbytes for plane in frame.planes)


def _is_smeared(patch: Patch) -> bool:
    return patch.strength > 0 and patch.motion is not None and patch.motion.spread_px > 0
