"""Pictures out of the pieces in which RTP brings them, each as soon as its last piece is there.

The media library's own parser hands a picture on when the next one begins: a frame time late, which at ten frames a
second is 100 ms. RTP marks a picture's last piece, but the library drops the mark. So it is told by what can be seen: a
stream cuts its pictures into the same number of slices, a slice into pieces of one size, and the last one is shorter.
Where that does not hold, a picture waits for the next one, as it would have anyhow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av

START = b"\0\0\0\1"
TRUSTED = 10  # pictures in a row of as many slices, until that is relied on
MISTRUSTED = 1000  # pictures, after one that was handed on too early


def access_units(packets: Iterator[Any], video: Any) -> Iterator[Any]:
    """`packets` as an RTSP source opened with `noparse` gives them, those of `video` joined to whole pictures."""
    joining = _Joining(video)
    for packet in packets:
        if packet.stream is not video:
            yield packet
        elif packet.size:
            yield from joining.take(packet)
        else:  # the end: what is in the decoder is asked for
            yield from joining.rest()
            yield packet


class _Joining:
    def __init__(self, video: Any) -> None:
        self._video, self._codec = video, video.codec_context.name
        self._pieces: list[bytes] = []
        self._first: Any = None  # packet of the picture
        self._slices = self._expected = 0
        self._trust = 0
        self._full = 0  # bytes of the largest piece
        self._is_sent = False

    def take(self, packet: Any) -> Iterator[Any]:
        """The next piece; what is whole by now."""
        data = bytes(packet)
        if self._first is None or packet.pts != self._first.pts:
            yield from self.rest()
            self._first, self._slices, self._is_sent = packet, 0, False
        begins = data.startswith(START)
        slices = self._slices_of(data) if begins else 0
        if self._is_sent and begins and not slices:
            return  # padding behind the last slice
        if self._is_sent:
            self._trust = -MISTRUSTED
        self._pieces.append(data)
        self._slices += slices
        payload = len(data) - (len(START) + (2 if self._codec == "hevc" else 1) if begins else 0)
        self._full = max(self._full, payload)
        if self._trust >= TRUSTED and self._slices == self._expected > 0 and payload < self._full:
            self._is_sent = True
            yield self._joined()

    def rest(self) -> Iterator[Any]:
        """The picture that another one follows; how many slices it had is known now."""
        if self._pieces:
            yield self._joined()
        if self._slices == self._expected or self._trust < 0:
            self._trust += 1
        else:
            self._trust = 0
        self._expected = self._slices

    def _joined(self) -> Any:
        packet = av.Packet(b"".join(self._pieces))
        packet.pts, packet.dts, packet.time_base = self._first.pts, self._first.dts, self._first.time_base
        packet.stream = self._video
        self._pieces.clear()
        return packet

    def _slices_of(self, data: bytes) -> int:
        """How many slices begin in a piece; none where the codec has none that are known here."""
        count, at = 0, data.find(START)
        while at >= 0 and at + len(START) < len(data):
            head = data[at + len(START)]
            if self._codec == "h264":
                count += head & 31 in (1, 5)
            elif self._codec == "hevc":
                count += head >> 1 & 63 < 32
            at = data.find(START, at + len(START))
        return count
