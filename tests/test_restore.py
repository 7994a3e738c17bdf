"""The command as a user runs it: what it writes, what it says, and how it fails."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from engine import Engine
from stream.config import load_settings
from stream.faces.finder import open_finder
from stream.media.decoded import planes_of
from stream.pipeline import Job, restore_file
from zoo import frames_of, packets_of


def blurred_photograph(photograph, length=13):
    import cv2

    return cv2.filter2D(photograph, -1, np.full((1, length), 1 / length, np.float32))


def test_a_clip_is_restored_with_its_sound_and_times(unsmear, clip, tmp_path):
    source = clip("sound.mp4", audio=True)
    done = unsmear("restore", source, "-o", "out.mp4", "--report", "report.json")
    assert done.returncode == 0, done.stderr
    assert "12 faces in 12 frames" in done.stderr
    assert [f.pts for f in frames_of(tmp_path / "out.mp4")] == [f.pts for f in frames_of(source)]
    assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(source, "audio")
    report = json.loads((tmp_path / "report.json").read_text())["files"][0]
    assert report["frames"] == report["faces"] == 12 >= report["faces_restored"]
    assert report["model"] == "fast"
    assert {p.name for p in tmp_path.iterdir()} == {"out.mp4", "report.json"}


@pytest.mark.parametrize(
    ("layout", "size"),
    [("yuv420p", (320, 240)), ("yuv420p10le", (320, 240)), ("yuv444p", (321, 241)), ("yuv422p10le", (322, 240))],
)
def test_planes_outside_the_masks_are_the_decoded_ones_bit_for_bit(layout, size, clip, tmp_path):
    from engine import open_engine

    source = clip(
        f"exact-{layout}.mkv",
        pixel_format=layout,
        width=size[0],
        height=size[1],
        codec="ffv1",
        codec_options=(),
        time_base=Fraction(1, 1000),
        pts=(0, 40, 80),
    )
    settings = load_settings(None, {"restore": {"still_px": 0.0}})
    with closing(open_finder("mediapipe")) as finder, open_engine("onnxruntime", "fast") as engine:
        report = restore_file(Job(source, tmp_path / "out.mkv", quiet=True), settings, finder, engine)
    assert report["faces"] == report["faces_restored"] == 3
    for a, b in zip(frames_of(source), frames_of(tmp_path / "out.mkv"), strict=True):
        changed = [np.argwhere(p != q) for p, q in zip(planes_of(a), planes_of(b), strict=True)]
        assert changed[0].size, "the face is changed"
        low, high = changed[0].min(0), changed[0].max(0)
        assert (high - low < (180, 160)).all(), "and nothing but the face"
        for where in changed[1:]:
            scale = np.array(planes_of(a)[0].shape) / planes_of(a)[1].shape
            assert (where * scale >= low - 4).all() and (where * scale <= high + 4).all()


def test_a_dry_run_gives_back_the_picture(unsmear, clip, tmp_path):
    source = clip("lossless.mkv", codec="ffv1", codec_options=(), time_base=Fraction(1, 1000), pts=(0, 40, 80))
    assert unsmear("restore", source, "-o", "out.mkv", "--engine", "echo").returncode == 0
    for a, b in zip(frames_of(source), frames_of(tmp_path / "out.mkv"), strict=True):
        assert np.array_equal(a.to_ndarray(), b.to_ndarray())
    assert unsmear("restore", source, "-o", "none.mkv", "--strength", "0").returncode == 0
    for a, b in zip(frames_of(source), frames_of(tmp_path / "none.mkv"), strict=True):
        assert np.array_equal(a.to_ndarray(), b.to_ndarray())


def test_a_blurred_photograph_comes_back_nearer_to_the_sharp_one(unsmear, photograph, tmp_path):
    from PIL import Image

    Image.fromarray(blurred_photograph(photograph)).save(tmp_path / "a.png")
    done = unsmear("restore", "a.png")
    assert done.returncode == 0, done.stderr
    restored = np.asarray(Image.open(tmp_path / "a_restored.png"), float)
    face = (slice(70, 190), slice(175, 275))
    before = ((blurred_photograph(photograph)[face].astype(float) - photograph[face]) ** 2).mean()
    after = ((restored[face] - photograph[face]) ** 2).mean()
    assert 10 * np.log10(before / after) > 0.7


def test_compare_puts_input_and_result_side_by_side(unsmear, clip, tmp_path):
    for name, size in [("plain.mp4", (640, 240)), ("turned.mp4", (240, 640))]:
        source = clip(name, **({"width": 240, "height": 320, "rotation": 90} if "turned" in name else {}))
        assert unsmear("restore", source, "-o", f"compare-{name}", "--compare").returncode == 0
        frame = frames_of(tmp_path / f"compare-{name}")[0]
        assert (frame.width, frame.height) == size
    odd = clip(
        "odd-compare.mkv", width=321, height=241, codec="ffv1", codec_options=(), time_base=Fraction(1, 1000), pts=(0,)
    )
    assert unsmear("restore", odd, "-o", "odd.mkv", "--compare").returncode == 0
    frame = frames_of(tmp_path / "odd.mkv")[0]
    assert (frame.width, frame.height) == (640, 241)
    still = {"codec": "ffv1", "codec_options": (), "time_base": Fraction(1, 1000), "pts": (0,)}
    coarse = clip("compare-411.mkv", width=322, pixel_format="yuv411p", **still)
    assert unsmear("restore", coarse, "-o", "coarse.mkv", "--compare").returncode == 0
    assert frames_of(tmp_path / "coarse.mkv")[0].width == 640


def test_several_inputs_go_on_when_one_fails_and_all_failures_are_named(unsmear, clip, tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    done = unsmear(
        "restore", clip("plain.mp4"), "bad.mp4", clip("grey.mp4", face=False), "-o", "out/", "--report", "r.json"
    )
    assert done.returncode == 3
    assert "bad.mp4" in done.stderr and "1 of 3 inputs failed" in done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["grey_restored.mp4", "plain_restored.mp4"]
    assert [f.get("exit_code") for f in json.loads((tmp_path / "r.json").read_text())["files"]] == [None, 3, None]


FAULTS = [
    (("restore", "none.mp4"), 3, "none.mp4 does not exist"),
    (("restore", "empty.mp4"), 3, "empty"),
    (("restore", "CLIP", "-o", "kept.mp4"), 5, "--overwrite"),
    (("restore", "CLIP", "-o", "/proc/none/out.mp4"), 5, "cannot write"),
    (("restore", "CLIP", "--config", "typo.toml"), 2, "did you mean 'faces.min_size_px'"),
    (("restore", "CLIP", "--config", "range.toml"), 2, "batch"),
    (("restore", "CLIP", "--config", "none.toml"), 2, "none.toml"),
    (("restore", "CLIP", "--engine", "onnxruntim"), 6, "did you mean 'onnxruntime'"),
    (("restore", "CLIP", "--model", "slow"), 6, "weights missing"),
    (("restore", "CLIP", "--model", "gone.onnx"), 6, "gone.onnx does not exist"),
    (("restore", "CLIP", "--model", "empty.onnx"), 6, "cannot load"),
    (("restore", "CLIP", "--strength", "2"), 2, "strength"),
    (("restore", "CLIP", "--encoder", "x999"), 2, "unknown encoder 'x999'"),
    (("restore", "CLIP", "--from", "10"), 3, "no frame could be decoded in the time asked for"),
    (("restore", "CLIP", "--from", "2", "--to", "1"), 2, "--to must lie after --from"),
    (("restore", "CLIP", "--from", "soon"), 2, "is no time"),
    (("restore", "CLIP", "CLIP", "-o", "folder"), 2, "two inputs would be written"),
    (("restore", "CLIP", "--overwritten"), 2, "--overwrite"),
    (("restor", "CLIP"), 2, "restor"),
    (("train", "none.toml"), 2, ""),
]


@pytest.mark.parametrize(
    ("arguments", "code", "words"), FAULTS, ids=lambda v: "" if isinstance(v, int) else str(v)[:60]
)
def test_a_fault_is_one_clear_line_and_its_exit_code(arguments, code, words, unsmear, clip, tmp_path):
    (tmp_path / "kept.mp4").write_text("precious")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "typo.toml").write_text("[faces]\nmin_sise_px = 30\n")
    (tmp_path / "range.toml").write_text("[restore]\nbatch = 0\n")
    before = {p.name for p in tmp_path.iterdir()}
    done = unsmear(*(clip("plain.mp4") if a == "CLIP" else a for a in arguments))
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "kept.mp4").read_text() == "precious"
    assert {p.name for p in tmp_path.iterdir()} - before <= {"folder"}


def test_a_full_disk_is_told_and_leaves_nothing(clip, tmp_path):
    def small_files_only():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [sys.executable, "-m", "stream", "restore", str(clip("plain.mp4")), "-o", "out.mp4", "--crf", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=small_files_only,
    )
    assert done.returncode == 5, done.stderr
    assert "cannot write out.mp4" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_closes_a_file_that_plays(how, clip, tmp_path):
    source = clip("minutes.mp4", pts=tuple(range(0, 1500 * 512, 512)), audio=True)
    running = subprocess.Popen(
        [sys.executable, "-m", "stream", "restore", str(source), "-o", "out.mp4"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(p.stat().st_size > 40_000 for p in tmp_path.glob(".out.*")):
        time.sleep(0.05)
    running.send_signal(how)
    time.sleep(0.2)
    running.send_signal(how)  # an impatient second one must not tear what the first is closing
    said = running.communicate(timeout=30)[1]
    assert running.returncode == 130, said
    assert "out.partial.mp4" in said and "Traceback" not in said
    frames = frames_of(tmp_path / "out.partial.mp4")
    assert 0 < len(frames) < 1500 and f"first {len(frames)} frames" in said
    assert [p.name for p in tmp_path.iterdir()] == ["out.partial.mp4"]


def test_a_torn_file_is_restored_as_far_as_it_goes(unsmear, clip, tmp_path):
    source = clip("plain.ts", pts=tuple(range(0, 50 * 3600, 3600)), time_base=Fraction(1, 90000))
    data = bytearray(source.read_bytes())
    middle = len(data) // 2 // 188 * 188
    data[middle : middle + 188 * 8] = os.urandom(188 * 8)
    (tmp_path / "torn.ts").write_bytes(data)
    done = unsmear("restore", "torn.ts", "-o", "out.ts")
    assert done.returncode in (0, 3) and "Traceback" not in done.stderr
    assert len(frames_of(tmp_path / "out.ts")) > 20


def test_progress_is_plain_lines_where_there_is_no_terminal_and_quiet_says_nothing(unsmear, clip):
    done = unsmear(
        "restore",
        clip("minutes.mp4", pts=tuple(range(0, 1500 * 512, 512)), audio=True),
        "--to",
        "12",
        "-o",
        "a.mp4",
        "--engine",
        "echo",
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and "\r" not in done.stderr
    assert all("frames" in line for line in lines), done.stderr
    quiet = unsmear("restore", clip("plain.mp4"), "-o", "b.mp4", "-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_memory_does_not_grow_with_the_length_of_a_clip(clip, tmp_path):
    source = clip("minutes.mp4", pts=tuple(range(0, 1500 * 512, 512)), audio=True)

    def peak(seconds: int) -> int:
        code = (  # in a process of its own, whose peak is its own
            "import resource, sys; from stream.cli import cli; "
            f"cli.main(['restore', {str(source)!r}, '-o', 'm{seconds}.mp4', '--to', '{seconds}', '-q'], "
            "standalone_mode=False); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return int(done.stdout)

    short, long = peak(6), peak(24)
    assert long - short < 20_000, f"{short} kB for 6 s, {long} kB for 24 s"


HIDE = """
set -e
mount -t tmpfs tmpfs "$1" && mkdir "$1/over" "$1/work"
for name in "$2"/$3*; do mknod "$1/over/$(basename "$name")" c 0 0; done
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/over,workdir=$1/work" "$2"
"""


@pytest.mark.parametrize("library", ["libGL.so", "libEGL.so"])
def test_a_missing_system_library_is_told_with_the_command_that_mends_it(library, clip, tmp_path):
    """The library is really gone, in a mount namespace of the test's own."""
    libraries = Path("/usr/lib/x86_64-linux-gnu")
    if os.geteuid() != 0 or not list(libraries.glob(f"{library}*")):
        pytest.skip("hiding a library needs root, and a Debian with the library")
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide.sh").write_text(HIDE)
    tail = f"{sys.executable} -m stream restore {clip('plain.mp4')} -o out.mp4"
    shell = f". ./hide.sh {tmp_path}/hide {libraries} {library} || exit 99; {tail}"
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    if done.returncode in (1, 32, 99) and "mount" in done.stderr:
        pytest.skip("no overlay mounts here")
    assert done.returncode == 6, done.stderr
    assert "apt-get install libgl1 libglib2.0-0 libegl1 libgles2" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out.mp4").exists()


