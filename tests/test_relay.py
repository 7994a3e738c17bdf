"""The relay as its operator runs it: real servers, real feeds, real faults."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import av
import live
import numpy as np
import pytest
from live import Process, Relayed, Server, feed, free_port, until
from PIL import Image

pytestmark = [
    pytest.mark.skipif(live.missing() is not None, reason=str(live.missing())),
    pytest.mark.flaky(reruns=1),  # they keep the wall's time: a machine that stands still fails them
]
ECHO = ("--engine", "echo")


@pytest.fixture(scope="session")
def camera_clip(tmp_path_factory, photograph) -> Path:
    """Six seconds of a face that sways, H.264 and AAC, a keyframe a second."""
    folder = tmp_path_factory.mktemp("live")
    Image.fromarray(photograph).save(folder / "face.png")
    return make(folder / "clip.ts", folder / "face.png", "320:240", 6)


def make(path: Path, picture: Path, size: str, seconds: float) -> Path:
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-loop", "1", "-framerate", "25", "-i", picture, "-f", "lavfi", "-i", "sine"),
            *("-t", str(seconds), "-vf", f"crop={size}:x='60+20*sin(n/9)':y=0", "-pix_fmt", "yuv420p"),
            *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25", "-c:a", "aac", path),
        ],
        check=True,
    )
    return path


def counts(log: str) -> dict[str, int]:
    """The counts of the last summary."""
    line = re.findall(r"frames (\d+) in, (\d+) out, (\d+) passed on, (\d+) dropped, (\d+) bridged", log)[-1]
    return dict(zip(("in", "out", "passed_on", "dropped", "bridged"), map(int, line), strict=True))


def assert_all_counted(log: str) -> dict[str, int]:
    told = counts(log)
    assert told["in"] == told["out"] + told["dropped"], log
    assert "Traceback" not in log
    return told


def times(paths: list[Path], kind: str = "video") -> list[np.ndarray]:
    """The seconds of every packet, file by file."""
    every = []
    for path in paths:
        with av.open(str(path)) as container:
            stream = next(s for s in container.streams if s.type == kind)
            every.append(np.array([float(p.pts * p.time_base) for p in container.demux(stream) if p.pts is not None]))
    return every


def test_a_stream_is_relayed_with_its_sound_and_faces(camera_clip, tmp_path):
    port, taken = free_port(), tmp_path / "taken.mkv"
    listen = (
        "ffmpeg",
        "-v",
        "error",
        "-rtsp_flags",
        "listen",
        "-i",
        f"rtsp://127.0.0.1:{port}/x",
        "-t",
        4,
        "-c",
        "copy",
    )
    with (
        Server(tmp_path) as camera,
        feed(camera_clip, camera.feed),
        Relayed(tmp_path, camera.url("cam"), "-o", f"rtsp://127.0.0.1:{port}/x", "--engine", "onnxruntime") as relay,
    ):
        until(lambda: relay.told().get("faces"), 40)
        # It takes one publisher and no second one: a slate would be the only thing that it sees.
        with Process(*listen, "-c", "copy", taken, log=tmp_path / "listen.log") as reader:
            assert reader.process.wait(40) == 0, reader.text()
        assert relay.stop() == 0
        assert_all_counted(relay.text())
    with av.open(str(taken)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.width, video.height) == ("h264", 320, 240)
        assert sound.codec_context.name == "aac"
        assert sum(1 for _ in container.decode(video)) > 50
    (pictures,), (sounds,) = times([taken]), times([taken], "audio")
    assert np.diff(pictures).min() >= 0 and np.diff(sounds).min() >= 0 and abs(pictures[-1] - sounds[-1]) < 0.4


def test_a_file_is_relayed_as_fast_as_it_plays_to_its_end(camera_clip, tmp_path):
    began = time.monotonic()
    with Relayed(tmp_path, camera_clip, "-o", tmp_path / "out.mkv", *ECHO) as relay:
        assert relay.process.wait(60) == 0, relay.text()
    assert time.monotonic() - began > 5.5
    told = assert_all_counted(relay.text())
    assert told["in"] == 150 and told["out"] > 100
    (path,) = tmp_path.glob("out-*.mkv")
    (video,), (sound,) = times([path]), times([path], "audio")
    assert np.diff(video).min() > 0 and 5.5 < video[-1] - video[0] < 6.2
    assert abs(sound[0] - video[0]) < 0.2 and abs(sound[-1] - video[-1]) < 0.3
    with av.open(str(path)) as container:
        assert any("never evidence of identity" in value for value in container.metadata.values())


def test_a_source_killed_twenty_times_comes_back_and_the_picture_never_stops(camera_clip, tmp_path):
    with (
        Server(tmp_path) as camera,
        feed(camera_clip, camera.feed),
        Relayed(tmp_path, camera.url("cam"), "-o", tmp_path / "out.ts", *ECHO) as relay,
    ):
        until(lambda: relay.told().get("frames_out", 0) > 10)
        for _ in range(20):
            camera.kill()
            until(lambda: relay.told()["state"] == "reconnecting")
            bridged = relay.told()["frames_bridged"]
            until(lambda bridged=bridged: relay.told()["frames_bridged"] > bridged)
            sent = relay.told()["frames_out"]
            camera.start()
            until(lambda sent=sent: relay.told()["frames_out"] > sent + 3)
        assert relay.metric("unsmear_connections_lost_total", side="source") >= 20
        assert relay.stop() == 0
        log = relay.text()
    assert_all_counted(log)
    (path,) = tmp_path.glob("out-*.ts")
    (video,) = times([path])
    assert np.diff(video).min() > 0 and np.diff(video).max() < 1.0, "never dark for a second"
    assert np.diff(times([path], "audio")[0]).min() > 0


def test_a_sink_killed_comes_back_and_what_it_missed_is_counted(camera_clip, tmp_path):
    with (
        Server(tmp_path) as out,
        Relayed(tmp_path, camera_clip, "--loop", "-o", out.url("out"), *ECHO) as relay,
    ):
        for _ in range(5):
            until(lambda: relay.metric("unsmear_sink_up") == 1)
            sent = relay.told()["frames_out"]
            until(lambda sent=sent: relay.told()["frames_out"] > sent + 5)
            out.kill()
            until(lambda: relay.metric("unsmear_sink_up") == 0)
            out.start()
        until(lambda: relay.metric("unsmear_sink_up") == 1)
        assert relay.told()["state"] == "running", "the source is not disturbed"
        assert relay.metric("unsmear_frames_dropped_total", reason="sink away") > 0
        assert relay.stop() == 0
        assert_all_counted(relay.text())


def test_a_source_that_hangs_is_bridged_left_and_opened_anew(camera_clip, tmp_path):
    with (
        Server(tmp_path) as camera,
        feed(camera_clip, camera.feed),
        Relayed(tmp_path, camera.url("cam"), *ECHO) as relay,
    ):
        until(lambda: relay.told().get("frames_out", 0) > 10)
        camera.signal(signal.SIGSTOP)
        until(lambda: relay.told()["state"] == "stalled")
        until(lambda: relay.told()["frames_bridged"] > 10)
        until(lambda: relay.told()["state"] == "reconnecting", 20)
        camera.signal(signal.SIGCONT)
        until(lambda: relay.told()["state"] == "running", 30)
        assert relay.stop() == 0
        assert_all_counted(relay.text())


def test_a_sink_that_hangs_is_left_and_opened_anew(camera_clip, tmp_path):
    with (
        Server(tmp_path) as out,
        Relayed(tmp_path, camera_clip, "--loop", "-o", out.url("out"), *ECHO) as relay,
    ):
        until(lambda: relay.told().get("frames_out", 0) > 20)
        out.signal(signal.SIGSTOP)
        until(lambda: relay.metric("unsmear_sink_up") == 0, 30)
        out.signal(signal.SIGCONT)
        sent = relay.told()["frames_out"]
        until(lambda: relay.told()["frames_out"] > sent + 25, 60)
        assert relay.stop() == 0
        assert "Traceback" not in relay.text()


def test_a_password_opens_and_is_shown_nowhere(camera_clip, tmp_path):
    with (
        Server(tmp_path, login="user:s3cret") as camera,
        feed(camera_clip, camera.feed),
        Relayed(tmp_path, camera.url("cam", "user:s3cret"), "-v", *ECHO) as relay,
    ):
        until(lambda: relay.told().get("frames_out", 0) > 10)
        camera.kill()
        until(lambda: relay.told()["state"] == "reconnecting")
        everything = relay.get("/state.json") + relay.get("/metrics") + relay.get("/")
        assert relay.stop() == 0
        assert "s3cret" not in everything + relay.text() and "***@127.0.0.1" in relay.text()


def test_a_wrong_password_is_not_tried_for_ever(tmp_path):
    with (
        Server(tmp_path, login="user:s3cret") as camera,
        Relayed(tmp_path, camera.url("cam", "user:wr0ng"), *ECHO) as relay,
    ):
        assert relay.process.wait(60) == 4
        assert "authentication refused" in relay.text() and "wr0ng" not in relay.text()


@pytest.mark.parametrize("source", ["rtsp://127.0.0.1:{}/cam", "camera:77"])
def test_retries_that_are_spent_end_with_their_exit_code(source, tmp_path):
    with Relayed(tmp_path, source.format(free_port()), "--max-retries", "1", *ECHO) as relay:
        assert relay.process.wait(60) == 4, relay.text()
        last = relay.text().strip().splitlines()[-1]
        assert last.startswith("unsmear: ") and ("refused" in last or "not found" in last)


def test_damaged_packets_do_not_end_a_stream(camera_clip, tmp_path):
    port = free_port()
    noise = ("-c", "copy", "-bsf:v", "noise=amount=20")
    with (
        feed(camera_clip, port, *noise),
        Relayed(tmp_path, f"udp://127.0.0.1:{port}", "-o", tmp_path / "out.ts", *ECHO) as relay,
    ):
        until(lambda: relay.told().get("frames_out", 0) > 50, 60)
        assert relay.stop() == 0
        assert_all_counted(relay.text())


def test_a_change_of_size_is_survived(camera_clip, tmp_path):
    port = free_port()
    larger = make(tmp_path / "larger.ts", camera_clip.with_name("face.png"), "400:304", 4)
    with Relayed(tmp_path, f"udp://127.0.0.1:{port}", "-o", tmp_path / "out.mkv", *ECHO) as relay:
        with feed(camera_clip, port):
            until(lambda: relay.told().get("frames_out", 0) > 25, 30)
        with feed(larger, port):
            until(lambda: "opened anew, for 400x304" in relay.text(), 40)
            sent = relay.told()["frames_out"]
            until(lambda: relay.told()["frames_out"] > sent + 10, 30)
        assert relay.stop() == 0
        assert_all_counted(relay.text())
    sizes = set()
    for path in tmp_path.glob("out-*.mkv"):
        with av.open(str(path)) as container:
            sizes.add((container.streams.video[0].width, container.streams.video[0].height))
    assert sizes == {(320, 240), (400, 304)}


def test_a_change_of_codec_is_survived(camera_clip, tmp_path):
    port = free_port()
    hevc = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:keyint=25", "-c:a", "copy")
    with Relayed(tmp_path, f"udp://127.0.0.1:{port}", "-o", tmp_path / "out.mkv", *ECHO) as relay:
        for how in ((), hevc, ()):
            before = relay.told().get("frames_in", 0)
            with feed(camera_clip, port, *how):
                until(lambda before=before: relay.told().get("frames_in", 0) > before + 40, 40)
        assert relay.stop() == 0
        assert_all_counted(relay.text())
        assert "Traceback" not in relay.text()


def test_a_clock_that_wraps_does_not_step_back(camera_clip, tmp_path):
    """An MPEG transport stream's clock has 33 bits: it wraps at 95443.7 s."""
    port = free_port()
    late = ("-c", "copy", "-output_ts_offset", "95438")
    with (
        feed(camera_clip, port, *late),
        Relayed(tmp_path, f"udp://127.0.0.1:{port}", "-o", tmp_path / "out.ts", *ECHO) as relay,
    ):
        until(lambda: relay.told().get("frames_out", 0) > 10, 30)
        until(lambda: relay.told()["frames_out"] > 250, 30)
        assert relay.stop() == 0
        assert_all_counted(relay.text())
    (path,) = tmp_path.glob("out-*.ts")
    (video,) = times([path])
    assert np.diff(video).min() > 0 and np.diff(video).max() < 1.0 and 9 < video[-1] - video[0] < 20


