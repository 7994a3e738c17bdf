"""What a run counts: faces, what was passed over and why, and the seconds of each stage's own work."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stream.frame import Mended


class Stats:
    """Each field is written by one stage only, so no lock is needed."""

    def __init__(self) -> None:
        self.frames = 0
        self.faces = 0  # once a frame, but for those at which the engine failed
        self.faces_restored = 0  # those of them that were not sharp already
        self.frames_with_faces = 0
        self.tracks = 0
        self.engine_fault: str | None = None  # the first
        self.passed_over: Counter[str] = Counter()  # reason -> faces, once a frame
        self.seconds: defaultdict[str, float] = defaultdict(float)  # stage -> seconds of its own work

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time inside as work of `stage`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - began

    def count(self, done: Mended) -> None:
        """Count a frame that is done, and its faces."""
        self.frames += 1
        self.faces += len(done.patches)
        self.faces_restored += sum(patch.strength > 0 for patch in done.patches)
        self.frames_with_faces += bool(done.patches)
        self.passed_over.update(done.left)

    def told(self) -> dict[str, Any]:
        """Faces, tracks and seconds, as a report has them."""
        return {
            "faces": self.faces,
            "faces_restored": self.faces_restored,
            "frames_with_faces": self.frames_with_faces,
            "tracks": self.tracks,
            "passed_over": dict(self.passed_over),
            "stage_seconds": {k: round(v, 3) for k, v in self.seconds.items()},
        }
