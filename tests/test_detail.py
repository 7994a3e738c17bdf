"""What is fine of a smeared face is lent by sharp frames, at the frame's own resolution, where they show the same."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from msgspec.structs import replace as changed

from stream import detail, sights
from stream.config import load_settings
from stream.detail import FINE_PX, Lending, fine_part, times_of
from stream.faces.align import similarity, warp
from stream.frame import Color, Crop, Face, Frame, Mended, Packet, Patch, Repeat, Track
from stream.motion import motion_of, need
from stream.paste import paste_patches
from stream.region import cut_crop
from stream.sights import Sighting
from stream.stats import Stats
from zoo import FACE

SETTINGS = load_settings(None, {}).restore
COLOR = Color("gbrp", "gbr", 8, (0, 0), (0.299, 0.114), True, (2, 0, 2, 2), None, 0)
WIDE = 24  # px of the crop about it in a picture
PX = 13  # of the crop, along the rows: the motion
EYE = (slice(44, 60), slice(20, 42))  # of the crop
PACKET = Packet(1, None)


def kernel(px):
    line = np.zeros((33, 33), np.float32)
    line[16, 16 - px // 2 : 17 + px // 2] = 1 / px
    return line


@pytest.fixture(scope="module")
def photographs(photograph_module):
    """`photographs(times)`: a face at so many times the crop's resolution, with a grain finer than the crop shows."""

    def make(times, mirrored=False, shut=False):
        face = warp(photograph_module, similarity(FACE), WIDE)
        face = np.ascontiguousarray(face[:, ::-1]) if mirrored else face
        if shut:
            rows, columns = (slice(s.start + WIDE, s.stop + WIDE) for s in EYE)
            face[rows, columns] = face[rows.start + 16 : rows.stop + 16, columns]
        large = cv2.resize(face.astype(np.float32), None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
        grain = cv2.GaussianBlur(np.random.default_rng(mirrored).standard_normal(large.shape[:2]), (0, 0), 0.8)
        return np.clip(large + 40 * grain[..., None], 0, 255).astype(np.uint8)

    return make


@pytest.fixture(scope="module")
def photograph_module():
    from skimage import data

    return data.astronaut()


def mended(index, picture, times, px=1, shift=0, track=1):
    """A frame that shows a picture `shift` px of it further right, smeared by so many px of the crop, and the face as a
    network restores it, a little soft; and the picture that is the truth."""
    true = np.roll(picture, shift, 1)
    seen = cv2.filter2D(true, -1, np.full((1, px * times), 1 / (px * times))) if px > 1 else true
    frame, sharp = (
        Frame(index, index, 1, Fraction(1, 25), tuple(np.ascontiguousarray(p[..., c]) for c in (1, 2, 0)), COLOR)
        for p in (seen, true)
    )
    matrix = np.array([[1 / times, 0, 0.5 / times - 0.5 - WIDE], [0, 1 / times, 0.5 / times - 0.5 - WIDE]])
    face = Face(np.array([24.0, 24, 120, 136]) * times, np.zeros((5, 2)), 1.0)
    crop = Crop(Track(track, face, face.landmarks, 9, 0), matrix, cut_crop(frame, matrix, 16))
    motion = motion_of(kernel(px), matrix)
    strength = need(motion, SETTINGS.still_px)
    restored = cv2.GaussianBlur(cut_crop(sharp, matrix, 0, unrounded=True), (0, 0), 1.0)
    return Mended(frame, (Patch(crop, restored, strength, kernel(px), motion),)), true


def lend(items, settings=SETTINGS):
    return list(Lending(settings, Stats()).run(Sighting(settings.still_px).run(iter(items))))


def shown(item):
    """The frame once its faces are pasted, RGB."""
    green, blue, red = paste_patches(item.frame, item.patches).planes
    return np.stack([red, green, blue], -1)


def error(item, true, times):
    inside = (slice((WIDE + 12) * times, -(WIDE + 12) * times),) * 2
    return float(np.sqrt(np.square(shown(item)[inside].astype(float) - true[inside]).mean()))


@pytest.mark.parametrize("times", [1, 3, 6])
@pytest.mark.parametrize("sharp_first", [True, False])
def test_the_grain_that_a_motion_took_is_lent_by_a_sharp_frame(photographs, times, sharp_first):
    picture = photographs(times)
    sharp, (now, true) = mended(0, picture, times)[0], mended(1, picture, times, PX, shift=2 * times)
    if not sharp_first:
        sharp, now = replace(sharp, frame=replace(sharp.frame, index=1, pts=1)), now
        now = replace(now, frame=replace(now.frame, index=0, pts=0))
    done = next(item for item in lend([sharp, now] if sharp_first else [now, sharp]) if item.patches[0].strength)
    assert len(done.patches[0].detail.picture) == 112 * min(times, detail.MOST)
    before, after = error(now, true, times), error(done, true, times)
    assert after < 0.6 * before, (before, after)


def test_nothing_is_lent_to_sharp_faces_other_tracks_or_long_after(photographs):
    picture = photographs(2)
    sharp, now = mended(0, picture, 2)[0], mended(1, picture, 2, PX)[0]
    late = replace(now, frame=replace(now.frame, index=90, pts=90))
    other = replace(
        now, patches=tuple(replace(p, crop=replace(p.crop, track=replace(p.crop.track, id=2))) for p in now.patches)
    )
    unseen = replace(
        sharp,
        patches=tuple(replace(p, crop=replace(p.crop, track=replace(p.crop.track, lost=1))) for p in sharp.patches),
    )
    for items in ([sharp, sharp], [sharp, late], [sharp, other], [unseen, now], [now]):
        assert all(patch.detail is None for item in lend(items) for patch in item.patches)
    assert lend([sharp, now])[1].patches[0].detail is not None
    assert lend([sharp, now], changed(SETTINGS, strength=0.5))[1].patches[0].detail.weight.max() <= 0.5


def test_another_face_lends_nothing(photographs):
    sharp, (now, true) = mended(0, photographs(2, mirrored=True), 2)[0], mended(1, photographs(2), 2, PX)
    done = lend([sharp, now])[1]
    assert done.patches[0].detail.weight.mean() < 0.02
    assert error(done, true, 2) < 1.05 * error(now, true, 2)


@pytest.mark.parametrize("contrast", [1.0, 0.4])
@pytest.mark.parametrize("px", [5, 13, 25])
def test_a_closed_eye_stays_closed(photographs, px, contrast):
    opened, shut = photographs(2), photographs(2, shut=True)
    opened = np.rint(shut + contrast * (opened.astype(float) - shut)).astype(np.uint8)
    sharp, now = mended(0, opened, 2)[0], mended(1, shut, 2, px)[0]
    done = lend([sharp, now])[1]
    eye = tuple(slice((s.start + 4 + WIDE) * 2, (s.stop - 4 + WIDE) * 2) for s in EYE)
    blink, to, closed = (
        (p.astype(float) - cv2.GaussianBlur(p.astype(float), (0, 0), 2 * FINE_PX))[eye]
        for p in (shown(done), opened, shut)
    )
    share = ((blink - closed) * (to - closed)).sum() / np.square(to - closed).sum()
    assert share < 0.2
    assert done.patches[0].detail.weight.mean() > 0.4, "the rest of the face is lent"


@pytest.mark.parametrize(("fit", "waited"), [(100, 6), (3, 3)])
def test_a_frame_waits_for_the_next_sharp_one_as_long_as_memory_lasts(photographs, monkeypatch, fit, waited):
    picture = photographs(2)
    monkeypatch.setattr(sights, "MOST_BYTES", fit * picture.nbytes)
    items = [PACKET, *(mended(i, picture, 2, PX)[0] for i in range(6)), mended(6, picture, 2)[0], PACKET]
    taken = []
    sighted = Sighting(SETTINGS.still_px).run(taken.append(item) or item for item in items)
    lent = Lending(SETTINGS, Stats()).run(sighted)
    done = [(item, len(taken)) for item in lent]
    assert [getattr(i, "frame", i) for i, _ in done] == [getattr(i, "frame", i) for i in items]
    assert done[0][1] == 1, "a packet waits for nothing"
    assert done[1][1] - 2 == waited
    assert done[6][0].patches[0].detail is not None


def test_repeats_that_wait_are_pictures_in_memory_too(photographs, monkeypatch):
    picture = photographs(2)
    monkeypatch.setattr(sights, "MOST_BYTES", 4 * picture.nbytes)
    new = [mended(i, picture, 2, PX)[0] for i in range(6)]
    items = [each for one in new for each in (one, Repeat(-1, one.frame))]
    taken = []
    done = [
        (item, len(taken)) for item in Sighting(SETTINGS.still_px).run(taken.append(item) or item for item in items)
    ]
    assert done[0][1] == 5, "that one, and four more"
    assert [type(item) for item, _ in done] == [type(item) for item in items]


def test_no_frame_waits_for_a_face_that_is_gone_or_where_none_is_ever_sharp(photographs):
    picture = photographs(2)
    gone = [
        *(mended(i, picture, 2, PX)[0] for i in range(3)),
        *(replace(mended(i, picture, 2)[0], patches=()) for i in range(3, 9)),
    ]
    smeared = [mended(i, picture, 2, PX)[0] for i in range(9)]
    for items, still_px, most in ((gone, SETTINGS.still_px, 4), (smeared, 0.0, 1), (smeared, SETTINGS.still_px, 9)):
        taken = []
        first = next(Sighting(still_px).run(taken.append(item) or item for item in items))
        assert first.frame is items[0].frame and len(taken) == most


def test_what_tells_no_motion_is_not_sharp_and_few_frames_are_kept(photographs, monkeypatch):
    picture = photographs(2)
    nothing = mended(0, picture, 2)[0]
    nothing = replace(
        nothing, patches=tuple(replace(p, kernel=np.zeros((33, 33), np.float32)) for p in nothing.patches)
    )
    assert lend([nothing, mended(1, picture, 2, PX)[0]])[1].patches[0].detail is None
    monkeypatch.setattr(sights, "MOST_BYTES", 5 * picture.nbytes)
    stage = Sighting(SETTINGS.still_px)
    assert len(list(stage.run(mended(i, picture, 2, track=i)[0] for i in range(20)))) == 20
    assert len(stage._before) == 5 and not stage._after


def test_where_faces_overlap_what_is_fine_is_replaced_once(photographs):
    picture = photographs(2)
    sharp, (now, true) = mended(0, picture, 2)[0], mended(1, picture, 2, PX)
    done = lend([sharp, now])[1]
    patch = replace(done.patches[0], restored=done.patches[0].given.astype(np.float32))  # nothing but the detail
    once, twice = (
        fine_part(shown(replace(done, patches=(patch,) * n)).astype(np.float32)[48:-48, 48:-48]) for n in (1, 2)
    )
    assert np.abs(once - fine_part(true.astype(np.float32)[48:-48, 48:-48])).mean() < 8
    assert np.abs(twice - once).mean() < 0.2 * np.abs(once).mean()


def test_a_detail_is_of_the_frames_own_resolution_up_to_four_times_the_crops():
    found = [times_of(np.array([[s, 0.0, 0.0], [0.0, s, 0.0]])) for s in (3.0, 1.0, 0.6, 0.4, 0.3, 0.1)]
    assert found == [1, 1, 2, 2, 3, 4]
