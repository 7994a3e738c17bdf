"""A finder that looks again at what the network makes of a smeared face: points are read better in a sharp one.

What it brings is in docs/faces.md.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine import Engine, EngineError
from stream.faces import align
from stream.faces.align import scale_of
from stream.faces.finder import Finder
from stream.frame import Face
from stream.motion import middle_of, motion_of, sharpness
from stream.rest import Resting

log = logging.getLogger(__name__)
SHARP = 0.45  # edges beside contrast, from which a face needs no second look
SMEARED = 1.5  # spread of the motion, px of the crop, from which it does,
VERY_SMEARED = 5.0  # and a third one
DIM = 7.0  # contrast (RMS, of 255) from which it can tell: smeared by 27 px, faces in daylight have 16 and more
CLEAR = 0.55  # score from which a face was seen clearly: what a network makes of a flower pot has less
SURROUNDINGS = 40  # px around the crop, in its scale, that a finder sees of what the restored face stands in
ASTRAY = 4.0  # times that spread may points be off,
NEAR = 2.0  # and px of the crop without any
FAR = 0.5  # of the distance of the eyes: points that went further are another face's


class Restored(NamedTuple):
    """A face once restored."""

    matrix: NDArray[np.float64]  # image px to crop px
    picture: NDArray[np.uint8]  # the crop, restored, and SURROUNDINGS
    spread_px: float  # of the motion that was found, 0 where the face is sharp, or too dim to tell
    off: NDArray[np.float64]  # px of the image from where it is restored to where a long motion's middle says it is


class SecondLook(Finder):
    """`finder`, and an `engine` that tells the motion to restore what it doubts. Where that fails, the first look
    stands."""

    def __init__(self, finder: Finder, engine: Engine) -> None:
        """Neither is closed with it."""
        self._finder, self._engine = finder, engine
        self._resting: Resting[float] = Resting()  # spread of the motion that was last found
        self.side_px = finder.side_px

    def search(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """See `Finder.search`."""
        return self._finder.search(image)

    def look(self, image: NDArray[np.uint8], last: NDArray[np.float64] | None = None, track: int = 0) -> Face | None:
        """See `Finder.look`. The more a face is smeared, the further may its points be off: where it was seen last is
        then the better place to restore it at, unless it has moved further than its smear explains. The score of one
        that is hardly seen otherwise, or new, is that of a search of its restoration. About one that is followed, and
        hardly moved, the engine is not asked each time."""
        face = self._finder.look(image, last)
        if face is None:
            self._resting.end(track)
        try:
            if last is not None:
                there = self._restored(image, last, track)
                reach = max(ASTRAY * there.spread_px, NEAR) / scale_of(there.matrix)
                if face is None or distance(face.landmarks, last) < reach:
                    again = None if there.spread_px < SMEARED else self._seen(there, last)
                    if again is not None and (face is None or face.score < CLEAR):
                        again = replace(again, score=self._clearness(there))
                    return again if again is not None and (face is None or again.score >= face.score) else face
                self._resting.end(track)  # what was said of that place says nothing of another
            if face is None or (first := self._restored(image, face.landmarks, track)).spread_px < SMEARED:
                return face
            again, where = self._seen(first, face.landmarks) or face, first
            if first.spread_px > VERY_SMEARED:
                second = self._restored(image, again.landmarks)
                if (better := self._seen(second, again.landmarks)) is not None:
                    again, where = better, second
        except EngineError as error:
            log.debug("no second look: %s", error)
            return face
        return replace(again, score=self._clearness(where)) if again.is_restored else again

    def close(self) -> None:
        """See `Finder.close`."""

    def _restored(self, image: NDArray[np.uint8], points: NDArray[np.float64], track: int = 0) -> Restored:
        """The face as the network makes it, where its points are there."""
        matrix = align.similarity(points)
        picture = align.warp(image, matrix, SURROUNDINGS)
        spec, edge = self._engine.spec, SURROUNDINGS
        inside = picture[edge:-edge, edge:-edge]
        edges = sharpness(inside)
        if edges > SHARP or inside[align.INNER].mean(2).std() < DIM:
            return Restored(matrix, picture, 0.0, np.zeros(2))
        if track and (known := self._resting.answer(track, edges)) is not None:
            return Restored(matrix, picture, known, np.zeros(2))
        cut = edge - spec.margin
        crop = np.concatenate([picture[cut : picture.shape[0] - cut, cut : picture.shape[1] - cut]] * spec.frames, 2)
        done = self._engine.run(crop[None])
        picture[edge:-edge, edge:-edge] = done.crops[0]
        assert done.kernels is not None
        spread = motion_of(done.kernels[0], matrix).spread_px
        if track and spread < SMEARED:
            self._resting.begin(track, spread, edges)
        elif track:
            self._resting.end(track)
        off = middle_of(done.kernels[0]) if spread > VERY_SMEARED else np.zeros(2)
        return Restored(matrix, picture, spread, np.linalg.inv(matrix[:, :2]) @ off)

    def _seen(self, restored: Restored, points: NDArray[np.float64]) -> Face | None:
        """The face that the finder sees once it is restored, px of the image; None if it sees none near its points."""
        square, into = self._square(restored.picture)
        found = self._finder.look(square)
        if found is None:
            return None

        def back(points: NDArray[np.float64]) -> NDArray[np.float64]:
            crop = align.apply(align.inverse(into), points) - SURROUNDINGS
            return align.apply(align.inverse(restored.matrix), crop) + restored.off

        seen = back(found.landmarks)
        if distance(seen, points) > FAR * float(np.hypot(*(points[1] - points[0]))):
            return None
        corners = back(found.box[[[0, 1], [2, 1], [0, 3], [2, 3]]])
        return Face(np.concatenate([corners.min(0), corners.max(0)]), seen, found.score, found.yaw, is_restored=True)

    def _clearness(self, restored: Restored) -> float:
        """The score with which a search finds the restored face, 0 where it does not."""
        square, _ = self._square(restored.picture)
        boxes = self._finder.search(square)
        off = np.abs((boxes[:, :2] + boxes[:, 2:4] - self.side_px) / 2).max(1)
        return float(boxes[off < self.side_px / 4, 4].max(initial=0.0))

    def _square(self, picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """A square of the side that the finder likes best, the crop in its middle, and the way there."""
        import cv2

        height, width = picture.shape[:2]
        scale = self.side_px / height
        half_px, beside = scale / 2 - 0.5, (height - width) / 2 * scale
        into = np.array([[scale, 0.0, half_px + beside], [0.0, scale, half_px]])
        square = cv2.warpAffine(picture, into, (self.side_px, self.side_px), flags=cv2.INTER_CUBIC)
        return np.asarray(square, np.uint8), into


def distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The mean distance of points (N, 2)."""
    return float(np.hypot(*(a - b).T).mean())
