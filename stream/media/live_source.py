"""A live source opened once: frames as they are decoded and packets of sound, on the relay's own timeline.

It never retries and never hides a fault: iterating ends by a `LinkError` that says why.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import TracebackType
from typing import Any, Self, cast

import av
import av.error
import av.logging
from av.bitstream import BitStreamFilterContext

from stream.errors import Cause, LinkError
from stream.frame import Frame, Packet
from stream.media.access_units import access_units
from stream.media.address import OPENING_S, READING_S, Address
from stream.media.decoded import frame_of, lost, reason

log = logging.getLogger(__name__)
READ_AHEAD, READ_AHEAD_S = 300, 1.0  # packets and time, at most, until every stream of sound has shown one
TICKS = Fraction(1, 90000)  # the relay's time base
av.logging.set_level(None)  # lines would show passwords, and a decoder that tells one while it is freed waits for ever

Place = Callable[[int, Fraction, float], Fraction]  # stream, decoding time, arrival -> seconds to add


class Sound:
    """What a sink must know of the sound that it copies; outlives the source."""

    def __init__(self, streams: list[Any], configs: dict[int, bytes]) -> None:
        """Take the parameters of `streams`, which are still open, and `configs` that their containers do not hold."""
        self._configs = configs
        # The media library keeps parameters in containers only: this one is never written.
        self._holder = av.open(io.BytesIO(), "w", format="matroska")
        self.streams = {}
        for stream in streams:
            try:
                self.streams[stream.index] = self._holder.add_stream_from_template(stream, opaque=True)
            except (av.error.FFmpegError, ValueError) as error:
                log.warning("sound of stream %d is left out: %s", stream.index, reason(error))

    def config(self, index: int) -> bytes | None:
        """What a decoder must know beforehand, where a stream repeats it in every packet."""
        return self._configs.get(index)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sound) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]

    def _key(self) -> list[tuple[Any, ...]]:
        contexts = ((index, stream.codec_context) for index, stream in self.streams.items())
        return [
            (i, c.name, c.sample_rate, c.layout.name, bytes(c.extradata or b""), self.config(i)) for i, c in contexts
        ]


class LiveSource:
    """Open, then iterate `Frame`s and `Packet`s; a context manager."""

    def __init__(self, address: Address, loop: bool = False) -> None:
        """Connect.

        Raises:
            LinkError: it cannot be opened, or has no video that can be decoded.
        """
        self.address, self._loop = address, loop
        try:
            self._container = av.open(
                address.url,
                format=address.format,
                options=address.options,
                timeout=(OPENING_S, READING_S),
                metadata_errors="replace",
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise lost(address, error) from None
        videos = [s for s in self._container.streams.video if s.codec_context is not None and s.time_base is not None]
        if not videos:
            self._container.close()
            raise LinkError(Cause.UNSUPPORTED, f"{address}: no video in it that can be decoded here")
        self._video = videos[0]
        self._video.thread_type = "SLICE"  # threads that take a frame each would hold as many frames back
        self._video.codec_context.flags |= av.codec.context.Flags.low_delay
        declared = self._video.average_rate or Fraction(0)
        self.rate = declared if 1 <= declared <= 240 else Fraction(25)  # a hint
        self._audio = [s for s in self._container.streams.audio if s.codec_context is not None and s.time_base]
        self._demuxer = self._demuxed()
        self._held: list[Any] = []  # packets that were read while opening
        self._filters: dict[int, BitStreamFilterContext] = {}
        try:
            self.sound = Sound(self._audio, self._configs())
        except (av.error.FFmpegError, OSError) as error:
            self._container.close()
            raise lost(address, error) from None
        self.damaged = 0  # packets that could not be decoded
        self._offset = Fraction(0)  # of the last packet of the picture

    def _demuxed(self) -> Iterator[Any]:
        packets: Iterator[Any] = self._container.demux([self._video, *self._audio])
        return access_units(packets, self._video) if self.address.is_in_pieces else packets

    def _configs(self) -> dict[int, bytes]:
        """AAC as transport streams have it carries its own description, which most sinks want told once, beforehand."""
        bare = {s.index: s for s in self._audio if s.codec_context.name == "aac" and not s.codec_context.extradata}
        configs: dict[int, bytes] = {}
        until = time.monotonic() + READ_AHEAD_S
        while len(configs) < len(bare) and len(self._held) < READ_AHEAD and time.monotonic() < until:
            packet = next(self._demuxer, None)
            if packet is None:
                break
            self._held.append(packet)
            index = packet.stream.index
            if index in bare and packet.size and index not in configs:
                configs[index] = aac_config(bytes(packet)[:7])
        for index in [index for index, config in configs.items() if config]:
            self._filters[index] = BitStreamFilterContext("aac_adtstoasc", in_stream=bare[index])
        return {index: config for index, config in configs.items() if config}

    def frames(self, place: Place, count: Iterator[int]) -> Iterator[Frame | Packet]:
        """Read until the source ends, at times of 1/90000 s that `place` moves to the relay's timeline.

        Raises:
            LinkError: always, at the end.
        """
        while True:
            yield from self._once(place, count)
            if not self._loop:
                raise LinkError(Cause.ENDED, f"{self.address}: the stream has ended")
            try:
                self._container.seek(0)
            except av.error.FFmpegError as error:
                raise lost(self.address, error) from None
            self._demuxer = self._demuxed()

    def _once(self, place: Place, count: Iterator[int]) -> Iterator[Frame | Packet]:
        while True:
            try:
                packet = self._held.pop(0) if self._held else next(self._demuxer)
            except (StopIteration, av.error.EOFError):
                return
            except (av.error.FFmpegError, OSError) as error:
                raise lost(self.address, error) from None
            arrived = time.monotonic()
            offset = Fraction(0)
            if packet.dts is not None:
                offset = place(packet.stream.index, packet.dts * packet.time_base, arrived)
            if packet.stream is self._video:
                yield from self._decoded(packet, offset, arrived, count)
            elif packet.size and packet.dts is not None:
                moved = round(offset / packet.time_base)
                packet.dts += moved
                packet.pts = packet.dts if packet.pts is None else packet.pts + moved
                yield from self._sounds(packet)

    def _sounds(self, packet: Any) -> Iterator[Packet]:
        index = packet.stream.index
        bare = self._filters.get(index)
        try:
            for each in [packet] if bare is None else bare.filter(packet):
                yield Packet(index, each)
        except av.error.FFmpegError as error:
            self.damaged += 1
            log.debug("%s: sound at %s: %s", self.address, packet.pts, reason(error))

    def _decoded(self, packet: Any, offset: Fraction, arrived: float, count: Iterator[int]) -> Iterator[Frame]:
        try:
            pictures = packet.decode()
        except av.error.FFmpegError as error:
            self.damaged += 1
            log.debug("%s: packet at %s: %s", self.address, packet.pts, reason(error))
            return
        for picture in pictures:
            if picture.pts is None:
                continue
            if not packet.size:  # what was still in the decoder when a file ended: behind the last one placed
                offset = self._offset
            self._offset = offset
            at = picture.pts * cast(Fraction, picture.time_base) + offset
            yield frame_of(picture, self._video, next(count), round(at / TICKS), TICKS, arrived)

    def close(self) -> None:
        """Leave the source."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def aac_config(adts: bytes) -> bytes:
    """The AudioSpecificConfig (ISO 14496-3, 1.6.2.1) of an ADTS header; empty where it is none."""
    if len(adts) < 4 or adts[0] != 0xFF or adts[1] & 0xF6 != 0xF0:
        return b""
    profile, rate, channels = (adts[2] >> 6) + 1, adts[2] >> 2 & 15, (adts[2] & 1) << 2 | adts[3] >> 6
    return (profile << 11 | rate << 7 | channels << 3).to_bytes(2, "big") if channels else b""
