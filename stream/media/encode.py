"""Frames into an encoder: which one can hold the picture, its options, and the picture in its format."""

from __future__ import annotations

from typing import Annotated

import av
import av.error
import msgspec
import numpy as np

from stream.frame import Color, Frame

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")


class EncoderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Table [encoder]."""

    name: str
    crf: Annotated[float, msgspec.Meta(ge=0, le=63)]
    preset: str


def has_encoder(name: str) -> bool:
    """Whether the media library was built with this encoder; whether its hardware is here only a try tells."""
    try:
        av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def encoder_options(name: str, settings: EncoderSettings) -> dict[str, str]:
    """CRF and preset in an encoder's own words."""
    crf = f"{settings.crf:g}"
    if name in ("libx264", "libx265"):
        quiet = {"x265-params": "log-level=error"} if name == "libx265" else {}
        return {"crf": crf, "preset": settings.preset, **quiet}
    if name == "libsvtav1":
        return {"crf": str(round(settings.crf)), "preset": "8"}
    if name == "libvpx-vp9":
        return {"crf": str(round(settings.crf)), "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
    return {"qmin": "2", "qmax": "2"} if name == "mjpeg" else {}


def pixel_format(encoder: str, color: Color, odd: int, still: bool = False) -> str:
    """The frame's own format if the encoder has it, else the one that loses least; `odd`: a side is."""
    offered = [f.name for f in av.Codec(encoder, "w").video_formats or []]
    if odd and encoder in ("libx264", "libx265"):  # these want whole chroma samples
        offered = [name for name in offered if "444" in name or not name.startswith("yuv")]
    if still and encoder != "mjpeg" and color.family == "yuv":
        offered = [name for name in offered if not name.startswith("yuv")]  # their ranges are each codec's own
    if color.pixel_format in offered or not offered:
        return color.pixel_format
    alpha = color.pixel_format in ("gbrap", "gbrap16le") or color.pixel_format.startswith("yuva")
    wanted = {
        "gbr": ["rgba64be", "rgba", "bgra"] if alpha else ["rgb48be", "rgb48le", "rgb24", "bgr24", "bgr0"],
        "gray": ["gray16be", "gray16le", "gray"],
        "yuv": [],
    }[color.family]
    wanted = [w for w in wanted if color.depth > 8 or not ("16" in w or "48" in w or "64" in w)]
    depth = "10le" if color.depth > 8 else ""
    kinds = ["yuv420p", "yuv422p", "yuv444p"] if color.shift == (1, 1) else ["yuv444p", "yuv420p"]
    wanted += [k + depth for k in kinds] + kinds + ["rgb24", "bgra", "bgr24"]
    return next(w for w in [*wanted, offered[0]] if w in offered)


def picture_of(frame: Frame, wanted: str, jpeg: bool = False, size: tuple[int, int] | None = None) -> av.VideoFrame:
    """The frame in memory and format `wanted` of an encoder, whose range is full for a `jpeg`; scaled to `size`
    (width, height) where one is given."""
    picture = av.VideoFrame(frame.width, frame.height, frame.color.pixel_format)
    for plane, data in zip(picture.planes, frame.planes, strict=True):
        rows = np.frombuffer(memoryview(plane), data.dtype).reshape(plane.height, -1)
        rows[:, : plane.width] = data
    picture.color_range, picture.colorspace, picture.color_primaries, picture.color_trc = frame.color.tags
    full = frame.color.full_range or frame.color.family == "gbr"
    to_full = jpeg or not wanted.startswith(("yuv", "gray")) or full
    if wanted != frame.color.pixel_format or (to_full and not full) or size is not None:
        width, height = size or (frame.width, frame.height)
        picture = picture.reformat(
            width, height, format=wanted, src_color_range=2 if full else 1, dst_color_range=2 if to_full else 1
        )
    picture.pts, picture.time_base = frame.pts, frame.time_base
    picture.duration = frame.duration
    return picture