class Failing(Engine):
    """The shipped model, failing at some of its batches."""

    def __init__(self, fail_at):
        from engine import open_engine

        self.right, self.fail_at, self.batches = open_engine("onnxruntime", "fast"), fail_at, 0
        self.spec, self.about = self.right.spec, self.right.about

    def run(self, crops, known=None):
        from engine import EngineError

        self.batches += 1
        if self.batches in self.fail_at:
            raise EngineError("out of memory")
        return self.right.run(crops, known)

    def close(self):
        self.right.close()


@pytest.mark.parametrize(("second_fails_at", "left"), [(set(), 1), ({1}, 8)])
def test_where_the_engine_fails_frames_pass_on_as_they_were(clip, tmp_path, second_fails_at, left):
    from engine import EngineError
    from engine.batching import SharedEngine

    source = clip(
        "twelve.mkv", codec="ffv1", codec_options=(), time_base=Fraction(1, 1000), pts=tuple(range(0, 480, 40))
    )
    settings = load_settings(None, {"encoder": {"name": "ffv1"}, "restore": {"still_px": 0.0}})
    engines = [Failing(second_fails_at), Failing({5})]
    with closing(open_finder("mediapipe")) as finder, SharedEngine(engines.pop, settings.restore.batch) as shared:
        job = Job(source, tmp_path / "out.mkv", quiet=True)
        with pytest.raises(EngineError, match=rf"{left} faces in .*out\.mkv are as they were.*out of memory"):
            restore_file(job, settings, finder, shared.seat())
    before, after = frames_of(source), frames_of(tmp_path / "out.mkv")
    assert not engines and [f.pts for f in after] == [f.pts for f in before]
    same = [np.array_equal(a.to_ndarray(), b.to_ndarray()) for a, b in zip(before, after, strict=True)]
    assert same == [4 <= i < 4 + left for i in range(12)]


