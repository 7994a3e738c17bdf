"""A clip sent live with the time burnt into its picture, and the delay with which it arrives somewhere."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction
from itertools import count, islice
from pathlib import Path

import av
import av.error
import numpy as np

from stream.errors import InputError, LinkError
from stream.frame import Frame, Plane
from stream.lanes import Stop
from stream.media.address import OPENING_S, READING_S, sink_address, source_address
from stream.media.encode import EncoderSettings
from stream.media.live_sink import open_sink
from stream.media.live_source import TICKS
from stream.media.source import FileSource

BITS = 24  # of milliseconds: more than four hours
COLUMNS = 12
PICTURES = 300  # of a clip, at most


def burn(luma: Plane, ms: int) -> None:
    """Write `ms` into the upper left corner: a square a bit, white for 1, lowest first."""
    side = square(luma)
    for bit in range(BITS):
        y, x = bit // COLUMNS * side, bit % COLUMNS * side
        luma[y : y + side, x : x + side] = 235 if ms >> bit & 1 else 16


def read(luma: Plane) -> int:
    """The milliseconds that `burn` wrote, after any encoder."""
    side = square(luma)
    rows = luma[: BITS // COLUMNS * side, : COLUMNS * side].reshape(BITS // COLUMNS, side, COLUMNS, side)
    bits = rows.mean((1, 3)).reshape(-1) > 128
    return int((bits << np.arange(BITS)).sum())


def square(luma: Plane) -> int:
    """The side of a bit's square in px."""
    return max(luma.shape[1] // 64 // 2 * 2, 8)


class Feed:
    """Publishes a clip over and over, as fast as it plays, by RTSP."""

    def __init__(self, clip: Path, port: int, stop: Stop) -> None:
        """Read the clip's pictures, so that reading costs nothing later.

        Raises:
            InputError: it cannot be read.
        """
        self._address, self._stop = sink_address(f"rtsp://127.0.0.1:{port}/x"), stop
        with FileSource(clip) as source:
            frames = (item for item in source if isinstance(item, Frame))
            self._frames = list(islice(frames, PICTURES))
            self.rate = source.info.rate or Fraction(25)
        self.width, self.height = self._frames[0].width, self._frames[0].height
        if self._frames[0].color.depth != 8:
            raise InputError(f"{clip}: a clip with 8 bits a sample is wanted here")

    def run(self) -> None:
        """Until it is stopped; publishing is tried again until somebody takes it."""
        while not self._stop.wait(0.2):
            try:
                self._publish()
            except LinkError:
                continue

    def _publish(self) -> None:
        settings = EncoderSettings(name="auto", crf=20, preset="ultrafast")
        sink = open_sink(self._address, self._stamped(0), self.rate, None, settings)
        began = time.monotonic()
        try:
            for index in count(1):
                if self._stop.wait(max(began + index / float(self.rate) - time.monotonic(), 0.0)):
                    return
                sink.write(self._stamped(index))
        finally:
            sink.close()

    def _stamped(self, index: int) -> Frame:
        """The next picture, with the time that it is now."""
        frame = self._frames[index % len(self._frames)]
        luma = frame.planes[0].copy()
        burn(luma, now_ms())
        return replace(
            frame, planes=(luma, *frame.planes[1:]), pts=round(index / self.rate / TICKS), duration=0, time_base=TICKS
        )


class Watch:
    """Takes what is published, by RTSP, and notes the delay of every picture, in milliseconds."""

    def __init__(self, port: int, stop: Stop) -> None:
        self._port, self._stop = port, stop
        self.delays: list[float] = []

    def run(self) -> None:
        """Until it is stopped, or nothing comes any more."""
        listening = source_address(f"listen:rtsp://127.0.0.1:{self._port}/x")
        options = listening.options | {"fflags": "nobuffer"}  # as any player reads it: see `access_units`
        try:
            with av.open(listening.url, options=options, timeout=(4 * OPENING_S, READING_S)) as source:
                video = source.streams.video[0]
                video.thread_type = "SLICE"
                video.codec_context.flags |= av.codec.context.Flags.low_delay
                for frame in source.decode(video):
                    luma = np.frombuffer(memoryview(frame.planes[0]), np.uint8)
                    luma = luma.reshape(frame.height, -1)[:, : frame.width]
                    self.delays.append(now_ms() - read(luma))
                    if self._stop.is_set():
                        return
        except (av.error.FFmpegError, OSError):
            return


def now_ms() -> int:
    """Monotonic milliseconds, in as many bits as are burnt."""
    return int(time.monotonic() * 1000) & ((1 << BITS) - 1)
