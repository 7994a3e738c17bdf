"""Regions of a frame as RGB pictures: upright squares to look for faces in, and crops for the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.faces import align
from stream.frame import Frame, Rect
from stream.media.color import align_rect, read_rgb, shrink

OUTSIDE = 8  # px of a crop beyond it in which samples of it may lie


class View:
    """A square of a frame as an upright RGB picture (side, side, 3), black where the frame ends."""

    def __init__(self, frame: Frame, square: Rect, side_px: int) -> None:
        rect = align_rect(square, frame)
        whole = square[2] - square[0]
        scale = min(1.0, side_px / whole)
        side = round(whole * scale)
        self.image = np.zeros((side, side, 3), np.uint8)
        self._turns = frame.color.rotation // 90
        self._scale = side / whole
        self._origin = np.array(square[:2], np.float64)
        # Where the frame's part lies in the square, in px of the picture: exact but for half a pixel of the picture at
        # the frame's own border.
        left, top = (max(round((rect[i] - square[i]) * self._scale), 0) for i in (0, 1))
        right, bottom = (min(round((rect[i + 2] - square[i]) * self._scale), side) for i in (0, 1))
        if right > left and bottom > top and rect[2] > rect[0] and rect[3] > rect[1]:
            self.image[top:bottom, left:right] = read_rgb(frame, rect, (right - left, bottom - top))
        self.image = np.rot90(self.image, self._turns)

    def to_frame(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 2) of the upright picture in px of the frame."""
        last = self.image.shape[0] - 1
        for _ in range(self._turns):
            points = np.stack([last - points[:, 1], points[:, 0]], 1)
        return (points + 0.5) / self._scale - 0.5 + self._origin

    def from_frame(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 2) of the frame in px of the upright picture."""
        points, last = (points - self._origin + 0.5) * self._scale - 0.5, self.image.shape[0] - 1
        for _ in range(self._turns):
            points = np.stack([points[:, 1], last - points[:, 0]], 1)
        return points

    def box_to_frame(self, box: NDArray[np.float64]) -> NDArray[np.float64]:
        """A box (4,) of the upright picture in px of the frame."""
        corners = self.to_frame(box.reshape(2, 2))
        return np.concatenate([corners.min(0), corners.max(0)])


def thumbnail(frame: Frame) -> NDArray[np.float32]:
    """The luma (about 32 rows), 0..1: what tells one scene from another."""
    luma = frame.planes[0]
    less = max(1, min(luma.shape) // 32)
    return shrink(luma, (luma.shape[1] // less, luma.shape[0] // less)).astype(np.float32) / (2**frame.color.depth - 1)


def cut_crop(frame: Frame, matrix: NDArray[np.float64], margin: int, unrounded: bool = False) -> NDArray[Any]:
    """The crop that `matrix` (frame px to crop px) cuts out, (112 + 2 margin, 96 + 2 margin, 3) RGB: uint8, or
    `unrounded` float32 of 255."""
    region, to_frame = _read(frame, matrix, margin, 1 / align.scale_of(matrix), unrounded)
    return align.warp(region, matrix @ to_frame, margin)


def sampled(frame: Frame, matrix: NDArray[np.float64], points: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    """The frame at points (H, W, 2) of the crop that `matrix` cuts out of it, some 1 / `times` px of it apart and none
    further than a few outside: RGB (H, W, 3) of 255, bicubic."""
    import cv2

    region, to_frame = _read(frame, matrix, OUTSIDE, 1 / (align.scale_of(matrix) * times), unrounded=True)
    at = cv2.transform(points, align.inverse(matrix @ to_frame))
    return np.asarray(cv2.remap(region, at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _read(
    frame: Frame, matrix: NDArray[np.float64], margin: int, apart_px: float, unrounded: bool
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The part of a frame that holds a crop, RGB, for samples that lie so many px of it apart, and the matrix (3, 3)
    from its px to the frame's."""
    x0, y0, x1, y1 = crop_rect(frame, matrix, margin)
    # A face much larger than the crop is read at a half, a quarter, ...: nothing aliases and little is converted.
    less = 2 ** max(0, int(np.log2(apart_px)))
    unit = 2 * less
    width, height = max((x1 - x0) // unit, 1) * 2, max((y1 - y0) // unit, 1) * 2
    rect = x0, y0, min(x0 + width * less, x1), min(y0 + height * less, y1)
    to_frame = np.array([[less, 0.0, x0 + (less - 1) / 2], [0.0, less, y0 + (less - 1) / 2], [0.0, 0.0, 1.0]])
    return read_rgb(frame, rect, (width, height), unrounded), to_frame


def crop_rect(frame: Frame, matrix: NDArray[np.float64], margin: int) -> Rect:
    """The smallest rectangle of the frame that holds a crop, with a pixel or two to interpolate from."""
    points = align.apply(align.inverse(matrix), align.corners(margin))
    low, high = np.floor(points.min(0)).astype(int) - 2, np.ceil(points.max(0)).astype(int) + 3
    x0, x1 = np.clip([low[0], high[0]], [0, 2], [frame.width - 2, frame.width])
    y0, y1 = np.clip([low[1], high[1]], [0, 2], [frame.height - 2, frame.height])
    return align_rect((int(x0), int(y0), int(x1), int(y1)), frame)
