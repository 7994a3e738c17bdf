"""Regions to RGB and changes back into planes, against the media library's own conversion."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stream.frame import Frame
from stream.media.color import add_change, align_rect, read_rgb, rgb_to_yuv
from stream.media.source import FileSource
from stream.region import crop_rect, cut_crop
from zoo import Clip, make_clip

LAYOUTS = ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le"]


def first_frame(path: Path) -> Frame:
    with FileSource(path) as source:
        return next(item for item in source if isinstance(item, Frame))


def make(tmp_path, photograph, layout, matrix, color_range, width=320, height=240) -> Path:
    return make_clip(
        tmp_path / "clip.mkv",
        photograph,
        Clip(
            width=width,
            height=height,
            pts=(0,),
            time_base=Fraction(1, 1000),
            pixel_format=layout,
            codec="ffv1",
            matrix=matrix,
            color_range=color_range,
            codec_options=(),
        ),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("matrix", [1, 5], ids=["bt709", "bt601"])
@pytest.mark.parametrize("color_range", [1, 2], ids=["tv", "pc"])
def test_a_region_has_the_colours_that_the_media_library_decodes(tmp_path, photograph, layout, matrix, color_range):
    path = make(tmp_path, photograph, layout, matrix, color_range)
    frame = first_frame(path)
    assert frame.color.depth == (10 if "10" in layout else 8)
    assert frame.color.full_range == (color_range == 2)
    with av.open(str(path)) as container:
        reference = (
            next(container.decode(video=0))
            .reformat(format="rgb24", src_colorspace=matrix, src_color_range=color_range, dst_color_range=2)
            .to_ndarray()
        )
    ours = read_rgb(frame, (0, 0, 320, 240), (320, 240))
    difference = np.abs(ours.astype(int) - reference)
    assert difference.mean() < (0.8 if "444" in layout else 2.2)  # the library upsamples chroma in another way


@pytest.mark.parametrize("layout", [*LAYOUTS, "gray", "gbrp"])
@pytest.mark.parametrize(("width", "height"), [(320, 240), (321, 241)])
def test_a_change_lands_where_and_as_large_as_it_was_and_nowhere_else(tmp_path, photograph, layout, width, height):
    if layout == "gbrp":
        from PIL import Image

        path = tmp_path / "still.png"
        Image.fromarray(photograph[:height, :width]).save(path)
    else:
        path = make(tmp_path, photograph, layout, 1, 1, width, height)
    frame = first_frame(path)
    assert frame.planes[0].shape == (height, width)
    planes = [plane.copy() for plane in frame.planes]
    rect = align_rect((100, 60, 196, 172), frame)
    change = np.zeros((112, 96, 3), np.float32)
    change[20:90, 20:76] = [-9.0, -9.0, -9.0] if layout == "gray" else [-12.0, 6.0, -6.0]
    matrix = np.array([[1.0, 0.0, -100.0], [0.0, 1.0, -60.0]])
    add_change(planes, frame.color, rect, matrix, change)

    outside = np.ones((height, width), bool)
    outside[78:152, 118:178] = False
    for index, (before, after) in enumerate(zip(frame.planes, planes, strict=True)):
        chroma = layout.startswith("yuv") and index > 0
        sx, sy = frame.color.shift if chroma else (0, 0)
        untouched = outside[:: 1 << sy, :: 1 << sx]
        assert np.array_equal(before[untouched], after[untouched])
        assert after.max() < 2**frame.color.depth
    moved = Frame(0, 0, 0, frame.time_base, tuple(planes), frame.color)
    region = align_rect((124, 84, 172, 144), frame)
    size = (region[2] - region[0], region[3] - region[1])
    found = read_rgb(moved, region, size).astype(float) - read_rgb(frame, region, size)
    dark = read_rgb(frame, region, size).min(2) < 16  # a change below black saturates
    # Three 8-bit samples are each rounded to a step of their own; more bits round less.
    rounding = 1.3 if frame.color.depth == 8 and layout.startswith("yuv") else 0.5
    assert np.allclose(found[~dark].mean(0), change[50, 50], atol=rounding)


@pytest.mark.parametrize("layout", [*LAYOUTS, "gray"])
def test_what_is_read_unrounded_rounds_to_what_is_read(tmp_path, photograph, layout):
    frame = first_frame(make(tmp_path, photograph, layout, 1, 1))
    matrix = np.array([[0.4, 0.1, -10.0], [-0.1, 0.4, 12.0]])
    fine, crop = cut_crop(frame, matrix, 0, unrounded=True), cut_crop(frame, matrix, 0)
    assert fine.dtype == np.float32 and fine.min() >= 0 and fine.max() <= 255
    assert np.abs(fine - crop).max() < 4, "three roundings, of planes, colours and the crop"
    assert np.abs((fine - crop).mean()) < 0.5 and np.abs(fine - np.rint(fine)).mean() > 0.2


def test_colour_is_put_where_it_was_read(tmp_path, photograph):
    frame = first_frame(make(tmp_path, photograph, "yuv420p", 1, 1))
    wave = np.rint(128 + 50 * np.sin(2 * np.pi * np.arange(160) / 8)).astype(np.uint8)
    chroma = np.repeat(wave[None], 120, 0)
    frame = replace(frame, planes=(np.full((240, 320), 128, np.uint8), chroma, np.full_like(chroma, 128)))
    matrix = np.array([[1, 0, -30.0], [0, 1, -20.0]])
    crop = cut_crop(frame, matrix, 0).astype(np.float32)
    planes = [plane.copy() for plane in frame.planes]
    add_change(planes, frame.color, crop_rect(frame, matrix, 0), matrix, crop.mean((0, 1)) - crop)
    left = planes[1][20:60, 25:55].astype(int) - 128
    assert np.abs(left).max() < 9, "of 50"


def test_a_change_of_less_than_half_a_step_leaves_every_sample(tmp_path, photograph):
    frame = first_frame(make(tmp_path, photograph, "yuv420p", 1, 1))
    planes = [plane.copy() for plane in frame.planes]
    add_change(planes, frame.color, (0, 0, 320, 240), np.eye(3)[:2], np.full((112, 96, 3), 0.4, np.float32))
    assert all(np.array_equal(a, b) for a, b in zip(planes, frame.planes, strict=True))


@pytest.mark.parametrize("layout", ["yuv420p", "yuv422p10le", "gray"])
def test_what_moves_by_little_from_frame_to_frame_is_rounded_the_same_way(tmp_path, photograph, layout):
    frame = first_frame(make(tmp_path, photograph, layout, 1, 1))
    frame = replace(frame, planes=tuple(np.full_like(plane, 100) for plane in frame.planes))
    inside = (slice(20, 90), slice(20, 70))

    def luma(steps, before):
        """A grey change by so many steps of a sample, in full or limited range."""
        planes = [plane.copy() for plane in frame.planes]
        change = np.full((112, 96, 3), steps / rgb_to_yuv(frame.color)[0].sum(), np.float32)
        add_change(planes, frame.color, (0, 0, 96, 112), np.eye(3)[:2], change, before)
        assert layout == "gray" or (planes[1] == 100).all(), "grey"
        assert (planes[0][112:] == 100).all() and (planes[0][:, 96:] == 100).all(), "and nothing outside"
        assert np.ptp(planes[0][inside]) == 0
        return planes, int(planes[0][inside][0, 0])

    assert [luma(steps, ())[1] for steps in (0.4, 0.6, 0.4)] == [100, 101, 100]
    was, low = luma(0.4, ())
    was, still = luma(0.6, was)
    was, more = luma(0.8, was)
    was, there = luma(0.6, was)
    was, held = luma(0.3, was)
    _, back = luma(0.2, was)
    assert (low, still, more, there, held, back) == (100, 100, 101, 101, 101, 100)
