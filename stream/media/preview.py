"""A frame as it came and as it was sent, as one small JPEG."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np

from stream.frame import Frame
from stream.media.encode import picture_of

WIDTH = 640  # of each half, at most


def before_after(before: Frame, after: Frame) -> bytes:
    """Both halves side by side, upright, as JPEG; pixels that are not square are made so."""
    halves = [_small(frame) for frame in (before, after)]
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.hstack(halves)), format="rgb24")
    encoder: Any = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, "yuvj420p"
    encoder.time_base, encoder.options = Fraction(1, 25), {"qmin": "3", "qmax": "5"}
    packets = encoder.encode(picture.reformat(format="yuvj420p")) + encoder.encode(None)
    return b"".join(bytes(packet) for packet in packets)


def _small(frame: Frame) -> np.ndarray[Any, np.dtype[np.uint8]]:
    aspect = frame.color.sample_aspect_ratio or Fraction(1)
    scale = min(1.0, WIDTH / float(frame.width * aspect))
    size = max(round(frame.width * aspect * scale) // 2 * 2, 2), max(round(frame.height * scale) // 2 * 2, 2)
    picture = picture_of(frame, "rgb24", size=size)
    return np.rot90(picture.to_ndarray(), frame.color.rotation // 90)
