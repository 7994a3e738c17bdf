"""What the program sees, drawn into the frames: faces, points, tracks, motion, how much of the change was pasted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.faces import align
from stream.frame import Frame, Patch


def annotate(frame: Frame, patches: tuple[Patch, ...]) -> Frame:
    """The frame with every patch's face marked in its first plane: bright lines on dark ones, as the planes lie."""
    if not patches:
        return frame
    more = frame.color.depth - 8
    before = (frame.planes[0] >> more).astype(np.uint8)  # OpenCV draws on eight bits
    drawn = before.copy()
    for patch in patches:
        _mark(drawn, patch)
    luma: Any = np.where(drawn == before, frame.planes[0], drawn.astype(np.uint16) << more).astype(
        frame.planes[0].dtype
    )
    luma.flags.writeable = False
    return replace(frame, planes=(luma, *frame.planes[1:]))


def _mark(luma: NDArray[np.uint8], patch: Patch) -> None:
    import cv2

    track = patch.crop.track
    thick = max(1, luma.shape[0] // 540)
    outline = align.apply(align.inverse(patch.crop.matrix), align.corners())
    for value, extra in ((0, 2 * thick), (255, 0)):
        cv2.polylines(luma, [np.rint(outline).astype(np.int32)], True, value, thick + extra, cv2.LINE_AA)
        for x, y in np.rint(track.landmarks).astype(int):
            cv2.circle(luma, (int(x), int(y)), 2 * thick, value, thick + extra, cv2.LINE_AA)
    low, high = outline.min(0), outline.max(0)
    write_text(luma, label(patch), (int(low[0]), int(low[1]) - 6 * thick), 0.5 * thick)
    if patch.kernel is not None:
        _inset(
            luma,
            _grey(patch.kernel, max(33, int(high[0] - low[0]) // 3)),
            (int(high[0]) + 4 * thick, int(low[1])),
        )


def label(patch: Patch) -> str:
    """A face's line: its track, its motion in px of the frame and degrees, and how much of the change is pasted."""
    text = f"#{patch.crop.track.id}"
    if patch.motion is not None:
        text += f" {patch.motion.length_px:.0f}px {patch.motion.direction_deg:.0f}deg"
    return text + f" {patch.strength:.0%}" + (" lost" if patch.crop.track.lost else "")


def write_text(luma: NDArray[np.uint8], text: str, at: tuple[int, int], size: float) -> None:
    """Bright letters with a dark edge, their lower left corner `at` (x, y), in the height of 22 px times `size`."""
    import cv2

    thick = max(1, round(2 * size))
    for value, extra in ((0, 2 * thick), (255, 0)):
        cv2.putText(luma, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, value, thick + extra, cv2.LINE_AA)


def _grey(kernel: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """A kernel as a picture, its highest value white, the root of the rest, so that faint paths are seen."""
    import cv2

    picture = np.sqrt(np.clip(kernel, 0, None) / max(float(kernel.max()), 1e-9)) * 255
    scaled = cv2.resize(picture, (side, side), interpolation=cv2.INTER_NEAREST)
    return scaled.astype(np.uint8)


def _inset(luma: NDArray[np.uint8], picture: NDArray[np.uint8], at: tuple[int, int]) -> None:
    """The part of a small picture that lies inside the frame."""
    x, y = (
        int(np.clip(a, 0, max(n - s, 0))) for a, n, s in zip(at, luma.shape[::-1], picture.shape[::-1], strict=True)
    )
    part = picture[: luma.shape[0] - y, : luma.shape[1] - x]
    luma[y : y + part.shape[0], x : x + part.shape[1]] = part
