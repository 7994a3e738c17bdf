"""What restoring does to video: smeared clips whose truth is known, through the stages of the pipeline itself.

The truth of a frame's faces is what the same finder sees in every sharp frame, unsmoothed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine import Engine, open_engine
from stream.config import RestoreSettings, load_settings
from stream.detail import enlarged, points, times_of
from stream.errors import InputError
from stream.faces.align import similarity
from stream.faces.finder import Finder, open_finder
from stream.faces.tracker import overlap
from stream.find import FaceFinding
from stream.frame import Face, Found, Frame, Packet, Repeat, Track
from stream.fuse import Fusion
from stream.media.source import FileSource
from stream.paste import mask, paste
from stream.region import cut_crop, sampled
from stream.repeats import put_back, set_aside
from stream.restore import Restoration
from stream.stats import Stats
from training.clips import smear
from training.recogniser import Recogniser

RIM_PX = 16.0  # of a crop, over which less and less counts: a measure of its own, whatever is pasted
EDGE_PX = 8  # to both sides of a crop's border, where a seam would be
MATCH = 0.3  # overlap from which a track is a true face's


@dataclass(slots=True)
class Figures:
    """One clip, smeared in one way. Lists have an item a face and frame, in the order of time by face."""

    clip: str
    kind: str
    frames: int
    faces: int = 0
    found: int = 0
    false: int = 0
    point_error: list[float] = field(default_factory=list)  # in distances of the eyes
    before_db: list[float] = field(default_factory=list)  # PSNR inside the mask, at crop scale
    after_db: list[float] = field(default_factory=list)
    own_before_db: list[float] = field(default_factory=list)  # the same at the frame's own resolution, or nearly
    own_after_db: list[float] = field(default_factory=list)
    flicker_sharp: list[float] = field(default_factory=list)  # mean change from frame to frame, aligned, of 255
    flicker_before: list[float] = field(default_factory=list)
    flicker_after: list[float] = field(default_factory=list)
    jitter_px: float = 0.0  # RMS of the alignment's second differences beside the truth's, crop px a frame
    jitter_raw_px: float = 0.0  # of the finder's own points in the smeared clip, every frame
    edge_sharp: list[float] = field(default_factory=list)  # mean step across the border of what is pasted, of 255
    edge_after: list[float] = field(default_factory=list)
    identity_before: list[float] = field(default_factory=list)  # 1 - cosine to the sharp face
    identity_after: list[float] = field(default_factory=list)
    find_ms: float = 0.0  # a frame


def evaluate_clip(
    path: Path, kind: str, count: int, model: str, engine: str, recogniser: Recogniser | None = None, seed: int = 7
) -> Figures:
    """Smear the first `count` frames of a clip, restore them, and measure.

    Raises:
        InputError: the clip cannot be read, or has no face.
        EngineError: the engine cannot run.
    """
    settings = load_settings(None, {"restore": {"engine": engine, "model": model}})
    frames = read_frames(path, count)
    print(f"{path.name}, {kind}: {len(frames)} frames", file=sys.stderr)
    with (
        closing(open_finder(settings.faces.finder, settings.faces.finder_model)) as finder,
        open_engine(engine, model) as runner,
    ):
        truth = see(frames, settings, finder, every=1)
        if not any(truth):
            raise InputError(f"no face found in {path}")
        matrices = [similarity(tracks[0].face.landmarks) if tracks else None for tracks in truth]
        smeared = smear(kind, frames, matrices, seed)
        raw = see(smeared, settings, finder, every=1)
        stats = Stats()
        tracks, restored = run(smeared, settings, finder, runner, stats)
    figures = Figures(path.name, kind, len(frames), find_ms=1e3 * stats.seconds["find"] / len(frames))
    compare_faces(figures, truth, tracks)
    figures.jitter_px = jitter(truth, tracks, smooth=True)
    figures.jitter_raw_px = jitter(truth, raw, smooth=False)
    compare_pictures(figures, truth, frames, smeared, restored, recogniser)
    return figures


def read_frames(path: Path, count: int) -> list[Frame]:
    """The first frames of a clip.

    Raises:
        InputError: it cannot be read.
    """
    frames: list[Frame] = []
    with FileSource(path) as source:
        for item in source:
            if isinstance(item, Frame):
                frames.append(item)
            if len(frames) == count:
                break
    return frames


def see(frames: list[Frame], settings: RestoreSettings, finder: Finder, every: int) -> list[tuple[Track, ...]]:
    """The tracks that were seen in each frame, when faces are looked for in `every`-th."""
    from msgspec.structs import replace

    finding = FaceFinding(finder, replace(settings.faces, look_every=every), 0, Stats())
    return [
        tuple(crop.track for crop in found.crops if crop.track.lost == 0)
        for found in finding.run(frames)
        if isinstance(found, Found)
    ]


def run(
    frames: list[Frame], settings: RestoreSettings, finder: Finder, engine: Engine, stats: Stats
) -> tuple[list[tuple[Track, ...]], list[Frame]]:
    """The pipeline's stages over frames: the tracks of each, and what comes out."""
    tracks: list[tuple[Track, ...]] = []

    def noted() -> Iterator[Found | Packet]:
        for found in finding.run(set_aside(frames, stats)):
            if isinstance(found, Found):
                tracks.append(tuple(crop.track for crop in found.crops))
            elif isinstance(found, Repeat):
                tracks.append(tracks[-1])
            yield found

    finding = FaceFinding.for_engine(finder, settings.faces, engine, stats)
    mended = Restoration(engine, settings.restore, stats).run(noted())
    whole = put_back(Fusion(settings.restore, engine, stats).run(mended))
    return tracks, [item for item in paste(whole, False, stats) if isinstance(item, Frame)]


