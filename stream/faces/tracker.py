"""Faces through time: who is who by overlap, short gaps bridged, points smoothed. Numbers only, no pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from stream.faces.smooth import OneEuro
from stream.frame import Face, Track

SAME = 0.3  # overlap (intersection over union) from which two boxes are one face


@dataclass(slots=True)
class _State:
    track: Track
    filter: OneEuro


class Tracker:
    """Feed it, frame by frame, what was seen of each track and what is new."""

    def __init__(
        self, max_gap: int, ids: Iterator[int] | None = None, min_cutoff_hz: float = 1.5, beta: float = 4.0
    ) -> None:
        """A track that was not seen for more than `max_gap` frames ends. Tracks are numbered by `ids`, or 1, 2, 3."""
        self._max_gap, self._min_cutoff, self._beta = max_gap, min_cutoff_hz, beta
        self._fade = 1 / (max_gap + 1)
        self._states: list[_State] = []
        self._ids = count(1) if ids is None else ids

    @property
    def tracks(self) -> list[Track]:
        """The tracks that live, oldest first."""
        return [state.track for state in self._states]

    def reset(self) -> None:
        """Forget all: the scene is another one."""
        self._states.clear()

    def seen(self, track_id: int, face: Face, passed_s: float, held: bool = True) -> None:
        """Where a track's face is, `passed_s` after the frame before; not `held` where that is a mere guess."""
        state = next(s for s in self._states if s.track.id == track_id)
        old = state.track
        eyes = float(np.hypot(*(face.landmarks[1] - face.landmarks[0])))
        smooth = state.filter.step(face.landmarks, passed_s, max(eyes, 1.0))
        shown = min(1.0, old.shown + self._fade) if held else max(0.0, old.shown - self._fade)
        lost = 0 if held else old.lost + 1
        state.track = replace(old, face=face, landmarks=smooth, age=old.age + 1, lost=lost, shown=shown)

    def add(self, face: Face, with_scene: bool = False) -> bool:
        """Start a track for a face, unless one holds it already. It fades in, but for one that a scene begins with."""
        if any(overlap(face.box, s.track.face.box) > SAME for s in self._states):
            return False
        track = Track(next(self._ids), face, face.landmarks, 0, 0, 1.0 if with_scene else self._fade)
        state = _State(track, OneEuro(self._min_cutoff, self._beta))
        state.filter.step(face.landmarks, 0.0, 1.0)
        self._states.append(state)
        return True

    def prune(self) -> None:
        """End tracks that were lost too long, and the younger of two that have run into one another."""
        kept: list[_State] = []
        for state in self._states:
            merged = any(overlap(state.track.face.box, k.track.face.box) > 0.6 for k in kept)
            if state.track.lost <= self._max_gap and not merged:
                kept.append(state)
        self._states = kept


def overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes (4,)."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inter = float(np.prod(np.maximum(high - low, 0)))
    union = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - inter
    return inter / union if union > 0 else 0.0
