"""A live sink opened once: frames encoded at once, sound copied, in the order of the relay's timeline."""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from fractions import Fraction
from math import ceil
from typing import Any, Protocol, cast

import av
import av.error

from stream.errors import Cause, LinkError
from stream.frame import Frame, Packet
from stream.media.address import OPENING_S, Address
from stream.media.decoded import lost
from stream.media.encode import EncoderSettings, encoder_options, picture_of, pixel_format
from stream.media.live_source import TICKS, Sound
from stream.media.publish import HEAD

KEYFRAME_S = 2  # a reader that joins waits so long at most
WRITING_S = 10.0  # until a sink that takes nothing is lost
CLOSING_S = 3.0  # for what has been written to be sent
_LIVE = {  # nothing is held back, and every keyframe carries what a reader that joins must know
    "libx264": {"tune": "zerolatency", "x264-params": "repeat-headers=1"},
    "libx265": {"tune": "zerolatency", "x265-params": "log-level=error:repeat-headers=1"},
}
Shape = tuple[int, int, str]


def shape_of(frame: Frame) -> Shape:
    """What an encoder cannot change once it is open."""
    return frame.width, frame.height, frame.color.pixel_format


class LiveSink(Protocol):
    """Where frames go."""

    notes: list[str]

    def write(self, item: Frame | Packet) -> None:
        """Send a frame, or a packet of sound, whose times rise.

        Raises:
            LinkError: the sink is gone, or takes nothing for long.
        """

    def abort(self) -> None:
        """Leave at once; may be called from another thread, while `write` waits."""

    def close(self) -> None:
        """Send what is still held, and leave. Faults are not told: all that mattered has been sent."""


class NullSink(LiveSink):
    """Takes everything and keeps nothing: for watching on the page, and for tests."""

    def __init__(self) -> None:
        self.notes = []

    def write(self, item: Frame | Packet) -> None:
        """See `LiveSink.write`."""

    def abort(self) -> None:
        """See `LiveSink.abort`."""

    def close(self) -> None:
        """See `LiveSink.close`."""


