"""The change that is pasted: where, how much, and nothing slow."""

from dataclasses import replace

import numpy as np
import pytest

from stream.frame import Crop, Face, Patch, Track
from stream.paste import mask, masked_change, slow_part


def patch(given, restored, strength=1.0):
    face = Face(np.array([0.0, 0, 96, 112]), np.zeros((5, 2)), 1.0)
    crop = Crop(Track(1, face, face.landmarks, 0, 0), np.array([[1.0, 0, 0], [0, 1, 0]]), given)
    return Patch(crop, restored, strength)


GREY = np.full((112, 96, 3), 120, np.uint8)


def test_a_shift_of_colour_is_not_pasted():
    tinted = GREY + np.array([20, 0, 250], np.uint8)  # red up by 20, blue down by 6
    assert np.abs(masked_change(patch(GREY, tinted))).max() < 0.01
    slope = (GREY + np.linspace(-15, 15, 112)[:, None, None]).astype(np.uint8)
    assert np.abs(masked_change(patch(GREY, slope)))[16:-16].max() < 5, "nor one that comes slowly"


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
    wave = np.cos(2 * np.pi * (np.arange(112) - 56) / period)[:, None, None] * np.ones((1, 96, 3))
    kept = slow_part(wave.astype(np.float32))
    assert kept.shape == (112, 96, 3) and kept.dtype == np.float32
    assert np.abs(kept[40:72]).mean() > 0.7 * np.abs(wave[40:72]).mean()
    fast = np.cos(2 * np.pi * np.arange(112) / 20)[:, None, None] * np.ones((1, 96, 3), np.float32)
    assert np.abs(slow_part(fast.astype(np.float32))).max() < 0.05
