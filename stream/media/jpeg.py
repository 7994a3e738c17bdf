"""What a JPEG file holds beside its picture: when and with what it was taken, its colour profile, comments."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

APP0, APP1, APP2, COMMENT = 0xE0, 0xE1, 0xE2, 0xFE  # segments: of JFIF, Exif and XMP, and the colour profile
PICTURE = (0xD9, 0xDA)  # its end and its beginning
EXIF, XMP, PROFILE = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
CARRIED = {APP1: (EXIF, XMP, b"http://ns.adobe.com/xmp/extension/\0"), APP2: (PROFILE,), COMMENT: (b"",)}
SHORT, LONG = 3, 4  # types of Exif values, 2 and 4 bytes
ORIENTATION, MORE, WIDTH, HEIGHT = 0x0112, 0x8769, (0x0100, 0xA002), (0x0101, 0xA003)  # tags
FLIPPED = {2: 4, 4: 4, 5: 2, 7: 2}  # what is left of an orientation with a mirror in it once its turn is undone


def described(picture: bytes, source: bytes, note: str, size: tuple[int, int]) -> bytes:
    """The JPEG file `picture` with the Exif data, XMP, colour profile and comments of `source`, where that is a JPEG
    file too, and another comment. The picture is that of `source` turned upright, its width and height are `size`: so
    say the Exif data then, and they show no thumbnail."""
    text = note.encode()
    comment = struct.pack(">BBH", 0xFF, COMMENT, len(text) + 2) + text
    kept = [each for marker, each in _segments(source) if each[4:].startswith(CARRIED.get(marker, ()))]
    profiles = [each for each in kept if each[4:].startswith(PROFILE)]
    if not any(each[34:38] == b"RGB " for each in profiles):  # of a grey picture, or of inks
        kept = [each for each in kept if each not in profiles]
    left: set[int] = set()
    kept = [_upright(each, size, left) if each[4:].startswith(EXIF) else each for each in kept if each != comment]
    for turn in left:
        said = rb"(tiff:Orientation(?:=[\"']|>))\d"
        kept = [re.sub(said, rb"\g<1>%d" % turn, each) if each[4:].startswith(XMP) else each for each in kept]
    own = list(_segments(picture))
    first = [each for marker, each in own if marker == APP0]
    rest = [each for marker, each in own if marker not in (APP0, COMMENT)]  # the encoder's name is no comment
    end = 2 + sum(len(each) for _, each in own)
    return picture[:2] + b"".join([*first, *kept, comment, *rest]) + picture[end:]


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and bytes of each whole segment before the picture; none where it is no JPEG file."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in PICTURE:
        if data[at + 1] == 0xFF:  # a byte that fills
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            return
        yield data[at + 1], data[at : at + 2 + length]
        at += 2 + length


def _upright(segment: bytes, size: tuple[int, int], left: set[int]) -> bytes:
    """An Exif segment of an upright picture without a thumbnail; nothing where it cannot be read. What orientation is
    `left` comes into that set."""
    data, tiff = bytearray(segment), 4 + len(EXIF)

    def read(kind: str, at: int) -> int:
        return int(struct.unpack_from(order + kind, data, at)[0])

    def walk(table: int) -> int:
        end = table + 2 + 12 * read("H", table)
        for entry in range(table + 2, end, 12):
            tag, kind = read("H", entry), {SHORT: "H", LONG: "I"}.get(read("H", entry + 2))
            if tag == ORIENTATION and kind == "H":
                turn = FLIPPED.get(read("H", entry + 8), 1)
                struct.pack_into(order + kind, data, entry + 8, turn)
                left.add(turn)
            elif tag in (*WIDTH, *HEIGHT) and kind:
                struct.pack_into(order + kind, data, entry + 8, size[tag in HEIGHT])
            elif tag == MORE:
                walk(tiff + read("I", entry + 8))
        return end

    try:
        order = {b"II": "<", b"MM": ">"}[bytes(data[tiff : tiff + 2])]
        end = walk(tiff + read("I", tiff + 4))
        struct.pack_into(order + "I", data, end, 0)
    except (struct.error, KeyError, RecursionError):
        return b""
    return bytes(data)
