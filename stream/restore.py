"""The stage that runs crops of one or many frames through the engine, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from engine import Engine, EngineError, Restored
from stream.config import EngineSettings
from stream.frame import Crop, Found, Mended, Packet, Patch
from stream.motion import motion_of, need
from stream.stats import Stats

FAILED = "left as they were because the engine failed"
LOOK_AHEAD = 8  # frames that wait for a batch to fill, at most


def restore(
    items: Iterable[Found | Packet], engine: Engine, settings: EngineSettings, stats: Stats
) -> Iterator[Mended | Packet]:
    """Fill batches across frames; packets and frames leave in the order in which they came.

    A face that hardly moved is hardly changed, one that comes or goes fades. Where the engine fails, faces stay as they
    were and are counted.
    """
    waiting: list[Found | Packet] = []
    crops = frames = 0
    for item in items:
        waiting.append(item)
        if isinstance(item, Found):
            frames += 1
            crops += len(item.crops)
        if crops >= settings.batch or frames >= LOOK_AHEAD or not crops:
            yield from _flush(waiting, engine, settings, stats)
            waiting, crops, frames = [], 0, 0
    yield from _flush(waiting, engine, settings, stats)


def _flush(
    waiting: list[Found | Packet], engine: Engine, settings: EngineSettings, stats: Stats
) -> Iterator[Mended | Packet]:
    crops = [crop for item in waiting if isinstance(item, Found) for crop in item.crops]
    patches: list[Patch | None] = []
    with stats.timed("restore"):
        for start in range(0, len(crops), settings.batch):
            part = crops[start : start + settings.batch]
            try:
                restored = engine.run(np.stack([crop.image for crop in part]))
            except EngineError as error:
                stats.passed_over[FAILED] += len(part)
                stats.engine_fault = stats.engine_fault or str(error)
                patches += [None] * len(part)
            else:
                patches += _patches(part, restored, settings)
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


def _patches(crops: list[Crop], restored: Restored, settings: EngineSettings) -> Iterator[Patch]:
    for i, crop in enumerate(crops):
        kernel = None if restored.kernels is None else restored.kernels[i]
        motion = None if kernel is None else motion_of(kernel, crop.matrix)
        helps = 1.0 if motion is None else need(motion, settings.still_px)
        yield Patch(crop, restored.crops[i], settings.strength * crop.track.shown * helps, kernel, motion)
