"""Tiny clips with every trouble that real ones have, made from a photograph."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

# Eyes, nose and mouth corners of the face in the photograph, read off the picture.
FACE = np.array([[203.2, 101.2], [246.2, 103.2], [222.9, 130.3], [201.6, 138.8], [244.3, 140.2]])


def scene(photograph: np.ndarray, width: int, height: int, at: tuple[int, int] = (0, 0)) -> np.ndarray:
    """A part of the photograph, or it in front of grey, as RGB (height, width, 3)."""
    canvas = np.full((height + 64, width + 64, 3), 96, np.uint8)
    x, y = at
    part = photograph[: height + 64 - y, : width + 64 - x]
    canvas[y : y + part.shape[0], x : x + part.shape[1]] = part
    return canvas[:height, :width]


@dataclass
class Clip:
    """How to make a clip; every field has the plainest value."""

    width: int = 320
    height: int = 240
    pts: tuple[int, ...] = tuple(range(0, 12 * 512, 512))
    time_base: Fraction = Fraction(1, 12800)
    pixel_format: str = "yuv420p"
    codec: str = "libx264"
    color_range: int = 1
    matrix: int = 1
    rotation: int = 0
    sample_aspect_ratio: Fraction | None = None
    audio: bool = False
    chapters: bool = False
    face: bool = True
    step: int = 1  # px that the picture moves
    smear: int = 1  # and is smeared by along its rows
    every: int = 1  # frames: so many show it where it is
    codec_options: tuple[tuple[str, str], ...] = (("crf", "12"), ("preset", "ultrafast"))


def make_clip(path: Path, photograph: np.ndarray, clip: Clip) -> Path:
    """Write a clip as `clip` says."""
    options = {"movie_timescale": str(clip.time_base.denominator)} if path.suffix in (".mp4", ".mov") else {}
    if path.suffix == ".ts":
        options = {"mpegts_copyts": "1"}
    with av.open(str(path), "w", options=options) as out:
        video = out.add_stream(clip.codec, rate=25, options=dict(clip.codec_options))
        context = video.codec_context
        context.width, context.height, context.pix_fmt = clip.width, clip.height, clip.pixel_format
        context.time_base = video.time_base = clip.time_base
        context.color_range, context.colorspace = clip.color_range, clip.matrix
        context.color_primaries, context.color_trc = clip.matrix, clip.matrix
        if clip.sample_aspect_ratio:
            context.sample_aspect_ratio = clip.sample_aspect_ratio
        if clip.rotation:
            video.set_display_rotation(clip.rotation)
        out.metadata["title"] = "a title"
        if clip.chapters:
            out.set_chapters(
                [
                    {"id": 1, "start": 0, "end": 240, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}},
                    {"id": 2, "start": 240, "end": 480, "time_base": Fraction(1, 1000), "metadata": {"title": "two"}},
                ]
            )
        sound = out.add_stream("aac", rate=44100) if clip.audio else None
        for number, pts in enumerate(clip.pts):
            index = number // clip.every
            upright = (clip.height, clip.width) if clip.rotation % 180 else (clip.width, clip.height)
            picture = (
                scene(photograph, *upright, (clip.step * index % 40, 0))
                if clip.face
                else np.full((upright[1], upright[0], 3), 100 + index, np.uint8)
            )
            picture = cv2.blur(np.rot90(picture, -clip.rotation // 90), (clip.smear, 1))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format=clip.pixel_format, dst_colorspace=clip.matrix, dst_color_range=clip.color_range
            )
            frame.pts, frame.time_base = pts, clip.time_base
            out.mux(video.encode(frame))
            if sound is not None and number < 10:
                tone = (np.sin(np.arange(1764) * 0.06 + number) * 8000).astype(np.int16)[None]
                chunk = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
                chunk.sample_rate, chunk.pts, chunk.time_base = 44100, number * 1764, Fraction(1, 44100)
                out.mux(sound.encode(chunk))
        out.mux(video.encode(None))
        if sound is not None:
            out.mux(sound.encode(None))
    return path


def frames_of(path: Path) -> list[av.VideoFrame]:
    """All decoded frames of the first video stream."""
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def packets_of(path: Path, kind: str) -> list[tuple[int | None, int | None, bytes]]:
    """pts, dts and bytes of all packets of the streams of a kind."""
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type == kind]
        return [(p.pts, p.dts, bytes(p)) for p in container.demux(streams) if p.size] if streams else []
