"""Recordings as they come from cameras and disks: joined, cut, mis-timed, oddly named."""

import shutil
import struct
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from stream.config import load_settings
from stream.frame import Frame
from stream.media.jpeg import described
from stream.media.sink import FileSink
from stream.media.source import FileSource
from zoo import frames_of, packets_of


def through(path, out, begin=None, end=None):
    """Source to sink; the notes of both."""
    with (
        FileSource(path, begin, end) as source,
        FileSink(out, source.info, load_settings(None, {}).encoder, overwrite=False) as sink,
    ):
        for item in source:
            sink.write(item)
        sink.commit()
        return [*source.notes, *sink.notes]


def times(path):
    return [frame.pts * frame.time_base for frame in frames_of(path)]


def test_joined_recordings_run_on_with_their_sound(clip, tmp_path):
    part = clip(
        "part.ts", audio=True, pts=tuple(range(900_000, 900_000 + 50 * 3600, 3600)), time_base=Fraction(1, 90000)
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 2)
    notes = through(joined, tmp_path / "out.ts")
    found = times(tmp_path / "out.ts")
    assert len(found) == 100 and all(b > a for a, b in pairwise(found))
    assert max(b - a for a, b in pairwise(found)) < Fraction(1, 5)
    assert len(packets_of(tmp_path / "out.ts", "audio")) == 2 * len(packets_of(part, "audio"))
    assert any("put in order" in note for note in notes)


@pytest.mark.parametrize("suffix", [".avi", ".flv", ".mkv", ".mp4", ".nut"])
def test_frames_keep_their_order_and_distance_in_containers_that_cannot_time_b_frames(suffix, clip, tmp_path):
    codec = "mpeg4" if suffix in (".avi", ".nut") else "libx264"
    source = clip(
        f"order{suffix}",
        codec=codec,
        codec_options=(),
        time_base=Fraction(1, 25) if suffix in (".avi", ".nut") else Fraction(1, 1000),
        pts=tuple(range(20)) if suffix in (".avi", ".nut") else tuple(range(0, 800, 40)),
    )
    through(source, tmp_path / f"out{suffix}")
    before, after = times(source), times(tmp_path / f"out{suffix}")
    assert np.allclose(np.diff([float(t) for t in after]), 0.04, atol=0.0011)
    assert len(after) == len(before) == 20
    # AVI holds no time stamps: readers guess the first frame's from the codec's reordering.
    assert after[0] == before[0] or suffix == ".avi"


def test_a_raw_stream_without_time_stamps_gets_them_from_its_rate(clip, tmp_path):
    source = clip("raw.mp4", codec_options=(("bf", "0"),))
    with av.open(str(source)) as a, av.open(str(tmp_path / "raw.h264"), "w", format="h264") as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        for packet in a.demux(a.streams.video[0]):
            if packet.size:
                packet.stream = stream
                b.mux(packet)
    through(tmp_path / "raw.h264", tmp_path / "out.mkv")
    assert np.allclose(np.diff([float(t) for t in times(tmp_path / "out.mkv")]), 0.04, atol=0.0011)


@pytest.mark.parametrize("suffix", [".ts", ".mp4", ".mkv"])
def test_from_and_to_count_from_the_first_frame_and_lose_none(suffix, clip, tmp_path):
    base = Fraction(1, 1000) if suffix == ".mkv" else Fraction(1, 90000)
    step = int(Fraction(1, 25) / base)
    begin = int(100 / base)
    source = clip(
        f"far{suffix}",
        pts=tuple(range(begin, begin + 150 * step, step)),
        time_base=base,
        face=False,
        codec_options=(("preset", "fast"), ("g", "60")),
    )
    assert times(source)[0] == 100
    through(source, tmp_path / f"out{suffix}", Fraction(3), Fraction(5))
    assert len(times(tmp_path / f"out{suffix}")) == 50
    through(source, tmp_path / f"head{suffix}", None, Fraction(1))
    assert len(times(tmp_path / f"head{suffix}")) == 25


def test_slow_clips_give_up_what_the_decoder_still_holds(clip, tmp_path):
    source = clip("slow.mkv", pts=tuple(range(0, 30_000, 1000)), time_base=Fraction(1, 1000), face=False)
    with FileSource(source, None, Fraction(10)) as opened:
        opened._video.codec_context.thread_count = 16
        assert len([item for item in opened if isinstance(item, Frame)]) == 10


