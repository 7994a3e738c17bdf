"""What is shown while there is no picture: the last one, darkened, and since when."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from stream.annotate import write_text
from stream.frame import Color, Frame

BLANK = (1280, 720)  # until the source has told its size


def slate(frame: Frame, text: str) -> Frame:
    """The frame at a quarter of its light, with a line of text in its middle."""
    planes: list[Any] = []
    for index, plane in enumerate(frame.planes):
        middle = 1 << (frame.color.depth - 1) if frame.color.family == "yuv" and index in (1, 2) else 0
        planes.append(((plane.astype(np.int32) - middle) // 4 + middle).astype(plane.dtype))
    more = frame.color.depth - 8
    luma = (planes[0] >> more).astype(np.uint8)  # OpenCV draws on eight bits
    write_text(luma, text, (luma.shape[1] // 20, luma.shape[0] // 2), luma.shape[1] / 1000)
    planes[0] = luma.astype(planes[0].dtype) << more
    for plane in planes:
        plane.flags.writeable = False
    return replace(frame, planes=tuple(planes))


def blank() -> Frame:
    """A grey picture of the usual size."""
    width, height = BLANK
    planes = tuple(
        np.full((h, w), value, np.uint8)
        for h, w, value in ((height, width, 96), (height // 2, width // 2, 128), (height // 2, width // 2, 128))
    )
    color = Color("yuv420p", "yuv", 8, (1, 1), (0.2126, 0.0722), False, (1, 1, 1, 1), None, 0)
    return Frame(0, 0, 0, Fraction(1, 90000), planes, color)