def test_a_source_at_twice_its_rate_keeps_its_delay_bounded(camera_clip, tmp_path):
    port = free_port()
    with (
        feed(camera_clip, port, before=("-readrate", "2")),
        Relayed(tmp_path, f"udp://127.0.0.1:{port}", "--engine", "onnxruntime") as relay,
    ):
        until(lambda: relay.told().get("frames_in", 0) > 300, 60)
        assert relay.told()["latency_ms"] < 1000
        assert relay.stop() == 0
        assert_all_counted(relay.text())


def test_streams_are_added_changed_and_removed_without_disturbing_the_rest(camera_clip, tmp_path):
    config = tmp_path / "streams.toml"

    def write(**streams: str) -> None:
        text = "".join(
            f'[streams.{name}]\nsource = "{camera_clip}"\nloop = true\n{more}\n' for name, more in streams.items()
        )
        config.write_text(text)

    write(kept="", changed="", removed="")
    with Relayed(tmp_path, "--config", config, *ECHO) as relay:
        until(lambda: all(relay.told(name).get("frames_out", 0) > 10 for name in ("kept", "changed", "removed")))
        since = relay.told("kept")["since"]
        write(kept="", changed="max_latency_ms = 400.0", added="")
        relay.signal(signal.SIGHUP)
        until(lambda: relay.told("added").get("frames_out", 0) > 10 and not relay.told("removed"))
        until(lambda: relay.told("changed").get("frames_out", 0) > 10)
        assert relay.told("kept")["since"] == since and "kept: stopped" not in relay.text()
        assert relay.metric("unsmear_frames_in_total", stream="removed") == 0
        config.write_text("[streams.kept]\nsauce = 1\n")
        relay.signal(signal.SIGHUP)
        until(lambda: "kept as it was" in relay.text())
        assert relay.told("kept")["state"] == "running"
        config.write_text(f'[streams.kept]\nsource = "{camera_clip}"\nloop = true\n[restore]\nbatch = 3\n')
        relay.signal(signal.SIGHUP)
        until(lambda: "stay as they are until the relay is started anew" in relay.text())
        assert relay.stop() == 0


