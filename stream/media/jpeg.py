"""What a JPEG file holds beside its picture: when and with what it was taken, its colour profile, comments."""

from __future__ import annotations

import struct
from collections.abc import Iterator

APP0, APP1, APP2, COMMENT = 0xE0, 0xE1, 0xE2, 0xFE  # segments: of JFIF, Exif and XMP, and the colour profile
PICTURE = (0xD9, 0xDA)  # its end and its beginning
EXIF = b"Exif\0\0"
CARRIED = {APP1: (EXIF, b"http://ns.adobe.com/xap/1.0/\0"), APP2: (b"ICC_PROFILE\0",), COMMENT: (b"",)}
ORIENTATION = 0x0112


def described(picture: bytes, source: bytes, note: str) -> bytes:
    """The JPEG file `picture` with the Exif data, XMP, colour profile and comments of `source`, where that is a JPEG
    file too, and another comment. The picture is upright: that is what the Exif data say then, without the old
    picture's thumbnail."""
    text = note.encode()
    comment = struct.pack(">BBH", 0xFF, COMMENT, len(text) + 2) + text
    kept = [each for marker, each in _segments(source) if each[4:].startswith(CARRIED.get(marker, ()))]
    kept = [_upright(each) if each[4:].startswith(EXIF) else each for each in kept if each != comment]
    own = list(_segments(picture))
    first = [each for marker, each in own if marker == APP0]
    rest = [each for marker, each in own if marker not in (APP0, COMMENT)]  # the encoder's name is no comment
    end = 2 + sum(len(each) for _, each in own)
    return picture[:2] + b"".join([*first, *kept, comment, *rest]) + picture[end:]


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and bytes of each segment before the picture; none where it is no JPEG file."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in PICTURE:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], data[at:end]
        at = end


def _upright(segment: bytes) -> bytes:
    """An Exif segment that tells of no turn, and of no thumbnail; none where it cannot be read."""
    data, tiff = bytearray(segment), 4 + len(EXIF)
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(data[tiff : tiff + 2])]
        (at,) = struct.unpack_from(order + "I", data, tiff + 4)
        at += tiff
        (count,) = struct.unpack_from(order + "H", data, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            if struct.unpack_from(order + "H", data, entry)[0] == ORIENTATION:
                struct.pack_into(order + "H", data, entry + 8, 1)
        struct.pack_into(order + "I", data, at + 2 + 12 * count, 0)
    except (struct.error, KeyError):
        return b""
    return bytes(data)