def test_faces_are_listed_as_json_lines(unsmear, clip):
    source = clip("plain.mp4")
    done = unsmear("faces", source, "--engine", "onnxruntime")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == list(range(12))
    assert lines[1]["time_s"] == pytest.approx(0.04)
    first, last = (lines[i]["faces"][0] for i in (0, 11))
    assert first["track"] == last["track"] == 1 and len(first["points"]) == 5
    assert {"box", "yaw_deg", "lost_frames", "strength", "motion_px", "motion_deg"} < set(first)
    assert unsmear("faces", "missing.mp4").returncode == 3
    broken = source.with_name("cut-off.mp4")
    broken.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    assert unsmear("faces", broken, "--engine", "echo").returncode == 3


def test_listing_smeared_faces_asks_the_engine_from_one_thread_at_a_time(clip, monkeypatch):
    import engine as engines
    from stream.commands.faces import faces

    class Narrow(Failing):
        def run(self, crops, known=None):
            if not free.acquire(blocking=False):
                overlaps.append(len(crops))
                raise engines.EngineError("busy")
            try:
                return super().run(crops, known)
            finally:
                free.release()

    free, overlaps, right = threading.Lock(), [], Narrow(set())
    monkeypatch.setitem(engines.ENGINES, "echo", lambda *_: right)
    source = clip("smeared.mp4", pts=tuple(range(0, 24 * 512, 512)), smear=31)
    done = CliRunner().invoke(faces, [str(source), "--engine", "echo"], catch_exceptions=False)
    assert done.exit_code == 0 and right.batches > 20 and not overlaps
    assert all(json.loads(line)["faces"] for line in done.stdout.splitlines())


