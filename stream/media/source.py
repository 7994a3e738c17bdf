"""A file opened for reading: frames of its one video stream and packets of all others, in the file's own order.

What the input is gets probed, never judged by its suffix. A still image is a stream of one frame.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import av
import av.error

from stream.errors import InputError
from stream.frame import Frame, Packet
from stream.media.decoded import frame_of, reason
from stream.media.timeline import Timeline

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a probe tells."""

    path: Path
    container: str  # the demuxer's name
    codec: str  # of the video stream
    width: int
    height: int
    rate: Fraction | None  # frames per second, as declared; a hint only
    time_base: Fraction
    frames: int | None  # how many will come, where it can be told
    still: bool
    native: Any  # the media library's container, for the sink's templates
    video: Any  # the video stream
    copied: tuple[Any, ...]  # the streams that are copied
    begin: Fraction  # seconds that all times were moved back by (--from)
    end: Fraction | None


class FileSource:
    """Iterate it once: `Frame`s and `Packet`s. A context manager."""

    def __init__(self, path: Path, begin: Fraction | None = None, end: Fraction | None = None) -> None:
        """Open and probe `path`; only what lies in [begin, end) seconds is read.

        Raises:
            InputError: missing, empty, damaged, or without video.
        """
        if not path.exists():
            raise InputError(f"{path} does not exist")
        if path.is_dir():
            raise InputError(f"{path} is a folder, not a media file")
        try:
            if path.stat().st_size == 0:
                raise InputError(f"{path} is empty (0 bytes)")
            container = av.open(str(path.absolute()), metadata_errors="replace")
        except PermissionError as error:
            raise InputError(f"{path} cannot be read: permission denied") from error
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{path} is damaged or no media file: {reason(error)}") from error
        # An attached picture (cover art) is a video stream of one packet: it is copied.
        videos = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not videos:
            container.close()
            raise InputError(f"{path} has no video stream")
        if videos[0].codec_context is None or videos[0].time_base is None:
            container.close()
            raise InputError(f"{path}: no decoder here knows the codec of its video")
        self._container, self._video = container, videos[0]
        self._video.thread_type = "AUTO"
        self.damage: str | None = None  # what could not be read, once the iteration has ended
        self.notes: list[str] = []  # what a user should know, once the iteration has ended
        self._timeline = Timeline()
        self._last_pts: int | None = None
        self._renamed = 0  # frames whose time stamp had to be made up
        self.info = self._probe(path, begin, end)

    def _probe(self, path: Path, begin: Fraction | None, end: Fraction | None) -> SourceInfo:
        container, video = self._container, self._video
        name = container.format.name
        still = name.endswith("_pipe") or name == "image2"
        # Times on the command line count from the first frame; a recording's own clock starts anywhere.
        zero = Fraction(0)
        if (begin is not None or end is not None) and video.start_time is not None and video.time_base is not None:
            zero = video.start_time * video.time_base
        start = zero + (begin or 0) if begin is not None or end is not None else Fraction(0)
        duration = None if container.duration is None else Fraction(container.duration, av.time_base)
        if video.duration is not None and video.time_base is not None:
            duration = video.duration * video.time_base
        frames: int | None = 1 if still else video.frames or None
        if duration is not None and (begin is not None or end is not None):
            kept = max(min(end or duration, duration) - (begin or 0), Fraction(0))
            frames = None if not duration else int((frames or duration * (video.average_rate or 25)) * kept / duration)
            duration = kept
        elif frames is None and duration is not None and video.average_rate:
            frames = int(duration * video.average_rate)
        kinds = ("audio", "subtitle", "data", "video")
        copied = tuple(s for s in container.streams if s is not video and s.type in kinds and s.time_base is not None)
        return SourceInfo(
            path=path,
            container=name,
            codec=video.codec_context.name,
            width=video.codec_context.width,
            height=video.codec_context.height,
            rate=video.average_rate or video.base_rate,
            time_base=video.time_base or Fraction(1, 25),
            frames=frames,
            still=still,
            native=container,
            video=video,
            copied=copied,
            begin=start,
            end=None if end is None else zero + end,
        )

    def __iter__(self) -> Iterator[Frame | Packet]:
        """Read to the end. Damaged packets are passed over and told in `damage`.

        Raises:
            InputError: not one frame could be read.
        """
        info, count, packets, broken = self.info, 0, 0, 0
        copied = {s.index for s in info.copied}
        for packet in self._packets():
            self._timeline.fix(packet)
            if packet.stream.index in copied:
                moved = self._cut(packet)
                if moved is not None:
                    yield moved
                continue
            packets += packet.size > 0
            try:
                pictures = packet.decode()
            except av.error.FFmpegError as error:
                broken += 1
                log.debug("packet at pts %s: %s", packet.pts, reason(error))
                continue
            for picture in pictures:
                frame = self._frame(cast(av.VideoFrame, picture), count)
                if frame is None:
                    continue
                count += 1
                yield frame
            if info.end is not None and packet.dts is not None and packet.dts * info.time_base > info.end + 1:
                for picture in self._video.decode(None):  # what the decoder's threads still hold
                    frame = self._frame(picture, count)
                    if frame is not None:
                        count += 1
                        yield frame
                break
        if count == 0:
            span = " in the time asked for" if info.begin or info.end is not None else ""
            raise InputError(
                f"{info.path}: no frame could be decoded{span}" + (f" ({broken} damaged packets)" if broken else "")
            )
        self._tell_damage(count, packets, broken)

    def _packets(self) -> Iterator[Any]:
        """All packets, from the last keyframe before the time asked for; a fault of the file ends them."""
        streams = [self._video, *self.info.copied]
        if self.info.begin and not self.info.still:
            self._seek()
        demuxer = self._container.demux(streams)
        while True:
            try:
                yield next(demuxer)
            except StopIteration:
                return
            except av.error.FFmpegError as error:
                self.damage = f"reading stopped early: {reason(error)}"
                return

    def _seek(self) -> None:
        """Go to a keyframe that lies safely before the time asked for, further back where the container misses it."""
        moved, first = False, (self._video.start_time or 0) * self.info.time_base
        for back_s in (2, 15, 90):
            target = self.info.begin - back_s
            if target <= first:
                break
            moved = True
            self._container.seek(int(target * av.time_base), backward=True)
            for packet in self._container.demux(self._video):
                if packet.is_keyframe and packet.pts is not None:
                    if packet.pts * self.info.time_base <= self.info.begin - 1:
                        self._container.seek(int(target * av.time_base), backward=True)
                        return
                    break
        if moved:
            self._container.seek(int((first - 10) * av.time_base), backward=True)

    def _tell_damage(self, count: int, packets: int, broken: int) -> None:
        # Only this container says for sure how many frames there are.
        whole = self.info.end is None and not self.info.begin and "mp4" in self.info.container
        declared = self._video.frames
        if self.damage is None and broken:
            self.damage = f"{broken} damaged packets were passed over"
        if self.damage is None and whole and 0 < packets < declared:
            self.damage = f"the file ends after {packets} of {declared} frames"
        mended = self._timeline.mended + self._renamed
        if mended:
            self.notes.append(f"{mended} time stamps were missing, repeated or went back, and were put in order")

    def _cut(self, packet: Any) -> Packet | None:
        """A copied packet with its time moved; None outside the time asked for, or a flush at the end."""
        if not packet.size:
            return None
        if packet.stream.disposition & av.stream.Disposition.attached_pic:
            packet.pts = packet.dts = 0
            return Packet(packet.stream.index, packet)
        if packet.dts is None:
            return None
        base, info = packet.time_base, self.info
        if info.begin or info.end is not None:
            at = (packet.pts if packet.pts is not None else packet.dts) * base
            if at < info.begin or (info.end is not None and at >= info.end):
                return None
            offset = int(info.begin / base)
            packet.dts -= offset
            if packet.pts is not None:
                packet.pts -= offset
        return Packet(packet.stream.index, packet)

    def _frame(self, picture: av.VideoFrame, index: int) -> Frame | None:
        """A decoded picture as a Frame over the decoder's own memory; None outside the time asked for."""
        info = self.info
        base = picture.time_base or info.time_base
        pts = self._pts(picture)
        if pts * base < info.begin or (info.end is not None and pts * base >= info.end):
            return None
        if base != info.time_base:
            pts = round(pts * base / info.time_base)
        pts -= int(info.begin / info.time_base)
        if picture.interlaced_frame and index == 0:
            self.notes.append("the input is interlaced; the output is encoded as progressive")
        return frame_of(picture, self._video, index, pts, info.time_base)

    def _pts(self, picture: av.VideoFrame) -> int:
        """A picture's time; where it has none, or one that does not rise, one step after the picture before."""
        pts, last = picture.pts, self._last_pts
        if self.info.still:
            return pts or 0
        if pts is None or (last is not None and pts <= last):
            self._renamed += 1
            rate = self.info.rate or Fraction(25)
            step = max(1, round(1 / (rate * self.info.time_base))) if pts is None else 1
            pts = 0 if last is None else last + step
        self._last_pts = pts
        return pts

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
