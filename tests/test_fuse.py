"""What the frames around show of a face: the network sees the one before, and all are added up, moved with the face."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from msgspec.structs import replace as changed

from engine import Engine, EngineError, ModelSpec, Restored
from stream.config import load_settings
from stream.frame import Color, Crop, Face, Found, Frame, Mended, Motion, Packet, Patch, Track
from stream.fuse import AHEAD, CHUNK, LONGEST, Fusion, Memory
from stream.restore import Restoration
from stream.stats import Stats
from zoo import FACE

SETTINGS = load_settings(None, {}).restore
COLOR = Color("gray", "gray", 8, (0, 0), (0.299, 0.114), True, False, (2, 2, 2, 2), None, 0)
PACKET = Packet(1, None)


def frame(index):
    return Frame(index, index, 1, Fraction(1, 25), (np.zeros((4, 4), np.uint8),), COLOR)


def patch(restored, spread_px, given=None, track=1):
    face = Face(np.array([0.0, 0, 96, 112]), np.zeros((5, 2)), 1.0)
    crop = Crop(Track(track, face, face.landmarks, 0, 0), np.eye(2, 3), restored if given is None else given)
    return Patch(crop, restored, float(spread_px > 0.5), motion=Motion(spread_px, spread_px, 0.0))


@pytest.fixture(scope="module")
def face_at(photograph_module):
    """`face_at(x, y)`: a crop of the photograph's face, moved by so many px of the crop, (112, 96, 3)."""
    scale = 35.2 / np.hypot(*(FACE[1] - FACE[0]))
    middle = FACE[:2].mean(0)

    def cut(x, y):
        matrix = np.array([[scale, 0, 48 + x - scale * middle[0]], [0, scale, 52 + y - scale * middle[1]]])
        return cv2.warpAffine(photograph_module, matrix, (96, 112), flags=cv2.INTER_AREA)

    return cut


@pytest.fixture(scope="module")
def photograph_module():
    from skimage import data

    return data.astronaut()


