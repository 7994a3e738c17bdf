"""The stage that adds up what neighbouring frames show of a face: each was smeared another way, and what one lost
another kept. It steadies the restored face, and carries what a sharp frame shows into the smeared ones beside it.

Each picture counts by its certainty, the inverse of the squared error that is expected of it. A neighbour's is moved
onto this frame's, loses certainty with every frame, and counts only where it would look as this frame does, had it been
smeared by this frame's motion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.config import EngineSettings
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from stream.frame import Frame, Mended, Packet, Patch
from stream.motion import need
from stream.stats import Stats

CHUNK = 8  # frames that are handed on at once where later ones count as well,
AHEAD = 4  # and how many more are waited for
SHARP = 1.0  # expected squared error, of 255, of a sharp face,
SMEARED = 4.0  # what the square of its motion's spread in px adds,
OLD = 2.0  # and what every frame between two
ALIKE, ALIKE_PX = 7.0, 2.0  # RMS, of 255, over about so many px, by which a neighbour may differ once it is smeared too
OTHER, SAME = 0.4, 0.55  # the mean likeness up to which it is another face, and from which on it is this one
LONGEST_S = 0.5  # seconds without a face after which what was seen of it is forgotten
INNER = (slice(16, -12), slice(12, -12))  # of a crop: the face without what is behind it
GRID = 6  # px between the points whose flow says how a face moved

Picture = NDArray[np.float32]


class Seen(NamedTuple):
    """What is known of a face, in px of a crop."""

    picture: Picture  # (112, 96, 3) RGB, of 255
    certainty: Picture  # (112, 96, 1)


class Fusion:
    """Frames with restored patches in; out come the same, each patch fused with its neighbours in time."""

    def __init__(self, settings: EngineSettings, stats: Stats) -> None:
        """Earlier frames count unless `settings.fuse` is "none", and later ones where it is "both"."""
        self._settings, self._stats = settings, stats
        self._past = Memory(settings.still_px)

    def run(self, items: Iterable[Mended | Packet]) -> Iterator[Mended | Packet]:
        """The stage: packets pass, order is kept. Patches of a model that does not tell the motion stay as they are."""
        if self._settings.fuse == "none":
            yield from items
            return
        chunk, ahead = (CHUNK, AHEAD) if self._settings.fuse == "both" else (1, 0)
        waiting: list[Mended | Packet] = []
        frames: list[int] = []  # where among the waiting there is one
        for item in items:
            if isinstance(item, Packet) and not waiting:
                yield item
                continue
            waiting.append(item)
            if isinstance(item, Mended):
                frames.append(len(waiting) - 1)
            if len(frames) == chunk + ahead:
                cut = frames[chunk - 1] + 1
                yield from self._fused(waiting, cut)
                waiting, frames = waiting[cut:], [at - cut for at in frames[chunk:]]
        yield from self._fused(waiting, len(waiting))

    def _fused(self, items: list[Mended | Packet], count: int) -> list[Mended | Packet]:
        """The first `count` items. All that are behind them count as later frames."""
        with self._stats.timed("fuse"):
            later: dict[int, list[Seen | None]] = {}
            if self._settings.fuse == "both":
                future = Memory(self._settings.still_px)
                later = {at: future.see(items[at]) for at in reversed(range(len(items)))}
            return [fused(item, self._past.see(item), later.get(at)) for at, item in enumerate(items[:count])]


class Memory:
    """What frames, in one direction of time, have shown of each track's face."""

    def __init__(self, still_px: float) -> None:
        """A face whose motion spreads less than `still_px` is taken as it came."""
        import cv2

        self._still_px = still_px
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)  # one a thread
        self._seen: dict[int, tuple[Frame, Seen]] = {}  # track -> what is known, since which frame

    def see(self, item: Mended | Packet) -> list[Seen | None]:
        """What the frames before tell of each of this one's faces, in its own crop, where that can help; then this
        frame counts as well."""
        if isinstance(item, Packet):
            return []
        self._seen = {k: seen for k, seen in self._seen.items() if apart_s(item.frame, seen[0]) <= LONGEST_S}
        return [self._look(patch, item.frame) for patch in item.patches]

    def _look(self, patch: Patch, frame: Frame) -> Seen | None:
        if patch.motion is None:
            return None
        told: Seen | None = None
        now = own(patch)
        if need(patch.motion, self._still_px) == 0:
            now = now._replace(picture=patch.given.astype(np.float32))
        elif (before := self._seen.get(patch.crop.track.id)) is not None:
            age = np.float32(OLD * abs(frame.index - before[0].index))
            older = before[1].certainty / (1 + before[1].certainty * age)
            told = onto(patch, before[1]._replace(certainty=older), self._flow)
            now = added(now, told)
        if patch.crop.track.lost == 0:  # what stands where a face is only guessed to be is not remembered
            self._seen[patch.crop.track.id] = frame, now
        return told


