"""Decoded pictures as `Frame`s over the decoder's own memory, and the media library's faults in its own words."""

from __future__ import annotations

import errno
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np

from stream.errors import Cause, LinkError
from stream.frame import Color, Frame, Plane
from stream.media.address import Address

# kr and kb of FFmpeg's matrix numbers: 1 bt709, 4 fcc, 5 bt470bg and 6 smpte170m (bt601), 7 smpte240m, 9 and 10 bt2020.
_LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}


def frame_of(
    picture: av.VideoFrame, stream: Any, index: int, pts: int, time_base: Fraction, arrived: float = 0.0
) -> Frame:
    """A picture that `stream` decoded, at `pts` of `time_base`; only a layout that is not planar is copied."""
    layout = planar(picture.format)
    color = _color(picture, layout, stream)
    if layout != picture.format.name.replace("yuvj", "yuv"):
        picture = picture.reformat(format=layout)
    return Frame(index, pts, picture.duration or 0, time_base, planes_of(picture), color, arrived)


def _color(picture: av.VideoFrame, layout: str, stream: Any) -> Color:
    form = av.VideoFormat(layout, 16, 16)
    matrix, chroma = int(picture.colorspace), form.components
    jpeg = picture.format.name.startswith("yuvj")
    shift = (0, 0)
    if len(chroma) > 2 and not form.is_rgb:
        shift = ((16 // chroma[1].width).bit_length() - 1, (16 // chroma[1].height).bit_length() - 1)
    if matrix not in _LUMA:  # untagged: as players read it, by size
        matrix = 1 if min(picture.width, picture.height) >= 720 and not jpeg else 5
    context = stream.codec_context
    return Color(
        pixel_format=layout,
        family="gbr" if form.is_rgb else "gray" if len(chroma) < 3 else "yuv",
        depth=chroma[0].bits,
        shift=shift,
        luma=_LUMA[matrix],
        full_range=jpeg or int(picture.color_range) == 2,
        tags=(
            2 if jpeg else int(picture.color_range),
            int(picture.colorspace),
            int(picture.color_primaries),
            int(picture.color_trc),
        ),
        sample_aspect_ratio=stream.sample_aspect_ratio or context.sample_aspect_ratio or None,
        rotation=int(picture.rotation) % 360,
    )


def planar(form: av.VideoFormat) -> str:
    """The little-endian planar layout that holds all of `form`: most formats are in one already."""
    parts = form.components
    planes = {c.plane for c in parts}
    packed = len(planes) < len(parts) or form.has_palette or not (form.is_planar or len(parts) == 1)
    if not packed and not form.is_big_endian and form.name not in ("monow", "monob"):
        return form.name.replace("yuvj", "yuv")  # the same layout; that it is full range stands in the colour tags
    depth = max(c.bits for c in parts)
    alpha = any(c.is_alpha for c in parts)
    if form.is_rgb or form.has_palette:
        return ("gbrap" if alpha else "gbrp") + ("16le" if depth > 8 else "")
    if alpha and len(parts) == 2:
        return "gbrap16le" if depth > 8 else "gbrap"
    if len(parts) < 3:
        return "gray16le" if depth > 8 else "gray"
    chroma = form.components[1]
    wide, tall = chroma.width < form.width, chroma.height < form.height
    kind = "yuv420p" if wide and tall else "yuv422p" if wide else "yuv444p"
    return kind + (f"{depth}le" if depth > 8 else "")


def planes_of(picture: av.VideoFrame) -> tuple[Plane, ...]:
    """Read-only views (H, W) of a planar picture's memory; they keep it alive."""
    parts = {c.plane: c for c in picture.format.components}
    views = []
    for index, plane in enumerate(picture.planes):
        kind = np.uint8 if parts[index].bits <= 8 else np.uint16
        rows = np.frombuffer(memoryview(plane), kind).reshape(plane.height, plane.line_size // np.dtype(kind).itemsize)
        view = rows[:, : plane.width]
        view.flags.writeable = False
        views.append(view)
    return tuple(views)  # type: ignore[arg-type]  # NumPy's types do not follow the choice of dtype


def reason(error: BaseException) -> str:
    """The media library's own words for a fault, without its numbers and paths."""
    return str(getattr(error, "strerror", None) or error).splitlines()[0]


def lost(address: Address, error: BaseException) -> LinkError:
    """The media library's fault as ours, without the url."""
    causes: dict[type[BaseException], Cause] = {
        av.error.HTTPUnauthorizedError: Cause.UNAUTHORIZED,
        av.error.HTTPForbiddenError: Cause.UNAUTHORIZED,
        av.error.HTTPNotFoundError: Cause.NOT_FOUND,
        av.error.FileNotFoundError: Cause.NOT_FOUND,
        av.error.ConnectionRefusedError: Cause.REFUSED,
        av.error.TimeoutError: Cause.TIMEOUT,
        av.error.ExitError: Cause.TIMEOUT,
        av.error.DecoderNotFoundError: Cause.UNSUPPORTED,
        av.error.ProtocolNotFoundError: Cause.UNSUPPORTED,
        av.error.EOFError: Cause.ENDED,
    }
    cause = next((cause for kind, cause in causes.items() if isinstance(error, kind)), Cause.BROKEN)
    if cause is Cause.BROKEN and getattr(error, "errno", None) in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        cause = Cause.NOT_FOUND
    if isinstance(error, av.error.ProtocolNotFoundError):
        return LinkError(cause, f"{address}: the media library of this installation does not speak {address.kind}")
    said = reason(error)
    return LinkError(cause, f"{address}: {cause}" + (f" ({said})" if said.lower() != cause and said else ""))
