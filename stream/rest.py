"""Faces at rest: what a network said of one that hardly moved holds for a while, as long as its edges are as sharp."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Generic, TypeVar

RESTS = 2  # times in turn the network is not asked, while edges have
AS_SHARP = 0.97  # of their sharpness when it was: docs/performance.md has what that saves and what it misses
MOST = 64  # faces that are known at a time

Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Rest(Generic[Answer]):
    answer: Answer
    sharpness: float
    times: int = 0  # that the network was not asked since


class Resting(Generic[Answer]):
    """What was last said of each track's face that hardly moved."""

    def __init__(self) -> None:
        """Of none yet."""
        self._rests: dict[int, _Rest[Answer]] = {}

    def answer(self, track: int, sharpness: float) -> Answer | None:
        """What was said of a face whose edges are so sharp now, where that need not be asked again."""
        rest = self._rests.get(track)
        if rest is None:
            return None
        if rest.times >= RESTS or sharpness <= AS_SHARP * rest.sharpness:
            rest.times = 0
            return None
        rest.times += 1
        return rest.answer

    def begin(self, track: int, answer: Answer, sharpness: float) -> None:
        """The network was asked, and the face hardly moved."""
        self._rests.pop(track, None)
        self._rests[track] = _Rest(answer, sharpness)
        if len(self._rests) > MOST:
            del self._rests[next(iter(self._rests))]  # that was asked about longest ago

    def end(self, track: int) -> None:
        """The face moved, or may have."""
        self._rests.pop(track, None)

    def keep(self, tracks: Container[int]) -> None:
        """Forget all others: they were not there."""
        self._rests = {track: rest for track, rest in self._rests.items() if track in tracks}
