"""The values that move through the pipeline. Frozen; arrays are read-only once they are inside."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]
Plane = NDArray[np.uint8] | NDArray[np.uint16]
Rect = tuple[int, int, int, int]  # x0, y0, x1, y1 in px of the frame, x1 and y1 outside


@dataclass(frozen=True, slots=True)
class Color:
    """How the numbers in the planes are meant."""

    pixel_format: str  # FFmpeg's name of the planes' layout, such as yuv420p10le
    family: Literal["yuv", "gbr", "gray"]
    depth: int  # bits a sample
    shift: tuple[int, int]  # log2 of the chroma subsampling, horizontal and vertical
    luma: tuple[float, float]  # weights of red and blue in luma (kr, kb), from the matrix
    full_range: bool
    tags: tuple[int, int, int, int]  # range, matrix, primaries, transfer, as the source coded them
    sample_aspect_ratio: Fraction | None
    rotation: int  # degrees counter-clockwise that a player turns the picture: 0, 90, 180, 270


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded picture and its time: one value, so that no pixel gets another's time."""

    index: int  # order of reading in this run, from 0
    pts: int  # in units of time_base, from the container, never from a frame rate
    duration: int  # in units of time_base; 0 if the container does not say
    time_base: Fraction  # seconds a unit
    planes: tuple[Plane, ...]  # (H, W) each, as decoded, in the source's own layout
    color: Color
    arrived: float = 0.0  # monotonic seconds at which it was decoded, in live use

    @property
    def height(self) -> int:
        """Rows of the coded picture, before any rotation."""
        return int(self.planes[0].shape[0])

    @property
    def width(self) -> int:
        """Columns of the coded picture, before any rotation."""
        return int(self.planes[0].shape[1])

    def is_laid_out_as(self, other: Frame) -> bool:
        """Whether samples at the same place of both mean the same."""
        shapes = ([plane.shape for plane in frame.planes] for frame in (self, other))
        return self.color == other.color and next(shapes) == next(shapes)


MOST_WAITING = 1000  # packets and frames that a stage keeps back at most: sound may go on where the pictures end


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet of a stream that is copied (sound, subtitles, data), on its way between the frames."""

    stream: int  # index of its stream in the source
    native: Any  # the media library's own packet; only `stream.media` looks inside


@dataclass(frozen=True, slots=True)
class Repeat(Packet):
    """A `Frame` that shows the one before once more: it passes the stages as packets do."""


@dataclass(frozen=True, slots=True)
class Face:
    """A face in a picture."""

    box: NDArray[np.float64]  # (4,) x0 y0 x1 y1 in px
    landmarks: NDArray[np.float64]  # (5, 2) px: eyes, nose tip, mouth corners, image-left first
    score: float  # 0..1
    yaw: float = 0.0  # degrees that the head is turned away from the camera, either way
    is_restored: bool = False  # seen in what the network made of it, not in the picture itself

    @property
    def width_px(self) -> float:
        """Width of the box."""
        return float(self.box[2] - self.box[0])


@dataclass(frozen=True, slots=True)
class Track:
    """A face through time."""

    id: int  # never used again in a run
    face: Face  # as found, or carried on where `lost` is not 0
    landmarks: NDArray[np.float64]  # (5, 2) px, smoothed over time: what the crop is cut by, at first
    age: int  # frames since it was first seen
    lost: int  # frames since it was last seen
    shown: float = 1.0  # 0..1: rises where a face appears within a scene, falls where it is not seen


@dataclass(frozen=True, slots=True)
class Crop:
    """A face cut out of a frame for the engine."""

    track: Track
    matrix: NDArray[np.float64]  # (2, 3), frame px to crop px (without margin)
    image: NDArray[np.uint8]  # (112 + 2 margin, 96 + 2 margin, 3) RGB

    def inner(self, margin: int) -> NDArray[np.uint8]:
        """Without that margin, (112, 96, 3) RGB."""
        return self.image[margin : self.image.shape[0] - margin, margin : self.image.shape[1] - margin]


class Motion(NamedTuple):
    """One face in one frame."""

    spread_px: float  # RMS distance of the path from its centre, in px of the crop: what restoring depends on
    length_px: float  # of a straight path that spreads as far along the main direction, in px of the frame
    direction_deg: float  # of that, 0 along the rows, counter-clockwise as seen, -90 to 90


class Fit(NamedTuple):
    """How a face was smeared, as what other frames have shown of it tells."""

    kernel: NDArray[np.float32]  # (33, 33) of sum 1, its centre of mass in its middle
    off: NDArray[np.float64]  # px of the crop, right and down, of that middle from where they have shown the face,
    back: NDArray[np.float64]  # and from that middle to where the face is
    like: float  # mean likeness of the crop and the known face once that smears it, 0 to 1


class Sight(NamedTuple):
    """A face that hardly moved."""

    frame: Frame
    patch: Patch


class Detail(NamedTuple):
    """What is fine of a face, as sharp frames show it, at n times the crop's resolution: about the frame's own."""

    picture: Picture  # (112 n, 96 n, 3), of 255, each pixel times
    weight: Picture  # (112 n, 96 n), 0 to 1: how far it is believed


@dataclass(frozen=True, slots=True)
class Patch:
    """What the engine made of a crop."""

    crop: Crop
    restored: NDArray[np.uint8] | Picture  # (112, 96, 3) RGB, of 255; not rounded once neighbours count in it
    strength: float  # 0..1, how much of the change is pasted
    kernel: NDArray[np.float32] | None = None  # (33, 33) in px of the crop: what smeared it, where the model tells
    motion: Motion | None = None  # the same in figures
    fit: Fit | None = None  # how frames on one side of this one say that the face was smeared
    is_refitted: bool = False  # the kernel is such a fit, not the network's guess
    sights: tuple[Sight, ...] = ()  # of the same face, before and after, where this one is smeared
    detail: Detail | None = None  # in place of what is fine of the restored face

    @property
    def given(self) -> NDArray[np.uint8]:
        """The crop as it came, without its margin, (112, 96, 3) RGB."""
        return self.crop.inner((self.crop.image.shape[0] - self.restored.shape[0]) // 2)

    def told(self) -> dict[str, Any]:
        """Track, points, motion and strength, rounded, for JSON."""
        track = self.crop.track
        told: dict[str, Any] = {
            "track": track.id,
            "box": [round(float(v), 1) for v in track.face.box],
            "points": [[round(float(v), 2) for v in point] for point in track.landmarks],
            "yaw_deg": round(track.face.yaw, 1),
            "lost_frames": track.lost,
            "strength": round(self.strength, 3),
        }
        if self.motion is not None:
            told["motion_px"] = round(self.motion.length_px, 2)
            told["motion_deg"] = round(self.motion.direction_deg, 1)
        return told


@dataclass(frozen=True, slots=True)
class Found:
    """A frame with its crops."""

    frame: Frame
    crops: tuple[Crop, ...]
    left: tuple[str, ...] = ()  # why other faces in it are passed over, one by one


class Seen(NamedTuple):
    """What is known of a face, in px of a crop."""

    picture: Picture  # (112, 96, 3) RGB, of 255
    certainty: Picture  # (112, 96, 1)


@dataclass(frozen=True, slots=True)
class Mended:
    """A frame with its restored patches."""

    frame: Frame
    patches: tuple[Patch, ...]
    earlier: tuple[Seen | None, ...] = ()  # what the frames before tell of each; () where that is not asked
    left: tuple[str, ...] = ()  # why other faces in it stay as they were, one by one
