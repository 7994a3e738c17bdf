"""The stage that finds faces in frames, follows them, and cuts their crops."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Self

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from engine import Engine
from stream.faces import align
from stream.faces.finder import Finder, tiles
from stream.faces.flow import follow
from stream.faces.second_look import CLEAR, SecondLook
from stream.faces.tracker import SAME, Tracker, overlap
from stream.frame import MOST_WAITING, Crop, Face, Found, Frame, Packet, Rect, Repeat, Track
from stream.region import View, cut_crop, thumbnail
from stream.stats import Stats

LOOK = 2.0  # side of the square around a face that is looked at again, in widths of its box
# Score from which what a search found is a face: if its restoration shows one, if one is seen clearly, if both.
SURE, LIKELY, DOUBTFUL = 0.6, 0.4, 0.25
# The points of a face beside the middle of the box in which a search finds it, in widths of that.
IN_BOX = (align.TEMPLATE - align.TEMPLATE.mean(0)) * 0.0103 + (0.014, 0.03)
EASY = 5 / 3  # times as long may it be until the next look where every face was seen well, in the picture itself
AT_ONCE = 2  # searches at most go over one frame: of the whole picture, and of a tile
HOLD = 1.2  # times larger must another face be to become the largest
CUT = 0.5  # mean difference of two frames' luma beside its own spread, from which they are two scenes, dark ones too


class FaceSettings(Struct, frozen=True, kw_only=True):
    """Table [faces]."""

    finder: str
    finder_model: str
    min_size_px: Annotated[int, Meta(ge=16)]
    max_yaw_deg: Annotated[float, Meta(ge=0, le=180)]
    max_gap_frames: Annotated[int, Meta(ge=0)]
    look_every: Annotated[int, Meta(ge=1, le=30)]
    look_ahead: bool
    search_every: Annotated[int, Meta(ge=1, le=30)]
    second_look: bool
    choose: str
    ignore: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what the types cannot, as msgspec does: by a ValueError."""
        if not re.fullmatch(r"all|largest|[1-9]\d*(,[1-9]\d*)*", self.choose):
            raise ValueError(f"faces are 'all', 'largest' or numbers of tracks such as '1,4', not '{self.choose}'")
        for part in self.ignore:
            if not re.fullmatch(r"\d+,\d+,[1-9]\d*,[1-9]\d*", part):
                raise ValueError(f"a part to ignore is 'x,y,width,height' in px, not '{part}'")
        if self.look_every > self.max_gap_frames + 1 and self.max_gap_frames:
            raise ValueError("look_every must not exceed max_gap_frames: one missed look would end a track")


def tile_side(min_size_px: int, smeared: bool = False) -> int:
    """Tiles on which the full-range detector, at 192 px inside, finds a face of that width: twelve faces wide, or eight
    for those that are heavily smeared."""
    return (8 if smeared else 12) * min_size_px


