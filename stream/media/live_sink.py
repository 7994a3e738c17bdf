"""A live sink opened once: frames encoded at once, sound copied, in the order of the relay's timeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from math import ceil
from typing import Any, Protocol

import av
import av.error

from stream.errors import Cause
from stream.frame import Frame, Packet
from stream.media.address import Address
from stream.media.decoded import reason
from stream.media.encode import EncoderSettings, encoder_options, picture_of, pixel_format
from stream.media.live_source import TICKS, Sound, lost
from stream.media.sink import NOTE

KEYFRAME_S = 2  # a reader that joins waits so long at most
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
            LinkError: the sink is gone.
        """

    def close(self) -> None:
        """Send what is still held, and leave. Faults are not told: all that mattered has been sent."""


class NullSink(LiveSink):
    """Takes everything and keeps nothing: for watching on the page, and for tests."""

    def __init__(self) -> None:
        self.notes = []

    def write(self, item: Frame | Packet) -> None:
        """See `LiveSink.write`."""

    def close(self) -> None:
        """See `LiveSink.close`."""


class AvSink(LiveSink):
    """Whatever the media library can publish to or write."""

    def __init__(
        self, address: Address, first: Frame, rate: Fraction, sound: Sound | None, settings: EncoderSettings
    ) -> None:
        """Connect, for frames like `first` at about `rate` a second.

        Raises:
            LinkError: it cannot be opened.
        """
        self.address, self.notes = address, []
        self._settings = settings
        self._last: dict[int, int] = {}  # dts of each stream's last packet
        self._next_key = 0  # pts from which a keyframe is due
        wanted = sound if address.kind != "virtual" else None
        try:
            self._open(first, rate, wanted)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            fault = lost(address, error)
            if wanted is None or not wanted.streams or fault.cause not in (Cause.BROKEN, Cause.UNSUPPORTED):
                raise fault from None
            try:  # the container may not hold this sound
                self._open(first, rate, None)
            except (av.error.FFmpegError, OSError, ValueError) as again:
                raise lost(address, again) from None
            self.notes.append(f"{address} does not take the sound ({reason(error)}): it is left out")

    def _open(self, first: Frame, rate: Fraction, sound: Sound | None) -> None:
        address, color = self.address, first.color
        # A url names a container, not a path: it is opened with the header, here.
        container: Any = av.open(address.url, "w", format=address.format, options=address.options)
        try:
            raw = address.kind == "virtual"
            name = "rawvideo" if raw else "libx264" if self._settings.name == "auto" else self._settings.name
            video: Any = container.add_stream(name, rate=rate)
            context = video.codec_context
            context.width, context.height = first.width, first.height
            odd = first.width % 2 or first.height % 2
            context.pix_fmt = "yuv420p" if raw else pixel_format(name, color, odd)
            context.time_base = video.time_base = TICKS
            if color.sample_aspect_ratio:
                context.sample_aspect_ratio = color.sample_aspect_ratio
            context.color_range, context.colorspace, context.color_primaries, context.color_trc = color.tags
            context.gop_size, context.max_b_frames = ceil(rate * KEYFRAME_S * 10), 0  # they are asked for by the clock
            if not raw:
                now = {"tune": "zerolatency"} if name in ("libx264", "libx265") else {}
                context.options = encoder_options(name, self._settings) | now
            if color.rotation:
                video.set_display_rotation(color.rotation)
            self._sound = {}
            for index, template in (sound.streams if sound is not None else {}).items():
                self._sound[index] = copied = container.add_stream_from_template(template, opaque=True)
                config = sound.config(index) if sound is not None else None
                if config:
                    copied.codec_context.extradata = config
            container.metadata["comment"] = NOTE
            container.start_encoding()
        except BaseException:
            _close(container)
            raise
        self._container, self._video = container, video

    def write(self, item: Frame | Packet) -> None:
        """See `LiveSink.write`."""
        try:
            if isinstance(item, Frame):
                packets: Iterator[Any] = iter(self._video.encode(self._picture(item)))
            else:
                stream = self._sound.get(item.stream)
                if stream is None:
                    return
                item.native.stream = stream
                packets = iter([item.native])
            for packet in packets:
                self._in_order(packet)
                self._container.mux_one(packet)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise lost(self.address, error) from None

    def _picture(self, frame: Frame) -> av.VideoFrame:
        picture = picture_of(frame, self._video.codec_context.pix_fmt)
        if frame.pts >= self._next_key:
            picture.pict_type = av.video.frame.PictureType.I
            self._next_key = frame.pts + round(KEYFRAME_S / TICKS)
        return picture

    def _in_order(self, packet: Any) -> None:
        last = self._last.get(packet.stream.index)
        if last is not None and packet.dts is not None and packet.dts <= last:
            packet.dts = last + 1
            packet.pts = max(packet.pts or 0, packet.dts)
        self._last[packet.stream.index] = packet.dts

    def close(self) -> None:
        """See `LiveSink.close`."""
        with suppress(av.error.FFmpegError, OSError, ValueError):
            self._container.mux(self._video.encode(None))
        _close(self._container)


def open_sink(
    address: Address, first: Frame, rate: Fraction, sound: Sound | None, settings: EncoderSettings
) -> LiveSink:
    """The sink at `address`, for frames like `first`; see `AvSink`."""
    return NullSink() if address.kind == "none" else AvSink(address, first, rate, sound, settings)


def _close(container: Any) -> None:
    with suppress(av.error.FFmpegError, OSError, ValueError):
        container.close()
