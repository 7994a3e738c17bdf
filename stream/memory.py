"""What frames have shown of each track's face, in one direction of time: a picture of it, and how certain that is.

Each frame counts by its certainty, the inverse of the squared error that is expected of it. What was seen before is
moved onto the face as it is now, loses certainty with every frame, and counts only where it would look as this frame
does, had it been smeared by this frame's motion.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.faces import align
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH, INNER, SIZE
from stream.frame import Crop, Fit, Frame, Patch, Picture, Seen
from stream.motion import middle_of, need
from stream.refit import NOWHERE, likeness, moved, to_grey, warped
from stream.region import cut_crop

SHARP = 1.0  # expected squared error, of 255, of a sharp face,
SMEARED = 4.0  # what the square of its motion's spread in px adds,
OLD = 1.0  # and what every frame between two
OTHER, SAME = 0.4, 0.55  # the mean likeness up to which it is another face, and from which on it is this one
LONGEST_S = 0.5  # seconds without a face after which what was seen of it is forgotten
ASTRAY_PX = 2.0  # between where a smeared face's points say it is and where what is remembered does, to believe that
MIDDLE = np.array([[(CROP_WIDTH - 1) / 2, (CROP_HEIGHT - 1) / 2]])
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
        """The face (112, 96, 3) of a crop's track as it would lie there, had it not moved in the picture since it was
        seen; None where it is not known."""
        before = self._known.get(crop.track.id)
        if before is None or apart_s(frame, before.frame) > LONGEST_S:
            return None
        return carried(before, crop.matrix, NOWHERE).picture

    def realigned(self, crop: Crop, found: Fit, frame: Frame, margin: int) -> tuple[Crop, Fit]:
        """The crop cut as the one before was, about where a fit to what that showed says that the face is now, and the
        fit in its px; as they are, where the crop's own points lie near that. Those of a smeared face may be astray."""
        into = self._known[crop.track.id].matrix @ _whole(align.inverse(crop.matrix))
        astray = [align.apply(into, MIDDLE - by) - MIDDLE for by in (found.off, found.off + found.back)]
        if found.like < SAME or np.hypot(*np.concatenate(astray).T).min() < ASTRAY_PX:
            return crop, found
        matrix = into @ _whole(_shift(-found.off - found.back)) @ _whole(crop.matrix)
        linear = into[:2, :2]
        turned = Fit(warped(found.kernel, linear), linear @ found.off, linear @ found.back, found.like)
        return replace(crop, matrix=matrix, image=cut_crop(frame, matrix, margin)), turned

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
            told = onto(patch, before._replace(seen=before.seen._replace(certainty=older)), self._flow)
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


def onto(patch: Patch, before: Remembered, flow: Any) -> Seen:
    """What was seen before as the face lies now, and less certain where the frame denies it: smeared by the frame's own
    motion it has to look as the frame does. A face that is off nearly everywhere is another one, whatever its parts are
    like. It is moved, turned and scaled by the flow onto the restored face, or, where that is more like the frame (a
    face that is restored badly leads the flow astray), to where the fit that restored it says that it is."""
    import cv2

    assert patch.kernel is not None
    smeared = to_grey(patch.given)
    into = found_in(to_grey(patch.restored), to_grey(before.seen.picture), flow)
    lanczos, linear = (kind | cv2.WARP_INVERSE_MAP for kind in (cv2.INTER_LANCZOS4, cv2.INTER_LINEAR))
    picture = cv2.warpAffine(before.seen.picture, into, SIZE, flags=lanczos, borderMode=cv2.BORDER_REPLICATE)
    picture = picture.clip(0, 255)
    certainty = cv2.warpAffine(before.seen.certainty, into, SIZE, flags=linear)
    like = likeness(to_grey(picture), patch.kernel, smeared)
    if patch.is_refitted and (found := patch.fit) is not None and found.like > like[INNER].mean():
        back = -middle_of(patch.kernel)  # from the motion's middle to where the restored face was laid
        middle = carried(before, patch.crop.matrix, found.off).picture
        like = moved(likeness(to_grey(middle), found.kernel, smeared), back).clip(0, 1)
        picture, certainty = carried(before, patch.crop.matrix, found.off + back)
        certainty = certainty[..., 0]
    return Seen(picture, (certainty * like * sameness(like))[..., None])


def sameness(like: Picture) -> np.float32:
    """Whether a face of that likeness (112, 96) is the same one, 0 to 1: of another, parts may be alike as well."""
    return np.float32(np.clip((like[INNER].mean() - OTHER) / (SAME - OTHER), 0, 1))


def carried(before: Remembered, matrix: NDArray[np.float64], by: NDArray[np.float64]) -> Seen:
    """What was seen before as a crop that `matrix` cuts shows it, moved by so many px of the crop since."""
    import cv2

    into = before.matrix @ _whole(align.inverse(matrix)) @ _whole(_shift(-by))  # from this crop into that
    cubic, linear = (kind | cv2.WARP_INVERSE_MAP for kind in (cv2.INTER_CUBIC, cv2.INTER_LINEAR))
    picture = cv2.warpAffine(before.seen.picture, into, SIZE, flags=cubic, borderMode=cv2.BORDER_REPLICATE)
    certainty = cv2.warpAffine(before.seen.certainty, into, SIZE, flags=linear)
    return Seen(picture.clip(0, 255), certainty[..., None])


def _whole(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) to (3, 3)."""
    return np.vstack([matrix, [0.0, 0.0, 1.0]])


def _shift(by: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix (2, 3) that moves by so many px to the right and down."""
    return np.column_stack([np.eye(2), by])


def found_in(now: Picture, before: Picture, flow: Any) -> NDArray[np.float64]:
    """The matrix (2, 3) from px of a grey crop (112, 96) to those of another, by the motion of most of the face."""
    import cv2

    a, b = (np.clip(picture + 0.5, 0, 255).astype(np.uint8) for picture in (now, before))
    inside = (slice(8, -8, GRID), slice(8, -8, GRID))
    rows, columns = np.indices((CROP_HEIGHT, CROP_WIDTH), np.float32)
    here = np.stack([columns, rows], -1)
    there = here + flow.calc(a, b, None)
    points, moved = (at[inside].reshape(-1, 2) for at in (here, there))
    motion, _ = cv2.estimateAffinePartial2D(points, moved, ransacReprojThreshold=1.0)
    return np.eye(2, 3) if motion is None else np.asarray(motion)
