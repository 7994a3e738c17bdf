"""A live frame's way through the stages, one at a time: what fails or is late passes on as it came."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from engine import Engine, EngineError
from stream.config import RelaySettings
from stream.faces.finder import Finder
from stream.find import FaceFinding
from stream.frame import Found, Frame, Mended, Packet, Patch
from stream.fuse import Fusion
from stream.lanes import Worker
from stream.live.metrics import Metrics
from stream.live.pause import Pause
from stream.paste import paste_patches
from stream.restore import Restoration
from stream.stats import Stats

log = logging.getLogger(__name__)
LATE = "late"
FAILED = "failed"
PAUSED = "paused after faults"
STARTING = "starting"
LOADING_S = 20.0  # to wait for, at the end, at most


@dataclass(frozen=True, slots=True)
class Relayed:
    """A frame on its way to the sink."""

    frame: Frame  # to be sent
    before: Frame  # as it came
    patches: tuple[Patch, ...]


class Road:
    """find | restore, paste: the stages of a file, each asked for one frame at a time."""

    def __init__(
        self, name: str, settings: RelaySettings, make_finder: Callable[[], Finder], engine: Engine, metrics: Metrics
    ) -> None:
        """`make_finder` is called in a thread of its own, and again after a fault."""
        self._name, self._settings, self._engine, self._metrics = name, settings, engine, metrics
        self._make_finder = make_finder
        self._finder: Finder | None = None
        self._loading: Worker | None = None
        self._limit_s = settings.relay.max_latency_ms / 1000
        self._late = Pause(0.5, 8.0, faults=3)  # better a steady picture than one restored now and then
        self._finding_faults = Pause(5.0, 300.0, faults=3)
        self._restoring_faults = Pause(5.0, 300.0, faults=3)
        self.stats = Stats()
        self._track_ids = count(1)  # a finder that is made anew must not give a face another's number
        self._make_stages()
        self.fault: Exception | None = None  # the first

    def find(self, items: Iterable[Frame | Packet]) -> Iterator[Found | Packet]:
        """Packets pass; a frame that is late, or fails, or comes while the finder loads, has no faces."""
        finding: FaceFinding | None = None
        faces = self._settings.faces
        try:
            for item in items:
                if isinstance(item, Packet):
                    yield item
                    continue
                if self._passes_on(item, self._finding_faults, 0.4):
                    yield Found(item, ())
                    continue
                finder = self._ready_finder()
                if finder is None:
                    self._count(STARTING)
                    yield Found(item, ())
                    continue
                finding = finding or FaceFinding.for_engine(finder, faces, self._engine, self.stats, self._track_ids)
                began = time.monotonic()
                try:
                    found = list(finding.run([item]))
                    self._finding_faults.success()
                except Exception as error:  # whatever it is, the picture goes on
                    self._failed("finding faces", error, self._finding_faults)
                    found, finding = [Found(item, ())], None
                    self._close_finder()
                self._metrics.seconds.labels(self._name, "find").observe(time.monotonic() - began)
                yield from found
        finally:
            if self._loading is not None:
                self._loading.join(LOADING_S)
            self._close_finder()

    def _ready_finder(self) -> Finder | None:
        """The finder; None while it loads, beside the stream."""
        if self._finder is None and (self._loading is None or not self._loading.is_alive):
            self._loading = Worker(f"live-load-{self._name}", self._load)
        return self._finder

    def _load(self) -> None:
        try:
            self._finder = self._make_finder()
        except Exception as error:  # the picture goes on without it
            self._failed("loading the finder", error, self._finding_faults)

    def _close_finder(self) -> None:
        finder, self._finder = self._finder, None
        if finder is not None:
            finder.close()

    def _make_stages(self) -> None:
        """Stages that remember nothing."""
        self.stats.engine_fault = None
        self._restoration = Restoration(self._engine, self._settings.restore, self.stats)
        self._fusion = Fusion(self._settings.restore, self._engine, self.stats)
        self._pasted: Frame | None = None  # the last frame that had faces

    def restore(self, found: Found) -> Relayed:
        """Restored and pasted, or as it came."""
        frame = found.frame
        if not found.crops or self._passes_on(frame, self._restoring_faults, 0.7):
            return Relayed(frame, frame, ())
        began = time.monotonic()
        patches: tuple[Patch, ...] = ()
        out = frame
        try:
            for mended in self._fusion.run(self._restoration.run([found])):
                assert isinstance(mended, Mended)
                patches = mended.patches
            if self.stats.engine_fault is not None:
                raise EngineError(self.stats.engine_fault)
            out = self._pasted = paste_patches(frame, patches, self._pasted)
            self._restoring_faults.success()
        except Exception as error:  # whatever it is, the picture goes on
            self._failed("restoring", error, self._restoring_faults)
            self._make_stages()
            patches, out = (), frame
        self._metrics.seconds.labels(self._name, "restore").observe(time.monotonic() - began)
        self._metrics.faces.labels(self._name).inc(sum(patch.strength > 0 for patch in patches))
        return Relayed(out, frame, patches)

    def _passes_on(self, frame: Frame, faults: Pause, share: float) -> bool:
        """Whether a frame is to be left as it is: restoring has failed of late, or there is no time left for it."""
        now = time.monotonic()
        if faults.active(now):
            self._count(PAUSED)
            return True
        if self._late.active(now):
            self._count(LATE)
            return True
        if now - frame.arrived > share * self._limit_s:
            self._late.fault(now)
            self._count(LATE)
            return True
        self._late.success()
        return False

    def _failed(self, what: str, error: Exception, pause: Pause) -> None:
        self.fault = self.fault or error
        self._count(FAILED)
        now = time.monotonic()
        pause.fault(now)
        known = isinstance(error, EngineError)
        if pause.active(now):
            log.error("%s: %s failed (%s); it is left out for a while", self._name, what, error, exc_info=not known)

    def _count(self, why: str) -> None:
        self._metrics.passed_on.labels(self._name, why).inc()
