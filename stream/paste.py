"""The stage that adds each face's change to its frame, under a feathered mask, and touches nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from stream.annotate import annotate
from stream.detail import enlarged, fine_part, points
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH, INNER, SIZE
from stream.frame import Detail, Frame, Mended, Packet, Patch, Picture, Plane
from stream.media.color import add_change
from stream.motion import smeared
from stream.refit import alike, noise_of, shown, to_grey
from stream.region import crop_rect, cut_crop, sampled
from stream.stats import Stats

SLOW_PX = 24.0  # sigma of the low-pass below which a restored face has to be what it was, px of the crop,
SLIGHT = 1.0  # but for so much (of 255): to follow that from frame to frame would flicker
COARSE = 8  # px of the crop per px at which that low-pass is computed
PART, ALL = 0.85, 0.92  # mean likeness up to which a part of a face moved otherwise, and from which all moved so,
LITTLE_PX, FAR_PX = 3.0, 6.0  # and spreads of motions to which that applies wholly, and not at all
FEATHER_PX = 5.0  # crop px over which the mask falls to nothing at the crop's border


def paste(
    items: Iterable[Mended | Packet], compare: bool, stats: Stats, debug: bool = False
) -> Iterator[Frame | Packet]:
    """Frames with their faces restored; with `compare` as the right half beside the untouched left half, with `debug`
    with what was seen drawn over them."""
    frame: Frame | None = None
    for item in items:
        if isinstance(item, Packet):
            yield item
            continue
        with stats.timed("paste"):
            frame = paste_patches(item.frame, item.patches, frame)
            seen = annotate(frame, item.patches) if debug else frame
            out = side_by_side(item.frame, seen) if compare else seen
        stats.count(item)
        yield out


def paste_patches(frame: Frame, patches: tuple[Patch, ...], last: Frame | None = None) -> Frame:
    """The frame with the change of every patch added; the frame itself where there is none. What came of the `last` one
    says which way half a step is rounded: up and down in turn flickers."""
    patches = tuple(patch for patch in patches if patch.strength > 0)
    if not patches:
        return frame
    planes: list[Plane] = [plane.copy() for plane in frame.planes]
    before = last.planes if last is not None and frame.is_laid_out_as(last) else ()
    for patch in patches:
        change, matrix = masked_change(patch, _given(frame, patch)), patch.crop.matrix
        if patch.detail is not None:
            so_far = replace(frame, planes=tuple(planes))  # where faces overlap, what is fine is replaced once
            change, matrix = detailed(so_far, patch.crop.matrix, change, patch.detail)
        add_change(planes, frame.color, crop_rect(frame, patch.crop.matrix, 0), matrix, change, before)
    for plane in planes:
        plane.flags.writeable = False
    return replace(frame, planes=tuple(planes))


def _given(frame: Frame, patch: Patch) -> Picture:
    """The crop as it came. What is not rounded is set beside what is not rounded either: half a step up or down in turn
    flickers."""
    if patch.restored.dtype == np.uint8:
        return patch.given.astype(np.float32)
    margin = (patch.crop.image.shape[0] - CROP_HEIGHT) // 2  # cut as it was for the engine, to the pixel
    wide = cut_crop(frame, patch.crop.matrix, margin, unrounded=True)
    return wide[margin : margin + CROP_HEIGHT, margin : margin + CROP_WIDTH]


def masked_change(patch: Patch, given: Picture) -> Picture:
    """Restored minus given crop (112, 96, 3) of 255, times mask and strength; without the slow part that no motion
    took: smeared again by the motion that was found, the restored face keeps the slow part of its input, as far as the
    crop shows what the motion smeared. What moved little is changed where it moved so."""
    restored, weight = patch.restored.astype(np.float32), mask() * np.float32(patch.strength)
    if patch.kernel is None:
        slow = slow_part(restored - given, np.ones((CROP_HEIGHT, CROP_WIDTH), np.float32))
    else:
        off = smeared(restored, patch.kernel) - given
        slow = slow_part(off, shown(patch.kernel))
        weight = weight * agreement(patch, off - slow, given)
    return (restored - given - slow) * weight[..., None]


def detailed(
    frame: Frame, matrix: NDArray[np.float64], change: Picture, detail: Detail
) -> tuple[Picture, NDArray[np.float64]]:
    """The change (112 n, 96 n, 3) that does what one (112, 96, 3) does, and makes what is fine of the face that of the
    detail; and the matrix that maps px of the frame to its px."""
    times = len(detail.picture) // CROP_HEIGHT
    change = enlarged(change, times)
    own = fine_part(sampled(frame, matrix, points(times), times) + change)
    inside = enlarged(mask(), times)[..., None]
    larger = np.array([[times, 0.0, (times - 1) / 2], [0.0, times, (times - 1) / 2], [0.0, 0.0, 1.0]])
    whole = larger @ np.vstack([matrix, [0.0, 0.0, 1.0]])
    return change + inside * (detail.picture - detail.weight[..., None] * own), whole[:2]


def agreement(patch: Patch, off: Picture, given: Picture) -> Picture:
    """How far, by pixel (112, 96), a face may change whose smeared restoration is `off` from what was given
    (112, 96, 3). Where a face as a whole does not look as it did, not all of it moved so: beside a head that turns lies
    what did not move, and a motion undone there leaves rings. Where all moved far, what was made of it is better than
    what it was all the same."""
    assert patch.motion is not None
    little = float(np.clip((FAR_PX - patch.motion.spread_px) / (FAR_PX - LITTLE_PX), 0, 1))
    if little == 0:
        return np.ones(off.shape[:2], np.float32)
    seen = to_grey(given)
    like = alike(to_grey(off), float(seen[INNER].std()), noise_of(seen))  # which the restored face has not
    doubt = float(np.clip((ALL - like[INNER].mean()) / (ALL - PART), 0, 1))
    return 1 - np.float32(little * doubt) * (1 - np.square(like))


def slow_part(change: Picture, weight: Picture) -> Picture:
    """What of a change (112, 96, 3) varies over more than SLOW_PX and is more than SLIGHT, each pixel of it by its
    weight (112, 96)."""
    import cv2

    def low(picture: Picture) -> Picture:
        size = CROP_WIDTH // COARSE, CROP_HEIGHT // COARSE
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.GaussianBlur(small, (0, 0), SLOW_PX / COARSE, borderType=cv2.BORDER_REFLECT), np.float32)

    slow = low(change * weight[..., None]) / np.maximum(low(weight), 1e-3)[..., None]
    slow = np.sign(slow) * np.maximum(np.abs(slow) - SLIGHT, 0)
    return np.asarray(cv2.resize(slow, SIZE, interpolation=cv2.INTER_LINEAR), np.float32)


@cache
def mask(feather_px: float = FEATHER_PX) -> NDArray[np.float32]:
    """1 inside the crop, falling smoothly to 0 at its border, with round corners; (112, 96)."""
    x = np.minimum(np.arange(CROP_WIDTH), np.arange(CROP_WIDTH)[::-1])
    y = np.minimum(np.arange(CROP_HEIGHT), np.arange(CROP_HEIGHT)[::-1])
    short = np.maximum(1 - np.stack(np.meshgrid(x, y)) / feather_px, 0)  # how far into the feather, each way
    inside = np.clip(1 - np.hypot(*short), 0, 1)
    return (inside**2 * (3 - 2 * inside)).astype(np.float32)


def side_by_side(left: Frame, right: Frame) -> Frame:
    """Both frames in one picture, beside one another as a player shows them."""
    turned = left.color.rotation % 180 != 0
    if left.color.rotation in (180, 270):  # a player turns the picture round: the first half is shown last
        left, right = right, left
    axis = 0 if turned else 1
    # Part of a chroma sample would be left in the middle: the last lines are left out.
    unit = max(2, 1 << left.color.shift[1 - axis])
    even = (left.height if turned else left.width) // unit * unit
    planes = []
    for index, (a, b) in enumerate(zip(left.planes, right.planes, strict=True)):
        chroma = left.color.family == "yuv" and index in (1, 2)
        kept = even >> (left.color.shift[1 - axis] if chroma else 0)
        planes.append(
            np.concatenate([np.take(p, range(kept), axis) if p.shape[axis] > kept else p for p in (a, b)], axis)
        )
    return replace(left, planes=tuple(planes))
