"""Frames that show the one before once more, as clips hold that were brought to a higher rate: what was exposed once is
restored once, and what came of it goes to all frames that show it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from statistics import median

from stream.frame import Frame, Mended, Packet, Repeat
from stream.stats import Stats

FEW = 1 / 6  # of what the last new frames changed: one that changes less is no new one,
NOISE, PART_PX = 3.5, 16  # if in no part of so many px it changes by more than what a codec leaves, of 255,
IN_A_ROW = 3  # and that often at most: what moves slowly goes on


class Exposures:
    """Tells new frames from those that show the last new one once more."""

    def __init__(self) -> None:
        self._shown: Frame | None = None
        self._changes = deque((0.0, 0.0, 0.0), 3)  # that the last new ones brought: a cut is no measure
        self._repeats = 0  # of it so far

    def is_new(self, frame: Frame) -> bool:
        """Whether a frame shows anything that the one before does not, noise left aside."""
        change, most = (0.0, 0.0) if self._shown is None else difference(self._shown, frame)
        if change < FEW * median(self._changes) and most < NOISE and self._repeats < IN_A_ROW:
            self._repeats += 1
            return False
        self._changes.append(change)
        self._shown, self._repeats = frame, 0
        return True


def difference(a: Frame, b: Frame) -> tuple[float, float]:
    """How far two frames' luma is apart, of 255: in the mean, and in the mean of the part that differs most."""
    import cv2

    if not a.is_laid_out_as(b):
        return 255.0, 255.0
    apart = cv2.absdiff(a.planes[0], b.planes[0])
    height, width = (max(1, side // PART_PX) for side in apart.shape)
    whole = apart[: height * PART_PX, : width * PART_PX]  # by a factor that is not whole it takes ten times as long
    parts = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    unit = 255 / (2**a.color.depth - 1)
    return cv2.mean(apart)[0] * unit, float(parts.max()) * unit


def set_aside(items: Iterable[Frame | Packet], stats: Stats) -> Iterator[Frame | Packet]:
    """New frames, numbered anew; the others pass as `Repeat`s, which no stage looks at."""
    exposures = Exposures()
    index = 0
    for item in items:
        if not isinstance(item, Frame):
            yield item
            continue
        with stats.timed("repeats"):
            is_new = exposures.is_new(item)
        if is_new:
            yield replace(item, index=index)
            index += 1
        else:
            yield Repeat(-1, item)


def put_back(items: Iterable[Mended | Packet]) -> Iterator[Mended | Packet]:
    """All frames with their own numbers, those that were set aside with the patches of the one that they show."""
    last: Mended | None = None
    index = 0
    for item in items:
        if isinstance(item, Mended):
            last = item = replace(item, frame=replace(item.frame, index=index))
        elif isinstance(item, Repeat):
            assert last is not None
            item = replace(last, frame=item.native)
        index += isinstance(item, Mended)
        yield item
