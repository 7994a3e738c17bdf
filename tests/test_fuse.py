"""What the frames around show of a face: the network sees the one before, and all are added up, moved with the face."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from msgspec.structs import replace as changed

from engine import Engine, EngineError, ModelSpec, Restored
from engine.echo import EchoEngine
from stream.config import load_settings
from stream.frame import MOST_WAITING, Color, Crop, Face, Found, Frame, Mended, Packet, Patch, Track
from stream.fuse import AHEAD, CHUNK, Fusion
from stream.memory import LONGEST_S, Memory
from stream.motion import motion_of, need
from stream.restore import Restoration
from stream.sights import AHEAD_S
from stream.stats import Stats
from stream.together import WAIT, Together, between, corrected, retold, steadied
from zoo import FACE

SETTINGS = load_settings(None, {}).restore
COLOR = Color("gray", "gray", 8, (0, 0), (0.299, 0.114), True, (2, 2, 2, 2), None, 0)
PACKET = Packet(1, None)


def frame(index):
    return Frame(index, index, 1, Fraction(1, 25), (np.zeros((4, 4), np.uint8),), COLOR)


def patch(restored, kernel, given=None, track=1, lost=0):
    """A face that `kernel` smeared, `given`, as it was restored."""
    face = Face(np.array([0.0, 0, 96, 112]), np.zeros((5, 2)), 1.0)
    crop = Crop(Track(track, face, face.landmarks, 0, lost), np.eye(2, 3), restored if given is None else given)
    motion = motion_of(kernel, crop.matrix)
    return Patch(crop, restored, need(motion, SETTINGS.still_px), kernel, motion)


def line(px, across=True):
    """The kernel of a straight motion."""
    kernel = np.zeros((33, 33), np.float32)
    kernel[(16, slice(16 - px // 2, 17 + px // 2)) if across else (slice(16 - px // 2, 17 + px // 2), 16)] = 1 / px
    return kernel


SHARP = line(1)


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


def smeared(picture, kernel):
    return cv2.filter2D(picture, -1, kernel)


def restored_somewhat(picture, px, across=True, **more):
    """A patch of a face that moved by `px`, a third of which is left after restoring."""
    kernel, left = line(px, across), line(px // 3 // 2 * 2 + 1, across)
    return patch(smeared(picture, left), kernel, smeared(picture, kernel), **more)


def run(items, fuse):
    """What comes out, with what the frames before tell, as `Restoration` hands it on."""
    memory = Memory(SETTINGS.still_px)

    def told():
        for item in items:
            seen = isinstance(item, Mended) and fuse != "none"
            yield replace(item, earlier=memory.see(item.patches, item.frame)) if seen else item

    return Fusion(changed(SETTINGS, fuse=fuse, refit=False), EchoEngine(), Stats()).run(told())


def error(a, b):
    inside = (slice(16, -16), slice(16, -16))
    return float(np.sqrt(np.square(a[inside].astype(float) - b[inside]).mean()))


def test_a_smeared_face_gets_what_its_neighbours_show(face_at):
    ways = [(0, 0), (1.5, -1), (3, 0.5), (2, 2), (0, 1), (-1, 2.5)]
    true = [face_at(*way) for way in ways]
    sharp = (0, 5)  # between them, smeared this way and that
    items = [
        Mended(frame(i), (patch(t, SHARP) if i in sharp else restored_somewhat(t, 17, i % 2 == 0),))
        for i, t in enumerate(true)
    ]
    alone, past, both = ([item.patches[0].restored for item in run(items, fuse)] for fuse in ("none", "past", "both"))
    for i in range(1, 5):
        assert error(past[i], true[i]) < 0.7 * error(alone[i], true[i])
        assert error(both[i], true[i]) < 0.7 * error(alone[i], true[i])
    first = next(run(items[4:], "both")).patches[0].restored
    assert error(first, true[4]) < 0.7 * error(alone[4], true[4]), "the sharp frame behind counts as well"
    assert all(np.array_equal(p[i], true[i]) for p in (alone, past, both) for i in sharp), "it stays as it is"


def test_sound_that_outlasts_the_pictures_is_not_kept_back():
    taken = 0

    def source():
        nonlocal taken
        yield Found(frame(0), ())
        for _ in range(3 * MOST_WAITING):
            taken += 1
            yield PACKET

    mended = (Mended(item.frame, ()) if isinstance(item, Found) else item for item in source())
    stage = Fusion(changed(SETTINGS, fuse="both"), EchoEngine(16), Stats()).run(mended)
    assert isinstance(next(stage), Mended) and taken < MOST_WAITING
    assert sum(1 for _ in stage) == 3 * MOST_WAITING


def test_what_was_sharp_is_remembered_as_it_came_not_as_the_network_made_it(face_at):
    true, spoiled = face_at(0, 0), smeared(face_at(0, 0), line(9))
    items = [Mended(frame(0), (patch(spoiled, SHARP, given=true),)), Mended(frame(1), (restored_somewhat(true, 17),))]
    assert error(list(run(items, "past"))[1].patches[0].restored, true) < 0.5 * error(spoiled, true)


@pytest.mark.parametrize(("contrast", "px"), [(1.0, 11), (1.0, 25), (0.3, 11), (0.3, 25)])
def test_an_eye_that_has_closed_since_stays_closed(face_at, contrast, px):
    eye, middle = (slice(44, 60), slice(20, 42)), (slice(48, 56), slice(24, 38))
    shut, opened = face_at(0, 0).copy(), face_at(0, 0).copy()
    shut[eye] = shut[60:76, 20:42]  # cheek where the eye was
    opened[eye] = shut[eye] + contrast * (opened[eye].astype(float) - shut[eye])
    now = restored_somewhat(shut, px)
    items = [Mended(frame(0), (patch(opened, SHARP),)), Mended(frame(1), (now,))]
    change = list(run(items, "past"))[1].patches[0].restored[middle].astype(float) - now.restored[middle]
    toward = opened[middle].astype(float) - now.restored[middle]
    assert (change * toward).sum() / np.square(toward).sum() < 0.1, "the share of the open eye in it"


@pytest.mark.parametrize("px", [11, 25])
def test_another_face_is_not_mixed_in(face_at, px):
    now = restored_somewhat(face_at(0, 0), px)
    for other in (255 - face_at(0, 0), face_at(0, 0)[:, ::-1]):
        items = [Mended(frame(0), (patch(other, SHARP),)), Mended(frame(1), (now,))]
        mixed = list(run(items, "past"))[1].patches[0].restored
        assert error(mixed, now.restored) < 0.02 * error(other, now.restored)


class Inverting(Engine):
    """Sees two frames, inverts the first and says how far it moved: from the red of its first pixel; fails on blue."""

    def __init__(self):
        self.spec = ModelSpec("inverting", margin=16, frames=2, kernels=True, known=True)
        self.about = {"engine": "inverting"}
        self.seen = []

    def run(self, crops, known=None):
        self.seen += list(crops)
        if (crops[:, 0, 0, 2] > 200).any():
            raise EngineError("no blue")
        kernels = np.zeros((len(crops), 33, 33), np.float32)
        for kernel, crop in zip(kernels, crops, strict=True):
            kernel[16, 16 - crop[0, 0, 0] : 17 + crop[0, 0, 0]] = 1 / (1 + 2 * crop[0, 0, 0])
        return Restored(255 - crops[:, 16:-16, 16:-16, :3], kernels)

    def close(self):
        pass


def test_a_network_of_two_frames_sees_the_one_before_as_it_was_restored():
    def crop(grey, far, track=1, blue=0):
        image = np.full((144, 128, 3), grey, np.uint8)
        image[0, 0] = far, 0, blue
        return replace(patch(image, SHARP, track=track).crop, image=image)

    frames = [
        (crop(10, 9), crop(90, 9, track=2)),
        (crop(20, 0),),  # sharp: it is kept as it came
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


def test_a_frame_that_is_not_the_one_before_is_none(face_at):
    engine = Inverting()
    restoration = Restoration(engine, SETTINGS, Stats())
    image = np.full((144, 128, 3), 9, np.uint8)
    crop = replace(patch(image, SHARP).crop, image=image)
    for index in (0, 1, 900):
        list(restoration.run([Found(frame(index), (crop,))]))
    assert [int(image[72, 64, 3]) for image in engine.seen] == [9, 246, 9]


@pytest.mark.parametrize("fuse", ["past", "both"])
def test_tracks_are_kept_apart_and_forgotten(face_at, fuse):
    sharp, now = patch(face_at(0, 0), SHARP), restored_somewhat(face_at(0, 0), 17)
    late = round(LONGEST_S * 25) + 1
    other = replace(now, crop=replace(now.crop, track=replace(now.crop.track, id=2)))
    for before, after, then in ((sharp, other, 1), (sharp, now, late), (now, sharp, late)):
        done = list(run([Mended(frame(0), (before,)), Mended(frame(then), (after,))], fuse))
        shown = [item.patches[0].restored for item in done]
        assert shown[0] is before.restored and shown[1] is after.restored
    memory = Memory(0.5)
    for i in range(100):
        memory.see((patch(face_at(0, 0), SHARP, track=i),), frame(i))
    assert len(memory._known) == late


def test_what_stands_where_a_face_is_only_guessed_to_be_is_not_remembered(face_at):
    wall = patch(np.full((112, 96, 3), 128, np.uint8), SHARP, lost=1)
    now = restored_somewhat(face_at(0, 0), 17)
    with_wall, without = (
        list(
            run(
                [Mended(frame(0), (patch(face_at(0, 0), SHARP),)), Mended(frame(1), middle), Mended(frame(2), (now,))],
                "past",
            )
        )
        for middle in ((wall,), ())
    )
    assert np.array_equal(with_wall[2].patches[0].restored, without[2].patches[0].restored)
    assert not np.array_equal(without[2].patches[0].restored, now.restored)


def test_a_model_that_does_not_tell_the_motion_is_left_alone(face_at):
    silent = replace(patch(face_at(0, 0), SHARP), motion=None, kernel=None)
    items = [Mended(frame(i), (silent,)) for i in range(3)]
    assert all(item.patches[0] is silent for item in run(items, "both"))


@pytest.mark.parametrize(("fuse", "most"), [("none", 1), ("past", 1), ("both", CHUNK + AHEAD + WAIT + 25 * AHEAD_S)])
@pytest.mark.parametrize("count", [0, 1, AHEAD, CHUNK, CHUNK + AHEAD, 6 * CHUNK + 1])
def test_order_is_kept_and_few_frames_wait(fuse, most, count, face_at):
    now = restored_somewhat(face_at(0, 0), 17)
    items = [PACKET]
    for i in range(count):
        items += [Mended(frame(i), (now,) if i % 3 else ()), *[PACKET] * (i % 2)]
    taken = 0

    def source():
        nonlocal taken
        for item in items:
            taken += isinstance(item, Mended)
            yield item

    given = []
    for item in run(source(), fuse):
        given.append(item)
        if isinstance(item, Mended):
            assert taken - sum(isinstance(one, Mended) for one in given) < most, "frames that wait"
    assert [getattr(i, "frame", i) for i in given] == [getattr(i, "frame", i) for i in items]
    assert [len(i.patches) for i in given if i is not PACKET] == [len(i.patches) for i in items if i is not PACKET]


def turned(px, degrees):
    """The kernel of a straight motion that way."""
    kernel = cv2.warpAffine(line(px), cv2.getRotationMatrix2D((16, 16), degrees, 1.0), (33, 33))
    return kernel / kernel.sum()


def shaken(pictures, px, seed=1):
    """Faces smeared as far, each another way, as they were restored: a third of each motion is left."""
    rng = np.random.default_rng(seed)
    ways = rng.uniform(0, 180, len(pictures))
    left = [smeared(picture, turned(px // 3 // 2 * 2 + 1, way)) for picture, way in zip(pictures, ways, strict=True)]
    kernels = [turned(px, way) for way in ways]
    return [patch(r, k, smeared(p, k)) for p, r, k in zip(pictures, left, kernels, strict=True)]


@pytest.mark.parametrize("px", [11, 17, 25])
def test_what_each_motion_left_is_added_up(face_at, px):
    true = (128 + 0.3 * (face_at(0, 0) - 128.0)).astype(np.uint8)  # what was lost is faint enough to be believed
    now, *others = shaken([true] * 7, px)
    done = corrected(now, [(1 + i // 2, other) for i, other in enumerate(others)])
    assert error(done.restored, true) < 0.75 * error(now.restored, true)
    same = corrected(now, [(1 + i // 2, now) for i in range(6)])
    assert error(done.restored, true) < 0.85 * error(same.restored, true), "motions of one direction say less"
    assert done.kernel is now.kernel and done.crop is now.crop


@pytest.mark.parametrize(("px", "contrast"), [(11, 1.0), (25, 1.0), (11, 0.3), (25, 0.3)])
def test_a_blink_amid_a_shake_is_kept(face_at, px, contrast):
    eye, middle = (slice(44, 60), slice(20, 42)), (slice(48, 56), slice(24, 38))
    shut, opened = face_at(0, 0).copy(), face_at(0, 0).copy()
    shut[eye] = shut[60:76, 20:42]
    opened[eye] = shut[eye] + contrast * (opened[eye].astype(float) - shut[eye])
    patches = shaken([shut if 7 <= i <= 9 else opened for i in range(16)], px)
    done = list(run([Mended(frame(i), (each,)) for i, each in enumerate(patches)], "both"))[8].patches[0].restored
    change = done[middle].astype(float) - patches[8].restored[middle]
    toward = opened[middle].astype(float) - patches[8].restored[middle]
    assert (change * toward).sum() / np.square(toward).sum() < 0.15, "the share of the open eye in it"
    assert error(done, shut) < 0.65 * error(patches[8].restored, shut)


def test_the_margin_of_a_crop_tells_what_was_smeared_into_it(face_at):
    true = face_at(0, 0)
    wide = np.pad(true, ((16, 16), (16, 16), (0, 0)), mode="reflect")  # what is not the border repeated

    def error_with(margin):
        patches = shaken([true] * 7, 25)
        given = [smeared(wide, each.kernel)[16 - margin : 128 + margin, 16 - margin : 112 + margin] for each in patches]
        patches = [replace(p, crop=replace(p.crop, image=image)) for p, image in zip(patches, given, strict=True)]
        done = corrected(patches[0], [(1 + i // 2, other) for i, other in enumerate(patches[1:])]).restored
        return float(np.sqrt(np.square(done.astype(float) - true).mean()))

    assert np.isclose(error_with(16), error_with(8), rtol=1e-6) and error_with(8) < error_with(0)


def test_another_face_near_by_says_nothing(face_at):
    true = face_at(0, 0)
    now = restored_somewhat(true, 17)
    other = restored_somewhat(true[:, ::-1].copy(), 17, across=False)
    alone = corrected(now, [])
    assert error(corrected(now, [(1, other), (2, other)]).restored, alone.restored) < 0.2 * error(true, true[:, ::-1])
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    kept = steadied(now, [(1, other), (2, other)], flow)
    assert error(kept.restored, now.restored) < 0.1 * error(true, true[:, ::-1])


def test_what_errs_this_way_and_that_is_steadied(face_at):
    rng = np.random.default_rng(3)
    true, ways = face_at(0, 0), [(0, 0), (1.5, -1), (-1, 0.5), (2, 1)]
    patches = [restored_somewhat(face_at(*way), 17) for way in ways]
    noise = [cv2.GaussianBlur(rng.normal(0, 40, true.shape), (0, 0), 1.0) for _ in ways]
    noisy = [
        replace(p, restored=np.clip(face_at(*way) + n, 0, 255).astype(np.uint8))
        for p, way, n in zip(patches, ways, noise, strict=True)
    ]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    done = steadied(noisy[0], list(enumerate(noisy[1:], 1)), flow)
    assert error(done.restored, true) < 0.75 * error(noisy[0].restored, true)


def test_what_a_frame_itself_denies_of_its_own_restoration_is_left_to_the_others(face_at):
    true, spot = face_at(0, 0), (slice(30, 44), slice(30, 44))
    now, *others = [replace(restored_somewhat(true, px), restored=true) for px in (9, 11, 13)]
    spoiled = true.copy()
    spoiled[spot] = 255 - spoiled[spot]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    done = steadied(replace(now, restored=spoiled), list(enumerate(others, 1)), flow).restored
    left = (
        np.square(done[spot] - true[spot].astype(float)).mean()
        / np.square(spoiled[spot] - true[spot].astype(float)).mean()
    )
    assert left < 0.02


def test_a_face_is_told_by_a_neighbour_that_explains_its_frame_as_well(face_at):
    true = face_at(0, 0)
    now, other = shaken([true] * 2, 17)
    known = replace(other, restored=true)
    right = replace(now, restored=true)
    assert retold(right, [(np.eye(2, 3), known)], SETTINGS) is right, "nothing is missing"
    wrong = replace(now, kernel=np.ascontiguousarray(now.kernel.T))
    done = retold(wrong, [(np.eye(2, 3), known)], SETTINGS)
    assert error(done.restored, true) < 0.3 * error(now.restored, true) and done.is_refitted
    assert done.motion is not None and abs(done.motion.direction_deg - now.motion.direction_deg) < 10
    assert 0.7 < done.motion.length_px / now.motion.length_px < 1.3
    for silent in ([], [(np.eye(2, 3), replace(other, restored=true[:, ::-1].copy()))]):
        assert retold(wrong, silent, SETTINGS) is wrong, "nobody, or somebody else"
    strangers = [replace(other, restored=picture.copy()) for picture in (true[:, ::-1], true[::-1], 255 - true)]
    among = retold(wrong, [(np.eye(2, 3), each) for each in (*strangers[:2], known, strangers[2])], SETTINGS)
    assert np.array_equal(among.restored, done.restored), "the likeliest are looked at, whoever they come after"


def test_neighbours_of_unknown_motion_say_nothing(face_at):
    now, other = shaken([face_at(0, 0)] * 2, 17)
    nothing = np.full((33, 33), np.nan, np.float32)
    unknown = replace(other, kernel=nothing, motion=motion_of(nothing, other.crop.matrix))
    guessed = replace(other, crop=replace(other.crop, track=replace(other.crop.track, lost=1)))
    for silent in (unknown, guessed):
        items = iter([Mended(frame(0), (now,)), Mended(frame(1), (silent,))])
        assert next(Together(changed(SETTINGS, refit=False), Stats()).run(items)).patches[0] is now


@pytest.mark.parametrize("silent", ["nothing", "far in time"])
def test_what_is_not_known_or_long_ago_says_nothing(face_at, silent):
    now, other = shaken([face_at(0, 0)] * 2, 17)
    then = frame(1)
    if silent == "nothing":  # as engines are told of what is not known
        other = replace(other, kernel=np.zeros((33, 33), np.float32), motion=motion_of(SHARP, other.crop.matrix))
    else:
        then = replace(then, pts=1 + round(25 * LONGEST_S))
    items = iter([Mended(frame(0), (now,)), Mended(then, (other,))])
    assert next(Together(changed(SETTINGS, refit=False), Stats()).run(items)).patches[0] is now


@pytest.mark.parametrize(("contrast", "px"), [(1.0, 11), (0.3, 11), (0.3, 25)])
def test_a_sharp_face_of_another_near_by_says_nothing(face_at, contrast, px):
    """A track that took one face for another: parts of them are alike."""
    true = (128 + contrast * (face_at(0, 0) - 128.0)).astype(np.uint8)
    now, other = restored_somewhat(true, px), patch(true[:, ::-1].copy(), SHARP)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    kept = steadied(now, [(1, other), (1, other), (2, other), (2, other)], flow)
    assert error(kept.restored, now.restored) < 0.01 * error(true, true[:, ::-1])


def test_a_sharp_neighbour_shows_its_face_as_it_came(face_at):
    true = face_at(0, 0)
    now, spoiled = restored_somewhat(true, 17), smeared(true, line(9))
    items = [
        Mended(frame(0), (patch(spoiled, SHARP, given=true),)),
        Mended(frame(1), (now,)),
        Mended(frame(2), (patch(spoiled, SHARP, given=true),)),
    ]
    done = list(Together(changed(SETTINGS, refit=False), Stats()).run(iter(items)))[1].patches[0].restored
    assert error(done, true) < 0.5 * error(now.restored, true)


def test_a_flat_face_tells_no_motion(face_at):
    flat = replace(
        restored_somewhat(np.full((112, 96, 3), 1, np.uint8), 17), restored=np.full((112, 96, 3), 5, np.uint8)
    )
    assert retold(flat, [(np.eye(2, 3), flat)], SETTINGS) is flat


def test_many_frames_of_one_motion_do_not_believe_their_common_error(face_at):
    """The motion is taken for one a fifth longer: what that gets wrong, no neighbour of the same motion mends."""
    true = face_at(0, 0)
    now = replace(restored_somewhat(true, 17), kernel=line(21))
    alone, many = corrected(now, []), corrected(now, [(1 + i // 2, now) for i in range(4)])
    assert error(many.restored, alone.restored) < 0.1 * error(alone.restored, true)


def near_by(pictures, px, matrices):
    """Faces smeared in a frame that crops of such matrices show, as they were restored."""
    cut = [
        cv2.warpAffine(picture, m, (96, 112), flags=cv2.INTER_AREA)
        for picture, m in zip(pictures, matrices, strict=True)
    ]
    return [replace(each, crop=replace(each.crop, matrix=m)) for each, m in zip(shaken(cut, px), matrices, strict=True)]


@pytest.mark.parametrize("way", ["cut otherwise", "moved"])
def test_neighbours_are_laid_where_the_face_is(photograph_module, way):
    """The same picture cut by other transforms, and a face that moves with its crop."""
    scale = 35.2 / np.hypot(*(FACE[1] - FACE[0]))
    middle = FACE[:2].mean(0)
    faint = (128 + 0.3 * (photograph_module - 128.0)).astype(np.uint8)
    matrices, pictures = [], []
    for i in range(5):
        turn = cv2.getRotationMatrix2D((0, 0), 20.0 * i, scale * (1 + 0.02 * i)) if way == "cut otherwise" else None
        linear = scale * np.eye(2) if turn is None else turn[:, :2]
        offset = (48 + 2.0 * i, 52 - i) if way == "cut otherwise" else (48, 52)
        moved = np.array([9.0 * i, 5.0 * i]) if way == "moved" else np.zeros(2)
        matrices.append(np.column_stack([linear, offset - linear @ (middle + moved)]))
        pictures.append(cv2.warpAffine(faint, np.column_stack([np.eye(2), moved]), faint.shape[1::-1]))
    now, *others = near_by(pictures, 17, matrices)
    true = cv2.warpAffine(pictures[0], matrices[0], (96, 112), flags=cv2.INTER_AREA)
    done = corrected(now, list(enumerate(others, 1)))
    assert error(done.restored, true) < 0.8 * error(now.restored, true)


@pytest.mark.parametrize("by", [(7, -4), (-7, 4), (-12, 0)])
@pytest.mark.parametrize("way", ["cut otherwise", "moved"])
def test_a_told_face_lies_where_this_frame_has_it(face_at, way, by):
    true = face_at(0, 0)
    now, other = shaken([true] * 2, 17)
    wrong = replace(now, kernel=np.ascontiguousarray(now.kernel.T))
    matrix = np.column_stack([np.eye(2), by if way == "cut otherwise" else (0, 0)])
    there = replace(other, restored=face_at(*by), crop=replace(other.crop, matrix=matrix))
    done = retold(wrong, [(between(there, wrong), there)], SETTINGS)
    assert done.is_refitted
    off = cv2.phaseCorrelate(*(each.mean(2, dtype=np.float32)[16:-16, 16:-16] for each in (true, done.restored)))[0]
    assert np.hypot(*off) < (0.8 if way == "cut otherwise" else 1.2)
    columns, rows = (slice(4 + max(-n, 0), length - 4 - max(n, 0)) for n, length in zip(by, (96, 112), strict=True))
    rest, near = (
        np.abs(each[rows, columns] - true[rows, columns].astype(float)).mean()
        for each in (done.restored, face_at(1, 1))
    )
    assert rest < 1.2 * near, "to the rim of what the neighbour shows"


def test_a_face_without_neighbours_stays_as_it_is(face_at):
    now = restored_somewhat(face_at(0, 0), 17)
    far = Mended(frame(1 + WAIT), (replace(now, crop=replace(now.crop, track=replace(now.crop.track, id=2))),))
    assert next(run([Mended(frame(0), (now,)), far], "both")).patches[0] is now
