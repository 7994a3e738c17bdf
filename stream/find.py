"""The stage that finds faces in frames, follows them, and cuts their crops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.faces import align
from stream.faces.finder import Finder, tiles
from stream.faces.tracker import SAME, Tracker, overlap
from stream.frame import Crop, Face, Found, Frame, Packet, Rect, Track
from stream.media.color import align_rect, read_rgb
from stream.stats import Stats

LOOK = 2.0  # side of the square around a face that is looked at again, in widths of its box
CUT = 0.11  # mean difference of two frames' luma, of its range, from which they are two scenes


class FaceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Table [faces]."""

    finder: str
    min_size_px: int
    max_yaw_deg: float
    max_gap_frames: int
    look_every: int


def tile_side(min_size_px: int) -> int:
    """Tiles on which the full-range detector, at 192 px inside, finds a face of that width: twelve faces wide."""
    return 12 * min_size_px


class FaceFinding:
    """Frames in, frames with crops out."""

    def __init__(self, finder: Finder, settings: FaceSettings, margin: int, stats: Stats) -> None:
        self._finder, self._settings, self._margin, self._stats = finder, settings, margin, stats
        self._tracker = Tracker(settings.max_gap_frames)
        self._signature: NDArray[np.float32] | None = None
        self._time: Fraction | None = None
        self._tile = 0

    def run(self, items: Iterable[Frame | Packet]) -> Iterator[Found | Packet]:
        """The stage: packets pass, order is kept. Faces are looked for in every `look_every`-th frame and in the first
        of a scene; between two looks they move in a straight line."""
        waiting: list[Frame | Packet] = []
        frames = 0
        for item in items:
            if isinstance(item, Frame):
                new_scene = self._is_new_scene(item)
                if new_scene:
                    yield from self._advance(waiting, False)
                    waiting, frames = [], 0
                waiting.append(item)
                frames += 1
                if new_scene or frames == self._settings.look_every:
                    yield from self._advance(waiting, new_scene)
                    waiting, frames = [], 0
            elif waiting:
                waiting.append(item)
            else:
                yield item
        yield from self._advance(waiting, False)

    def _advance(self, waiting: list[Frame | Packet], new_scene: bool) -> Iterator[Found | Packet]:
        """Look at the last of the waiting frames and hand on all of them."""
        frames = [item for item in waiting if isinstance(item, Frame)]
        if not frames:
            yield from ()
            return
        with self._stats.timed("find"):
            if new_scene:
                self._tracker.reset()
            seen = [(t, self._again(frames[-1], t)) for t in self._tracker.tracks]
        start, end = self._time, frames[-1].pts * frames[-1].time_base
        for item in waiting:
            if isinstance(item, Packet):
                yield item
                continue
            with self._stats.timed("find"):
                now = item.pts * item.time_base
                share = float((now - start) / (end - start)) if start is not None and end > start else 1.0
                for track, face in seen:
                    moved = between(track.face, face, share) if face is not None else None
                    self._tracker.seen(track.id, moved, 0.0 if self._time is None else float(now - self._time))
                self._time = now
                if item is frames[-1]:
                    self._search(item, everywhere=new_scene)
                    self._tracker.prune()
                found = Found(item, self._crops(item))
            yield found

    def _crops(self, frame: Frame) -> tuple[Crop, ...]:
        crops = []
        for track in self._tracker.tracks:
            why = self._why_not(track)
            if why is not None:
                self._stats.passed_over[why] += 1
                continue
            matrix = align.similarity(track.landmarks)
            crops.append(Crop(track, matrix, cut_crop(frame, matrix, self._margin)))
        return tuple(crops)

    def _why_not(self, track: Track) -> str | None:
        if track.face.width_px < self._settings.min_size_px:
            return "too small"
        return "turned away" if track.face.yaw > self._settings.max_yaw_deg else None

    def _search(self, frame: Frame, everywhere: bool) -> None:
        """Start tracks for the faces of the next tile, or of all."""
        grid = tiles(frame.width, frame.height, tile_side(self._settings.min_size_px))
        self._tile = (self._tile + 1) % len(grid)
        for rect in grid if everywhere else [grid[self._tile]]:
            view = View(frame, rect, self._finder.side_px)
            for row in self._finder.search(view.image):
                box = view.box_to_frame(row[:4])
                if any(overlap(box, t.face.box) > SAME for t in self._tracker.tracks):
                    continue
                face = self._look(frame, (box[:2] + box[2:]) / 2, 1.8 * float(box[2] - box[0]))
                if face is not None and self._tracker.add(face):
                    self._stats.tracks += 1

    def _is_new_scene(self, frame: Frame) -> bool:
        luma = frame.planes[0]
        step = max(1, min(luma.shape) // 32)
        signature = luma[step // 2 :: step, step // 2 :: step].astype(np.float32) / (2**frame.color.depth - 1)
        before, self._signature = self._signature, signature
        return before is None or before.shape != signature.shape or float(np.abs(signature - before).mean()) > CUT

    def _again(self, frame: Frame, track: Track) -> Face | None:
        box = track.face.box
        side = LOOK * float(max(box[2:] - box[:2]))
        face = self._look(frame, (box[:2] + box[2:]) / 2, side)
        return face if face is not None and overlap(face.box, box) > 0.1 else None

    def _look(self, frame: Frame, centre: NDArray[np.float64], side: float) -> Face | None:
        half = max(round(side / 2), 8)
        x, y = round(float(centre[0])), round(float(centre[1]))
        view = View(frame, (x - half, y - half, x + half, y + half), self._finder.side_px)
        face = self._finder.look(view.image)
        if face is None:
            return None
        return Face(view.box_to_frame(face.box), view.to_frame(face.landmarks), face.score, face.yaw)


def between(a: Face, b: Face, share: float) -> Face:
    """The face that is `share` of the way from a to b."""
    return Face(
        a.box + (b.box - a.box) * share,
        a.landmarks + (b.landmarks - a.landmarks) * share,
        b.score,
        a.yaw + (b.yaw - a.yaw) * share,
    )


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
        # Where the frame's part lies in the square, in px of the picture.
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

    def box_to_frame(self, box: NDArray[np.float64]) -> NDArray[np.float64]:
        """A box (4,) of the upright picture in px of the frame."""
        corners = self.to_frame(box.reshape(2, 2))
        return np.concatenate([corners.min(0), corners.max(0)])


def cut_crop(frame: Frame, matrix: NDArray[np.float64], margin: int) -> NDArray[np.uint8]:
    """The crop that `matrix` (frame px to crop px) cuts out, (112 + 2 margin, 96 + 2 margin, 3) RGB."""
    x0, y0, x1, y1 = crop_rect(frame, matrix, margin)
    # A face much larger than the crop is read at a half, a quarter, ...: nothing aliases and little is converted.
    less = 2 ** max(0, int(np.log2(1 / align.scale_of(matrix))))
    unit = 2 * less
    width, height = max((x1 - x0) // unit, 1) * 2, max((y1 - y0) // unit, 1) * 2
    region = read_rgb(frame, (x0, y0, min(x0 + width * less, x1), min(y0 + height * less, y1)), (width, height))
    to_frame = np.array([[less, 0.0, x0 + (less - 1) / 2], [0.0, less, y0 + (less - 1) / 2], [0.0, 0.0, 1.0]])
    return align.warp(region, matrix @ to_frame, margin)


def crop_rect(frame: Frame, matrix: NDArray[np.float64], margin: int) -> Rect:
    """The smallest rectangle of the frame that holds a crop, with a pixel or two to interpolate from."""
    points = align.apply(align.inverse(matrix), align.corners(margin))
    low, high = np.floor(points.min(0)).astype(int) - 2, np.ceil(points.max(0)).astype(int) + 3
    x0, x1 = np.clip([low[0], high[0]], [0, 2], [frame.width - 2, frame.width])
    y0, y1 = np.clip([low[1], high[1]], [0, 2], [frame.height - 2, frame.height])
    return align_rect((int(x0), int(y0), int(x1), int(y1)), frame)
