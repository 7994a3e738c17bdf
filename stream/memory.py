"""What frames have shown of each track's face, in one direction of time: a picture of it, and how certain that is.

Each frame counts by its certainty, the inverse of the squared error that is expected of it. What was seen before is
moved onto the face as it is now, loses certainty with every frame, and counts only where it would look as this frame
does, had it been smeared by this frame's motion.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.faces import align
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from stream.frame import Crop, Frame, Patch, Picture, Seen
from stream.motion import need
from stream.refit import INNER, likeness, to_grey

SHARP = 1.0  # expected squared error, of 255, of a sharp face,
SMEARED = 4.0  # what the square of its motion's spread in px adds,
OLD = 1.0  # and what every frame between two
OTHER, SAME = 0.4, 0.55  # the mean likeness up to which it is another face, and from which on it is this one
LONGEST_S = 0.5  # seconds without a face after which what was seen of it is forgotten
GRID = 6  # px between the points whose flow says how a face moved


class Remembered(NamedTuple):
    """A track's face as the frames up to one have shown it."""

    frame: Frame
    matrix: NDArray[np.float64]  # of its crop in that frame
    seen: Seen


class Memory:
    """The faces of all tracks."""

    def __init__(self, still_px: float) -> None:
        """A face whose motion spreads less than `still_px` is taken as it came."""
        import cv2

        self._still_px = still_px
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)  # one a thread
        self._known: dict[int, Remembered] = {}  # by track

    def recall(self, crop: Crop, frame: Frame) -> Picture | None:
        """The face (112, 96, 3) of a crop's track, where its points say that it is now; None where it is not known."""
        import cv2

        before = self._known.get(crop.track.id)
        if before is None or apart_s(frame, before.frame) > LONGEST_S:
            return None
        into = before.matrix @ np.vstack([align.inverse(crop.matrix), [0, 0, 1]])  # from this crop into that
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        size = (CROP_WIDTH, CROP_HEIGHT)
        face = cv2.warpAffine(before.seen.picture, into, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(face, np.float32).clip(0, 255)

    def see(self, patches: tuple[Patch, ...], frame: Frame) -> tuple[Seen | None, ...]:
        """What the frames before tell of each of this one's faces, in its own crop, where that can help; then this
        frame counts as well."""
        self._known = {k: known for k, known in self._known.items() if apart_s(frame, known.frame) <= LONGEST_S}
        return tuple(self._look(patch, frame) for patch in patches)

    def _look(self, patch: Patch, frame: Frame) -> Seen | None:
        if patch.motion is None:
            return None
        told: Seen | None = None
        now = own(patch)
        if need(patch.motion, self._still_px) == 0:
            now = now._replace(picture=patch.given.astype(np.float32))
        elif (before := self._known.get(patch.crop.track.id)) is not None:
            age = np.float32(OLD * abs(frame.index - before.frame.index))
            older = before.seen.certainty / (1 + before.seen.certainty * age)
            told = onto(patch, before.seen._replace(certainty=older), self._flow)
            now = added(now, told)
        if patch.crop.track.lost == 0:  # what stands where a face is only guessed to be is not remembered
            self._known[patch.crop.track.id] = Remembered(frame, patch.crop.matrix, now)
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


def onto(patch: Patch, before: Seen, flow: Any) -> Seen:
    """What was seen before, moved, turned and scaled as the face is now, and less certain where the frame denies it:
    smeared by the frame's own motion it has to look as the frame does. A face that is off nearly everywhere is another
    one, whatever its parts are like."""
    import cv2

    assert patch.kernel is not None
    x, y = _moved(to_grey(patch.restored), to_grey(before.picture), flow)
    picture = cv2.remap(before.picture, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE).clip(0, 255)
    certainty = cv2.remap(before.certainty, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    like = likeness(to_grey(picture), patch.kernel, to_grey(patch.given))
    is_same = np.clip((like[INNER].mean() - OTHER) / (SAME - OTHER), 0, 1).astype(np.float32)
    return Seen(picture, (certainty * like * is_same)[..., None])


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
