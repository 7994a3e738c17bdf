"""What goes through a source and a sink: every time stamp, every copied packet, every tag, every untouched sample."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stream.config import load_settings
from stream.errors import InputError, OutputError, UsageError
from stream.frame import Frame
from stream.media.decoded import planes_of
from stream.media.sink import NOTE, FileSink
from stream.media.source import FileSource
from zoo import frames_of, packets_of

SUBTITLES = "1\n00:00:00,040 --> 00:00:00,200\nhello\n\n2\n00:00:00,240 --> 00:00:00,400\nthere\n"


def through(path: Path, out: Path, **encoder) -> Path:
    settings = load_settings(None, {"encoder": encoder}).encoder
    with FileSource(path) as source, FileSink(out, source.info, settings, overwrite=False) as sink:
        for item in source:
            sink.write(item)
        return sink.commit()


def times(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in frames_of(path)]


CASES = {
    "cfr.mp4": {},
    "vfr.mp4": {"pts": (0, 100, 900, 901, 4000, 4512, 9000)},
    "late.mp4": {"pts": tuple(range(7777, 7777 + 8 * 512, 512))},
    "late.mkv": {"pts": tuple(range(3000, 3000 + 8 * 40, 40)), "time_base": Fraction(1, 1000)},
    "late.ts": {"pts": tuple(range(900_000, 900_000 + 8 * 3003, 3003)), "time_base": Fraction(1, 90000)},
    "ntsc.mov": {"pts": tuple(range(0, 8 * 1001, 1001)), "time_base": Fraction(1, 30000)},
    "b-frames.mp4": {"codec_options": (("preset", "medium"), ("bf", "3"))},
    "one.mp4": {"pts": (0,)},
    "odd.mkv": {
        "width": 321,
        "height": 243,
        "codec": "ffv1",
        "codec_options": (),
        "time_base": Fraction(1, 1000),
        "pts": (0, 40, 80),
    },
}


@pytest.mark.parametrize("name", CASES)
def test_every_frame_keeps_its_exact_time(name, clip, tmp_path):
    source = clip(name, audio=name not in ("one.mp4", "odd.mkv"), **CASES[name])
    out = through(source, tmp_path / name)
    assert times(out) == times(source)
    assert packets_of(out, "audio") == packets_of(source, "audio")


@pytest.mark.parametrize("layout", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"])
@pytest.mark.parametrize(("color_range", "matrix"), [(1, 1), (1, 5), (2, 1)])
def test_layout_and_colour_tags_are_kept_and_a_lossless_copy_is_bit_identical(
    layout, color_range, matrix, clip, tmp_path
):
    source = clip(
        f"{layout}-{color_range}-{matrix}.mkv",
        pixel_format=layout,
        color_range=color_range,
        matrix=matrix,
        time_base=Fraction(1, 1000),
        pts=(0, 40, 80),
    )
    out = through(source, tmp_path / "out.mkv", name="ffv1")
    for a, b in zip(frames_of(source), frames_of(out), strict=True):
        assert b.format.name == layout
        assert (b.color_range, b.colorspace, b.color_primaries, b.color_trc) == (
            a.color_range,
            a.colorspace,
            a.color_primaries,
            a.color_trc,
        )
        assert all(np.array_equal(p, q) for p, q in zip(planes_of(a), planes_of(b), strict=True))


@pytest.mark.parametrize(
    ("codec", "layout", "expected"),
    [("libx264", "yuv420p10le", "h264"), ("libx265", "yuv420p10le", "hevc"), ("ffv1", "yuv444p", "ffv1")],
)
def test_auto_keeps_the_codec_and_the_bit_depth(codec, layout, expected, clip, tmp_path):
    options = () if codec == "ffv1" else (("preset", "ultrafast"),)
    source = clip(
        f"{codec}.mkv",
        codec=codec,
        pixel_format=layout,
        codec_options=options,
        time_base=Fraction(1, 1000),
        pts=(0, 40, 80),
    )
    with av.open(str(through(source, tmp_path / "out.mkv"))) as out:
        assert out.streams.video[0].codec_context.name in (expected, f"lib{expected}")
        assert out.streams.video[0].codec_context.pix_fmt == layout


def test_rotation_and_sample_aspect_ratio_are_kept(clip, tmp_path):
    source = clip("turned-sar.mp4", width=240, height=320, rotation=90, sample_aspect_ratio=Fraction(4, 3))
    out = through(source, tmp_path / "out.mp4")
    assert frames_of(out)[0].rotation == frames_of(source)[0].rotation == 90
    with av.open(str(out)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_sound_subtitles_chapters_and_metadata_come_along(clip, tmp_path):
    plain = clip("chapters.mkv", audio=True, chapters=True, time_base=Fraction(1, 1000), pts=tuple(range(0, 480, 40)))
    (tmp_path / "words.srt").write_text(SUBTITLES)
    source = tmp_path / "all.mkv"
    with av.open(str(plain)) as a, av.open(str(tmp_path / "words.srt")) as b, av.open(str(source), "w") as joined:
        streams = {(0, s.index): joined.add_stream_from_template(s) for s in a.streams}
        streams[1, 0] = joined.add_stream_from_template(b.streams[0])
        streams[1, 0].metadata["language"] = "fre"
        joined.metadata.update(a.metadata)
        joined.set_chapters(a.chapters())
        packets = [(0, p) for p in a.demux() if p.size] + [(1, p) for p in b.demux() if p.size]
        for which, packet in sorted(packets, key=lambda p: p[1].dts * p[1].time_base):
            packet.stream = streams[which, packet.stream.index]
            joined.mux(packet)
    out = through(source, tmp_path / "out.mkv")
    for kind in ("audio", "subtitle"):
        assert packets_of(out, kind) == packets_of(source, kind) != []
    with av.open(str(out)) as container:
        assert container.streams.subtitles[0].language == "fre"
        assert [c["metadata"]["title"] for c in container.chapters()] == ["one", "two"]
        metadata = {k.lower(): v for k, v in container.metadata.items()}
        assert metadata["title"] == "a title"
        assert NOTE in metadata["comment"]


def test_from_and_to_cut_all_streams_and_start_at_nothing(clip, tmp_path):
    source = clip("long.mp4", audio=True)
    settings = load_settings(None, {}).encoder
    with FileSource(source, Fraction("0.12"), Fraction("0.32")) as cut:
        assert cut.info.frames == 5
        with FileSink(tmp_path / "out.mp4", cut.info, settings, overwrite=False) as sink:
            for item in cut:
                sink.write(item)
            sink.commit()
    assert times(tmp_path / "out.mp4") == [Fraction(i, 25) for i in range(5)]
    whole, part = packets_of(source, "audio"), packets_of(tmp_path / "out.mp4", "audio")
    assert 0 < len(part) < len(whole) and {p[2] for p in part} <= {p[2] for p in whole}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff", ".bmp"])
def test_a_still_is_a_stream_of_one_frame(suffix, photograph, tmp_path):
    from PIL import Image

    path = tmp_path / f"face{suffix}"
    Image.fromarray(photograph).save(path, **({"quality": 95} if suffix in (".jpg", ".webp") else {}))
    out = through(path, tmp_path / f"out{suffix}")
    given, made = (np.asarray(Image.open(p).convert("RGB"), int) for p in (path, out))
    if suffix in (".png", ".tiff", ".bmp"):
        assert np.array_equal(given, made)
    else:
        assert np.abs(given - made).mean() < 3


def test_a_transparent_still_keeps_its_transparency(photograph, tmp_path):
    from PIL import Image

    alpha = np.indices((512, 512)).sum(0).clip(0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([photograph, alpha])).save(tmp_path / "a.png")
    out = through(tmp_path / "a.png", tmp_path / "b.png")
    assert np.array_equal(np.asarray(Image.open(out)), np.dstack([photograph, alpha]))


def test_a_turned_photograph_comes_out_upright(photograph, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    Image.fromarray(np.rot90(photograph)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    out = through(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert np.abs(np.asarray(Image.open(out), int) - photograph).mean() < 3


def test_inputs_that_cannot_be_read_are_told_apart(tmp_path, clip):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video " * 100)
    source = clip("sound.mp4", audio=True)
    with av.open(str(source)) as a, av.open(str(tmp_path / "sound.m4a"), "w") as b:
        stream = b.add_stream_from_template(a.streams.audio[0])
        for packet in a.demux(a.streams.audio[0]):
            if packet.size:
                packet.stream = stream
                b.mux(packet)
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(source.read_bytes()[:-2000])  # the index stands at the end
    for path, words in [
        ("none.mp4", "does not exist"),
        ("empty.mp4", "empty"),
        ("text.mp4", "no media file"),
        ("sound.m4a", "no video stream"),
        ("torn.mp4", "damaged"),
        (".", "folder"),
    ]:
        with pytest.raises(InputError, match=words):
            FileSource(tmp_path / path)


def test_a_file_that_ends_early_gives_its_frames_and_tells_the_damage(tmp_path, clip):
    whole = clip("whole.mkv", time_base=Fraction(1, 1000), pts=tuple(range(0, 40 * 25, 40)))
    fast = tmp_path / "fast.mp4"
    with av.open(str(whole)) as a, av.open(str(fast), "w", options={"movflags": "+faststart"}) as b:
        stream = b.add_stream_from_template(a.streams[0])
        for packet in a.demux():
            if packet.size:
                packet.stream = stream
                b.mux(packet)
    fast.write_bytes(fast.read_bytes()[: fast.stat().st_size // 2])
    with FileSource(fast) as source:
        frames = [item for item in source if isinstance(item, Frame)]
        assert 0 < len(frames) < 25
        assert source.damage is not None and "25 frames" in source.damage


def test_nothing_that_exists_is_harmed_and_nothing_half_done_is_left(tmp_path, clip):
    source, settings = clip("cfr.mp4"), load_settings(None, {}).encoder
    kept = tmp_path / "kept.mp4"
    kept.write_text("precious")
    with FileSource(source) as reader:
        with pytest.raises(OutputError, match="--overwrite"):
            FileSink(kept, reader.info, settings, overwrite=False)
        with pytest.raises(OutputError, match="the input itself"):
            FileSink(source, reader.info, settings, overwrite=True)
        with pytest.raises(OutputError, match="cannot write"):
            FileSink(tmp_path / "nowhere" / "a.mp4", reader.info, settings, overwrite=False)
        with pytest.raises(UsageError, match="unknown encoder"):
            FileSink(tmp_path / "a.mp4", reader.info, load_settings(None, {"encoder": {"name": "x999"}}).encoder, False)
        with pytest.raises(RuntimeError), FileSink(kept, reader.info, settings, overwrite=True) as sink:
            sink.write(next(item for item in reader if isinstance(item, Frame)))
            raise RuntimeError
    assert kept.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.mp4"]


def test_a_file_that_comes_into_being_meanwhile_is_not_overwritten(tmp_path, clip):
    out = tmp_path / "out.mp4"
    settings = load_settings(None, {}).encoder
    with (
        FileSource(clip("cfr.mp4")) as source,
        pytest.raises(OutputError, match=r"out\.partial\.mp4"),
        FileSink(out, source.info, settings, overwrite=False) as sink,
    ):
        for item in source:
            sink.write(item)
        out.write_text("precious")
        sink.commit()
    assert out.read_text() == "precious"
    assert len(frames_of(tmp_path / "out.partial.mp4")) == 12
