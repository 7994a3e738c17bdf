"""What the workers of one live stream know of each other: its state, events, clock, the latest of everything."""

from __future__ import annotations

import logging
import time
from collections import deque
from fractions import Fraction

from stream.config import RelaySettings
from stream.frame import Frame
from stream.lanes import Lock, Stop
from stream.live.clock import RelayClock
from stream.live.metrics import Metrics
from stream.live.road import Relayed
from stream.live.states import Event, State, after
from stream.media.address import Address, sink_address, source_address
from stream.media.live_source import Sound

log = logging.getLogger(__name__)


class Board:
    """Each field but the state is written by one worker only."""

    def __init__(self, name: str, settings: RelaySettings, metrics: Metrics) -> None:
        """A stream that has not begun.

        Raises:
            UsageError: the source or sink is no place that is known.
        """
        live = settings.relay
        self.name, self.settings, self.metrics = name, settings, metrics
        self.source: Address = source_address(live.source, live.transport)
        self.sink: Address = sink_address(live.sink, live.transport, live.segment_s)
        self.began = time.monotonic()
        self.clock = RelayClock(self.began)
        self.stop = Stop()  # set: nothing more is read
        self.fault: Exception | None = None  # why it is over, where that is a fault
        self.state, self.since = State.CONNECTING, time.time()
        self.events: deque[tuple[float, str]] = deque(maxlen=50)
        self._lock = Lock()
        metrics.state.labels(name).state(self.state)
        # The reader's
        self.source_generation = 0  # of the reader that counts; one that was left behind has an older number
        self.attempt_began = self.last_picture = self.began
        self.rate = Fraction(25)
        self.sound: Sound | None = None
        # The writer's
        self.last_pts = -1
        self.latest: Relayed | None = None
        self.latencies: deque[float] = deque(maxlen=250)  # seconds from decoding until it was sent

    def note(self, text: str, level: int = logging.INFO) -> None:
        """Something worth telling."""
        self.events.append((time.time(), text))
        log.log(level, "%s: %s", self.name, text)

    def happened(self, event: Event, text: str) -> None:
        """Go on to the state that follows, and tell why, unless that was the last thing told."""
        with self._lock:
            before, self.state = self.state, after(self.state, event)
            changed = before is not self.state
            if changed:
                self.since = time.time()
                self.metrics.state.labels(self.name).state(self.state)
        if event is Event.OVER:
            self.stop.set()
        line = f"{self.state}: {text}"
        if changed or (event is Event.LOST and (not self.events or self.events[-1][1] != line)):
            self.note(line, logging.WARNING if self.state not in (State.RUNNING, State.STOPPED) else logging.INFO)

    def give_up(self, fault: Exception) -> None:
        """It is over, for this reason."""
        self.fault = self.fault or fault
        self.happened(Event.OVER, f"{fault}; given up")

    def dropped(self, item: object, why: str) -> None:
        """A frame was not sent."""
        self.metrics.dropped.labels(self.name, why).inc()

    def is_stale(self, item: object) -> bool:
        """Whether a frame is too old to be worked on, if there is a newer one."""
        if not isinstance(item, Frame):
            return False
        return time.monotonic() - item.arrived > self.settings.relay.max_latency_ms / 1000
