"""Where a face went from one frame to the next, by optical flow: between two looks in live use, and in gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.faces import align
from stream.frame import Face, Frame
from stream.media.color import shrink

FACE_PX = 64  # width of a face at which its motion is looked for
GRID = 8  # points across a face, and down
LEAST = 0.4  # share of the points that must agree


def follow(before: Frame, now: Frame, face: Face) -> Face | None:
    """The face of the frame before in this one, moved, turned and scaled as most of it was; None if that is unclear.

    Both frames are of one size.
    """
    import cv2

    low, high = face.box[:2], face.box[2:]
    reach = (high - low) * 0.5
    limit = (now.width, now.height)
    x0, y0 = np.clip(np.floor(low - reach), 0, limit).astype(int)
    x1, y1 = np.clip(np.ceil(high + reach), 0, limit).astype(int)
    scale = min(1.0, FACE_PX / max(float(high[0] - low[0]), 1.0))
    size = round((x1 - x0) * scale), round((y1 - y0) * scale)
    if min(size) < GRID:
        return None
    a, b = (_luma(frame, slice(y0, y1), slice(x0, x1), size) for frame in (before, now))
    # From pixels of the frame to those of the picture: centres of pixels are whole numbers in both.
    ratio = np.array(size) / (x1 - x0, y1 - y0)
    shift = ratio * (0.5 - np.array([x0, y0])) - 0.5
    to = np.array([[ratio[0], 0, shift[0]], [0, ratio[1], shift[1]]])
    steps = (np.arange(GRID) + 0.5) / GRID
    grid = np.stack(np.meshgrid(*(low[i] + steps * (high[i] - low[i]) for i in (0, 1))), -1).reshape(-1, 2)
    points = align.apply(to, grid).astype(np.float32)
    moved, ok, _ = cv2.calcOpticalFlowPyrLK(a, b, points, None, winSize=(15, 15), maxLevel=3)
    there = ok.ravel() == 1
    if there.sum() < LEAST * len(points):
        return None
    motion, agree = cv2.estimateAffinePartial2D(points[there], moved[there], ransacReprojThreshold=1.0)
    if motion is None or agree.sum() < LEAST * len(points):
        return None
    whole = np.vstack([to, [0, 0, 1]])
    back = np.linalg.inv(whole) @ np.vstack([motion, [0, 0, 1]]) @ whole
    middle, half = (low + high) / 2, (high - low) / 2 * align.scale_of(back)
    middle = align.apply(back[:2], middle[None])[0]
    return Face(
        np.concatenate([middle - half, middle + half]), align.apply(back[:2], face.landmarks), face.score, face.yaw
    )


def _luma(frame: Frame, rows: slice, columns: slice, size: tuple[int, int]) -> NDArray[np.uint8]:
    plane = shrink(frame.planes[0][rows, columns], size)
    return (plane >> (frame.color.depth - 8)).astype(np.uint8) if frame.color.depth > 8 else plane.astype(np.uint8)
