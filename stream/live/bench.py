"""How late a live picture is: a clip with the time burnt in, sent through a relay, beside the same without one."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
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


class Ends(NamedTuple):
    """What a camera sent and what a viewer saw of it."""

    delays: list[float]  # ms
    rate: Fraction
    width: int
    height: int


def bench_live(clip: Path, seconds: float, seat: Callable[[], Engine]) -> tuple[list[Delay], dict[str, object]]:
    """The delay without a relay and through one, and what the relay told of itself.

    Raises:
        InputError: the clip cannot be read, or nothing came through.
    """
    before, after = _free_port(), _free_port()
    # Camera and viewer are not the relay's: in its process their work would hold it up.
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        ends = other.submit(watch, clip, before, before, seconds).result()
        direct = _delay("without a relay", ends)
        places = {"source": f"listen:rtsp://127.0.0.1:{before}/x", "sink": f"rtsp://127.0.0.1:{after}/x"}
        settings = load_relay(None, {"relay": places})["stream"]
        finder = settings.faces
        relay = Relay("bench", settings, seat(), lambda: open_finder(finder.finder, finder.finder_model), Metrics())
        relay.start()
        try:
            seen = other.submit(watch, clip, before, after, seconds)
            while not seen.done():
                relay.watch()
                time.sleep(0.1)
            relayed = _delay("relayed", seen.result())
            told = relay.told()
        finally:
            relay.stop()
    both = ("frame_time_ms", 1000 / float(ends.rate)), ("size", f"{ends.width}x{ends.height}")
    keys = ("frames_in", "frames_out", "frames_passed_on", "frames_dropped", "faces_restored", "latency_ms")
    return [direct, relayed], dict(both) | {key: told[key] for key in keys}


def watch(clip: Path, send_to: int, watch_at: int, seconds: float) -> Ends:
    """Be the camera, which sends `clip` to one port, and the viewer, who is sent something at another."""
    stop = Stop()
    feed, viewer = Feed(clip, send_to, stop), Watch(watch_at, stop)
    workers = [Worker("live-feed", feed.run), Worker("live-watch", viewer.run)]
    time.sleep(WARM_UP_S)
    skipped = len(viewer.delays)
    time.sleep(seconds)
    stop.set()
    for worker in workers:
        worker.join(20.0)
    return Ends(viewer.delays[skipped:], feed.rate, feed.width, feed.height)


def _delay(way: str, ends: Ends) -> Delay:
    if len(ends.delays) < 10:
        raise InputError(f"{way}: hardly a picture came through")
    return Delay(way, len(ends.delays), *(round(float(np.percentile(ends.delays, p)), 1) for p in (50, 95, 99)))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
