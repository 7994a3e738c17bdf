"""The change that is pasted: where, how much, and nothing slow."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from stream import paste
from stream.frame import Color, Crop, Face, Frame, Mended, Patch, Track
from stream.motion import motion_of, smeared
from stream.paste import mask, slow_part
from stream.refit import noise_of, to_grey
from stream.region import cut_crop
from stream.stats import Stats


def patch(given, restored, strength=1.0, kernel=None):
    face = Face(np.array([0.0, 0, 96, 112]), np.zeros((5, 2)), 1.0)
    crop = Crop(Track(1, face, face.landmarks, 0, 0), np.array([[1.0, 0, 0], [0, 1, 0]]), given)
    return Patch(crop, restored, strength, kernel, None if kernel is None else motion_of(kernel, crop.matrix))


def masked_change(patch):
    return paste.masked_change(patch, patch.given.astype(np.float32))


GREY = np.full((112, 96, 3), 120, np.uint8)
ACROSS = np.zeros((33, 33), np.float32)
ACROSS[16, 4:29] = 1 / 25  # 25 px to the side


@pytest.mark.parametrize("kernel", [None, ACROSS])
def test_a_shift_of_colour_is_not_pasted(kernel):
    tinted = GREY + np.array([20, 0, 250], np.uint8)  # red up by 20, blue down by 6
    assert np.abs(masked_change(patch(GREY, tinted, kernel=kernel))).max() < 1.01
    slope = (GREY + np.linspace(-15, 15, 112)[:, None, None]).astype(np.uint8)
    assert np.abs(masked_change(patch(GREY, slope)))[16:-16].max() < 5, "nor one that comes slowly"


@pytest.mark.parametrize("period", [40, 60, 80])
def test_what_the_motion_took_is_pasted_however_slowly_it_varies(period):
    wave = 120 + 100 * np.sin(2 * np.pi * np.arange(96) / period)
    face = np.rint(np.broadcast_to(wave[None, :, None], (112, 96, 3))).astype(np.uint8)
    given = np.rint(smeared(face.astype(np.float32), ACROSS)).astype(np.uint8)
    taken = (face.astype(float) - given)[20:-20, 20:-20]
    pasted = masked_change(patch(given, face, kernel=ACROSS))[20:-20, 20:-20]
    assert np.abs(taken).max() > 3 and np.abs(pasted - taken).max() < 0.5
    untold = masked_change(patch(given, face))[20:-20, 20:-20]
    assert np.abs(untold - taken).max() > 1, "without the motion, nothing says that it was not a shift of colour"


def test_detail_is_pasted_whole_inside_the_mask_and_by_strength():
    x = np.arange(96)
    detail = np.broadcast_to((120 + 40 * np.sin(2 * np.pi * x / 12))[None, :, None], (112, 96, 3)).astype(np.uint8)
    wanted = detail.astype(float) - 120
    found = masked_change(patch(GREY, detail))
    assert np.abs(found - wanted)[20:-20, 20:-20].max() < 3
    assert np.abs(found[0]).max() == 0 == np.abs(found[:, -1]).max()
    assert np.allclose(masked_change(replace(patch(GREY, detail), strength=0.25)), found / 4, atol=1e-4)
    assert mask()[56, 48] == 1 and mask()[0, 0] == 0


@pytest.mark.parametrize("period", [400, 200])
def test_the_slow_part_is_what_varies_slowly(period):
    everywhere = np.ones((112, 96), np.float32)
    wave = 50 * np.cos(2 * np.pi * (np.arange(112) - 56) / period)[:, None, None] * np.ones((1, 96, 3))
    kept = slow_part(wave.astype(np.float32), everywhere)
    assert kept.shape == (112, 96, 3) and kept.dtype == np.float32
    assert np.abs(kept[40:72]).mean() > 0.7 * np.abs(wave[40:72]).mean()
    fast = 50 * np.cos(2 * np.pi * np.arange(112) / 20)[:, None, None] * np.ones((1, 96, 3), np.float32)
    assert np.abs(slow_part(fast.astype(np.float32), everywhere)).max() < 2
    assert not slow_part(wave.astype(np.float32) / 60, everywhere).any(), "so little of it nobody sees"


def test_what_a_motion_brought_in_from_beside_the_crop_is_no_shift_of_colour():
    wide = np.full((112, 160, 3), 120, np.float32)
    wide[:, :32] = 20  # dark, beside the crop
    given = np.rint(smeared(wide, ACROSS)).astype(np.uint8)[:, 32:128]
    assert np.abs(given[:, :10].astype(int) - 120).min() > 5
    change = masked_change(patch(given, GREY, kernel=ACROSS))
    assert np.abs(change - (GREY.astype(float) - given))[16:-16, 6:-6].max() < 0.5


@pytest.mark.parametrize(("px", "least", "most"), [(5, 0.0, 0.25), (21, 0.9, 1.6)])
def test_a_small_motion_is_not_undone_in_what_did_not_move(photograph, px, least, most):
    kernel = np.zeros((33, 33), np.float32)
    kernel[16, 16 - px // 2 : 17 + px // 2] = 1 / px
    sharp = cv2.resize(photograph[40:200, 160:297], (96, 112), interpolation=cv2.INTER_AREA).astype(np.float32)
    moved = np.zeros((112, 96, 1), np.float32)
    moved[:, :48] = 1
    given = np.rint(sharp + moved * (smeared(sharp, kernel) - sharp)).astype(np.uint8)
    rings = sharp + (1 - moved) * 3 * (sharp - smeared(sharp, kernel))  # what undoing it makes of what did not move
    change = masked_change(patch(given, rings, kernel=kernel))
    wanted, got = (
        [np.abs(x[20:-20, half]).mean() for half in (np.s_[20:36], np.s_[60:76])] for x in (rings - given, change)
    )
    assert min(wanted) > 2
    assert 0.8 < got[0] / wanted[0] < 1.05, "what moved"
    assert least <= got[1] / wanted[1] < most, "what did not"


def test_noise_is_no_reason_to_leave_a_face_as_it_is(photograph):
    kernel = np.zeros((33, 33), np.float32)
    kernel[16, 14:19] = 1 / 5
    sharp = cv2.resize(photograph[40:200, 160:297], (96, 112), interpolation=cv2.INTER_AREA).astype(np.float32)
    grain = np.random.default_rng(1).normal(0, 5, (112, 96, 1))
    given = np.clip(np.rint(smeared(sharp, kernel) + grain), 0, 255).astype(np.uint8)
    assert abs(noise_of(to_grey(given)) - 5) < 1 and noise_of(to_grey(smeared(sharp, kernel))) < 1.5
    whole = patch(given, sharp, kernel=kernel)
    untold = masked_change(replace(whole, motion=whole.motion._replace(spread_px=99.0)))
    kept = np.abs(masked_change(whole))[20:-20, 20:-20].mean() / np.abs(untold)[20:-20, 20:-20].mean()
    assert kept > 0.9


@pytest.mark.parametrize("scale", [0.5, 0.24, 0.12])
def test_a_face_that_came_back_as_it_was_changes_nothing_however_large_it_is(scale):
    rng = np.random.default_rng(5)
    plane = cv2.GaussianBlur(rng.normal(0, 40 * 8 * 3.5, (1100, 1000)).astype(np.float32), (0, 0), 8)
    color = Color("gbrp", "gbr", 8, (0, 0), (0.0, 0.0), True, (2, 0, 1, 1), None, 0)
    frame = Frame(0, 0, 1, Fraction(1, 25), (np.clip(plane + 128, 0, 255).astype(np.uint8),) * 3, color)
    matrix = np.array([[scale, 0, 48 - 503 * scale], [0, scale, 56 - 551 * scale]])
    crop = replace(patch(GREY, GREY).crop, matrix=matrix, image=cut_crop(frame, matrix, 16))
    restored = cut_crop(frame, matrix, 16, unrounded=True)[16:-16, 16:-16]
    still = np.zeros((33, 33), np.float32)
    still[16, 16] = 1
    done = paste.paste_patches(frame, (Patch(crop, restored, 1.0, still, motion_of(still, matrix)),))
    assert np.array_equal(done.planes[0], frame.planes[0])


def test_half_a_step_up_and_down_in_turn_does_not_flicker():
    """Nor in what a cut, or another size, left behind."""
    rows = np.linspace(20, 200, 112, dtype=np.uint8)[:, None].repeat(96, 1)
    color = Color("gray", "gray", 8, (0, 0), (0.0, 0.0), True, (2, 0, 1, 1), None, 0)
    frame = Frame(0, 0, 1, Fraction(1, 25), (rows,), color)
    given = rows[..., None].repeat(3, 2)
    wave = 6.5 * np.sin(2 * np.pi * np.arange(96) / 12)[None, :, None]

    def mended(i):
        restored = (given + wave + (0.1 if i % 2 else -0.1)).astype(np.float32)
        return Mended(frame, (patch(np.pad(given, ((16, 16), (16, 16), (0, 0)), "edge"), restored),))

    done = [item.planes[0] for item in paste.paste([mended(i) for i in range(4)], False, Stats())]
    apart = [int((paste.paste_patches(frame, mended(i).patches).planes[0] != done[0]).sum()) for i in (0, 1)]
    assert apart[0] == 0 < apart[1], "by itself the second is rounded otherwise,"
    assert all(np.array_equal(planes, done[0]) for planes in done), "after the first it is not"
    other = replace(frame, planes=(np.full((56, 48), 90, np.uint8),))
    alone = paste.paste_patches(frame, mended(1).patches)
    assert np.array_equal(paste.paste_patches(frame, mended(1).patches, other).planes[0], alone.planes[0])
    dark = replace(frame, planes=(np.full((112, 96), 0, np.uint8),))
    assert np.array_equal(paste.paste_patches(frame, mended(1).patches, dark).planes[0], alone.planes[0])