def apart_s(a: Frame, b: Frame) -> float:
    """Seconds between two frames."""
    return abs(float(a.pts * a.time_base - b.pts * b.time_base))


def own(patch: Patch) -> Seen:
    """What one frame shows by itself."""
    assert patch.motion is not None
    certainty = np.float32(1 / (SHARP + SMEARED * patch.motion.spread_px**2))
    return Seen(patch.restored.astype(np.float32), np.full((CROP_HEIGHT, CROP_WIDTH, 1), certainty))


def added(*seen: Seen) -> Seen:
    """Their mean, each pixel by its certainty."""
    certainty: Picture = np.sum([one.certainty for one in seen], 0)
    picture: Picture = np.sum([one.picture * one.certainty for one in seen], 0)
    return Seen(picture / certainty, certainty)


def fused(item: Mended | Packet, earlier: list[Seen | None], later: list[Seen | None] | None) -> Mended | Packet:
    """The frame, each of whose patches shows what its neighbours know as well."""
    if isinstance(item, Packet):
        return item
    patches = []
    for patch, *told in zip(item.patches, earlier, later or [None] * len(earlier), strict=True):
        known = [one for one in told if one is not None]
        if known:
            picture = added(own(patch), *known).picture
            patch = replace(patch, restored=np.clip(picture + 0.5, 0, 255).astype(np.uint8))
        patches.append(patch)
    return Mended(item.frame, tuple(patches))


def onto(patch: Patch, before: Seen, flow: Any) -> Seen:
    """What was seen before, moved, turned and scaled as the face is now, and less certain where the frame denies it:
    smeared by the frame's own motion it has to look as the frame does. Where it is ALIKE off, a third is left; a face
    that is off nearly everywhere is another one, whatever its parts are like."""
    import cv2

    assert patch.kernel is not None
    x, y = _moved(_grey(patch.restored), _grey(before.picture), flow)
    picture = cv2.remap(before.picture, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE).clip(0, 255)
    certainty = cv2.remap(before.certainty, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    smeared = cv2.filter2D(_grey(picture), -1, cv2.flip(patch.kernel, -1), borderType=cv2.BORDER_REPLICATE)
    off = cv2.GaussianBlur(np.square(smeared - _grey(patch.given)), (0, 0), ALIKE_PX)
    likeness = np.exp(-off / np.float32(ALIKE**2))
    is_same = np.clip((likeness[INNER].mean() - OTHER) / (SAME - OTHER), 0, 1).astype(np.float32)
    return Seen(picture, (certainty * likeness * is_same)[..., None])


def _grey(picture: NDArray[np.uint8] | Picture) -> Picture:
    return picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _moved(now: Picture, before: Picture, flow: Any) -> tuple[Picture, Picture]:
    """Where each pixel of now was before, by the motion of most of the face: columns and rows, all (112, 96)."""
    import cv2

    a, b = (np.clip(picture + 0.5, 0, 255).astype(np.uint8) for picture in (now, before))
    inside = (slice(8, -8, GRID), slice(8, -8, GRID))
    rows, columns = np.indices((CROP_HEIGHT, CROP_WIDTH), np.float32)
    here = np.stack([columns, rows], -1)
    there = here + flow.calc(a, b, None)
    points, moved = (at[inside].reshape(-1, 2) for at in (here, there))
    motion, _ = cv2.estimateAffinePartial2D(points, moved, ransacReprojThreshold=1.0)
    if motion is not None:
        here = (here @ motion[:, :2].T + motion[:, 2]).astype(np.float32)
    return here[..., 0], here[..., 1]