def test_streams_that_do_not_fit_are_left_out_with_a_note(clip, tmp_path):
    source = tmp_path / "data.ts"
    with av.open(str(clip("part.ts"))) as a, av.open(str(source), "w", options={"mpegts_copyts": "1"}) as b:
        video, data = b.add_stream_from_template(a.streams.video[0]), b.add_data_stream("klv")
        data.time_base = Fraction(1, 90000)
        for i, packet in enumerate(p for p in a.demux(a.streams.video[0]) if p.size):
            packet.stream = video
            b.mux(packet)
            if i % 10 == 0:
                extra = av.Packet(b"\x06\x0e\x2b\x34 not known")
                extra.stream, extra.pts, extra.dts, extra.time_base = data, packet.pts, packet.dts, packet.time_base
                b.mux(extra)
    notes = through(source, tmp_path / "out.mp4")
    assert any("data" in note and "left out" in note for note in notes)
    assert len(frames_of(tmp_path / "out.mp4")) == 50
    through(source, tmp_path / "out.ts")
    assert packets_of(tmp_path / "out.ts", "data") == packets_of(source, "data") != []


def test_fonts_that_are_attached_come_along(clip, tmp_path):
    source = tmp_path / "font.mkv"
    plain = clip("plain.mkv", pts=(0, 40, 80), time_base=Fraction(1, 1000))
    with av.open(str(plain)) as a, av.open(str(source), "w") as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        b.add_attachment("a.ttf", "font/ttf", b"a font")
        for packet in a.demux():
            if packet.size:
                packet.stream = stream
                b.mux(packet)
    through(source, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as out:
        assert [(s.name, s.data) for s in out.streams.attachments] == [("a.ttf", b"a font")]


@pytest.mark.parametrize("pair", [("jpg", "webp"), ("jpg", "tiff"), ("webp", "jpg"), ("png", "jpg"), ("jpg", "png")])
def test_a_still_keeps_its_contrast_in_another_format(pair, photograph, tmp_path):

    Image.fromarray(photograph).save(tmp_path / f"in.{pair[0]}", quality=95)
    through(tmp_path / f"in.{pair[0]}", tmp_path / f"out.{pair[1]}")
    names = (f"in.{pair[0]}", f"out.{pair[1]}")
    a, b = (np.asarray(Image.open(tmp_path / name).convert("RGB"), float) for name in names)
    assert abs(a.std() - b.std()) < 1 and np.abs(a - b).mean() < 4


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_keeps_its_date_its_place_and_its_colours(photograph, tmp_path, orientation):
    exif, xmp = Image.Exif(), '<rdf:Description tiff:Orientation="%d"/>'
    exif[0x010F], exif[0x0132], exif[0x0112], exif[0x0100] = "Maker", "2024:01:02 03:04:05", orientation, 512
    exif.get_ifd(0x8825)[1], exif.get_ifd(0x8769)[0xA002] = "N", 512
    taken = {"exif": exif, "icc_profile": PROFILE, "xmp": (xmp % orientation).encode(), "comment": "mine"}
    Image.fromarray(photograph[:400]).save(tmp_path / "in.jpg", quality=95, **taken)
    through(tmp_path / "in.jpg", tmp_path / "out.jpg")
    with Image.open(tmp_path / "in.jpg") as before, Image.open(tmp_path / "out.jpg") as after:
        told, shown = after.getexif(), [np.asarray(ImageOps.exif_transpose(each), float) for each in (before, after)]
        assert shown[0].shape == shown[1].shape and np.abs(shown[0] - shown[1]).mean() < 2
        assert (told[0x010F], told[0x0132], told.get_ifd(0x8825)[1]) == ("Maker", "2024:01:02 03:04:05", "N")
        assert told[0x0100] == told.get_ifd(0x8769)[0xA002] == after.width
        assert after.info["icc_profile"] == PROFILE and after.info["xmp"] == (xmp % told[0x0112]).encode()
        assert b"never evidence of identity" in after.info["comment"]
        assert (tmp_path / "out.jpg").read_bytes().count(b"\xff\xfe\0\x06mine") == 1


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_a_colour_profile_goes_only_with_the_colours_that_it_is_of(photograph, tmp_path, mode):
    space = {"L": b"GRAY", "CMYK": b"CMYK", "RGB": b"RGB "}[mode]
    profile = PROFILE[:16] + space + PROFILE[20:]
    Image.fromarray(photograph).convert(mode).save(tmp_path / "in.jpg", icc_profile=profile)
    through(tmp_path / "in.jpg", tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as out:
        assert out.info.get("icc_profile") == (profile if mode == "RGB" else None)


def jpeg(*segments):
    packed = [b"\xff" + marker + struct.pack(">H", len(body) + 2) + body for marker, body in segments]
    return b"\xff\xd8" + b"".join(packed) + b"\xff\xda"


RGB = (b"\xe2", b"ICC_PROFILE\0\1\1" + b"x" * 16 + b"RGB ")


@pytest.mark.parametrize(
    "torn",
    [
        b"",
        b"XX\0*",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"II*\0\x08\0\0\0\x01\0\x69\x87\4\0\1\0\0\0\x08\0\0\0",
    ],
)
def test_exif_data_that_cannot_be_read_are_left_out(torn):
    source = jpeg((b"\xe1", b"Exif\0\0" + torn), RGB, (b"\xe2", b"MPF\0x"))
    wanted = jpeg((b"\xe0", b"JFIF"), RGB, (b"\xfe", b"note"), (b"\xdb", b"tables"))
    picture = jpeg((b"\xe0", b"JFIF"), (b"\xfe", b"Lavc"), (b"\xdb", b"tables"))
    assert described(picture, source, "note", (9, 9)) == described(picture, wanted, "note", (9, 9)) == wanted
    filled = source.replace(b"\xff\xe2", b"\xff\xff\xff\xe2")
    assert described(picture, filled, "note", (9, 9)) == wanted


@pytest.mark.parametrize("length", [b"\0\0", b"\0\1", b"\xff\xff"])
def test_a_segment_that_is_not_whole_goes_nowhere(length):
    source = jpeg((b"\xfe", b"first"))[:-2] + b"\xff\xfe" + length + b"torn"
    assert described(jpeg(), source, "note", (9, 9)) == jpeg((b"\xfe", b"first"), (b"\xfe", b"note"))
    assert described(jpeg(), b"\x89PNG", "note", (9, 9)) == jpeg((b"\xfe", b"note"))


def test_grey_with_transparency_keeps_it(photograph, tmp_path):

    alpha = Image.fromarray(np.indices((512, 512))[0].clip(0, 255).astype(np.uint8))
    grey = Image.fromarray(photograph[..., 0])
    Image.merge("LA", (grey, alpha)).save(tmp_path / "a.png")
    through(tmp_path / "a.png", tmp_path / "b.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png").convert("LA")), np.dstack([grey, alpha]))


