"""A face that frames around have shown tells how it moved: the kernel that is fitted, and what the network does."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from msgspec.structs import replace as changed
from skimage import data
from test_fuse import error, frame

from engine import Engine, EngineError, open_engine
from stream.config import load_settings
from stream.faces.align import apply, similarity, warp
from stream.frame import Crop, Face, Fit, Found, Mended, Motion, Packet, Patch, Track
from stream.fuse import Fusion
from stream.memory import Memory
from stream.motion import motion_of
from stream.refit import fit, is_better, moved, placed
from stream.region import cut_crop
from stream.restore import Restoration
from stream.stats import Stats
from zoo import FACE

SETTINGS = changed(load_settings(None, {}).restore, fuse="past", refit=True)
WIDE = 40  # px around a crop, so that what is smeared has surroundings
ARC = [(12 * np.cos(t), 12 * np.sin(t)) for t in np.linspace(0, 2.5, 200)]
HOOK = [(t, 0) for t in np.linspace(-11, 11, 150)] + [(11, t) for t in np.linspace(0, 11, 75)]
LINE = [(t, 0.6 * t) for t in np.linspace(-11, 11, 200)]
DASH = [(t, 0) for t in np.linspace(-5, 5, 80)]
PATHS = {"arc": ARC, "hook": HOOK, "line": LINE}


def kernel_of(path):
    """A path in px as a kernel (33, 33), its centre of mass in the middle."""
    points = np.array(path) - np.mean(path, 0) + 16
    kernel = np.zeros((33, 33), np.float32)
    for x, y in points:
        (i, dx), (j, dy) = (divmod(x, 1), divmod(y, 1))
        kernel[int(j) : int(j) + 2, int(i) : int(i) + 2] += np.outer([1 - dy, dy], [1 - dx, dx])
    return kernel / kernel.sum()


def wide_face(shift=(0, 0), mirrored=False):
    matrix = similarity(FACE)
    matrix[:, 2] += shift
    picture = warp(data.astronaut(), matrix, WIDE)
    return np.ascontiguousarray(picture[:, ::-1]) if mirrored else picture


def smear(picture, kernel):
    return cv2.filter2D(picture, -1, cv2.flip(kernel, -1))


def cut(picture, margin=0):
    return np.ascontiguousarray(picture[WIDE - margin : -WIDE + margin, WIDE - margin : -WIDE + margin])


def crop_of(picture, track=1):
    face = Face(np.array([0.0, 0, 96, 112]), np.zeros((5, 2)), 1.0)
    return Crop(Track(track, face, face.landmarks, 0, 0), np.eye(2, 3), cut(picture, 16))


def found(index, *crops):
    return Found(frame(index), tuple(crops))


@pytest.fixture(scope="module")
def engine():
    with open_engine("onnxruntime", "fast") as opened:
        yield opened


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("shift", [(0, 0), (2.5, -1.5), (-4, 3)])
def test_the_kernel_between_a_known_face_and_a_smeared_one_is_found_with_its_place(name, shift):
    true = kernel_of(PATHS[name])
    kernel, off, *_ = fit(cut(smear(wide_face(shift), true)), cut(wide_face()).astype(np.float32), np.eye(2, 3))
    assert kernel.shape == (33, 33) and kernel.min() >= 0 and kernel.sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(off - shift).max() < 1
    a, b = (cv2.GaussianBlur(k, (0, 0), 1.0).ravel() for k in (kernel, true))
    assert a @ b > 0.85 * np.linalg.norm(a) * np.linalg.norm(b)


@pytest.mark.parametrize("name", PATHS)
def test_a_smeared_face_is_restored_better_once_it_was_seen(engine, name):
    kernel = kernel_of(PATHS[name])
    crops = [found(0, crop_of(wide_face())), found(1, crop_of(smear(wide_face(), kernel)))]
    true = cut(wide_face())
    blind, refitted = (
        list(Restoration(engine, changed(SETTINGS, refit=refit), Stats()).run(crops))[1].patches[0]
        for refit in (False, True)
    )
    assert refitted.is_refitted and not blind.is_refitted
    told = engine.run(crops[1].crops[0].image[None], kernel[None]).crops[0]
    assert error(refitted.restored, true) < 0.97 * error(blind.restored, true)
    assert error(refitted.restored, true) < 1.1 * error(told, true), "nearly as if the motion were known"
    assert refitted.motion.spread_px == pytest.approx(
        float(np.std(PATHS[name], 0) @ np.std(PATHS[name], 0)) ** 0.5, rel=0.25
    )
    assert refitted.strength == blind.strength == 1


@pytest.mark.parametrize("name", PATHS)
def test_another_face_tells_nothing(name):
    given = cut(smear(wide_face(), kernel_of(PATHS[name])))
    for other in (wide_face(mirrored=True), 255 - wide_face(), np.full_like(wide_face(), 128)):
        assert fit(given, cut(other).astype(np.float32), np.eye(2, 3)) is None
    assert fit(given, cut(wide_face()).astype(np.float32), np.eye(2, 3)) is not None


@pytest.mark.parametrize("contrast", [0.4, 0.08])
def test_in_the_dark_another_face_is_another_one_still(contrast):
    dark = {
        name: 10 + contrast * cut(picture).astype(np.float32)
        for name, picture in (
            ("given", smear(wide_face(), kernel_of(LINE))),
            ("same", wide_face()),
            ("other", wide_face(mirrored=True)),
        )
    }
    given = np.rint(dark["given"]).astype(np.uint8)
    assert fit(given, dark["other"], np.eye(2, 3)) is None
    assert fit(given, dark["same"], np.eye(2, 3)) is not None


def test_sharp_faces_and_small_motions_are_the_networks(engine):
    small = smear(wide_face(), kernel_of([(t, 0) for t in np.linspace(-3.5, 3.5, 50)]))
    crops = [found(i, crop_of(picture)) for i, picture in enumerate((wide_face(), wide_face(), small))]
    assert not any(item.patches[0].is_refitted for item in Restoration(engine, SETTINGS, Stats()).run(crops))


def test_nothing_is_fitted_to_a_face_without_contrast():
    plain = np.full((112, 96, 3), 40, np.uint8)
    assert fit(plain, plain.astype(np.float32), np.eye(2, 3)) is None


@pytest.mark.parametrize(("contrast", "path", "told"), [(1.0, DASH, False), (1.0, LINE, False), (0.4, LINE, True)])
def test_an_eye_that_has_closed_since_stays_closed(engine, contrast, path, told):
    opened = wide_face()
    eye = (slice(WIDE + 40, WIDE + 62), slice(WIDE + 18, WIDE + 46))
    shut = opened.copy()
    shut[eye] = (1 - contrast) * opened[eye] + contrast * opened[WIDE + 62 : WIDE + 84, eye[1]]
    kernel = kernel_of(path)
    crops = [found(0, crop_of(opened)), found(1, crop_of(smear(shut, kernel)))]
    done = list(Fusion(SETTINGS, engine, Stats()).run(Restoration(engine, SETTINGS, Stats()).run(crops)))
    assert done[1].patches[0].is_refitted == told
    inner = (slice(46, 56), slice(24, 40))
    off = done[1].patches[0].restored[inner].astype(float) - cut(shut)[inner]
    toward = cut(opened)[inner].astype(float) - cut(shut)[inner]
    assert (off * toward).sum() / np.square(toward).sum() < 0.15, "the share of the open eye in it"


def test_where_the_two_agree_the_network_keeps_its_own_unless_the_fit_is_sure():
    here, there = (Fit(kernel_of(ARC), np.zeros(2), np.zeros(2), like) for like in (0.6, 0.9))
    assert not is_better(here, kernel_of(ARC)) and is_better(here, kernel_of(DASH))
    assert is_better(there, kernel_of(ARC))


def test_a_face_that_the_fit_is_not_sure_of_is_restored_again_only_if_the_network_was_wrong(engine, monkeypatch):
    items = [found(0, crop_of(wide_face())), found(1, crop_of(smear(wide_face(), kernel_of(ARC))))]
    for off, asked in ((kernel_of(ARC), 2), (kernel_of(DASH), 3)):
        monkeypatch.setattr("stream.restore.fit", lambda *_, off=off: Fit(off, np.zeros(2), np.zeros(2), 0.6))
        counting = Counting(engine)
        patch = list(Restoration(counting, SETTINGS, Stats()).run(items))[1].patches[0]
        assert counting.asked == asked and counting.told == asked - 2 and patch.is_refitted == (asked == 3)


def test_a_fit_moves_the_face_to_between_where_it_was_and_the_kernels_middle(engine):
    given = cut(smear(wide_face((3, 0)), kernel_of(DASH)))
    far = cut(smear(wide_face((3, 0)), kernel_of(LINE)))
    face = cut(wide_face()).astype(np.float32)
    short, long = fit(given, face, np.eye(2, 3)), fit(far, face, np.eye(2, 3))
    assert -3 < long.back[0] < short.back[0] < 0, "the longer the motion, the nearer to where it was"
    patch = next(Restoration(engine, SETTINGS, Stats()).run([found(0, crop_of(wide_face()))])).patches[0]
    there = placed(patch, Fit(kernel_of(LINE), np.zeros(2), np.array([2.0, -1.0]), 1.0))
    assert error(there.restored, moved(patch.restored.astype(np.float32), np.array([2.0, -1.0]))) < 1
    assert np.array_equal(there.given, patch.given)
    widest = kernel_of([(t, 0) for t in np.linspace(-14, 14, 300)])
    cut_off = placed(patch, Fit(widest, np.zeros(2), np.array([-6.0, 0]), 1.0))
    assert cut_off.kernel.sum() == pytest.approx(1, abs=1e-4), "or the face would be pasted brighter"


class Counting(Engine):
    """`right`, counting what it is asked; fails where a motion is known."""

    def __init__(self, right, fails=False):
        self.right, self.spec, self.about, self.fails = right, right.spec, right.about, fails
        self.asked, self.told = 0, 0

    def run(self, crops, known=None):
        self.asked += len(crops)
        self.told += 0 if known is None else int((known.sum((1, 2)) > 0).sum())
        if known is not None and self.fails:
            raise EngineError("out of memory")
        return self.right.run(crops, known)

    def close(self):
        pass


class Blind(Counting):
    """An engine that takes every face for still unless it is told."""

    def run(self, crops, known=None):
        done = super().run(crops, known)
        still = np.zeros((33, 33), np.float32)
        still[16, 16] = 1
        told = np.zeros(len(crops), bool) if known is None else known.sum((1, 2)) > 0
        return done._replace(kernels=np.where(told[:, None, None], done.kernels, still))


@pytest.mark.parametrize("smeared_first", [True, False])
def test_a_motion_that_the_network_missed_is_undone_in_full(engine, smeared_first):
    order = [crop_of(smear(wide_face(), kernel_of(LINE))), crop_of(wide_face())]
    items = [found(i, crop) for i, crop in enumerate(order if smeared_first else order[::-1])]
    settings, blind = changed(SETTINGS, fuse="both"), Blind(engine)
    done = list(Fusion(settings, blind, Stats()).run(Restoration(blind, settings, Stats()).run(items)))
    smeared, sharp = (item.patches[0] for item in (done if smeared_first else done[::-1]))
    assert smeared.is_refitted and smeared.strength == 1 and sharp.strength == 0
    assert error(smeared.restored, sharp.given) < 0.6 * error(smeared.given, sharp.given)


def test_an_engine_that_takes_no_motion_is_told_none(engine):
    pictures = (smear(wide_face(), kernel_of(HOOK)), wide_face((1, 1)), smear(wide_face(), kernel_of(ARC)))
    items = [found(i, crop_of(picture)) for i, picture in enumerate(pictures)]
    settings, deaf = changed(SETTINGS, fuse="both"), Counting(engine)
    deaf.spec = replace(engine.spec, known=False)
    done = list(Fusion(settings, deaf, Stats()).run(Restoration(deaf, settings, Stats()).run(items)))
    assert (deaf.asked, deaf.told) == (3, 0)
    assert all(patch.kernel is not None for item in done for patch in item.patches)


def test_the_better_of_what_earlier_and_later_frames_tell_restores_a_face(engine, monkeypatch):
    items = [found(i, crop_of(smear(wide_face(), kernel_of(path)))) for i, path in enumerate((ARC, LINE, HOOK))]
    settings = changed(SETTINGS, fuse="both")
    for late, asked in ((0.5, 1), (0.7, 2)):
        monkeypatch.setattr("stream.restore.fit", lambda *_: Fit(kernel_of(DASH), np.zeros(2), np.zeros(2), 0.6))
        monkeypatch.setattr(
            "stream.fuse.fit", lambda *_, late=late: Fit(kernel_of(HOOK), np.zeros(2), np.zeros(2), late)
        )
        restored = list(Restoration(engine, settings, Stats()).run(items))
        assert restored[1].patches[0].is_refitted
        counting = Counting(engine)
        done = list(Fusion(settings, counting, Stats()).run(restored))
        assert counting.told == asked, "the first frame, which no earlier one told, and the second where it gains"
        alike = [np.corrcoef(done[1].patches[0].kernel.ravel(), kernel_of(p).ravel())[0, 1] for p in (DASH, HOOK)]
        assert (alike[1] > alike[0]) == (asked == 2)


def test_each_face_goes_through_the_engine_once_beside_others_that_are_new(engine):
    smeared = smear(wide_face(), kernel_of(ARC))
    counting = Counting(engine)
    frames = [found(0, crop_of(wide_face())), found(1, crop_of(smeared), crop_of(smeared, track=2))]
    done = list(Restoration(counting, SETTINGS, Stats()).run([frames[0], Packet(1, None), frames[1]]))
    assert [patch.is_refitted for patch in done[2].patches] == [True, False]
    assert counting.asked == 3 and counting.told == 1
    alone = engine.run(frames[1].crops[1].image[None])
    assert np.abs(done[2].patches[1].restored.astype(int) - alone.crops[0]).max() <= 1, (
        "the new one's own motion is found"
    )
    off = changed(SETTINGS, refit=False), changed(SETTINGS, fuse="none")
    for settings in off:
        counting = Counting(engine)
        list(Restoration(counting, settings, Stats()).run(frames))
        assert counting.told == 0


def test_a_face_at_rest_is_asked_about_again_in_every_third_frame_or_once_its_edges_weaken(engine):
    sharp, moving = wide_face(), smear(wide_face(), kernel_of(DASH))
    pictures = [sharp] * 7 + [moving, moving, sharp, sharp]
    items = [found(i, crop_of(picture)) for i, picture in enumerate(pictures)]
    for settings, asked in ((SETTINGS, [0, 3, 6, 7, 8, 9]), (changed(SETTINGS, still_px=0.0), list(range(11)))):
        counting = Counting(engine)
        done = list(Restoration(counting, settings, Stats()).run(items))
        assert counting.asked == len(asked)
        patches = [item.patches[0] for item in done]
        untouched = [np.array_equal(patch.restored, patch.given) for patch in patches]
        assert untouched == [i not in asked for i in range(11)]
        assert [patch.strength > 0 for patch in patches] == [i in (7, 8) or not settings.still_px for i in range(11)]


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_a_face_that_moves_is_not_at_rest_by_an_older_answer(engine, batch, monkeypatch):
    monkeypatch.setattr("stream.restore.sharpness", lambda _: 1.0)  # of a motion that edges do not tell
    pictures = [wide_face()] * 9 + [smear(wide_face(), kernel_of(DASH))] * 7
    items = [found(i, crop_of(picture)) for i, picture in enumerate(pictures)]
    settings = changed(SETTINGS, fuse="none", batch=batch)
    done = [item.patches[0] for item in Restoration(engine, settings, Stats()).run(items)]
    restored = [i for i, patch in enumerate(done) if patch.strength > 0]
    assert 9 <= restored[0] <= 11 and restored == list(range(restored[0], 16)), "two frames are missed at most"
    late = [found(0, crop_of(pictures[0])), found(200, crop_of(pictures[0]))]
    counting = Counting(engine)
    list(Restoration(counting, settings, Stats()).run(late))
    assert counting.asked == 2, "what was at rest long ago may move now"


def test_later_frames_tell_the_motion_where_no_earlier_one_did(engine):
    settings = changed(SETTINGS, fuse="both")
    items = [found(0, crop_of(smear(wide_face(), kernel_of(HOOK)))), found(1, crop_of(wide_face((1, 1))))]
    counting = Counting(engine)
    blind = next(Restoration(engine, settings, Stats()).run(items)).patches[0]
    done = list(Fusion(settings, counting, Stats()).run(Restoration(engine, settings, Stats()).run(items)))
    assert done[0].patches[0].is_refitted and counting.asked == 1
    assert error(done[0].patches[0].restored, cut(wide_face())) < 0.8 * error(blind.restored, cut(wide_face()))
    broken = Counting(engine, fails=True)
    done = list(Fusion(settings, broken, Stats()).run(Restoration(engine, settings, Stats()).run(items)))
    assert done[0].patches[0].is_refitted, "the face itself does"
    kept = changed(settings, refit=False)
    done = list(Fusion(kept, counting, Stats()).run(Restoration(engine, settings, Stats()).run(items)))
    assert not done[0].patches[0].is_refitted and isinstance(done[0], Mended)


@pytest.mark.parametrize(("shortest_px", "longest_px"), [(9, 13), (20, 26)])
def test_a_blink_of_one_frame_is_no_neighbours_open_eye(engine, shortest_px, longest_px):
    pytest.importorskip("torch", reason="the training extra is not installed")
    from training.kernels import KernelConfig, draw_kernels

    ways = KernelConfig(side_px=33, valid_min_px=shortest_px, valid_max_px=longest_px)
    opened, shut = wide_face(), wide_face().copy()
    top, left = (length // 2 - half for length, half in zip(shut.shape, (56, 48), strict=False))
    shut[top + 44 : top + 60, left + 20 : left + 42] = shut[top + 60 : top + 76, left + 20 : left + 42]  # cheek
    kernels = draw_kernels(np.random.default_rng(0), 16, ways)
    faces = [shut if i == 8 else opened for i in range(16)]
    items = [
        found(i, crop_of(smear(face, kernel))) for i, (face, kernel) in enumerate(zip(faces, kernels, strict=True))
    ]
    settings = changed(SETTINGS, fuse="both")
    done = list(Fusion(settings, engine, Stats()).run(Restoration(engine, settings, Stats()).run(items)))
    eye = (slice(48, 56), slice(24, 38))
    toward = (cut(opened).astype(float) - cut(shut))[eye]
    share = ((done[8].patches[0].restored - cut(shut).astype(float))[eye] * toward).sum() / np.square(toward).sum()
    assert share < 0.2, "of the open eye"


def test_an_engine_that_fails_leaves_the_face_as_it_was(engine):
    stats = Stats()
    items = [found(0, crop_of(wide_face())), found(1, crop_of(smear(wide_face(), kernel_of(ARC))))]
    done = list(Restoration(Counting(engine, fails=True), SETTINGS, stats).run(items))
    assert len(done[0].patches) == 1 and done[1].patches == () and stats.engine_fault == "out of memory"


def test_a_track_is_told_by_its_own_face_only(engine):
    items = [found(0, crop_of(wide_face(), track=1)), found(1, crop_of(smear(wide_face(), kernel_of(ARC)), track=2))]
    done = list(Restoration(engine, SETTINGS, Stats()).run(items))
    assert not done[1].patches[0].is_refitted
    late = [items[0], replace(items[1], frame=frame(100), crops=(crop_of(smear(wide_face(), kernel_of(ARC))),))]
    assert not list(Restoration(engine, SETTINGS, Stats()).run(late))[1].patches[0].is_refitted, "it is forgotten"


def pictured(index, picture, matrix):
    """A grey frame that shows a picture, and the crop that a matrix cuts out of it."""
    whole = replace(frame(index), planes=(picture,))
    face = Face(np.array([0.0, 0, 96, 112]), np.zeros((5, 2)), 1.0)
    return Found(whole, (Crop(Track(1, face, face.landmarks, 0, 0), matrix, cut_crop(whole, matrix, 16)),))


@pytest.mark.parametrize(("off", "is_astray"), [((-6.0, 9.0), True), ((0.4, -0.6), False)])
def test_a_smeared_face_whose_points_are_astray_is_cut_out_where_it_is(engine, off, is_astray):
    picture = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)
    true = similarity(FACE)
    wrong = true.copy()
    wrong[:, 2] += off
    if is_astray:
        turn = cv2.getRotationMatrix2D((47.5, 55.5), 15.0, 1.1)
        wrong = turn @ np.vstack([wrong, [0, 0, 1]])
    items = [pictured(0, picture, true), pictured(1, smear(picture, kernel_of(LINE)), wrong)]
    done = list(Restoration(engine, SETTINGS, Stats()).run(items))
    crop = done[1].patches[0].crop
    assert (crop is items[1].crops[0]) == (not is_astray)
    assert np.abs(apply(crop.matrix, FACE) - apply(true, FACE)).max() < 2
    assert (np.abs(apply(wrong, FACE) - apply(true, FACE)).max() > 8) == is_astray
    known = cut_crop(items[0].frame, crop.matrix, 0)
    assert error(done[1].patches[0].restored, known) < 0.6 * error(done[1].patches[0].given, known)


def test_what_was_seen_is_laid_where_the_fit_says_where_the_restored_face_leads_astray():
    kernel, sharp = kernel_of(LINE), cut(wide_face())
    crop = crop_of(smear(wide_face((5, -4)), kernel))
    noise = np.random.default_rng(0).integers(0, 256, sharp.shape, np.uint8)
    memory = Memory(0.5)
    memory.see((Patch(crop_of(wide_face()), sharp, 0.0, kernel, Motion(0.0, 0.0, 0.0)),), frame(0))
    face = memory.recall(crop, frame(1))
    told = fit(cut(smear(wide_face((5, -4)), kernel)), face, crop.matrix)
    blind = Patch(crop, noise, 1.0, kernel, motion_of(kernel, crop.matrix))
    astray = replace(placed(replace(blind, fit=told), told), restored=noise)
    (seen,) = memory.see((astray,), frame(1))
    inner = (slice(20, -20), slice(20, -20))
    true = cut(wide_face((5, -4)))
    assert error(seen.picture[inner], true[inner]) < 0.6 * error(sharp[inner], true[inner])
    assert seen.certainty[inner].mean() > 0.1
