"""The stage that adds up what neighbouring frames show of a face: each was smeared another way, and what one lost
another kept. It steadies the restored face, and carries what a sharp frame shows into the smeared ones beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from engine import Engine, EngineError
from stream.config import EngineSettings
from stream.detail import Lending
from stream.frame import MOST_WAITING, Frame, Mended, Packet, Patch, Seen
from stream.memory import Memory, added, own
from stream.motion import motion_of
from stream.refit import SURE, fit, is_better, placed
from stream.restore import behind, strength
from stream.sights import Sighting
from stream.stats import Stats
from stream.together import Together

log = logging.getLogger(__name__)
CHUNK = 8  # frames that are handed on at once where later ones count as well,
AHEAD = 8  # and how many more are waited for


class Fusion:
    """Frames with restored patches in; out come the same, each patch fused with its neighbours in time."""

    def __init__(self, settings: EngineSettings, engine: Engine, stats: Stats) -> None:
        """Earlier frames count where the patches come with what those tell, later ones where `settings.fuse` is "both".
        The engine restores faces again whose motion only later frames tell, where `settings.refit` is set and its model
        takes a known motion."""
        self._settings, self._engine, self._stats = settings, engine, stats
        self._refits = settings.refit and engine.spec.known

    def run(self, items: Iterable[Mended | Packet]) -> Iterator[Mended | Packet]:
        """The stage: packets pass, order is kept. Patches of a model that does not tell the motion stay as they are."""
        if self._settings.fuse == "both":
            sighted = Sighting(self._settings.still_px).run(self._both(items))
            together = Together(self._settings, self._stats).run(sighted)
            return Lending(self._settings, self._stats).run(together)
        return (item if isinstance(item, Packet) else fused(item, item.earlier) for item in items)

    def _both(self, items: Iterable[Mended | Packet]) -> Iterator[Mended | Packet]:
        waiting: list[Mended | Packet] = []
        frames: list[int] = []  # where among the waiting there is one
        for item in items:
            if isinstance(item, Packet) and not waiting:
                yield item
                continue
            waiting.append(item)
            if isinstance(item, Mended):
                frames.append(len(waiting) - 1)
            if len(frames) == CHUNK + AHEAD:
                cut = frames[CHUNK - 1] + 1
                yield from self._fused(waiting)[:cut]
                waiting, frames = waiting[cut:], [at - cut for at in frames[CHUNK:]]
            elif len(waiting) >= MOST_WAITING:
                yield from self._fused(waiting)
                waiting, frames = [], []
        yield from self._fused(waiting)

    def _fused(self, items: list[Mended | Packet]) -> list[Mended | Packet]:
        """All of them; those that are behind one count as later frames."""
        future = Memory(self._settings.still_px)
        done: list[Mended | Packet] = []
        with self._stats.timed("fuse"):
            for item in reversed(items):
                if isinstance(item, Mended):
                    item = replace(item, patches=tuple(self._again(p, item.frame, future) for p in item.patches))
                    item = fused(item, item.earlier, future.see(item.patches, item.frame))
                done.append(item)
        return done[::-1]

    def _again(self, patch: Patch, frame: Frame, future: Memory) -> Patch:
        """The patch with the motion that later frames tell, restored with it where no earlier one told it."""
        if not self._refits or (kernel := patch.kernel) is None:
            return patch
        if patch.is_refitted and patch.fit is not None and patch.fit.like >= SURE:
            return replace(patch, fit=None)  # earlier frames tell enough; theirs does not say where later ones saw it
        face = future.recall(patch.crop, frame)
        found = None if face is None else fit(patch.given, face, patch.crop.matrix)
        earlier, patch = patch.fit, replace(patch, fit=found)
        if face is None or found is None or not is_better(found, kernel):
            return patch
        if patch.is_refitted and earlier is not None and earlier.like >= found.like:
            return patch
        image = behind(patch.crop.image, face, self._engine.spec)
        try:
            restored = self._engine.run(image[None], found.kernel[None])
        except EngineError as error:  # what it restored before stands
            log.debug("not restored again: %s", error)
            return patch
        shown = strength(patch.crop, motion_of(found.kernel, patch.crop.matrix), self._settings)
        return placed(replace(patch, restored=restored.crops[0], strength=shown), found)


def fused(item: Mended, *told: tuple[Seen | None, ...]) -> Mended:
    """The frame, each of whose patches shows what its neighbours know as well."""
    patches = []
    for patch, *seen in zip(item.patches, *(each for each in told if each), strict=True):
        known = [one for one in seen if one is not None]
        if known:
            patch = replace(patch, restored=np.clip(added(own(patch), *known).picture, 0, 255))
        patches.append(patch)
    return replace(item, patches=tuple(patches), earlier=())
