"""Between planes and RGB, for face regions only: everything outside them leaves bit for bit as it came.

A region is read at the size it is needed in (planes are resized, then converted), and a change is converted by itself:
the way from RGB to the planes is linear, so `planes(image + change) = planes(image) + linear(change)` and what the
change does not touch is not rounded twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.frame import Color, Frame, Plane, Rect

STICKY = 0.75  # of a step: a sample that is to be no further from what it was before stays that


def align_rect(rect: Rect, frame: Frame) -> Rect:
    """`rect` cut to the frame and widened so that its corners are whole chroma samples."""
    sx, sy = frame.color.shift
    x0, y0 = max(rect[0], 0) >> sx << sx, max(rect[1], 0) >> sy << sy
    x1 = min(-(-rect[2] >> sx) << sx, frame.width)
    y1 = min(-(-rect[3] >> sy) << sy, frame.height)
    return x0, y0, x1, y1


def rgb_to_yuv(color: Color) -> NDArray[np.float64]:
    """The (3, 3) linear part of RGB 0..255 to Y, Cb, Cr in the planes' own numbers."""
    kr, kb = color.luma
    y = np.array([kr, 1 - kr - kb, kb])
    cb = (np.array([0.0, 0.0, 1.0]) - y) / (2 * (1 - kb))
    cr = (np.array([1.0, 0.0, 0.0]) - y) / (2 * (1 - kr))
    steps = 2.0 ** (color.depth - 8)
    top = 2.0**color.depth - 1
    luma, chroma = (top / 255, top / 255) if color.full_range else (219 * steps / 255, 224 * steps / 255)
    return np.array([y * luma, cb * chroma, cr * chroma])


def offsets(color: Color) -> NDArray[np.float64]:
    """Y, Cb and Cr of black."""
    middle = 2.0 ** (color.depth - 1)
    return np.array([0.0 if color.full_range else 16.0 * 2 ** (color.depth - 8), middle, middle])


def read_rgb(frame: Frame, rect: Rect, size: tuple[int, int], unrounded: bool = False) -> NDArray[Any]:
    """The region `rect` (as `align_rect` gives it) as RGB (height, width, 3) of `size` (width, height): uint8, or
    `unrounded` float32 of 255."""
    import cv2

    color = frame.color
    parts = [_part(frame.planes[i], rect, _shift(color, i)) for i in range(1 if color.family == "gray" else 3)]
    resized = [shrink(part.astype(np.float32) if unrounded else part, size) for part in parts]
    if color.family == "gbr":
        matrix = np.eye(3)[[2, 0, 1]] * (255 / (2.0**color.depth - 1))
        black = np.zeros(3)
    elif color.family == "gray":
        matrix = np.ones((3, 1)) / rgb_to_yuv(color)[0].sum()
        black = offsets(color)[:1]
    else:
        matrix, black = np.asarray(np.linalg.inv(rgb_to_yuv(color)), np.float64), offsets(color)
    affine = np.hstack([matrix, -(matrix @ black)[:, None]])
    out = cv2.transform(cv2.merge(resized) if len(resized) > 1 else resized[0], affine)  # saturates as it rounds
    return out if out.dtype == np.uint8 else np.clip(out, 0, 255).astype(np.float32 if unrounded else np.uint8)


def add_change(
    planes: list[Plane],
    color: Color,
    rect: Rect,
    matrix: NDArray[np.float64],
    change: NDArray[np.float32],
    before: Sequence[Plane] = (),
) -> None:
    """Add `change` (H, W, 3), RGB in units of 1/255, to writable `planes` inside `rect` (see `align_rect`).

    `matrix` (2, 3) maps frame px to the change's px. A sample is rounded to what it was `before`, in the planes of an
    earlier frame, where that is within STICKY steps of it, and else to the nearest step.
    """
    import cv2

    if color.family == "gbr":
        moved = change[..., [1, 2, 0]] * np.float32((2.0**color.depth - 1) / 255)
    elif color.family == "gray":
        moved = (change @ rgb_to_yuv(color)[0].astype(np.float32))[..., None]
    else:
        moved = change @ rgb_to_yuv(color).T.astype(np.float32)
    for index in range(moved.shape[2]):
        shift = _shift(color, index)
        part = _part(planes[index], rect, shift)
        # Plane px to frame px: chroma lies between its luma samples, as it was read, wherever the codec has it.
        sx, sy = 2 ** shift[0], 2 ** shift[1]
        to_frame = np.array([[sx, 0.0, rect[0] + (sx - 1) / 2], [0.0, sy, rect[1] + (sy - 1) / 2], [0.0, 0.0, 1.0]])
        to_change = matrix @ to_frame
        source = _lowpass(np.ascontiguousarray(moved[..., index]), float(np.hypot(*to_change[:, 0])))
        delta = cv2.warpAffine(source, to_change, part.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        depth = cv2.CV_8U if part.dtype == np.uint8 else cv2.CV_16U
        rounded = np.minimum(cv2.add(part, delta, dtype=depth), 2**color.depth - 1)
        if before:
            last = _part(before[index], rect, shift)
            apart = cv2.absdiff(cv2.add(part, delta, dtype=cv2.CV_32F), last.astype(np.float32))
            np.copyto(rounded, last, where=apart < STICKY)
        part[...] = rounded


def shrink(plane: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """A plane (H, W) at `size` (width, height): halved by area as often as it goes, the rest bilinear.

    OpenCV's own area resize is ten times slower where the factor is not whole.
    """
    import cv2

    while plane.shape[1] >= 2 * size[0] and plane.shape[0] >= 2 * size[1]:
        height, width = plane.shape[0] // 2, plane.shape[1] // 2
        plane = cv2.resize(plane[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return plane if plane.shape == size[::-1] else cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)


def _lowpass(image: NDArray[np.float32], pixels_a_sample: float) -> NDArray[np.float32]:
    """Smoothed as far as sampling it more coarsely than it is needs, so that nothing aliases."""
    import cv2

    if pixels_a_sample <= 1.2:
        return image
    sigma = 0.5 * float(np.sqrt(pixels_a_sample**2 - 1))
    return cv2.GaussianBlur(image, (0, 0), sigma)


def _shift(color: Color, index: int) -> tuple[int, int]:
    return color.shift if color.family == "yuv" and index in (1, 2) else (0, 0)


def _part(plane: Plane, rect: Rect, shift: tuple[int, int]) -> Plane:
    """The view of `plane` under `rect`."""
    x0, y0, x1, y1 = rect
    return plane[y0 >> shift[1] : -(-y1 >> shift[1]), x0 >> shift[0] : -(-x1 >> shift[0])]