def test_chosen_faces_alone_are_restored(unsmear, clip, tmp_path):
    source = clip("plain.mp4")
    for option, value, why in (
        ("--faces", "2,3", "12 not chosen"),
        ("--ignore", "0,0,400,400", "12 in an ignored part"),
        ("--faces", "largest", None),
        ("--ignore", "0,200,10,10", None),
    ):
        done = unsmear("restore", source, "-o", "out.mp4", "--overwrite", option, value)
        assert done.returncode == 0, done.stderr
        assert (why or "12 faces in 12 frames") in done.stderr
    for option, value in (("--faces", "smallest"), ("--faces", "0"), ("--ignore", "here"), ("--ignore", "1,1,0,5")):
        done = unsmear("restore", source, "-o", "no.mp4", option, value)
        assert done.returncode == 2 and value in done.stderr, done.stderr


@pytest.mark.parametrize("layout", ["yuv420p", "yuv420p10le"])
def test_debug_draws_what_is_seen_and_nothing_elsewhere(unsmear, clip, tmp_path, layout):
    source = clip(
        f"debug-{layout}.mkv",
        pixel_format=layout,
        codec="ffv1",
        codec_options=(),
        time_base=Fraction(1, 1000),
        pts=(0, 40, 80),
    )
    done = unsmear("restore", source, "-o", "out.mkv", "--debug", "--encoder", "ffv1")
    assert done.returncode == 0, done.stderr
    before, after = (frames_of(p)[1].to_ndarray(format="gray").astype(int) for p in (source, tmp_path / "out.mkv"))
    changed = np.abs(after - before) > 60
    assert changed.sum() > 300, "an outline, five points, a line of text, a small picture"
    assert not changed[200:].any() and (after[changed] > 150).any() and (after[changed] < 50).any()
