"""Pictures joined from the pieces in which RTP brings them."""

import random
import subprocess
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import pytest

from stream.media.access_units import MISTRUSTED, START, TRUSTED, access_units

PICTURES = 60
HEVC = (2, 38, 40, 64, 66, 68, 78)  # first bytes of HEVC's NAL units: pictures, parameters, notes


@dataclass
class Piece:
    pts: int | None
    stream: Any
    data: bytes
    is_last: bool = False
    dts: int | None = None
    time_base: Any = None

    @property
    def size(self):
        return len(self.data)

    def __bytes__(self):
        return self.data


@pytest.fixture(scope="module", params=["h264 1", "h264 3", "hevc 1"])
def coded(request, tmp_path_factory):
    """An elementary stream of one or several slices a picture, and its packets."""
    codec, slices = request.param.split()
    path = tmp_path_factory.mktemp("units") / f"x.{codec}"
    encoder = {"h264": "libx264", "hevc": "libx265"}[codec]
    more = {"h264": f"slices={slices}:sliced-threads=0", "hevc": "log-level=none"}[codec]
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size=320x240:rate=25:duration={PICTURES / 25}"),
            *("-pix_fmt", "yuv420p", "-c:v", encoder, f"-{encoder[3:]}-params", more, "-bf", "0", path),
        ],
        check=True,
    )
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        yield video, [bytes(packet) for packet in container.demux(video) if packet.size]


def nals(unit):
    """NAL units with start codes of four bytes, as RTP's depacketizer writes them."""
    parts = unit.replace(START, START[1:]).split(START[1:])
    return [START + part for part in parts if part]


def pieces(video, units, cut):
    """Each unit in the pieces that `cut` makes of its NAL units."""
    for index, unit in enumerate(units):
        every = [piece for nal in nals(unit) for piece in cut(nal)]
        for number, data in enumerate(every):
            yield Piece(index, video, data, number == len(every) - 1, index, video.time_base)
    yield Piece(None, video, b"")


def evenly(nal, size=200):
    first = len(START) + (2 if nal[4] in HEVC else 1) + size
    return [nal[:first], *(nal[at : at + size] for at in range(first, len(nal), size))]


def joined(video, given):
    """Units as they come out, each with the piece that was read last."""
    last = []

    def noted():
        for piece in given:
            last[:] = [piece]
            yield piece

    return [(packet, last[0]) for packet in access_units(noted(), video) if packet.size]


def test_each_picture_comes_with_its_last_piece_and_whole(coded):
    video, units = coded
    assert len(units) == PICTURES
    out = joined(video, pieces(video, units, evenly))
    assert [bytes(packet) for packet, _ in out] == [b"".join(nals(unit)) for unit in units]
    assert [packet.pts for packet, _ in out] == list(range(PICTURES))
    at_once = [piece.pts == packet.pts and piece.is_last for packet, piece in out]
    cuts = [len(evenly(nals(unit)[-1])[-1]) for unit in units]
    for index in range(TRUSTED + 2, PICTURES - 1):
        # The last piece is as large as the others once in two hundred: then the picture waits for the next.
        assert at_once[index] or cuts[index] >= 200, index
    assert sum(at_once) > PICTURES // 2


def test_what_comes_out_is_decoded_as_if_it_had_never_been_cut(coded):
    video, units = coded

    def pictures(data):
        context = av.CodecContext.create(video.codec_context.name, "r")
        return [f.to_ndarray() for each in [*data, None] for f in context.decode(av.Packet(each) if each else None)]

    whole = pictures(units)
    again = pictures([bytes(packet) for packet, _ in joined(video, pieces(video, units, evenly))])
    assert len(whole) == len(again) == PICTURES
    assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_no_byte_is_lost_where_pieces_are_cut_at_random(coded, seed):
    video, units = coded
    chance = random.Random(seed)

    def anyhow(nal):
        out = []
        while nal:
            size = max(chance.randint(20, 400), 6)
            out.append(nal[:size])
            nal = nal[size:]
        return out

    out = [bytes(packet) for packet, _ in joined(video, pieces(video, units * 4, anyhow))]
    assert b"".join(out) == b"".join(b"".join(nals(unit)) for unit in units * 4)
    # A picture handed on too early comes in two parts; that happens once, then no more for long.
    assert len(out) - 4 * PICTURES <= 1 <= MISTRUSTED // (4 * PICTURES)


def test_sound_passes_and_the_end_asks_for_what_is_left(coded):
    video, units = coded
    sound = Piece(7, object(), b"sound")
    *picture, end = pieces(video, units[:1], evenly)
    out = list(access_units(iter([*picture, sound, end]), video))
    assert out[0] is sound and bytes(out[1]) == b"".join(nals(units[0])) and out[2] is end