def test_a_hangup_while_the_engine_loads_is_heeded_later(camera_clip, tmp_path):
    with Relayed(tmp_path, camera_clip, "--loop", "-o", "none") as relay:
        until(relay.heeds_hangups, every_s=0.01)
        relay.signal(signal.SIGHUP)
        until(lambda: "read again" in relay.text())
        assert relay.told()["state"] in ("connecting", "running") and relay.stop() == 0


def test_a_stream_that_fails_leaves_the_others_alone(camera_clip, tmp_path):
    config = tmp_path / "streams.toml"
    config.write_text(
        f'[streams.good]\nsource = "{camera_clip}"\n'
        f'[streams.bad]\nsource = "rtsp://127.0.0.1:{free_port()}/x"\nmax_retries = 0\n'
    )
    with Relayed(tmp_path, "--config", config, *ECHO) as relay:
        until(lambda: relay.told("good").get("state") == "running" and relay.told("bad")["state"] == "stopped")
        assert relay.process.wait(30) == 4, "the code of the first that failed"
    assert "good: stopped" in relay.text()


def test_health_and_metrics_tell_what_is_so(camera_clip, tmp_path):
    with (
        Server(tmp_path) as camera,
        feed(camera_clip, camera.feed),
        Relayed(tmp_path, camera.url("cam"), "--log-json", *ECHO) as relay,
    ):
        until(lambda: relay.told().get("frames_out", 0) > 10)
        assert relay.get("/healthz") == "ok\n" and relay.get("/readyz") == "ready\n"
        assert relay.metric("unsmear_source_state", unsmear_source_state="running") == 1
        assert relay.metric("unsmear_latency_seconds_count", stage="total") > 5
        camera.kill()
        until(lambda: relay.told()["state"] == "reconnecting")
        assert relay.get("/healthz") == "ok\n"
        with pytest.raises(urllib.error.HTTPError, match="503"):
            relay.get("/readyz")
        assert relay.stop() == 0
    assert all(line.startswith('{"time": ') for line in relay.text().splitlines() if "stream: " in line)