class AvSink(LiveSink):
    """Whatever the media library can publish to or write. Encoding is done here, sending in a process of its own."""

    def __init__(
        self, address: Address, first: Frame, rate: Fraction, sound: Sound | None, settings: EncoderSettings
    ) -> None:
        """Connect, and send `first`; what follows is like it, at about `rate` a second.

        Raises:
            LinkError: it cannot be opened.
        """
        self.address, self._settings = address, settings
        self._last: dict[int, int] = {}  # dts of each stream's last packet
        self._next_key = 0  # pts from which a keyframe is due
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stream.media.publish"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the relay's
        )
        assert self._process.stdin is not None
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)
        try:
            streams, packets = self._encoder(first, rate, sound if address.kind != "virtual" else None)
            head = json.dumps({"address": asdict(address), "size": len(streams)})
            self._give(head.encode() + b"\n" + streams, OPENING_S)
            answer = self._answer(OPENING_S)
            self._send(0, packets)
        except BaseException as error:
            fault = self._fault() if isinstance(error, BrokenPipeError) else error
            self._free()
            if isinstance(fault, (av.error.FFmpegError, OSError, ValueError)):
                fault = lost(address, fault)
            raise fault from None
        self.notes = list(answer.get("notes", []))

    def _encoder(self, first: Frame, rate: Fraction, sound: Sound | None) -> tuple[bytes, list[Any]]:
        """Open the encoder; all streams as the beginning of a NUT file, and the first frame's packets."""
        file = io.BytesIO()
        container: Any = av.open(file, "w", format="nut")
        color, raw = first.color, self.address.kind == "virtual"
        name = "rawvideo" if raw else "libx264" if self._settings.name == "auto" else self._settings.name
        video: Any = cast(Any, container.add_stream(name, rate=rate))
        self._context = context = video.codec_context
        context.width, context.height = first.width, first.height
        odd = first.width % 2 or first.height % 2
        context.pix_fmt = "yuv420p" if raw else pixel_format(name, color, odd)
        context.time_base = video.time_base = TICKS
        if color.sample_aspect_ratio:
            context.sample_aspect_ratio = color.sample_aspect_ratio
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = color.tags
        context.gop_size, context.max_b_frames = ceil(rate * KEYFRAME_S * 10), 0  # they are asked for by the clock
        if not raw:
            context.options = encoder_options(name, self._settings) | _LIVE.get(name, {})
        if color.rotation:
            video.set_display_rotation(color.rotation)
        self._sound: dict[int, int] = {}  # index in the source -> index here
        for index, template in (sound.streams if sound is not None else {}).items():
            copied: Any = container.add_stream_from_template(template, opaque=True)
            config = sound.config(index) if sound is not None else None
            if config:
                copied.codec_context.extradata = config
            self._sound[index] = copied.index
        container.start_encoding()
        packets = context.encode(self._picture(first))
        for index in range(1 + len(self._sound)):  # a reader wants one of each
            packet = av.Packet(bytes(packets[0]) if index == 0 else bytes(8))
            packet.pts = packet.dts = 0
            packet.is_keyframe = True
            packet.stream = container.streams[index]
            container.mux_one(packet)
        container.close()
        return file.getvalue(), packets

    def write(self, item: Frame | Packet) -> None:
        """See `LiveSink.write`."""
        try:
            if isinstance(item, Frame):
                self._send(0, self._context.encode(self._picture(item)))
            elif item.stream in self._sound:
                self._send(self._sound[item.stream], [item.native])
        except (BrokenPipeError, av.error.BrokenPipeError):
            raise self._fault() from None
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise lost(self.address, error) from None

    def _send(self, index: int, packets: list[Any]) -> None:
        for packet in packets:
            dts = max(packet.dts, self._last.get(index, packet.dts - 1) + 1)
            self._last[index] = dts
            base = packet.time_base
            fields = (index, packet.is_keyframe, max(packet.pts, dts), dts, base.numerator, base.denominator)
            self._give(HEAD.pack(*fields, packet.size) + bytes(packet), WRITING_S)

    def _give(self, data: bytes, limit_s: float) -> None:
        """To the process that sends, which takes more when the sink does."""
        left, until = memoryview(data), time.monotonic() + limit_s
        while left:
            if not select.select([], [self._pipe], [], max(until - time.monotonic(), 0.0))[1]:
                raise LinkError(Cause.TIMEOUT, f"{self.address}: takes nothing for {limit_s:g} s")
            left = left[os.write(self._pipe, left) :]

    def _picture(self, frame: Frame) -> av.VideoFrame:
        picture = picture_of(frame, self._context.pix_fmt)
        if frame.pts >= self._next_key:
            picture.pict_type = av.video.frame.PictureType.I
            self._next_key = frame.pts + round(KEYFRAME_S / TICKS)
        return picture

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        """The next line of the process that sends.

        Raises:
            LinkError: it says that the sink is lost, or says nothing in time.
        """
        told = self._process.stdout
        assert told is not None
        if not select.select([told], [], [], timeout_s)[0]:
            raise LinkError(Cause.TIMEOUT, f"{self.address}: {Cause.TIMEOUT}")
        line = told.readline()
        answer: dict[str, Any] = json.loads(line) if line else {}
        if not answer.get("open"):
            cause = Cause(answer.get("cause", Cause.BROKEN))
            raise LinkError(cause, answer.get("message", f"{self.address}: {cause}"))
        return answer

    def _fault(self) -> LinkError:
        """Why the process that sends has ended."""
        try:
            self._answer(1.0)
        except LinkError as fault:
            return fault
        return LinkError(Cause.BROKEN, f"{self.address}: {Cause.BROKEN}")

    def abort(self) -> None:
        """See `LiveSink.abort`: a write that waits ends with a fault."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # the kernel holds it: it ends when that lets go
            self._process.wait(1.0)

    def close(self) -> None:
        """See `LiveSink.close`."""
        with suppress(Exception):  # whatever it is, it is over
            self._send(0, self._context.encode(None))
            self._process.stdin.close()  # type: ignore[union-attr]
            self._process.wait(CLOSING_S)
        self._free()

    def _free(self) -> None:
        """The process and both pipes."""
        self.abort()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def open_sink(
    address: Address, first: Frame, rate: Fraction, sound: Sound | None, settings: EncoderSettings
) -> LiveSink:
    """The sink at `address`, to which `first` is sent already; see `AvSink`."""
    return NullSink() if address.kind == "none" else AvSink(address, first, rate, sound, settings)
