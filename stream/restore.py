"""The stage that runs crops of one or many frames through the engine, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from engine import Engine, EngineError, Restored
from stream.config import EngineSettings
from stream.frame import Crop, Found, Mended, Packet, Patch
from stream.motion import motion_of, need
from stream.stats import Stats

FAILED = "left as they were because the engine failed"
LOOK_AHEAD = 8  # frames that wait for a batch to fill, at most


class Restoration:
    """Frames with crops in, frames with restored patches out.

    A face that hardly moved is hardly changed, one that comes or goes fades. Where the engine fails, faces stay as they
    were and are counted.
    """

    def __init__(self, engine: Engine, settings: EngineSettings, stats: Stats) -> None:
        """An engine of two frames gets, behind each crop, the same face as it was restored in the frame before."""
        self._engine, self._settings, self._stats = engine, settings, stats
        self._last = -1  # frame, and its faces:
        self._before: dict[int, NDArray[np.uint8]] = {}  # track -> (112, 96, 3), as it came where it was sharp

    def run(self, items: Iterable[Found | Packet]) -> Iterator[Mended | Packet]:
        """The stage: batches are filled across frames, where one need not know the one before; order is kept."""
        waiting: list[Found | Packet] = []
        crops = frames = 0
        most = 1 if self._engine.spec.frames > 1 else LOOK_AHEAD
        for item in items:
            waiting.append(item)
            if isinstance(item, Found):
                frames += 1
                crops += len(item.crops)
            if crops >= self._settings.batch or frames >= most or not crops:
                yield from self._flush(waiting)
                waiting, crops, frames = [], 0, 0
        yield from self._flush(waiting)

    def _flush(self, waiting: list[Found | Packet]) -> Iterator[Mended | Packet]:
        frames = [item.frame.index for item in waiting if isinstance(item, Found)]
        crops = [crop for item in waiting if isinstance(item, Found) for crop in item.crops]
        if frames and frames[0] != self._last + 1:
            self._before = {}
        patches: list[Patch | None] = []
        stats = self._stats
        with stats.timed("restore"):
            for start in range(0, len(crops), self._settings.batch):
                part = crops[start : start + self._settings.batch]
                try:
                    restored = self._engine.run(np.stack([self._seen(crop) for crop in part]))
                except EngineError as error:
                    stats.passed_over[FAILED] += len(part)
                    stats.engine_fault = stats.engine_fault or str(error)
                    patches += [None] * len(part)
                else:
                    patches += _patches(part, restored, self._settings)
            if frames:
                done = [patch for patch in patches if patch is not None]
                self._before = {p.crop.track.id: p.restored if p.strength > 0 else p.given for p in done}
                self._last = frames[-1]
        ready = iter(patches)
        for item in waiting:
            if isinstance(item, Packet):
                yield item
            else:
                own = tuple(patch for patch in (next(ready) for _ in item.crops) if patch is not None)
                stats.faces += len(own)
                stats.faces_restored += sum(patch.strength > 0 for patch in own)
                stats.frames_with_faces += bool(own)
                yield Mended(item.frame, own)

    def _seen(self, crop: Crop) -> NDArray[np.uint8]:
        """What the engine sees of a face, (112 + 2 margin, 96 + 2 margin, 3 frames): one new to it stands twice."""
        if self._engine.spec.frames == 1:
            return crop.image
        behind = crop.image.copy()
        before, margin = self._before.get(crop.track.id), self._engine.spec.margin
        if before is not None:
            behind[margin : margin + before.shape[0], margin : margin + before.shape[1]] = before
        return np.concatenate([crop.image, behind], 2)


def _patches(crops: list[Crop], restored: Restored, settings: EngineSettings) -> Iterator[Patch]:
    for i, crop in enumerate(crops):
        kernel = None if restored.kernels is None else restored.kernels[i]
        motion = None if kernel is None else motion_of(kernel, crop.matrix)
        helps = 1.0 if motion is None else need(motion, settings.still_px)
        yield Patch(crop, restored.crops[i], settings.strength * crop.track.shown * helps, kernel, motion)
