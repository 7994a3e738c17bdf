"""Where a live picture comes from or goes to, in the media library's words; how it is shown without its secrets."""

from __future__ import annotations

import re
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from stream.errors import UsageError

OPENING_S, READING_S = 5.0, 5.0  # how long opening and one read may take
AT_ONCE = {"max_interleave_delta": "1", "flush_packets": "1"}  # or a muxer holds the picture back until sound comes
KNOCK_S = 0.5  # how long a mere connection may take
CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
NETWORK = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "srt", "udp", "tcp")
_SECRETS = (  # user and password, up to the last @ of a path; a query; the key of a place to publish to
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s?]*@", re.IGNORECASE), r"\1***@"),
    (re.compile(r"(://[^\s?]*\?)[^\s'\"]+"), r"\1***"),
    (re.compile(r"(\brtmps?://[^\s/]+/[^\s/]+/)[^\s'\"?]+", re.IGNORECASE), r"\1***"),
)


@dataclass(frozen=True, slots=True)
class Address:
    """One place, ready to be opened."""

    url: str = field(repr=False)  # with its secrets
    shown: str  # without them
    kind: str  # a scheme, "camera", "file" or "none"
    format: str | None = None  # the muxer or demuxer, where the url does not tell
    options: dict[str, str] = field(default_factory=dict)

    @property
    def is_paced(self) -> bool:
        """Whether it gives pictures faster than they play, so that they must be held back to their time."""
        return self.kind in ("file", "http", "https")

    @property
    def is_in_pieces(self) -> bool:
        """Whether pictures come in pieces that are not joined yet: see `access_units`."""
        return "noparse" in self.options.get("fflags", "")

    def __str__(self) -> str:
        return self.shown


def answers(address: Address) -> bool:
    """Whether something listens where an address points to; True where that cannot be told so."""
    parts = urlsplit(address.url)
    port = parts.port or {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "http": 80, "https": 443}.get(parts.scheme)
    if parts.hostname is None or port is None:
        return True
    try:
        socket.create_connection((parts.hostname, port), KNOCK_S).close()
    except OSError:
        return False
    return True


def redacted(text: str) -> str:
    """Any text with what may be a secret in its urls hidden."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def source_address(text: str, transport: str = "tcp") -> Address:
    """A url, `listen:` before an rtsp url that somebody will publish to, `camera:0`, or the path of a file.

    Raises:
        UsageError: no such file, or a scheme that the media library does not speak.
    """
    if text.startswith("camera:"):
        name, path = CAMERAS.get(sys.platform, CAMERAS["linux"])
        return Address(path.format(text[7:]), text, "camera", name)
    listens, text = text.startswith("listen:rtsp"), text.removeprefix("listen:")
    scheme = _scheme(text, "r")
    if scheme is None:
        if not Path(text).is_file():
            raise UsageError(f"the source {redacted(text)} is no url and no file; a camera is called camera:0")
        return Address(str(Path(text).absolute()), text, "file")
    options = {"fflags": "nobuffer", "analyzeduration": "1000000", "probesize": "1000000"}
    if scheme in ("rtsp", "rtsps"):  # the session's description tells what others find out by reading ahead
        options |= {"analyzeduration": "1", "fpsprobesize": "0", "fflags": "nobuffer+noparse"}
        options |= {"rtsp_transport": transport, "timeout": str(int(READING_S * 1e6)), "buffer_size": "4000000"}
    elif scheme in ("http", "https"):
        options = {}
    if listens:
        options |= {"rtsp_flags": "listen", "listen_timeout": str(int(OPENING_S))}
    return Address(text, redacted(text), scheme, None, options)


def sink_address(text: str, transport: str = "tcp", segment_s: float = 600.0) -> Address:
    """A url to publish to, `none`, `virtual:/dev/video9` (a loopback camera on Linux) or the path of files in segments.

    Raises:
        UsageError: a scheme that the media library does not speak, a suffix without a muxer, a folder that is missing.
    """
    if text == "none":
        return Address(text, text, "none")
    if text.startswith("virtual:"):
        return Address(text[8:], text, "virtual", "v4l2")
    scheme = _scheme(text, "w")
    if scheme in ("rtsp", "rtsps"):
        wait = {"rtsp_transport": transport, "timeout": str(int(READING_S * 1e6))}
        return Address(text, redacted(text), scheme, "rtsp", AT_ONCE | wait)
    if scheme is not None:
        # A picture whose length is told need not wait for the next one at the other end.
        own = {} if scheme.startswith("rtmp") else {"omit_video_pes_length": "0"}
        return Address(text, redacted(text), scheme, "mpegts" if own else "flv", AT_ONCE | own)
    path = Path(text)
    if not path.parent.is_dir():
        raise UsageError(f"the folder of {text} does not exist")
    kind = {".mp4": "mp4", ".mkv": "matroska", ".ts": "mpegts"}.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"the sink {text} is no url, and segments are .ts, .mkv or .mp4, not '{path.suffix}'")
    if "%" not in path.name:
        path = path.with_name(f"{path.stem}-%Y%m%d-%H%M%S{path.suffix}")
    options = {"segment_format": kind, "segment_time": f"{segment_s:g}", "strftime": "1", "reset_timestamps": "1"}
    if kind == "mp4":  # a segment that was cut off plays all the same
        options["segment_format_options"] = "movflags=+frag_keyframe+empty_moov+default_base_moof"
    return Address(str(path.absolute()), text, "file", "segment", options)


def _scheme(text: str, mode: str) -> str | None:
    if "://" not in text:
        return None
    try:
        parts = urlsplit(text)
        scheme, _ = parts.scheme.lower(), parts.port
    except ValueError:  # its words would show a part of the url
        raise UsageError(
            f"{redacted(text)} is no url; '/', '@' and the like in a password are written %2F, %40"
        ) from None
    if scheme not in NETWORK or (mode == "w" and scheme in ("http", "https")):
        known = [name for name in NETWORK if mode == "r" or not name.startswith("http")]
        raise UsageError(f"'{scheme}' in {redacted(text)} is not known here; there are {', '.join(known)}")
    return scheme