def smeared(picture, px, across):
    kernel = np.zeros((px, px), np.float32)
    kernel[(px // 2, slice(None)) if across else (slice(None), px // 2)] = 1 / px
    return cv2.filter2D(picture, -1, kernel)


def run(items, fuse):
    return list(Fusion(changed(SETTINGS, fuse=fuse), Stats()).run(items))


def error(a, b):
    inside = (slice(16, -16), slice(16, -16))
    return float(np.sqrt(np.square(a[inside].astype(float) - b[inside]).mean()))


def test_a_smeared_face_gets_what_its_neighbours_show(face_at):
    ways = [(0, 0), (1.5, -1), (3, 0.5), (2, 2), (0, 1), (-1, 2.5)]
    true = [face_at(*way) for way in ways]
    spread = [0.3, 3.0, 3.0, 3.0, 3.0, 0.3]  # sharp, smeared this way and that, and sharp again
    made = [t if s < 1 else smeared(t, 9, i % 2 == 0) for i, (t, s) in enumerate(zip(true, spread, strict=True))]
    items = [Mended(frame(i), (patch(m, s),)) for i, (m, s) in enumerate(zip(made, spread, strict=True))]
    alone, past, both = ([item.patches[0].restored for item in run(items, fuse)] for fuse in ("none", "past", "both"))
    assert all(np.array_equal(a, m) for a, m in zip(alone, made, strict=True))
    for i in range(1, 5):
        assert error(past[i], true[i]) < 0.85 * error(made[i], true[i])
        assert error(both[i], true[i]) < 0.85 * error(made[i], true[i])
    assert error(both[4], true[4]) < 0.9 * error(past[4], true[4]), "the sharp frame behind counts as well"
    assert all(np.array_equal(p[i], made[i]) for p in (past, both) for i in (0, 5)), "a sharp face stays as it is"


def test_what_was_sharp_is_remembered_as_it_came_not_as_the_network_made_it(face_at):
    true, spoiled = face_at(0, 0), smeared(face_at(0, 0), 9, True)
    items = [
        Mended(frame(0), (patch(spoiled, 0.3, given=true),)),
        Mended(frame(1), (patch(smeared(true, 9, False), 3.0),)),
    ]
    kept = run(items, "past")[1].patches[0].restored
    assert error(kept, true) < 0.5 * error(spoiled, true)


def test_a_closed_eye_and_another_face_are_not_mixed_in(face_at):
    shut = face_at(0, 0).copy()
    eye = (slice(44, 60), slice(20, 42))
    shut[eye] = shut[60:76, 20:42]  # cheek where the eye was
    now = smeared(shut, 5, True)
    before = patch(face_at(0, 0), 0.3)
    fused = run([Mended(frame(0), (before,)), Mended(frame(1), (patch(now, 1.6),))], "past")[1].patches[0].restored
    middle = (slice(48, 56), slice(26, 36))
    assert np.abs(fused[middle].astype(int) - now[middle]).mean() < 3
    other = cv2.flip(255 - face_at(0, 0), 1)
    fused = run([Mended(frame(0), (patch(other, 0.3),)), Mended(frame(1), (patch(now, 3.0),))], "past")[1]
    assert np.abs(fused.patches[0].restored.astype(int) - now).mean() < 3


class Inverting(Engine):
    """Sees two frames, inverts the first and says how far it moved: from the red of its first pixel; fails on blue."""

    def __init__(self):
        self.spec, self.about = ModelSpec("inverting", margin=16, frames=2, kernels=True), {"engine": "inverting"}
        self.seen = []

    def run(self, crops):
        self.seen += list(crops)
        if (crops[:, 0, 0, 2] > 200).any():
            raise EngineError("no blue")
        kernels = np.zeros((len(crops), 33, 33), np.float32)
        for kernel, crop in zip(kernels, crops, strict=True):
            kernel[16, 16 - crop[0, 0, 0] : 17 + crop[0, 0, 0]] = 1 / (1 + 2 * crop[0, 0, 0])
        return Restored(255 - crops[:, 16:-16, 16:-16, :3], kernels)

    def close(self):
        pass


def test_a_network_of_two_frames_sees_the_one_before_as_it_was_shown():
    def crop(grey, far, track=1, blue=0):
        image = np.full((144, 128, 3), grey, np.uint8)
        image[0, 0] = far, 0, blue
        return replace(patch(image, 0.0, track=track).crop, image=image)

    frames = [
        (crop(10, 9), crop(90, 9, track=2)),
        (crop(20, 0),),  # sharp: it is shown as it came
        (crop(30, 9), crop(100, 9, track=2)),
        (crop(40, 9, blue=255),),  # the engine fails
        (crop(50, 9),),
    ]
    engine, stats = Inverting(), Stats()
    items = [item for i, crops in enumerate(frames) for item in (Found(frame(i), crops), PACKET)]
    done = list(Restoration(engine, SETTINGS, stats).run(items))
    assert [getattr(i, "frame", i) for i in done] == [getattr(i, "frame", i) for i in items]
    behind = [int(image[72, 64, 3]) for image in engine.seen]
    assert [int(image[72, 64, 0]) for image in engine.seen] == [10, 90, 20, 30, 100, 40, 50]
    assert behind == [10, 90, 255 - 10, 20, 100, 255 - 30, 50], "new ones, and those that were lost, stand twice"
    assert all((image[:16, 1:, 3] == image[:16, 1:, 0]).all() for image in engine.seen), "around it, what is there now"
    assert stats.engine_fault == "no blue" and done[6].patches == ()


def test_tracks_are_kept_apart_and_forgotten(face_at):
    a, b = face_at(0, 0), smeared(face_at(0, 0), 9, True)
    there = Mended(frame(0), (patch(a, 0.3, track=1),))
    other = Mended(frame(1), (patch(b, 3.0, track=2),))
    late = Mended(frame(LONGEST + 1), (patch(b, 3.0, track=1),))
    assert np.array_equal(run([there, other], "both")[1].patches[0].restored, b)
    assert np.array_equal(run([there, late], "past")[1].patches[0].restored, b)
    memory = Memory(0.5)
    for i in range(100):
        memory.see(Mended(frame(i), (patch(a, 0.3, track=i),)))
    assert len(memory._seen) == LONGEST + 1


def test_a_model_that_does_not_tell_the_motion_is_left_alone(face_at):
    silent = replace(patch(face_at(0, 0), 3.0), motion=None)
    items = [Mended(frame(i), (silent,)) for i in range(3)]
    assert all(item.patches[0] is silent for item in run(items, "both"))


@pytest.mark.parametrize(("fuse", "most"), [("none", 1), ("past", 1), ("both", CHUNK + AHEAD)])
@pytest.mark.parametrize("count", [0, 1, AHEAD, CHUNK, CHUNK + AHEAD, 3 * CHUNK + 1])
def test_order_is_kept_and_few_frames_wait(fuse, most, count, face_at):
    picture = face_at(0, 0)
    items = [PACKET]
    for i in range(count):
        items += [Mended(frame(i), (patch(picture, 3.0),) if i % 3 else ()), *[PACKET] * (i % 2)]
    taken = 0

    def source():
        nonlocal taken
        for item in items:
            taken += isinstance(item, Mended)
            yield item

    given = []
    for item in Fusion(changed(SETTINGS, fuse=fuse), Stats()).run(source()):
        given.append(item)
        if isinstance(item, Mended):
            assert taken - sum(isinstance(one, Mended) for one in given) < most, "frames that wait"
    assert [getattr(i, "frame", i) for i in given] == [getattr(i, "frame", i) for i in items]
    assert [len(i.patches) for i in given if i is not PACKET] == [len(i.patches) for i in items if i is not PACKET]
