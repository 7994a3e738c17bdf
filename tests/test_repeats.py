"""Frames that show the one before once more."""

import json
from contextlib import closing
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from engine import open_engine
from stream.config import load_settings
from stream.faces.finder import Finder, open_finder
from stream.find import FaceFinding
from stream.frame import Frame, Mended, Packet, Repeat
from stream.media.decoded import planes_of
from stream.media.source import FileSource
from stream.pipeline import Job, restore_file
from stream.repeats import IN_A_ROW, Exposures, put_back, set_aside
from stream.stats import Stats
from zoo import frames_of

LOSSLESS = {"codec": "ffv1", "codec_options": (), "time_base": Fraction(1, 1000), "pts": tuple(range(0, 800, 40))}


def read(path) -> list[Frame]:
    with FileSource(path) as source:
        return [item for item in source if isinstance(item, Frame)]


def repeats(frames) -> list[int]:
    told = Exposures()
    return [i for i, frame in enumerate(frames) if not told.is_new(frame)]


@pytest.mark.parametrize("layout", ["yuv420p", "yuv420p10le"])
def test_repeats_are_told_from_new_frames_whatever_a_codec_makes_of_them(layout, clip):
    coded = (("crf", "20"), ("preset", "slow"), ("tune", "grain"))
    path = clip(f"twice-{layout}.mp4", every=2, step=2, pixel_format=layout, codec_options=coded)
    frames = read(path)
    assert (frames[4].planes[0] != frames[5].planes[0]).any(), "noise"
    told = repeats(frames)
    assert told[-4:] == [5, 7, 9, 11] and 1 not in told, "once it is known how much new frames change"


def test_what_stands_still_moves_slowly_or_is_cut_is_new(clip):
    frames = read(clip("new.mkv", **LOSSLESS))
    assert repeats(frames) == []
    assert repeats([frames[0]] * 12) == [], "nothing says that this is not how it goes on"
    flat = replace(frames[0], planes=tuple(np.full_like(plane, 90) for plane in frames[0].planes))
    brighter = [replace(flat, planes=(flat.planes[0] + i, *flat.planes[1:])) for i in range(6)]
    assert repeats([*frames[:4], *brighter]) == [], "after a cut"
    stopped = repeats([*frames[:6], *[frames[5]] * 12])
    assert stopped == [6, 7, 8, 10, 11, 12] and IN_A_ROW == 3, "what moved, and stops, goes on after a few"
    smaller = replace(frames[5], planes=tuple(plane[:100] for plane in frames[5].planes))
    assert repeats([*frames[:6], smaller]) == []
    moved = frames[5].planes[0].copy()
    moved[96:112, 192:208] += 8  # a lid that closes
    assert repeats([*frames[:6], replace(frames[5], planes=(moved, *frames[5].planes[1:]))]) == []


def test_repeats_pass_the_stages_as_packets_do_and_get_what_the_frame_got_that_they_show(clip):
    frames = read(clip("thrice.mkv", **LOSSLESS, every=2, step=2))
    items = [*frames[:8], Packet(1, None), *frames[8:]]
    passed = list(set_aside(items, Stats()))
    new = [item for item in passed if isinstance(item, Frame)]
    assert [frame.index for frame in new] == list(range(len(new))), "no stage sees a gap"
    assert [type(item) for item in passed].index(Packet) == 8
    assert sum(isinstance(item, Repeat) for item in passed) == 8
    mended = [Mended(item, (f"what came of {item.pts}",)) if isinstance(item, Frame) else item for item in passed]
    back = list(put_back(mended))
    whole = [item for item in back if isinstance(item, Mended)]
    assert [type(item) for item in back].index(Packet) == 8
    assert [(m.frame.index, m.frame.pts) for m in whole] == [(f.index, f.pts) for f in frames]
    assert all(a.frame.planes is b.planes for a, b in zip(whole, frames, strict=True))
    assert [m.patches[0] for m in whole[6:12]] == [f"what came of {frames[i].pts}" for i in (6, 6, 8, 8, 10, 10)]


class Counting:
    """An engine that counts its crops."""

    def __init__(self, engine):
        self._engine, self.crops = engine, 0

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def run(self, crops, *told):
        self.crops += len(crops)
        return self._engine.run(crops, *told)


def test_a_clip_with_repeats_is_restored_once_an_exposure(clip, tmp_path):
    source = clip("repeated.mkv", **LOSSLESS, every=2, step=2, smear=9)
    settings = load_settings(None, {"restore": {"refit": False}, "faces": {"second_look": False}})
    with closing(open_finder("mediapipe")) as finder, open_engine("onnxruntime", "fast") as engine:
        counting = Counting(engine)
        report = restore_file(Job(source, tmp_path / "out.mkv", quiet=True), settings, finder, counting)
    assert report["frames"] == report["faces"] == report["faces_restored"] == 20
    assert counting.crops == 12, "of ten exposures; two repeats are not known as such yet"
    came, out = (frames_of(path) for path in (source, tmp_path / "out.mkv"))
    assert [f.pts for f in out] == [f.pts for f in came]
    planes = [planes_of(frame)[0].astype(int) for frame in out]
    assert all(np.array_equal(planes[i], planes[i + 1]) for i in range(4, 20, 2))
    assert all((planes[i] != planes_of(came[i])[0]).any() for i in range(20))


def test_faces_in_repeats_that_are_passed_over_are_counted(clip, tmp_path):
    source = clip("small-twice.mkv", **LOSSLESS, every=2, step=2)
    settings = load_settings(None, {"faces": {"min_size_px": 200}})
    with closing(open_finder("mediapipe")) as finder, open_engine("echo", "fast") as engine:
        report = restore_file(Job(source, tmp_path / "out.mkv", quiet=True), settings, finder, engine)
    assert report["passed_over"] == {"too small": 20} and report["faces"] == 0


def test_every_frame_is_listed(unsmear, clip):
    source = clip("listed-twice.mkv", **LOSSLESS, every=2, step=2)
    done = unsmear("faces", source)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["frame"] for row in rows] == list(range(20))
    assert [row["time_s"] for row in rows] == [round(0.04 * i, 6) for i in range(20)]
    assert all(len(row["faces"]) == 1 for row in rows)


def test_faces_are_looked_at_nearly_as_often_as_without_repeats(clip):
    frames = read(clip("looked-at.mkv", **LOSSLESS, every=2, step=2))
    settings = load_settings(None, {"faces": {"second_look": False}}).faces
    looks = []

    class Noting(Finder):
        side_px = 256

        def __init__(self, finder):
            self.search = finder.search
            self._look = finder.look

        def look(self, image, last=None, track=0):
            looks.append(track)
            return self._look(image, last)

        def close(self):
            """Not its own."""

    counts = []
    with closing(open_finder("mediapipe")) as finder:
        for given in (frames, set_aside(frames, Stats())):
            looks.clear()
            found = list(FaceFinding(Noting(finder), settings, 0, Stats()).run(given))
            counts.append(sum(track > 0 for track in looks))
    assert sum(isinstance(item, Repeat) for item in found) == 8
    assert counts == [7, 5], "every third frame, and the next new one: not every third of the new ones"
