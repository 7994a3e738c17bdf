"""What sharp frames show of a face, lent to the smeared frames between them. A restored face has the crop's resolution,
which may be a third of the frame's, and its finest parts are the network's guess. A second before, or after, the face
may have stood still: what is fine of it is then taken from there, at the frame's own resolution, wherever it would look
as this frame does, had this frame's motion smeared it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from stream.config import EngineSettings
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH, SIZE, scale_of
from stream.frame import Detail, Frame, Mended, Packet, Patch, Picture, Sight
from stream.memory import sameness
from stream.motion import sharpness
from stream.refit import SOFTER, likeness, to_grey
from stream.region import sampled
from stream.stats import Stats

FINE_PX = 1.5  # sigma of the low-pass above which a face is fine, px of the crop
MOST = 4  # times the crop's resolution, at most, is that of what is lent
SMOOTH_PX = 2.0  # sigma over which a face moves alike
WHOLE = 1.67  # times the spread below which a face is left alone, at which all that is fine is lent


class Lending:
    """Frames with restored patches in, the same out, smeared ones with what sharp frames around show of them."""

    def __init__(self, settings: EngineSettings, stats: Stats) -> None:
        """What is fine is lent where a face's motion spreads more than `settings.still_px`."""
        import cv2

        self._settings, self._stats = settings, stats
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._flow.setFinestScale(0)  # a third of a pixel here is one of the frame

    def run(self, items: Iterator[Mended | Packet]) -> Iterator[Mended | Packet]:
        """The stage: packets pass, no frame waits."""
        for item in items:
            if isinstance(item, Mended) and any(patch.sights for patch in item.patches):
                with self._stats.timed("fuse"):
                    item = replace(item, patches=tuple(self._detailed(patch, item.frame) for patch in item.patches))
            yield item

    def _detailed(self, patch: Patch, frame: Frame) -> Patch:
        mine, track = sharpness(patch.given), patch.crop.track
        sights = [sight for sight in patch.sights if mine < SOFTER * sharpness(sight.patch.given)]
        if not sights or patch.motion is None or patch.kernel is None:
            return patch
        still_px = self._settings.still_px
        share = np.clip((patch.motion.spread_px / still_px - 1) / (WHOLE - 1), 0, 1) if still_px > 0 else 1.0
        counts = [abs(sight.frame.index - frame.index) ** -0.5 for sight in sights]
        most = share * track.shown * self._settings.strength / sum(counts)
        laid = [self._laid(patch, sight) for sight in sights]
        weights = [like * np.float32(count * most) for (_, like), count in zip(laid, counts, strict=True)]
        picture: Picture = np.sum([fine * w[..., None] for (fine, _), w in zip(laid, weights, strict=True)], 0)
        return replace(patch, detail=Detail(picture, np.sum(weights, 0)))

    def _laid(self, patch: Patch, sight: Sight) -> tuple[Picture, Picture]:
        """What is fine of a sharp face where it lies now, (112 n, 96 n, 3) of 255, and how far it may be this face's as
        it is now, (112 n, 96 n), by what the frame shows."""
        import cv2

        assert patch.kernel is not None
        sharp = to_grey(sight.patch.given)
        a, b = (np.clip(grey + 0.5, 0, 255).astype(np.uint8) for grey in (to_grey(patch.restored), sharp))
        there = points(1) + cv2.GaussianBlur(self._flow.calc(a, b, None), (0, 0), SMOOTH_PX)
        grey = cv2.remap(sharp, there, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        like = likeness(grey, patch.kernel, to_grey(patch.given))
        times = times_of(patch.crop.matrix)
        laid = sampled(sight.frame, sight.patch.crop.matrix, enlarged(there, times), times)
        return fine_part(laid), enlarged(like * sameness(like), times)


def times_of(matrix: NDArray[np.float64]) -> int:
    """How many times the crop's resolution the frame has that `matrix` cuts it out of: 1 to MOST."""
    return int(np.clip(round(1 / scale_of(matrix)), 1, MOST))


@cache
def points(times: int) -> NDArray[np.float32]:
    """Where in the crop the pixels of one of `times` its resolution lie, (112 times, 96 times, 2)."""
    rows, columns = np.indices((CROP_HEIGHT * times, CROP_WIDTH * times), np.float32)
    return (np.stack([columns, rows], -1) + np.float32(0.5)) / np.float32(times) - np.float32(0.5)


def enlarged(picture: Picture, times: int) -> Picture:
    """A picture of the crop's size, (112, 96, ...), at `times` its resolution."""
    import cv2

    size = CROP_WIDTH * times, CROP_HEIGHT * times
    return picture if times == 1 else np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.float32)


def fine_part(picture: Picture) -> Picture:
    """What of a face (112 n, 96 n, 3) varies over less than FINE_PX of the crop."""
    import cv2

    small = cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA)
    return picture - enlarged(cv2.GaussianBlur(small, (0, 0), FINE_PX), len(picture) // CROP_HEIGHT)