class FaceFinding:
    """Frames in, frames with crops out."""

    def __init__(
        self, finder: Finder, settings: FaceSettings, margin: int, stats: Stats, ids: Iterator[int] | None = None
    ) -> None:
        """Crops have `margin` px of surroundings. For `ids` see `Tracker`."""
        self._finder, self._settings, self._margin, self._stats = finder, settings, margin, stats
        self._restores = isinstance(finder, SecondLook)
        self._tracker = Tracker(settings.max_gap_frames, ids)
        self._signature: NDArray[np.float32] | None = None
        self._last: Frame | None = None
        self._time: Fraction | None = None
        self._turn = 0
        self._unsearched = 0  # frames since the last search,
        self._unlooked = 0  # and since the last look
        self._every = settings.look_every  # so many are from that to the next
        self._choose = chooser(settings.choose)
        self._ignored = [tuple(int(number) for number in part.split(",")) for part in settings.ignore]

    @classmethod
    def for_engine(
        cls, finder: Finder, settings: FaceSettings, engine: Engine, stats: Stats, ids: Iterator[int] | None = None
    ) -> Self:
        """Crops as `engine` wants them, found with its help where `second_look` is set and it tells the motion."""
        seer = SecondLook(finder, engine) if settings.second_look and engine.spec.kernels else finder
        return cls(seer, settings, engine.spec.margin, stats, ids)

    def run(self, items: Iterable[Frame | Packet]) -> Iterator[Found | Packet]:
        """The stage: packets pass, order is kept. Faces are looked at in every `look_every`-th frame, less often while
        they are seen well, and searched for in the first of a scene; between two looks they move in a straight line or,
        where no frame may wait for a later one, as the picture does."""
        waiting: list[Frame | Packet] = []
        for item in items:
            if isinstance(item, Frame):
                new_scene = self._is_new_scene(item)
                if new_scene:
                    yield from self._advance(waiting, False)
                    waiting = []
                waiting.append(item)
                self._unlooked += 1
                look = new_scene or self._unlooked >= self._every
                if look or not self._settings.look_ahead:
                    yield from self._advance(waiting, new_scene, look)
                    waiting = []
            elif waiting:
                waiting.append(item)
                if len(waiting) >= MOST_WAITING:
                    yield from self._advance(waiting, False)
                    waiting = []
            else:
                yield item
            if isinstance(item, Repeat):  # looks and searches keep their time
                self._unlooked += 1
                self._unsearched += 1
        yield from self._advance(waiting, False)

    def _advance(self, waiting: list[Frame | Packet], new_scene: bool, look: bool = True) -> Iterator[Found | Packet]:
        """Look at the last of the waiting frames, or see where the picture went, and hand on all of them."""
        if not waiting:
            return
        frames = [item for item in waiting if isinstance(item, Frame)]
        with self._stats.timed("find"):
            if new_scene:
                self._tracker.reset()
            if look:
                self._unlooked = 0
            seen = [(track, *self._where(track, frames[-1], look)) for track in self._tracker.tracks]
            if look:
                self._every = self._until_next([face if held else None for _, face, held in seen])
        start, end = self._time, frames[-1].pts * frames[-1].time_base
        for item in waiting:
            if isinstance(item, Packet):
                yield item
                continue
            with self._stats.timed("find"):
                now = item.pts * item.time_base
                share = float((now - start) / (end - start)) if start is not None and end > start else 1.0
                for track, face, held in seen:
                    moved = between(track.face, face, share)
                    self._tracker.seen(track.id, moved, 0.0 if self._time is None else float(now - self._time), held)
                self._time = now
                self._unsearched += 1
                if item is frames[-1]:
                    self._search_if_due(item, new_scene)
                    self._tracker.prune()
            self._last = item
            with self._stats.timed("align"):
                found = self._cut(item)
            yield found

    def _until_next(self, seen: list[Face | None]) -> int:
        """Frames from this look to the next: more where frames wait and all faces are seen well, in the picture itself.
        Points of smeared ones are always a little off, so they are looked at more often, as those that were missed."""
        often, longest = self._settings.look_every, self._settings.max_gap_frames
        well = bool(seen) and all(face is not None and face.score >= 1 and not face.is_restored for face in seen)
        eased = well and self._restores and self._settings.look_ahead
        return max(often, min(int(often * EASY), longest)) if eased else often

    def _where(self, track: Track, frame: Frame, look: bool) -> tuple[Face, bool]:
        """Where a track's face is now, and whether it is still held: seen, or not missed yet since the last look."""
        face = self._again(frame, track) if look else None
        if face is not None:
            return face, True
        face = follow(self._last, frame, track.face) if self._last is not None else None
        return face or track.face, not look and track.lost == 0

    def _cut(self, frame: Frame) -> Found:
        crops, left = [], []
        reasons = {track.id: self._why_not(track) for track in self._tracker.tracks}
        chosen = self._choose([track for track in self._tracker.tracks if reasons[track.id] is None])
        for track in self._tracker.tracks:
            why = reasons[track.id] or (None if track.id in chosen else "not chosen")
            if why is not None:
                left.append(why)
                continue
            matrix = align.similarity(track.landmarks)
            crops.append(Crop(track, matrix, cut_crop(frame, matrix, self._margin)))
        return Found(frame, tuple(crops), tuple(left))

    def _why_not(self, track: Track) -> str | None:
        if track.face.width_px < self._settings.min_size_px:
            return "too small"
        x, y = (track.face.box[:2] + track.face.box[2:]) / 2
        if any(left <= x < left + width and top <= y < top + height for left, top, width, height in self._ignored):
            return "in an ignored part"
        return "turned away" if track.face.yaw > self._settings.max_yaw_deg else None

    def _search_if_due(self, frame: Frame, new_scene: bool) -> None:
        """Start tracks for the faces of a scene's first frame, or of what is next to be searched."""
        size, least = (frame.width, frame.height), self._settings.min_size_px
        whole, *small = tiles(*size, tile_side(least))
        if new_scene:
            self._turn, self._unsearched = self._turn + 1, 0
            smaller = []
            if self._restores and self._settings.look_ahead:  # live there is no time
                smaller = [rect for rect in tiles(*size, tile_side(least, smeared=True))[1:] if rect not in small]
            self._search(frame, [whole, *small, *smaller], with_scene=True)
            return
        due, self._unsearched = divmod(self._unsearched, self._settings.search_every)
        rects = []
        for _ in range(min(due, AT_ONCE)):
            self._turn += 1
            # Every second search is for large faces in the whole picture, the others go over the tiles.
            rects.append(small[self._turn // 2 % len(small)] if small and self._turn % 2 else whole)
        self._search(frame, list(dict.fromkeys(rects)), with_scene=False)

    def _search(self, frame: Frame, rects: list[Rect], with_scene: bool) -> None:
        least = self._settings.min_size_px
        for rect in rects:
            view = View(frame, rect, self._finder.side_px)
            for row in self._finder.search(view.image):
                box = view.box_to_frame(row[:4])
                # A doubtful one is worth a closer look where it can be restored, and would be.
                if row[4] < (DOUBTFUL if self._restores and box[2] - box[0] >= least else LIKELY):
                    continue
                if any(overlap(box, t.face.box) > SAME for t in self._tracker.tracks):
                    continue
                ought = view.to_frame((row[:2] + row[2:4]) / 2 + (row[2] - row[0]) * IN_BOX)
                face = self._face_in(frame, box, float(row[4]), ought)
                if face is not None and self._tracker.add(face, with_scene):
                    self._stats.tracks += 1
                    self._every = self._settings.look_every  # it may be smeared

    def _face_in(self, frame: Frame, box: NDArray[np.float64], score: float, ought: NDArray[np.float64]) -> Face | None:
        """The face in a box that a search found with that score. Where none is seen, and there surely is one, it may be
        once it is restored where its points `ought` to be. A doubtful one has to be found from near, too."""
        middle, side = (box[:2] + box[2:]) / 2, 1.8 * float(box[2] - box[0])
        if score < LIKELY and not len(self._finder.search(self._close_up(frame, middle, side).image)):
            return None
        for points in (None, ought) if score >= SURE and self._restores else (None,):
            face = self._look(frame, middle, side, points)
            if face is None:
                continue
            clear = face.score >= CLEAR
            if (clear and score >= LIKELY) or (face.is_restored and (clear or score >= SURE)):
                return face
        return None

    def _is_new_scene(self, frame: Frame) -> bool:
        signature = thumbnail(frame)
        before, self._signature = self._signature, signature
        if before is None or self._last is None or self._last.planes[0].shape != frame.planes[0].shape:
            return True
        spread = (float(before.std()) + float(signature.std())) / 2 + 0.02
        return float(np.abs(signature - before).mean()) > CUT * spread

    def _again(self, frame: Frame, track: Track) -> Face | None:
        box = track.face.box
        side = LOOK * float(max(box[2:] - box[:2]))
        face = self._look(frame, (box[:2] + box[2:]) / 2, side, track.face.landmarks, track.id)
        return face if face is not None and face.score >= DOUBTFUL and overlap(face.box, box) > 0.1 else None

    def _look(
        self,
        frame: Frame,
        centre: NDArray[np.float64],
        side: float,
        last: NDArray[np.float64] | None = None,
        track: int = 0,
    ) -> Face | None:
        view = self._close_up(frame, centre, side)
        face = self._finder.look(view.image, None if last is None else view.from_frame(last), track)
        if face is None:
            return None
        return replace(face, box=view.box_to_frame(face.box), landmarks=view.to_frame(face.landmarks))

    def _close_up(self, frame: Frame, centre: NDArray[np.float64], side: float) -> View:
        # Even numbers are whole chroma samples: the square that is read is the one that was asked for.
        half = max(round(side / 4) * 2, 8)
        x, y = round(float(centre[0]) / 2) * 2, round(float(centre[1]) / 2) * 2
        return View(frame, (x - half, y - half, x + half, y + half), self._finder.side_px)


def chooser(which: str) -> Callable[[list[Track]], set[int]]:
    """The tracks to restore, as `FaceSettings.choose` says. The largest stays so against one that is hardly larger."""
    if which == "all":
        return lambda tracks: {track.id for track in tracks}
    if which != "largest":
        wanted = {int(number) for number in which.split(",")}
        return lambda tracks: wanted
    held: list[int] = []

    def largest(tracks: list[Track]) -> set[int]:
        best = max(tracks, key=lambda t: t.face.width_px * (HOLD if t.id in held else 1.0), default=None)
        held[:] = [] if best is None else [best.id]
        return set(held)

    return largest


def between(a: Face, b: Face, share: float) -> Face:
    """The face that is `share` of the way from a to b."""
    return Face(
        a.box + (b.box - a.box) * share,
        a.landmarks + (b.landmarks - a.landmarks) * share,
        b.score,
        a.yaw + (b.yaw - a.yaw) * share,
    )