def test_a_name_with_a_colon_is_a_name(unsmear, clip, tmp_path):
    shutil.copy(clip("grey.mp4", face=False), tmp_path / "12:30.mp4")
    done = unsmear("restore", "12:30.mp4", "-o", "at:12.mp4", "--engine", "echo")
    assert done.returncode == 0, done.stderr
    assert len(frames_of(tmp_path / "at:12.mp4")) == 12


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_the_result_stands_on_the_right_however_the_picture_is_turned(rotation, clip, tmp_path):
    from stream.paste import side_by_side

    size = {"width": 240, "height": 320} if rotation % 180 else {}
    source = clip(f"turn-{rotation}.mp4", rotation=rotation, **size)
    with FileSource(source) as opened:
        frame = next(item for item in opened if isinstance(item, Frame))
    dark = tuple(np.zeros_like(plane) for plane in frame.planes)
    left = Frame(0, 0, 0, frame.time_base, dark, frame.color)
    upright = np.rot90(side_by_side(left, frame).planes[0], rotation // 90)
    half = upright.shape[1] // 2
    assert upright.shape == (240, 640)
    assert upright[:, :half].max() == 0 and upright[:, half:].mean() > 20


def test_users_files_are_never_written_over_unasked(unsmear, clip, tmp_path):
    shutil.copy(clip("grey.mp4", face=False), tmp_path / "a.mp4")
    shutil.copy(tmp_path / "a.mp4", tmp_path / "a_restored.mp4")
    kept = (tmp_path / "a.mp4").read_bytes()
    for arguments, code in [
        (("a.mp4", "a_restored.mp4", "--overwrite"), 2),
        (("a.mp4", "-o", "b.mp4", "--report", "a.mp4"), 2),
        (("a.mp4", "-o", "b.mp4", "--report", "a_restored.mp4"), 5),
        (("a.mp4", "-o", "b.mp4", "--report", "nowhere/r.json"), 5),
        (("a.mp4", "-o", "b.mp4", "--preset", "fastr"), 2),
        (("a.mp4", "-o", "b.mp4", "--crf", "-5"), 2),
        (("a.mp4", "-o", "b.mp4", "--encoder", "aac"), 2),
    ]:
        done = unsmear("restore", *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert "internal error" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "a_restored.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "a_restored.mp4").read_bytes() == kept
