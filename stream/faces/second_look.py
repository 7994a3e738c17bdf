"""A finder that looks again at what the network makes of a smeared face: points are read better in a sharp one.

The network must tell the motion (`kernels`): without one the first look stands. What it brings is in docs/faces.md.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine import Engine, EngineError
from stream.faces import align
from stream.faces.finder import Finder
from stream.frame import Face, Picture
from stream.motion import motion_of

log = logging.getLogger(__name__)
SHARP = 0.36  # edges beside contrast, from which a face needs no second look
SMEARED = 1.5  # spread of the motion, px of the crop, from which it does,
VERY_SMEARED = 5.0  # and a third one
SURROUNDINGS = 40  # px around the crop, in its scale, that a finder sees of what the restored face stands in
FAR = 0.5  # of the distance of the eyes: points that went further are another face's


class SecondLook(Finder):
    """`finder`, and `engine` to restore what it doubts. Where the engine fails, the first look stands."""

    def __init__(self, finder: Finder, engine: Engine) -> None:
        """Neither is closed with it."""
        self._finder, self._engine = finder, engine
        self.side_px = finder.side_px

    def search(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """See `Finder.search`."""
        return self._finder.search(image)

    def look(self, image: NDArray[np.uint8]) -> Face | None:
        """See `Finder.look`."""
        face = self._finder.look(image)
        if face is None:
            return None
        try:
            again, spread = self._again(image, face)
            if spread > VERY_SMEARED:
                again, _ = self._again(image, again)
        except EngineError as error:
            log.debug("no second look: %s", error)
            return face
        return again

    def close(self) -> None:
        """See `Finder.close`."""

    def _again(self, image: NDArray[np.uint8], face: Face) -> tuple[Face, float]:
        """The face as it is seen once restored, and the spread of its motion, 0 where that is not known."""
        import cv2

        matrix = align.similarity(face.landmarks)
        seen = align.warp(image, matrix, SURROUNDINGS)
        spec, edge = self._engine.spec, SURROUNDINGS
        if sharpness(seen[edge:-edge, edge:-edge]) > SHARP:
            return face, 0.0
        cut = edge - spec.margin
        crop = np.concatenate([seen[cut : seen.shape[0] - cut, cut : seen.shape[1] - cut]] * spec.frames, 2)
        restored = self._engine.run(crop[None])
        spread = 0.0 if restored.kernels is None else motion_of(restored.kernels[0], matrix).spread_px
        if spread < SMEARED:
            return face, spread
        seen[edge:-edge, edge:-edge] = restored.crops[0]
        # A square of the side that the finder likes best, the crop in the middle.
        scale = self.side_px / seen.shape[0]
        half_px, beside = scale / 2 - 0.5, (seen.shape[0] - seen.shape[1]) / 2 * scale
        into = np.array([[scale, 0.0, half_px + beside], [0.0, scale, half_px]])
        square = cv2.warpAffine(seen, into, (self.side_px, self.side_px), flags=cv2.INTER_CUBIC)
        found = self._finder.look(np.asarray(square, np.uint8))
        if found is None:
            return face, spread
        points = align.apply(align.inverse(matrix), align.apply(align.inverse(into), found.landmarks) - edge)
        eyes = float(np.hypot(*(face.landmarks[1] - face.landmarks[0])))
        if float(np.hypot(*(points - face.landmarks).T).mean()) > FAR * eyes:
            return face, spread
        return replace(face, landmarks=points, score=max(face.score, found.score), yaw=found.yaw), spread


def sharpness(crop: NDArray[np.uint8] | Picture) -> float:
    """Edges beside contrast of a crop (112, 96, 3) at half its size: .3 to .7 of sharp faces, .15 to .35 of others."""
    import cv2

    half = cv2.resize(crop, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).mean(2, dtype=np.float32)
    return float(cv2.Laplacian(half, cv2.CV_32F).std() / (half.std() + 2))