def compare_faces(figures: Figures, truth: list[tuple[Track, ...]], tracks: list[tuple[Track, ...]]) -> None:
    """Recall, false faces and the error of the points."""
    for true, found in zip(truth, tracks, strict=True):
        pairs = [(face, match(face.face, found)) for face in true]
        figures.faces += len(true)
        figures.found += sum(other is not None for _, other in pairs)
        figures.false += sum(match(track.face, true) is None for track in found)
        for face, other in pairs:
            if other is not None:
                off = np.hypot(*(other.landmarks - face.face.landmarks).T).mean()
                figures.point_error.append(float(off) / eyes_px(face.face))


def match(face: Face, tracks: tuple[Track, ...]) -> Track | None:
    """The track that lies most over a face, if one does."""
    best = max(tracks, key=lambda track: overlap(track.face.box, face.box), default=None)
    return best if best is not None and overlap(best.face.box, face.box) > MATCH else None


def eyes_px(face: Face) -> float:
    """The distance of the eyes."""
    return float(np.hypot(*(face.landmarks[1] - face.landmarks[0])))


def jitter(truth: list[tuple[Track, ...]], tracks: list[tuple[Track, ...]], smooth: bool) -> float:
    """RMS of the second differences over time of (found - true) points, in px of the crop, a true track at a time."""
    off: dict[int, dict[int, NDArray[np.float64]]] = {}
    for at, (true, found) in enumerate(zip(truth, tracks, strict=True)):
        for face in true:
            other = match(face.face, found)
            if other is not None:
                points = other.landmarks if smooth else other.face.landmarks
                off.setdefault(face.id, {})[at] = (points - face.face.landmarks) * 35.2 / eyes_px(face.face)
    steps = [
        way[at - 1] - 2 * way[at] + way[at + 1] for way in off.values() for at in way if at - 1 in way and at + 1 in way
    ]
    return float(np.sqrt(np.mean(np.square(steps)))) if steps else 0.0


