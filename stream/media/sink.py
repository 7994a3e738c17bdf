"""A file written beside its source: video encoded anew, all else copied, under a temporary name until it is whole."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.error
import numpy as np

from stream.errors import OutputError, UsageError
from stream.frame import Frame, Packet
from stream.media.decoded import reason
from stream.media.encode import PRESETS, EncoderSettings, encoder_options, picture_of, pixel_format
from stream.media.jpeg import described
from stream.media.source import SourceInfo

NOTE = "Faces restored by a neural network: a plausible guess, never evidence of identity."

# The encoder that keeps a codec; anything else becomes H.264.
_ENCODERS = {
    "hevc": "libx265",
    "vp8": "libvpx-vp9",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "libdav1d": "libsvtav1",
    "ffv1": "ffv1",
    "prores": "prores_ks",
}
_STILLS = {
    ".png": "png",
    ".jpg": "mjpeg",
    ".jpeg": "mjpeg",
    ".webp": "libwebp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".bmp": "bmp",
}


_TRANSPORT = (".ts", ".m2ts", ".mts")


class FileSink:
    """Write `Frame`s and `Packet`s, then `commit`. A context manager that leaves nothing half done."""

    def __init__(self, path: Path, source: SourceInfo, settings: EncoderSettings, overwrite: bool) -> None:
        """Prepare to write `path`. Nothing that exists is touched before `commit`.

        Raises:
            OutputError: it exists, or its folder cannot be written.
            UsageError: no such encoder, or none for this suffix.
        """
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists; --overwrite replaces it")
        if path.exists() and path.samefile(source.path):
            raise OutputError(f"{path} is the input itself; give another output")
        self.path, self._overwrite, self._source, self._settings = path, overwrite, source, settings
        self._encoder = encoder_for(path, source, settings)
        self._part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
        options = {} if source.still else muxer_options(path, source)
        try:
            # av.open makes the file only with its header: make it now, so that a missing permission is told at once.
            self._part.touch(exist_ok=False)
            self._container = av.open(
                str(self._part.absolute()),
                "w",
                format="image2" if source.still else None,
                options={"update": "1"} if source.still else options,
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._part.unlink(missing_ok=True)
            raise OutputError(f"cannot write {path}: {reason(error)}") from error
        self._video: Any = None
        self._copied: dict[int, Any] = {}
        self._waiting: list[Packet] = []
        self.frames = 0
        self.notes: list[str] = []

    def write(self, item: Frame | Packet) -> None:
        """Encode a frame or copy a packet.

        Raises:
            OutputError: the disk is full, or the encoder or container refuses.
        """
        try:
            if isinstance(item, Frame):
                if self._video is None:
                    self._open(item)
                self._container.mux(self._video.encode(self._picture(item)))
                self.frames += 1
            elif self._video is None:
                self._waiting.append(item)
            else:
                self._copy(item)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"cannot write {self.path}: {reason(error)}") from error

    def commit(self, partial: bool = False) -> Path:
        """Finish the file and give it its name; `<stem>.partial<suffix>` where it was cut short.

        Raises:
            OutputError: see `write`.
        """
        taken = self.path.exists() and not self._overwrite  # it has come into being meanwhile
        path = self._partial() if partial or taken else self.path
        try:
            if self._video is not None:
                self._container.mux(self._video.encode(None))
            self._container.close()
            if self._source.still and self._encoder == "mjpeg":
                self._describe_picture()
            self._part.replace(path)
        except (av.error.FFmpegError, OSError) as error:
            raise OutputError(f"cannot write {path}: {reason(error)}") from error
        if taken and not partial:
            raise OutputError(f"{self.path} has come into being meanwhile; the result is in {path}")
        return path

    def _partial(self) -> Path:
        """A free name for a file that was cut short."""
        names = (f"{self.path.stem}.partial{'' if n == 1 else f'-{n}'}{self.path.suffix}" for n in count(1))
        return next(path for path in map(self.path.with_name, names) if not path.exists())

    def _open(self, first: Frame) -> None:
        """Streams, metadata and chapters; the first frame says what the picture is."""
        source, color = self._source, first.color
        video: Any = self._container.add_stream(self._encoder, rate=source.rate or Fraction(25))
        context = video.codec_context
        context.width, context.height = self._size(first)
        context.pix_fmt = pixel_format(self._encoder, color, context.width % 2 or context.height % 2, source.still)
        if context.pix_fmt != color.pixel_format and not context.pix_fmt.startswith(("rgb", "bgr", "gray")):
            self.notes.append(
                f"{self._encoder} cannot hold {color.pixel_format}: the picture is converted to {context.pix_fmt}"
            )
        context.time_base = video.time_base = source.time_base
        context.thread_count = 0
        if color.sample_aspect_ratio:
            context.sample_aspect_ratio = color.sample_aspect_ratio
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = color.tags
        if self._encoder == "mjpeg":
            context.color_range = 2
        context.options = encoder_options(self._encoder, self._settings) | self._order(first)
        self._video = video
        if source.still:
            return
        if color.rotation:
            video.set_display_rotation(color.rotation)
        video.metadata.update(source.video.metadata)
        video.disposition = source.video.disposition
        for template in source.copied:
            if not self._holds(template):
                self.notes.append(
                    f"stream {template.index} ({template.type}) does not fit into {self.path.suffix}: left out"
                )
                continue
            try:
                copied = self._container.add_stream_from_template(template, opaque=True)
            except (av.error.FFmpegError, ValueError) as error:
                self.notes.append(
                    f"stream {template.index} ({template.type}) does not fit into {self.path.suffix}: "
                    f"left out ({reason(error)})"
                )
                continue
            copied.metadata.update(template.metadata)
            copied.disposition = template.disposition
            copied.time_base = template.time_base
            self._copied[template.index] = copied
        self._describe()
        self._container.start_encoding()
        for packet in self._waiting:
            self._copy(packet)
        self._waiting.clear()

    def _holds(self, template: Any) -> bool:
        """Whether the container takes a copied stream: the muxers find out only when it is too late to leave it out."""
        suffix = self.path.suffix.lower()
        if template.codec_context is None:
            return template.type == "data" and suffix in _TRANSPORT
        if template.type == "data":
            return suffix in _TRANSPORT
        if template.type == "subtitle" and suffix in _TRANSPORT:
            return template.codec_context.name.startswith("dvb")
        attached = template.disposition & av.stream.Disposition.attached_pic
        return not attached or suffix in (".mp4", ".m4v", ".mov", ".m4a")

    def _describe(self) -> None:
        source = self._source
        drop = ("encoder", "major_brand", "minor_version", "compatible_brands")
        metadata = {k: v for k, v in source.native.metadata.items() if k.lower() not in drop}
        said = metadata.get("comment")
        self._container.metadata.update(
            {**metadata, "comment": f"{said} {NOTE}" if said and NOTE not in said else NOTE}
        )
        for stream in source.native.streams.attachments:  # fonts of subtitles
            if self.path.suffix.lower() == ".mkv" and stream.data:
                self._container.add_attachment(stream.name or "attachment", stream.mimetype or "", stream.data)
            else:
                self.notes.append(f"the attachment {stream.name} does not fit into {self.path.suffix}: left out")
        chapters: list[Any] = []
        for chapter in source.native.chapters():
            base = chapter["time_base"]
            start, end = chapter["start"] * base - source.begin, chapter["end"] * base - source.begin
            if end > 0 and (source.end is None or start < source.end - source.begin):
                chapters.append({**chapter, "start": int(max(start, Fraction(0)) / base), "end": int(end / base)})
        if chapters:
            self._container.set_chapters(chapters)

    def _describe_picture(self) -> None:
        source = b""
        with suppress(OSError):  # it may have gone: the picture is there
            source = self._source.path.read_bytes()
        context = self._video.codec_context
        self._part.write_bytes(described(self._part.read_bytes(), source, NOTE, (context.width, context.height)))

    def _copy(self, item: Packet) -> None:
        stream = self._copied.get(item.stream)
        if stream is not None:
            item.native.stream = stream
            self._container.mux_one(item.native)

    def _order(self, first: Frame) -> dict[str, str]:
        """No B-frames where the container cannot time them: their dts would lie before its beginning."""
        suffix = self.path.suffix.lower()
        late = first.pts * first.time_base >= Fraction(1, 2)
        if suffix in (".mp4", ".m4v", ".mov", ".mkv", ".webm") or (suffix in _TRANSPORT and late):
            return {}
        if self._encoder == "libx265":
            return {"x265-params": "log-level=error:bframes=0"}
        return {"bf": "0"} if self._encoder == "libx264" else {}

    def _size(self, frame: Frame) -> tuple[int, int]:
        turned = self._source.still and frame.color.rotation % 180
        return (frame.height, frame.width) if turned else (frame.width, frame.height)

    def _picture(self, frame: Frame) -> av.VideoFrame:
        """The frame in the encoder's memory and format."""
        if self._source.still and frame.color.rotation:  # a still has no display matrix to carry: turn the picture
            frame = replace(frame, planes=tuple(np.rot90(p, frame.color.rotation // 90) for p in frame.planes))
        return picture_of(frame, self._video.codec_context.pix_fmt, self._encoder == "mjpeg")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the temporary file if it was not committed."""
        if not self._part.exists():
            return
        with suppress(av.error.FFmpegError, OSError, ValueError):  # the fault that brought us here is the one to tell
            self._container.close()
        self._part.unlink(missing_ok=True)


def encoder_for(path: Path, source: SourceInfo, settings: EncoderSettings) -> str:
    """The encoder asked for, or the one that fits the output's suffix and the source's codec.

    Raises:
        UsageError: it does not exist here, or the suffix is no picture or video format.
    """
    suffix = path.suffix.lower()
    if source.still:
        if suffix not in _STILLS:
            raise UsageError(f"cannot write a picture as '{suffix}'; use one of {', '.join(_STILLS)}")
        return _STILLS[suffix]
    if settings.name in ("auto", "libx264", "libx265") and settings.preset not in PRESETS:
        raise UsageError(f"unknown preset '{settings.preset}'; there are {', '.join(PRESETS)}")
    name = settings.name
    if name == "auto":
        name = "libvpx-vp9" if suffix == ".webm" else _ENCODERS.get(source.codec, "libx264")
    try:
        if av.Codec(name, "w").type != "video":
            raise UsageError(f"'{name}' is no video encoder")
    except (av.error.FFmpegError, ValueError) as error:
        raise UsageError(
            f"unknown encoder '{name}'; libx264, libx265, libsvtav1, libvpx-vp9 and ffv1 are there"
        ) from error
    return name


def muxer_options(path: Path, source: SourceInfo) -> dict[str, str]:
    """What a container needs so that every time stamp comes out as it went in."""
    if path.suffix.lower() in (".mp4", ".m4v", ".mov", ".m4a", ".3gp"):
        # An edit list counts in the movie's time scale: the video's own makes a late start exact.
        return {"movie_timescale": str(source.time_base.denominator), "movflags": "+use_metadata_tags"}
    if path.suffix.lower() in (".ts", ".m2ts", ".mts"):
        return {"mpegts_copyts": "1"}
    return {}
