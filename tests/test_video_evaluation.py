"""Clips smeared in known ways, and what is measured on them."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("torch", reason="the training extra is not installed")

from stream.faces.align import similarity
from stream.frame import Face, Track
from training.clips import HEAVIEST_PX, KINDS, average, exposures, head, shake, shake_paths, smear
from training.video import Figures, compare_faces, evaluate_clip, jitter, markdown, psnr_db, read_frames
from zoo import FACE

LOSSLESS = {"codec": "ffv1", "codec_options": (), "time_base": Fraction(1, 1000), "pts": tuple(range(0, 800, 40))}


@pytest.fixture(scope="module")
def still(clip_module):
    """Twenty lossless frames of a face that moves by a pixel a frame, and its alignment in each."""
    path = clip_module("evaluated.mkv", **LOSSLESS)
    frames = read_frames(path, 20)
    return path, frames


@pytest.fixture(scope="module")
def clip_module(tmp_path_factory):
    from skimage import data

    from zoo import Clip, make_clip

    folder = tmp_path_factory.mktemp("clips")
    return lambda name, **fields: make_clip(folder / name, data.astronaut(), Clip(**fields))


def difference(a, b):
    return np.abs(a.planes[0].astype(int) - b.planes[0]).mean()


def test_a_shake_goes_from_nothing_to_its_heaviest_and_stays_where_it_is():
    paths = shake_paths(61, 7)
    extents = [np.ptp(path, axis=0).max() for path in paths]
    assert extents[0] == extents[60] == 0 and extents[30] == pytest.approx(HEAVIEST_PX)
    assert np.all(np.diff(extents[:31]) > 0)
    assert all(np.abs(path.mean(0)).max() < 1e-9 for path in paths)


def test_smears_change_what_they_should(still):
    _, frames = still
    matrices = [similarity(FACE - [i, 0]) for i in range(len(frames))]
    shaken, moved, mean = (kind(frames, matrices, 7) for kind in (shake, head, average))
    assert difference(shaken[0], frames[0]) == 0 and difference(shaken[19], frames[19]) > 2
    corner = (slice(200, 240), slice(280, 320))
    assert np.array_equal(moved[19].planes[0][corner], frames[19].planes[0][corner])
    assert not np.array_equal(shaken[19].planes[0][corner], frames[19].planes[0][corner])
    assert 1 < difference(moved[19], frames[19]) < difference(shaken[19], frames[19])
    assert difference(mean[10], frames[10]) > 1 and [f.pts for f in mean] == [f.pts for f in frames]
    assert difference(mean[0], frames[0]) == difference(mean[19], frames[19]) == 0, "no other is in their middle"
    black = replace(frames[0], planes=tuple(np.zeros_like(p) for p in frames[0].planes))
    white = replace(frames[0], planes=tuple(np.full_like(p, 255) for p in frames[0].planes))
    half = average([black, white, black], [None] * 3, 0)[1].planes[0]
    assert half.max() == half.min() == round(255 * (1 / 3) ** (1 / 2.2)), "the mean of light, not of numbers"


def test_a_frame_that_shows_the_one_before_once_more_is_smeared_once(still):
    frames = list(still[1])
    for i in (6, 12):
        noisy = frames[i - 1].planes[0].copy()
        noisy[::40, ::40] ^= 1  # as a codec leaves it
        frames[i] = replace(frames[i], planes=(noisy, *frames[i - 1].planes[1:]))
    assert [i for i, shown in enumerate(exposures(frames)) if shown != i] == [6, 12]
    assert exposures([frames[0]] * 4) == [0, 1, 2, 3] and exposures(frames[:1]) == [0]
    matrices = [similarity(FACE - [i, 0]) for i in range(len(frames))]
    for kind in ("shake", "head", "average"):
        made = smear(kind, frames, matrices, 7)
        assert [f.pts for f in made] == [f.pts for f in frames]
        assert difference(made[12], made[11]) == 0 and difference(made[13], made[12]) > 0.1, kind
    kept = [frame for i, frame in enumerate(frames) if i not in (6, 12)]
    assert difference(smear("average", frames, matrices, 7)[9], average(kept, [None] * 18, 7)[8]) == 0
    assert smear("untouched", frames, matrices, 7) == frames


def track(points, number=1):
    box = np.concatenate([points.min(0) - 20, points.max(0) + 20])
    return Track(number, Face(box, points, 1.0), points, 0, 0)


def test_faces_are_counted_as_found_false_or_off():
    figures = Figures("clip", "kind", 2)
    eyes = np.hypot(*(FACE[1] - FACE[0]))
    found = [(track(FACE + np.array([0.1 * eyes, 0])),), (track(FACE + 300),)]
    compare_faces(figures, [(track(FACE),), (track(FACE),)], found)
    assert (figures.faces, figures.found, figures.false) == (2, 1, 1)
    assert figures.point_error == [pytest.approx(0.1)]


def test_jitter_is_blind_to_true_motion_and_a_steady_offset():
    way = [FACE + np.array([3 * i, i * i / 4]) for i in range(12)]
    truth = [(track(points),) for points in way]
    assert jitter(truth, [(track(points + 2),) for points in way], smooth=True) == pytest.approx(0, abs=1e-9)
    shaky = [(track(points + np.array([(-1) ** i * 0.5, 0])),) for i, points in enumerate(way)]
    scale = 35.2 / np.hypot(*(FACE[1] - FACE[0]))
    assert jitter(truth, shaky, smooth=True) == pytest.approx(2 * scale / np.sqrt(2), rel=1e-6)


def test_psnr_is_weighted():
    a, b, weight = (
        np.zeros((4, 4, 3), np.float32),
        np.full((4, 4, 3), 25.5, np.float32),
        np.zeros((4, 4), np.float32),
    )
    weight[:2] = 0.5
    assert psnr_db(a, b, weight) == pytest.approx(20)
    b[:2] = 0
    assert psnr_db(a, b, weight) == 99


def test_a_smeared_clip_gains_and_an_untouched_one_is_left_alone(still):
    path, _ = still
    shaken = evaluate_clip(path, "shake", 20, "fast", "onnxruntime")
    assert shaken.faces == 20 and shaken.found == 20 and shaken.false == 0
    worst = slice(14, 20)
    assert np.mean(shaken.after_db[worst]) > np.mean(shaken.before_db[worst]) + 1
    same = evaluate_clip(path, "untouched", 20, "fast", "onnxruntime")
    assert min(same.before_db) == 99 and np.mean(same.after_db) > 45
    assert np.mean(same.flicker_after) < 1.1 * np.mean(same.flicker_sharp)
    table = markdown([shaken, same])
    assert table.count("\n") == 3 and "| evaluated.mkv | shake | 20 | 1.000 |" in table


def test_the_command_measures_clips_and_refuses_unknown_smears(unsmear, still, tmp_path):
    path, _ = still
    done = unsmear("evaluate", "--video", path, "--smear", "head", "--frames", "8", "--json", "figures.json")
    assert done.returncode == 0, done.stderr
    assert "| head | 8 |" in done.stdout
    assert json.loads((tmp_path / "figures.json").read_text())[0]["faces"] == 8
    refused = unsmear("evaluate", "--video", path, "--smear", "earthquake")
    assert refused.returncode == 2 and "shake" in refused.stderr
    assert set(KINDS) == {"shake", "head", "average", "untouched"}