def compare_pictures(
    figures: Figures,
    truth: list[tuple[Track, ...]],
    sharp: list[Frame],
    smeared: list[Frame],
    restored: list[Frame],
    recogniser: Recogniser | None,
) -> None:
    """PSNR and flicker inside the mask, and steps across its border, in crops that the true points cut out of all three
    clips; PSNR at the frame's own resolution as well."""
    inside = mask(RIM_PX)
    weight = inside[..., None] / (inside.sum() * 3)
    last: dict[int, tuple[int, tuple[NDArray[np.float32], ...]]] = {}  # track -> frame, its three crops
    for at, tracks in enumerate(truth):
        for track in tracks:
            matrix = similarity(track.face.landmarks)
            wide = [cut_crop(clip[at], matrix, EDGE_PX).astype(np.float32) for clip in (sharp, smeared, restored)]
            a, b, c = (crop[EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX] for crop in wide)
            figures.edge_sharp.append(edge(wide[0]))
            figures.edge_after.append(edge(wide[2]))
            figures.before_db.append(psnr_db(b, a, inside))
            figures.after_db.append(psnr_db(c, a, inside))
            times = times_of(matrix)
            own = [sampled(clip[at], matrix, points(times), times) for clip in (sharp, smeared, restored)]
            figures.own_before_db.append(psnr_db(own[1], own[0], enlarged(inside, times)))
            figures.own_after_db.append(psnr_db(own[2], own[0], enlarged(inside, times)))
            if track.id in last and last[track.id][0] == at - 1:
                lists = figures.flicker_sharp, figures.flicker_before, figures.flicker_after
                for into, now, old in zip(lists, (a, b, c), last[track.id][1], strict=True):
                    into.append(float((np.abs(now - old) * weight).sum()))
            last[track.id] = at, (a, b, c)
            if recogniser is not None:
                one, two, three = recogniser.embed(np.stack([a, b, c]).astype(np.uint8))
                figures.identity_before.append(max(0.0, 1 - float(one @ two)))
                figures.identity_after.append(max(0.0, 1 - float(one @ three)))


def edge(wide: NDArray[np.float32]) -> float:
    """The mean step from px to px across the crop's border, EDGE_PX to both sides of it, of a crop that is that much
    wider; away from the corners."""
    down, right = np.abs(np.diff(wide, axis=0)), np.abs(np.diff(wide, axis=1))
    rim, middle = slice(0, 2 * EDGE_PX), slice(3 * EDGE_PX, -3 * EDGE_PX)
    sides = down[rim, middle], down[::-1][rim, middle], right[middle, rim], right[:, ::-1][middle, rim]
    return float(np.mean([side.mean() for side in sides]))


def ratio(a: list[float], b: list[float]) -> float:
    """Mean over mean; 0 where nothing was measured."""
    return float(np.mean(a) / np.mean(b)) if a and b else 0.0


def psnr_db(a: NDArray[np.float32], b: NDArray[np.float32], weight: NDArray[np.float32]) -> float:
    """PSNR of two pictures (H, W, 3) of 255, each pixel by its weight (H, W); 99 where they are the same."""
    error = float((np.square(a - b).mean(2) * weight).sum() / weight.sum())
    return 99.0 if error < 1e-5 else min(99.0, float(10 * np.log10(255**2 / error)))


def markdown(rows: list[Figures]) -> str:
    """One line a clip and kind."""
    lines = [
        "| clip | smeared by | faces | recall | false a frame | point error | jitter, raw | PSNR smeared | restored "
        "| lost | worst third | own resolution | flicker smeared | restored | seam | identity | find ms |",
        "|" + "---|" * 17,
    ]
    for r in rows:
        before, after = np.array(r.before_db), np.array(r.after_db)
        untouched = float(before.min()) >= 99
        worst = np.argsort(before)[: max(1, len(before) // 3)]
        identity = f"{np.mean(r.identity_before):.3f} -> {np.mean(r.identity_after):.3f}" if r.identity_after else ""
        cells = [
            r.clip,
            r.kind,
            str(r.faces),
            f"{r.found / max(r.faces, 1):.3f}",
            f"{r.false / max(r.frames, 1):.3f}",
            f"{np.mean(r.point_error):.3f}" if r.point_error else "",
            f"{r.jitter_px:.3f}, {r.jitter_raw_px:.3f}" if r.frames > 2 else "",
            "as it is" if untouched else f"{before.mean():.2f}",
            f"{after.mean():.2f}",
            f"{(after < before - 0.05).mean():.0%}",
            "" if untouched else f"{before[worst].mean():.2f} -> {after[worst].mean():.2f}",
            f"{np.mean(r.own_before_db):.2f} -> {np.mean(r.own_after_db):.2f}" if not untouched else "",
            f"{ratio(r.flicker_before, r.flicker_sharp):.2f}",
            f"{ratio(r.flicker_after, r.flicker_sharp):.2f}",
            f"{max(np.divide(r.edge_after, r.edge_sharp), default=0.0):.2f}",
            identity,
            f"{r.find_ms:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