def test_the_page_answers_to_this_machine_or_to_a_token_only(camera_clip, tmp_path):
    with Relayed(tmp_path, camera_clip, "--loop", *ECHO) as relay:
        until(lambda: relay.told().get("frames_out", 0) > 1)
        foreign = urllib.request.Request(f"http://127.0.0.1:{relay.web}/state.json", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(foreign)
    port = free_port()
    open_to_all = ("relay", camera_clip, "--loop", "--web", f"0.0.0.0:{port}", *ECHO)
    python = [live.sys.executable, "-m", "stream"]
    refused = subprocess.run([*python, *open_to_all], capture_output=True, text=True, timeout=30)
    assert refused.returncode == 2 and "--web-token" in refused.stderr
    with Process(*python, *open_to_all, "--web-token", "t0ken", log=tmp_path / "open.log") as relay:
        base = f"http://127.0.0.1:{port}"
        until(lambda: Path(tmp_path / "open.log").read_text().count("page:"))
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{base}/state.json")
        for query in ("", "?token=", "?token=wrong"):
            reply = urllib.request.urlopen(f"{base}/healthz{query}")
            assert reply.read() == b"ok\n" and reply.headers["Set-Cookie"] is None
        bearer = urllib.request.Request(f"{base}/metrics", headers={"Authorization": "Bearer t0ken"})
        assert b"unsmear_frames_in" in urllib.request.urlopen(bearer).read()
        first = urllib.request.urlopen(f"{base}/?token=t0ken")
        assert "unsmear=t0ken; HttpOnly" in first.headers["Set-Cookie"]
        assert "t0ken" not in relay.text()


def test_a_playlist_over_http_goes_to_an_rtmp_server_with_its_sound(camera_clip, tmp_path):
    web, rtmp = free_port(), free_port()
    folder, taken = tmp_path / "hls", tmp_path / "taken.mkv"
    folder.mkdir()
    sink = f"rtmp://127.0.0.1:{rtmp}/live/x"
    with (
        Process(
            *("ffmpeg", "-v", "error", "-re", "-stream_loop", -1, "-i", camera_clip, "-c", "copy"),
            *("-f", "hls", "-hls_time", 2, "-hls_list_size", 4, folder / "x.m3u8"),
        ),
        Process(live.sys.executable, "-m", "http.server", web, "--directory", folder, "--bind", "127.0.0.1"),
        Process("ffmpeg", "-v", "error", "-listen", 1, "-f", "flv", "-i", sink, "-t", 8, "-c", "copy", taken) as server,
    ):
        until((folder / "x.m3u8").exists)
        with Relayed(tmp_path, f"http://127.0.0.1:{web}/x.m3u8", "-o", sink, *ECHO) as relay:
            assert server.process.wait(40) == 0
            assert relay.stop() == 0
            assert_all_counted(relay.text())
            print(relay.text())
    (video,), (sound,) = times([taken]), times([taken], "audio")
    assert video[-1] - video[0] > 2, (video, sound)
    assert np.diff(video).min() >= 0 and abs(video[-1] - sound[-1]) < 0.5


def test_bench_live_reads_the_time_burnt_into_the_picture(camera_clip):
    command = [live.sys.executable, "-m", "stream", "bench", "live", camera_clip, "--seconds", "6", *ECHO, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    direct, relayed = told["delays_ms"]
    assert direct["frames"] > 20 and relayed["frames"] > 20, told
    assert all(0 < way["p50"] <= way["p95"] <= way["p99"] < 20_000 for way in (direct, relayed)), told


def test_a_stream_by_udp_and_one_by_rtmp_come_in(camera_clip, tmp_path):
    rtmp = f"rtmp://127.0.0.1:{free_port()}/live/x"
    waits = ("ffmpeg", "-v", "error", "-re", "-stream_loop", -1, "-i", camera_clip, "-c", "copy", "-f", "flv")
    config = tmp_path / "streams.toml"
    with (
        Server(tmp_path) as camera,
        feed(camera_clip, camera.feed),
        Process(*waits, "-listen", 1, rtmp),  # until somebody comes to watch
    ):
        config.write_text(
            f'[streams.udp]\nsource = "{camera.url("cam")}"\ntransport = "udp"\n[streams.rtmp]\nsource = "{rtmp}"\n'
        )
        with Relayed(tmp_path, "--config", config, *ECHO) as relay:
            for name in ("udp", "rtmp"):
                until(lambda name=name: relay.told(name).get("frames_out", 0) > 50)
            assert relay.stop() == 0
            assert_all_counted(relay.text())
