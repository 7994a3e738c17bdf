"""The last step to a live sink, in a process of its own: `python -m stream.media.publish`.

The media library connects, and ends a file, while it holds Python's lock: a server that does not answer would stop all
streams of the process. And what hangs for good can be killed here. The first line on stdin is the address (not on the
command line, where all could read its password), behind it come the streams as the beginning of a NUT file, and the
packets, each behind a `HEAD`. On stdout stands one line of JSON when the sink is open, and one when it is lost.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import stat
import struct
import sys
import time
from contextlib import suppress
from fractions import Fraction
from itertools import chain, count
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging

from stream.errors import Cause
from stream.media.address import Address
from stream.media.decoded import lost, reason
from stream.media.sink import NOTE

SENDING_BYTES = 1 << 18  # that the kernel holds of what a server has not taken: a hung one is known when they are full
HEAD = struct.Struct("<B?qqiiI")  # stream, keyframe, pts, dts, time base (two numbers), size


def main() -> None:
    """Copy from stdin to the sink until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the relay ends this by closing stdin
        signal.signal(number, signal.SIG_IGN)
    av.logging.set_level(None)
    head = json.loads(sys.stdin.buffer.readline())
    address = Address(**head["address"])
    try:
        _copy(address, sys.stdin.buffer.read(head["size"]))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        fault = lost(address, error)
        _tell(cause=fault.cause, message=str(fault))
        os._exit(1)  # what cannot be sent any more must not be waited for


def _copy(address: Address, streams: bytes) -> None:
    with av.open(io.BytesIO(streams), format="nut") as templates:
        sink, taken, notes = _open(address, list(templates.streams))
        _bound_sockets()
        _tell(open=True, notes=notes)
        while len(head := sys.stdin.buffer.read(HEAD.size)) == HEAD.size:
            index, is_key, pts, dts, numerator, denominator, size = HEAD.unpack(head)
            packet = av.Packet(sys.stdin.buffer.read(size))
            if index in taken:
                packet.pts, packet.dts, packet.time_base = pts, dts, Fraction(numerator, denominator)
                packet.is_keyframe, packet.stream = is_key, taken[index]
                sink.mux_one(packet)
        sink.close()


def _open(address: Address, given: list[Any]) -> tuple[Any, dict[int, Any], list[str]]:
    """The sink with a stream for each that was given; without sound where the sink does not take it."""
    try:
        return *_opened(address, given), []
    except (av.error.FFmpegError, OSError, ValueError) as error:
        fault = lost(address, error)
        pictures = [stream for stream in given if stream.type == "video"]
        if len(pictures) == len(given) or fault.cause not in (Cause.BROKEN, Cause.UNSUPPORTED):
            raise
        note = f"{address} does not take the sound ({reason(error)}): it is left out"
        return *_opened(address, pictures), [note]


def _opened(address: Address, given: list[Any]) -> tuple[Any, dict[int, Any]]:
    url = _unused(address.url) if address.format == "segment" else address.url
    container: Any = av.open(url, "w", format=address.format, options=address.options)
    try:
        streams = {}
        for template in given:
            streams[template.index] = stream = container.add_stream_from_template(template, opaque=True)
            stream.metadata.update(template.metadata)
            stream.time_base = template.time_base
        container.metadata["comment"] = NOTE
        container.start_encoding()
    except BaseException:
        with suppress(av.error.FFmpegError, OSError, ValueError):
            container.close()
        raise
    return container, streams


def _bound_sockets() -> None:
    """Keep the kernel from taking megabytes for a server that has stopped reading: half a minute of a quiet picture."""
    for descriptor in range(3, 64):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as copy:
                    copy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENDING_BYTES)


def _unused(pattern: str) -> str:
    """`pattern`, or, where its name of this second is taken, one with a number."""
    path = Path(pattern)
    numbered = (path.with_stem(f"{path.stem}-{n}") for n in count(2))
    return next(str(each) for each in chain([path], numbered) if not Path(time.strftime(str(each))).exists())


def _tell(**fields: object) -> None:
    with suppress(OSError):
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
