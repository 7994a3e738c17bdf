"""How far a run is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import NoReturn

from tqdm import tqdm

from stream.media.source import SourceInfo
from stream.stats import Stats

LINE_EVERY_S = 5.0


class Progress:
    """Rate, time left, speed against real time, and faces, on stderr."""

    def __init__(self, info: SourceInfo, stats: Stats, quiet: bool) -> None:
        self._info, self._stats = info, stats
        self._began = time.monotonic()
        self._said = self._began
        self._quiet = quiet or info.still
        self._bar: tqdm[NoReturn] | None = None
        if not self._quiet and sys.stderr.isatty():
            self._bar = tqdm(total=info.frames, unit="frame", desc=info.path.name, file=sys.stderr, dynamic_ncols=True)

    def frame(self) -> None:
        """One more frame is written."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._tail(), refresh=False)
            self._bar.update()
        elif not self._quiet and time.monotonic() - self._said >= LINE_EVERY_S:
            self._said = time.monotonic()
            print(self._line(self._said - self._began), file=sys.stderr, flush=True)

    def _line(self, passed_s: float) -> str:
        done, total = self._stats.frames, self._info.frames
        rate = done / passed_s
        left = f", {tqdm.format_interval(max(total - done, 0) / rate)} left" if total and rate else ""
        share = f"{100 * done / total:3.0f} % of {total}" if total else f"{done}"
        return f"{self._info.path.name}: {share} frames, {rate:.1f} frames/s{left}, {self._tail()}"

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began

    def _tail(self) -> str:
        speed = real_time(self._stats.frames, self._info, self.seconds)
        return f"{self._stats.faces} faces" + (f", {speed:.2f}x real time" if speed else "")

    def close(self) -> None:
        """Leave the terminal's line."""
        if self._bar is not None:
            self._bar.close()


def real_time(frames: int, info: SourceInfo, seconds: float) -> float | None:
    """How many times faster than it plays a clip was read; None for a still or where no rate is declared."""
    if info.still or not info.rate or seconds <= 0:
        return None
    return frames / float(info.rate) / seconds
