"""The stage that runs crops of one or many frames through the engine, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine import Engine, EngineError, ModelSpec, Restored, unknown
from stream.config import EngineSettings
from stream.frame import MOST_WAITING, Crop, Fit, Found, Frame, Mended, Motion, Packet, Patch, Picture
from stream.memory import Memory
from stream.motion import motion_of, need, sharpness
from stream.refit import SURE, fit, is_better, placed
from stream.rest import Resting
from stream.stats import Stats

FAILED = "left as they were because the engine failed"
LOOK_AHEAD = 8  # frames that wait for a batch to fill, at most
CALM = 0.8  # times `still_px` at most was the motion of a face at rest: one about which the engine is not asked


class Restoration:
    """Frames with crops in, frames with restored patches out.

    A face that hardly moved is hardly changed, one that comes or goes fades. Where the engine fails, faces stay as they
    were and are counted. What frames have shown of a face tells how it moved in later ones (`settings.refit`), and goes
    on with them for the stage that fuses (`settings.fuse`).
    """

    def __init__(self, engine: Engine, settings: EngineSettings, stats: Stats) -> None:
        """An engine of two frames gets, behind each crop, the same face as it was restored in the frame before."""
        self._engine, self._settings, self._stats = engine, settings, stats
        remembers = settings.fuse != "none"
        self._memory = Memory(settings.still_px) if remembers else None
        self._refits = settings.refit and remembers and engine.spec.known
        self._last = -1  # frame, and its faces:
        # By track (112, 96, 3), as it came where it was sharp.
        self._before: dict[int, NDArray[np.uint8] | Picture] = {}
        self._resting: Resting[Patch] = Resting()

    def run(self, items: Iterable[Found | Packet]) -> Iterator[Mended | Packet]:
        """The stage: batches are filled across frames, where one need not know the one before; order is kept."""
        waiting: list[Found | Packet] = []
        crops = frames = 0
        most = 1 if self._engine.spec.frames > 1 or self._refits else LOOK_AHEAD
        for item in items:
            waiting.append(item)
            if isinstance(item, Found):
                frames += 1
                crops += len(item.crops)
            if crops >= self._settings.batch or frames >= most or not crops or len(waiting) >= MOST_WAITING:
                yield from self._flush(waiting)
                waiting, crops, frames = [], 0, 0
        yield from self._flush(waiting)

    def _flush(self, waiting: list[Found | Packet]) -> Iterator[Mended | Packet]:
        items = [item for item in waiting if isinstance(item, Found)]
        crops = [crop for item in items for crop in item.crops]
        if items and items[0].frame.index != self._last + 1:
            self._before = {}
            self._resting.keep(())
        with self._stats.timed("restore"):
            patches = self._patches(crops, items[0].frame) if items else []
            if items:
                done = [patch for patch in patches if patch is not None]
                self._before = {p.crop.track.id: p.restored if p.strength > 0 else p.given for p in done}
                self._resting.keep(self._before)
                self._last = items[-1].frame.index
        ready = iter(patches)
        for item in waiting:
            if isinstance(item, Packet):
                yield item
            else:
                own = tuple(patch for patch in (next(ready) for _ in item.crops) if patch is not None)
                with self._stats.timed("restore"):
                    earlier = () if self._memory is None else self._memory.see(own, item.frame)
                yield Mended(item.frame, own, earlier, item.left + (FAILED,) * (len(item.crops) - len(own)))

    def _patches(self, crops: list[Crop], frame: Frame) -> list[Patch | None]:
        """What comes of each crop, None where the engine failed; `frame` is that of the first."""
        patches: list[Patch | None] = []
        doubted: set[int] = set()  # tracks of which an answer is awaited
        for crop in crops:
            patches.append(None if crop.track.id in doubted else self._at_rest(crop))
            if patches[-1] is None:
                doubted.add(crop.track.id)
        asked = [i for i, patch in enumerate(patches) if patch is None]
        for start in range(0, len(asked), self._settings.batch):
            at = asked[start : start + self._settings.batch]
            part = [crops[i] for i in at]
            fits: list[Fit | None] = [None] * len(part)
            if self._refits:
                part, fits = map(list, zip(*(self._fit(crop, frame) for crop in part), strict=True))
            try:
                for i, patch in zip(at, self._run(part, fits), strict=True):
                    patches[i] = patch
                    self._watch(patch)
            except EngineError as error:
                self._stats.engine_fault = self._stats.engine_fault or str(error)
        return patches

    def _at_rest(self, crop: Crop) -> Patch | None:
        """The crop as it came, with the motion last told, where the engine need not be asked."""
        given = crop.inner(self._engine.spec.margin)
        before = self._resting.answer(crop.track.id, sharpness(given))
        return None if before is None else replace(before, crop=crop, restored=given, strength=0.0, fit=None)

    def _watch(self, patch: Patch) -> None:
        """Let a face rest that hardly moved."""
        if patch.motion is not None and patch.motion.spread_px < CALM * self._settings.still_px:
            self._resting.begin(patch.crop.track.id, patch, sharpness(patch.given))
        else:
            self._resting.end(patch.crop.track.id)

    def _fit(self, crop: Crop, frame: Frame) -> tuple[Crop, Fit | None]:
        """The motion that the frames before tell, where they do and have shown the face sharper; and the crop, cut anew
        where they tell better than its points where the face is."""
        assert self._memory is not None
        face = self._memory.recall(crop, frame)
        if face is None:
            return crop, None
        margin = self._engine.spec.margin
        found = fit(crop.inner(margin), face, crop.matrix)
        return (crop, None) if found is None else self._memory.realigned(crop, found, frame, margin)

    def _run(self, crops: list[Crop], fits: list[Fit | None]) -> list[Patch]:
        """Restored with the motion that is surely known or else found; again where that turns out to be wrong."""
        given = np.stack([self._seen(crop) for crop in crops])
        told = [found if found is not None and found.like >= SURE else None for found in fits]
        patches = list(_answers(crops, told, self._engine.run(given, known_of(told)), self._settings))
        wrong = [
            i
            for i, (found, patch) in enumerate(zip(fits, patches, strict=True))
            if found and not patch.is_refitted and patch.kernel is not None and is_better(found, patch.kernel)
        ]
        if wrong:
            told = [fits[i] for i in wrong]
            again = self._engine.run(given[wrong], known_of(told))
            better = _answers([crops[i] for i in wrong], told, again, self._settings)
            patches = [next(better) if i in wrong else patch for i, patch in enumerate(patches)]
        return [replace(patch, fit=found) for patch, found in zip(patches, fits, strict=True)]

    def _seen(self, crop: Crop) -> NDArray[np.uint8]:
        """What the engine sees of a face, (112 + 2 margin, 96 + 2 margin, 3 frames): one new to it stands twice."""
        return behind(crop.image, self._before.get(crop.track.id), self._engine.spec)


def behind(image: NDArray[np.uint8], before: NDArray[np.uint8] | Picture | None, spec: ModelSpec) -> NDArray[np.uint8]:
    """An engine's crop (H, W, 3) with what the frame before showed of the face (112, 96, 3), amid the crop's own
    margin, behind it in the channels, where the model sees two frames."""
    if spec.frames == 1:
        return image
    other, margin = image.copy(), spec.margin
    if before is not None:
        other[margin : margin + before.shape[0], margin : margin + before.shape[1]] = np.rint(before)
    return np.concatenate([image, other], 2)


def strength(crop: Crop, motion: Motion | None, settings: EngineSettings) -> float:
    """How much of a face's change is pasted, 0..1: none of one that did not move, little of one that comes or goes."""
    return settings.strength * crop.track.shown * (1.0 if motion is None else need(motion, settings.still_px))


def known_of(fits: list[Fit | None]) -> NDArray[np.float32] | None:
    """What an engine is told of its crops' motion; None where that is nothing."""
    if not any(fits):
        return None
    none = unknown(1)[0]
    return np.stack([none if found is None else found.kernel for found in fits])


def _answers(
    crops: list[Crop], fits: list[Fit | None], restored: Restored, settings: EngineSettings
) -> Iterator[Patch]:
    for i, (crop, found) in enumerate(zip(crops, fits, strict=True)):
        kernel = None if restored.kernels is None else restored.kernels[i]
        motion = None if kernel is None else motion_of(kernel, crop.matrix)
        patch = Patch(crop, restored.crops[i], strength(crop, motion, settings), kernel, motion)
        yield patch if found is None else placed(patch, found)
