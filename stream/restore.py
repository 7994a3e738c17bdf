"""The stage that runs crops of one or many frames through the engine, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from engine import Engine
from stream.frame import Crop, Found, Mended, Packet, Patch
from stream.stats import Stats

LOOK_AHEAD = 8  # frames that wait for a batch to fill, at most


def restore(
    items: Iterable[Found | Packet], engine: Engine, batch: int, strength: float, max_gap: int, stats: Stats
) -> Iterator[Mended | Packet]:
    """Fill batches of `batch` crops across frames; packets and frames leave in the order in which they came.

    `strength` 0..1 scales every change. A face that is not seen fades out over `max_gap` frames.

    Raises:
        EngineError: the engine failed.
    """
    waiting: list[Found | Packet] = []
    crops = frames = 0
    for item in items:
        waiting.append(item)
        if isinstance(item, Found):
            frames += 1
            crops += len(item.crops)
        if crops >= batch or frames >= LOOK_AHEAD or not crops:
            yield from _flush(waiting, engine, batch, strength, max_gap, stats)
            waiting, crops, frames = [], 0, 0
    yield from _flush(waiting, engine, batch, strength, max_gap, stats)


def _flush(
    waiting: list[Found | Packet], engine: Engine, batch: int, strength: float, max_gap: int, stats: Stats
) -> Iterator[Mended | Packet]:
    crops = [crop for item in waiting if isinstance(item, Found) for crop in item.crops]
    patches: list[Patch] = []
    with stats.timed("restore"):
        for start in range(0, len(crops), batch):
            part = crops[start : start + batch]
            restored = engine.run(np.stack([crop.image for crop in part])).crops
            patches += [Patch(c, r, _strength(c, strength, max_gap)) for c, r in zip(part, restored, strict=True)]
    ready = iter(patches)
    for item in waiting:
        if isinstance(item, Packet):
            yield item
        else:
            stats.faces_restored += len(item.crops)
            stats.frames_with_faces += bool(item.crops)
            yield Mended(item.frame, tuple(next(ready) for _ in item.crops))


def _strength(crop: Crop, strength: float, max_gap: int) -> float:
    return strength * max(0.0, 1 - crop.track.lost / (max_gap + 1))
