"""How late a live picture is: a clip with the time burnt in, sent through a relay, beside the same without one."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine import Engine
from stream.config import load_relay
from stream.errors import InputError
from stream.faces.finder import open_finder
from stream.lanes import Stop, Worker
from stream.live.metrics import Metrics
from stream.live.relay import Relay
from stream.media.timecode import Feed, Watch

WARM_UP_S = 5.0  # connecting, loading, settling: not counted


class Delay(NamedTuple):
    """Milliseconds from the camera's clock to a decoded picture."""

    way: str
    frames: int
    p50: float
    p95: float
    p99: float


def bench_live(clip: Path, seconds: float, seat: Callable[[], Engine]) -> tuple[list[Delay], dict[str, object]]:
    """The delay without a relay and through one, and what the relay told of itself.

    Raises:
        InputError: the clip cannot be read, or nothing came through.
    """
    stop = Stop()
    before, after = _free_port(), _free_port()
    feed = Feed(clip, before, stop)
    direct = _watched("without a relay", Watch(before, stop), feed, seconds, stop)
    stop = Stop()
    feed = Feed(clip, before, stop)
    places = {"source": f"listen:rtsp://127.0.0.1:{before}/x", "sink": f"rtsp://127.0.0.1:{after}/x"}
    settings = load_relay(None, {"relay": places})["stream"]
    finder = settings.faces
    relay = Relay("bench", settings, seat(), lambda: open_finder(finder.finder, finder.finder_model), Metrics())
    relay.start()
    try:
        relayed = _watched("relayed", Watch(after, stop), feed, seconds, stop, relay.watch)
        told = relay.told()
    finally:
        relay.stop()
    both = ("frame_time_ms", 1000 / float(feed.rate)), ("size", f"{feed.width}x{feed.height}")
    keys = ("frames_in", "frames_out", "frames_passed_on", "frames_dropped", "faces_restored")
    return [direct, relayed], dict(both) | {key: told[key] for key in keys}


def _watched(
    way: str, watch: Watch, feed: Feed, seconds: float, stop: Stop, look: Callable[[], None] = lambda: None
) -> Delay:
    workers = [Worker("live-feed", feed.run), Worker("live-watch", watch.run)]
    until = time.monotonic() + WARM_UP_S + seconds
    skipped = 0
    while time.monotonic() < until:
        look()
        time.sleep(0.1)
        if until - time.monotonic() > seconds:
            skipped = len(watch.delays)
    stop.set()
    for worker in workers:
        worker.join(20.0)
    delays = np.array(watch.delays[skipped:])
    if len(delays) < 10:
        raise InputError(f"{way}: hardly a picture came through in {seconds:g} s")
    return Delay(way, len(delays), *(round(float(np.percentile(delays, p)), 1) for p in (50, 95, 99)))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
