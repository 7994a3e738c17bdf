"""The parts of live use by themselves: states, clock, waiting, inboxes, places, the road that never stops."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from engine import EngineError
from engine.echo import EchoEngine
from stream.config import load_relay
from stream.errors import LinkError, UsageError
from stream.frame import Face, Found, Packet
from stream.lanes import Inbox
from stream.live.clock import RelayClock
from stream.live.fleet import Fleet
from stream.live.metrics import Metrics
from stream.live.page import CONNECTIONS, Page
from stream.live.pause import Backoff, Pause
from stream.live.relay import Relay
from stream.live.road import Road
from stream.live.slate import blank, slate
from stream.live.states import TRANSITIONS, Event, State, after
from stream.media import live_sink
from stream.media.address import redacted, sink_address, source_address
from stream.media.live_sink import open_sink
from stream.media.timecode import burn, read

C, R, T, A, S = State.CONNECTING, State.RUNNING, State.STALLED, State.RECONNECTING, State.STOPPED
TABLE = [
    (C, Event.PICTURE, R),
    (C, Event.SILENCE, C),
    (C, Event.LOST, A),
    (C, Event.OVER, S),
    (R, Event.PICTURE, R),
    (R, Event.SILENCE, T),
    (R, Event.LOST, A),
    (R, Event.OVER, S),
    (T, Event.PICTURE, R),
    (T, Event.SILENCE, T),
    (T, Event.LOST, A),
    (T, Event.OVER, S),
    (A, Event.PICTURE, R),
    (A, Event.SILENCE, A),
    (A, Event.LOST, A),
    (A, Event.OVER, S),
    (S, Event.PICTURE, S),
    (S, Event.SILENCE, S),
    (S, Event.LOST, S),
    (S, Event.OVER, S),
]


@pytest.mark.parametrize(("state", "event", "then"), TABLE, ids=lambda each: str(each))
def test_an_event_leads_to_its_state(state, event, then):
    assert after(state, event) is then


def test_every_state_and_event_stands_in_the_table():
    assert {(state, event) for state, event, _ in TABLE} == {(state, event) for state in State for event in Event}
    assert set(TRANSITIONS) == set(State)


class Source:
    """Packets of two streams from a clock that may do anything, and what the relay makes of them."""

    def __init__(self):
        self.clock = RelayClock(100.0)
        self.now, self.raw = 101.0, {0: Fraction(0), 1: Fraction(0)}
        self.placed = []

    def play(self, seconds, step=Fraction(1, 25)):
        for _ in range(int(seconds / float(step))):
            for stream in (0, 1):
                offset = self.clock.offset(stream, self.raw[stream], self.now)
                self.placed.append((stream, float(self.raw[stream] + offset), self.now - 100.0))
                self.raw[stream] += step
            self.now += float(step)

    def times(self, stream):
        return np.array([at for s, at, _ in self.placed if s == stream])

    def distance(self):
        """How far sound and picture are apart, at most."""
        return np.abs(self.times(0) - self.times(1)).max()


@pytest.mark.parametrize("bits", [32, 33])
def test_a_clock_that_wraps_goes_on(bits):
    source = Source()
    length = Fraction(2**bits, 90000)
    source.raw = {0: length - 1, 1: length - 1}
    source.play(0.96)
    source.raw = {0: Fraction(0), 1: Fraction(0)}
    source.play(1)
    steps = np.diff(source.times(0))
    assert steps.min() > 0.03 and steps.max() < 0.13 and source.clock.jumps >= 1
    assert source.distance() < 0.05


@pytest.mark.parametrize("to", [0, 50_000, 3_600, 9.0])
def test_a_clock_that_begins_anew_goes_on_for_sound_and_picture(to):
    source = Source()
    source.raw = {0: Fraction(10_000), 1: Fraction(10_000)}
    source.play(2)
    source.raw = {0: Fraction(to), 1: Fraction(to)}
    source.play(2)
    assert np.diff(source.times(0)).min() > 0.03 and np.diff(source.times(0)).max() < 0.2
    assert source.distance() < 0.1


def test_one_stream_that_jumps_first_does_not_take_the_other_along():
    source = Source()
    source.play(1)
    source.raw[1] = Fraction(5000)  # the sound's clock has begun anew, the picture's follows in ten frames
    source.play(0.4)
    source.raw[0] = source.raw[1]
    source.play(1)
    assert np.diff(source.times(0)).min() > 0 and np.diff(source.times(1)).min() > 0
    assert np.diff(source.times(0)).max() < 0.2
    assert abs(source.times(0)[-1] - source.times(1)[-1]) < 0.1


def test_a_new_connection_is_now_and_never_before_what_was():
    source = Source()
    source.play(1)
    source.now += 7.0
    source.clock.passed(Fraction(9))
    source.clock.restart()
    source.raw = {0: Fraction(77), 1: Fraction(77)}
    source.play(1)
    assert 9.0 <= source.times(0)[25] < 9.1


def test_a_source_that_stood_still_goes_on_behind_what_bridged_it():
    source = Source()
    source.play(1)
    source.now += 3.0
    source.clock.passed(Fraction(5))
    source.play(2)  # its own clock stood still as well: it is 3 s behind for good
    assert source.times(0)[-1] > 5.0 and source.clock.jumps == 1
    assert (source.times(0) < 5.0).sum() < 25 + 15


def test_what_comes_in_a_burst_after_a_gap_is_not_moved():
    source = Source()
    source.play(1)
    source.now += 3.0
    source.clock.passed(Fraction(5))
    for _ in range(75):  # three seconds at once
        source.clock.offset(0, source.raw[0], source.now)
        source.raw[0] += Fraction(1, 25)
    source.raw[1] = source.raw[0]
    source.play(1)
    assert source.clock.jumps == 0


def test_no_clock_whatever_makes_time_step_back():
    for seed in range(20):
        chance = random.Random(seed)
        source = Source()
        for _ in range(12):
            what = chance.randrange(4)
            if what == 0:
                source.raw = dict.fromkeys((0, 1), Fraction(chance.randrange(100_000)))
            elif what == 1:
                source.now += chance.uniform(0, 20)
                source.clock.restart()
            elif what == 2:
                source.now += chance.uniform(0, 3)
            source.play(chance.uniform(0.2, 2))
        assert np.diff(source.times(0)).min() > -0.5, seed  # a jitter that the writer puts in order


def test_attempts_come_quickly_at_first_then_less_and_less_often():
    backoff = Backoff(chance=random.Random(3))
    waits, now = [], 0.0
    for _ in range(80):
        waits.append(backoff.after_fault(now))
        now += waits[-1]
    assert all(0.75 <= wait <= 1.0 for wait in waits[:60])
    assert 22.5 <= waits[-1] <= 30.0 and max(waits) <= 30.0
    assert len({round(wait, 6) for wait in waits[:60]}) > 50, "without jitter many streams come at once"
    backoff.reset()
    assert backoff.after_fault(now) <= 1.0 and backoff.attempts == 1


def test_a_pause_grows_while_faults_come_soon_after_it_and_begins_anew_after_calm():
    pause = Pause(1.0, 4.0, faults=2)
    pause.fault(0.0)
    assert not pause.active(0.0)
    pause.fault(0.1)
    assert pause.active(1.0) and not pause.active(1.2)
    for now, length in ((1.2, 2.0), (3.5, 4.0), (7.9, 4.0)):
        pause.fault(now)
        pause.fault(now)
        assert pause.active(now + length - 0.01) and not pause.active(now + length + 0.01)
    pause.success()
    pause.fault(100.0)
    pause.fault(100.0)
    assert not pause.active(101.1), "after long calm it is short again"


def test_an_inbox_loses_its_oldest_frame_and_no_packet():
    lost = []
    inbox = Inbox(2, lambda item: item < 10, lambda item, why: lost.append((item, why)))
    for item in (1, 11, 2, 12, 3):
        inbox.put(item)
    inbox.close()
    inbox.put(4)
    assert lost == [(1, "queue full"), (4, "stopping")]
    assert list(inbox) == [11, 2, 12, 3] and inbox.is_over


def test_an_inbox_full_of_packets_keeps_its_frames():
    lost = []
    inbox = Inbox(2, lambda item: item < 10, lambda item, why: lost.append(item))
    for item in (1, 2, *range(10, 400)):
        inbox.put(item)
    assert len(inbox) == 2 and not lost and [inbox.get(0), inbox.get(0)] == [1, 2]


def test_an_inbox_passes_over_what_is_stale_but_not_over_the_newest():
    lost = []
    inbox = Inbox(9, lambda item: True, lambda item, why: lost.append((item, why)), lambda item: item < 3)
    for item in (0, 1, 2, 3):
        inbox.put(item)
    assert inbox.get(0) == 3 and [why for _, why in lost] == ["too late"] * 3
    inbox.put(1)
    assert inbox.get(0) == 1, "an old picture is better than none"
    assert inbox.get(0.01) is None and not inbox.is_over


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://user:pa$s@cam:554/a", "rtsp://***@cam:554/a"),
        ("rtsp://user:p@ss@cam/a", "rtsp://***@cam/a"),
        ("rtsp://cam/a?user=x&password=y&n=1", "rtsp://cam/a?***"),
        ("rtmp://host/live/key", "rtmp://host/live/***"),
        ("rtsp://u:pa/ss@h/x", "rtsp://***@h/x"),
        ("http://h/s?SECRET", "http://h/s?***"),
        ("cannot open 'http://a:b@c/d?e=f', gone", "cannot open 'http://***@c/d?***', gone"),
    ],
)
def test_no_secret_of_a_url_is_shown(url, shown):
    assert redacted(url) == shown
    if url.startswith("rtsp") and "pa/ss" not in url:  # that one is refused
        address = source_address(url)
        assert (
            str(address) == shown
            and "pass" not in repr(address).replace("password=***", "")
            and "y&" not in repr(address)
        )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: source_address("gopher://x"), "'gopher'"),
        (lambda: source_address("rtsp://[bad/x"), "is no url"),
        (lambda: source_address("rtsp://h:99999/x"), "is no url"),
        (lambda: source_address("nothing.mp4"), "no url and no file"),
        (lambda: sink_address("https://x/y"), "'https'"),
        (lambda: sink_address("/tmp/a.avi"), "segments are"),
        (lambda: sink_address("/no/such/folder/a.ts"), "does not exist"),
    ],
)
def test_a_place_that_cannot_be_is_refused_in_one_line(wrong, says):
    with pytest.raises(UsageError, match=says):
        wrong()


def test_streams_of_a_file_have_their_own_settings_over_the_common_ones(tmp_path):
    path = tmp_path / "streams.toml"
    path.write_text(
        '[encoder]\ncrf = 25.0\n[streams.a]\nsource = "rtsp://x/a"\nfaces = { min_size_px = 80 }\n'
        '[streams.b]\nsource = "rtsp://x/b"\nmax_latency_ms = 500.0\n'
    )
    streams = load_relay(path, {"restore": {"strength": 0.5}})
    assert streams["a"].faces.min_size_px == 80 and streams["b"].faces.min_size_px == 40
    assert streams["b"].relay.max_latency_ms == 500 and streams["a"].encoder.crf == 25
    assert all(stream.restore.strength == 0.5 and not stream.faces.look_ahead for stream in streams.values())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[streams.a]\nsink = 'none'\n", "no source"),
        ("[streams.a]\nsource = 'x'\nsinc = 'y'\n", "did you mean 'relay.sink'"),
        ("[streams.'a b']\nsource = 'x'\n", "a stream's name"),
        ("streams = 3\n", "streams are tables"),
        ("[streams.a]\nsource='x'\n[streams.b]\nsource='y'\nrestore={engine='echo'}\n", "share one engine"),
        ("", "nothing to relay"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused(tmp_path, text, says):
    path = tmp_path / "streams.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        load_relay(path, {})


class OneFace:
    """A finder that sees a face in the middle of all it is shown, unless it is told to fail."""

    side_px = 256

    def __init__(self):
        self.fails = False
        self.closed = False

    def search(self, image):
        if self.fails:
            raise RuntimeError("the finder broke")
        side = image.shape[0]
        return np.array([[side * 0.4, side * 0.3, side * 0.6, side * 0.6, 0.9]])

    def look(self, image, last=None, track=0):
        side = float(image.shape[0])
        points = np.array([[0.42, 0.45], [0.58, 0.45], [0.5, 0.52], [0.44, 0.6], [0.56, 0.6]]) * side
        return Face(np.array([0.3, 0.3, 0.7, 0.75]) * side, points, 0.9)

    def close(self):
        self.closed = True


class Failing(EchoEngine):
    fails = False

    def run(self, crops, known=None):
        if self.fails:
            raise EngineError("out of memory")
        return super().run(crops, known)


@pytest.fixture
def road(tmp_path):
    """A road with a finder and an engine that can be made to fail, and frames that have just come."""
    # A delay that a busy machine does not reach by itself.
    settings = load_relay(None, {"relay": {"source": "rtsp://x/y", "max_latency_ms": 20_000.0}})["stream"]
    finders, engine, metrics = [], Failing(16), Metrics()

    def make():
        time.sleep(0.1)
        finders.append(OneFace())
        return finders[-1]

    it = Road("s", settings, make, engine, metrics)

    def frame(index, age_s=0.0):
        return replace(blank(), index=index, pts=3600 * index, arrived=time.monotonic() - age_s)

    def passed(why):
        return metrics.value("unsmear_frames_passed_on_total", stream="s", reason=why)

    yield it, frame, passed, finders, engine
    if it._loading is not None:
        it._loading.join(5)


def through(road, items):
    return [road.restore(item) if isinstance(item, Found) else item for item in road.find(items)]


def ready(road):
    road._ready_finder()
    road._loading.join(5)


def test_frames_pass_while_the_finder_loads_and_are_restored_then(road):
    it, frame, passed, finders, _ = road

    def frames():
        yield frame(0)
        it._loading.join(5)
        yield frame(1)

    first, second = through(it, frames())
    assert first.patches == () and passed("starting") == 1
    assert second.patches and finders[0].closed


def test_a_finder_that_breaks_is_left_out_and_made_anew(road):
    it, frame, passed, finders, _ = road
    ready(it)

    def frames():
        finders[0].fails = True
        yield frame(0)
        yield frame(1)
        it._loading.join(5)
        yield frame(2)

    out = through(it, frames())
    assert [bool(relayed.patches) for relayed in out] == [False, False, True]
    assert passed("failed") == 1 and passed("starting") == 1 and finders[0].closed and len(finders) == 2


def test_a_finder_that_was_made_anew_gives_no_number_twice(road):
    it, frame, _, finders, _ = road
    ready(it)

    def frames():
        yield frame(0)
        finders[0].fails = True
        for n in range(1, 9):
            yield frame(n)
            it._loading.join(5)

    numbers = [{patch.crop.track.id for patch in relayed.patches} for relayed in through(it, frames())]
    assert len(finders) == 2 and numbers[0] and numbers[-1] and numbers[0].isdisjoint(numbers[-1])


def test_an_engine_that_fails_again_and_again_is_left_out_for_a_while(road):
    it, frame, passed, _, engine = road
    ready(it)
    engine.fails = True
    out = through(it, (frame(n) for n in range(6)))
    assert all(relayed.frame is relayed.before for relayed in out), "the picture goes on as it came"
    assert passed("failed") == 3 and passed("paused after faults") == 3
    assert "out of memory" in str(it.fault)


def test_nothing_of_a_frame_that_failed_is_remembered(road):
    it, frame, _, _, engine = road
    ready(it)
    known = []
    for found in it.find(frame(n) for n in range(3)):
        engine.fails = found.frame.index == 1
        patches = it.restore(found).patches
        known.append((bool(patches), bool(it._restoration._before), it.stats.engine_fault))
    assert known == [(True, True, None), (False, False, None), (True, True, None)]


def test_late_frames_pass_on_and_restoring_rests(road):
    it, frame, passed, _, _ = road
    ready(it)
    out = through(it, [frame(0), *(frame(n, age_s=16.0) for n in (1, 2, 3)), frame(4)])
    assert [bool(relayed.patches) for relayed in out] == [True, False, False, False, False]
    assert passed("late") == 4, "the last one is in time, but a picture restored now and then would flicker"


def test_packets_keep_their_place_among_frames(road):
    it, frame, _, _, _ = road
    packet = Packet(1, None)
    out = through(it, [packet, frame(0), packet])
    assert out[0] is packet and out[2] is packet


@pytest.mark.parametrize("depth", [8, 10])
def test_the_slate_is_the_last_picture_darkened_with_a_line_in_it(depth):
    frame = blank()
    if depth == 10:
        planes = tuple(plane.astype(np.uint16) * 4 for plane in frame.planes)
        frame = replace(frame, planes=planes, color=replace(frame.color, depth=10, pixel_format="yuv420p10le"))
    dark = slate(frame, "no picture since 12:00:00")
    unit = 2 ** (depth - 8)
    assert np.median(dark.planes[0]) == 24 * unit and dark.planes[0].max() >= 200 * unit
    assert np.median(dark.planes[1]) == 128 * unit and dark.planes[0].dtype == frame.planes[0].dtype


@pytest.mark.parametrize("ms", [0, 1, 0xFFFFFF, 0xA5C39])
def test_a_time_burnt_into_a_picture_survives_an_encoder(ms):
    picture = np.random.default_rng(ms).integers(0, 255, (540, 640), np.uint8)  # yuv420p of 640x360
    burn(picture[:360], ms)
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 640, 360, "yuv420p", Fraction(1, 25)
    encoder.options = {"crf": "35", "preset": "ultrafast"}
    packets = encoder.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")) + encoder.encode(None)
    decoder = av.CodecContext.create("h264", "r")
    (frame,) = [f for packet in [*packets, None] for f in decoder.decode(packet)]
    assert read(frame.to_ndarray()[:360]) == ms


def test_a_fault_of_ours_in_a_stage_ends_nothing(clip, caplog):
    """What no guard foresaw: the stages begin anew."""
    settings = load_relay(None, {"relay": {"source": str(clip("sixty.mp4", pts=tuple(range(0, 60 * 512, 512))))}})
    metrics = Metrics()
    relay = Relay("s", settings["stream"], EchoEngine(16), OneFace, metrics)
    whole, calls = relay._road.restore, iter([False, True, False])

    def restore(found):
        if next(calls, False):
            raise KeyError("nobody thought of this")
        return whole(found)

    relay._road.restore = restore
    relay.start()
    end = time.monotonic() + 20
    while not relay.is_over and time.monotonic() < end:
        relay.watch()
        time.sleep(0.05)
    relay.stop()
    sent = metrics.value("unsmear_frames_out_total", stream="s")
    assert relay.is_over and sent > 50 and "a stage failed" in caplog.text
    assert metrics.value("unsmear_frames_dropped_total", stream="s", reason="failed") >= 1
    dropped = metrics.total("unsmear_frames_dropped_total", "s")
    assert metrics.value("unsmear_frames_in_total", stream="s") == sent + dropped


def test_streams_are_stopped_all_at_once_and_the_others_watched(clip):
    path = str(clip("thirty.mp4", pts=tuple(range(0, 30 * 512, 512))))
    settings = load_relay(None, {"relay": {"source": path, "loop": True}})["stream"]
    fleet = Fleet(lambda: EchoEngine(16), lambda settings: OneFace(), Metrics())
    fleet.apply(dict.fromkeys(("one", "two", "kept"), settings))
    together, watched = threading.Barrier(3), threading.Event()
    for name, relay in fleet.relays.items():
        if name == "kept":
            relay.watch = lambda: watched.set() or 1 / 0  # a fault of ours ends nothing either
        else:
            relay.stop = lambda stop=relay.stop: (together.wait(30), stop())

    def join_in():
        assert watched.wait(30)
        together.wait(30)

    helper = threading.Thread(target=join_in)
    helper.start()
    fleet.apply({"kept": settings})
    helper.join()
    assert list(fleet.relays) == ["kept"]
    fleet.stop()
    assert not fleet.relays


def noise(index):
    """A frame that does not compress."""
    random, like = np.random.default_rng(index), blank()
    planes = tuple(random.integers(0, 256, plane.shape, np.uint8) for plane in like.planes)
    return replace(like, index=index, pts=3600 * index, planes=planes)


def open_segments(folder, first):
    encoder = load_relay(None, {"relay": {"source": "rtsp://x/y"}})["stream"].encoder
    return open_sink(sink_address(str(folder / "live.ts")), first, Fraction(25), None, encoder)


def test_a_sink_that_takes_nothing_is_lost_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(live_sink, "WRITING_S", 0.3)
    sink = open_segments(tmp_path, noise(0))
    os.kill(sink._process.pid, signal.SIGSTOP)  # it takes what a pipe holds, and no more
    with pytest.raises(LinkError, match=r"takes nothing for 0\.3 s"):
        for index in range(1, 20):
            sink.write(noise(index))
    sink.abort()
    sink.close()
    assert sink._process.poll() is not None


def test_no_segment_takes_the_place_of_another_of_the_same_second(tmp_path):
    for index in range(3):
        open_segments(tmp_path, noise(index)).close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3, names


def test_places_that_cannot_be_leave_no_seat_taken():
    seats = []

    class Seat(EchoEngine):
        def close(self):
            seats.remove(self)

    def seat():
        seats.append(Seat())
        return seats[-1]

    good = load_relay(None, {"relay": {"source": "rtsp://x/y"}})["stream"]
    bad = load_relay(None, {"relay": {"source": "nothing.mp4"}})["stream"]
    fleet = Fleet(seat, lambda settings: OneFace(), Metrics())
    with pytest.raises(UsageError):
        fleet.apply({"good": good, "bad": bad})
    assert not seats and not fleet.relays


def test_the_page_takes_so_many_connections_and_no_more():
    fleet = Fleet(lambda: EchoEngine(16), lambda settings: OneFace(), Metrics())
    page = Page("127.0.0.1:0", None, fleet)

    def answer(connection):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            return connection.recv(1000)
        except ConnectionError:
            return b""

    def connect():
        return socket.create_connection(("127.0.0.1", page.port), 30)

    try:
        many = [connect() for _ in range(CONNECTIONS)]
        assert all(b"200 OK" in answer(each) for each in many)
        with connect() as one_more:
            assert answer(one_more) == b""
        for each in many:
            each.close()
        reply = b""
        while b"200 OK" not in reply:
            with connect() as again:
                reply = answer(again)
    finally:
        page.close()


def test_freed_memory_goes_back_to_the_system():
    program = """
import re
from pathlib import Path
from stream.live.heap import bound_arenas, give_back

def rss_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

bound_arenas()
blocks = [bytearray(60_000) for _ in range(1500)]
last = blocks[-1]  # above all that is freed: without being asked, the library keeps it
del blocks
held = rss_mb()
give_back()
print(held - rss_mb())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 60, "of 90 MB"
