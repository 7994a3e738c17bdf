"""One live stream: a source that is opened again and again, the road, a sink that never goes dark.

Three workers: the reader (connect, decode), the road's (restore, paste; finding has a lane of its own) and the writer
(encode, send). Between them stand inboxes that lose their oldest frame, so nobody waits for anybody. A reader that
hangs in a foreign library is left behind: what it does afterwards is known by its generation and not heeded. What sends
is a process of its own: where it hangs it is killed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from engine import Engine, EngineError
from stream.config import RelaySettings
from stream.errors import Cause, LinkError, SystemLibraryError
from stream.faces.finder import Finder
from stream.frame import Found, Frame, Packet
from stream.lanes import Inbox, Lanes, Worker
from stream.live.board import Board
from stream.live.metrics import Metrics
from stream.live.pause import Backoff
from stream.live.reader import Reader
from stream.live.road import Relayed, Road
from stream.live.states import Event, State
from stream.live.writer import Writer

log = logging.getLogger(__name__)
HUNG_S = 10.0  # in opening a source, until its worker is left behind
DEPTH = 6  # frames that wait for the road, and for the writer, at most


class Relay:
    """`start`, then `watch` a few times a second, then `stop`."""

    def __init__(
        self, name: str, settings: RelaySettings, engine: Engine, make_finder: Callable[[], Finder], metrics: Metrics
    ) -> None:
        """Nothing runs yet; the engine is closed with the relay.

        Raises:
            UsageError: the source or sink is no place that is known.
        """
        self.board = board = Board(name, settings, metrics)
        self._engine = engine
        self._road = Road(name, settings, make_finder, engine, metrics)
        self._inbox: Inbox[Frame | Packet] = Inbox(DEPTH, _is_frame, board.dropped, board.is_stale)
        self._outbox: Inbox[Relayed | Packet] = Inbox(DEPTH, _is_relayed, board.dropped)
        self._numbers, self._backoff = count(), Backoff()
        self._taken = self._handed_on = 0  # frames, by the first and the last of the stages between the two
        self._writer = Writer(board, self._outbox)
        self._workers: dict[str, Worker] = {}

    def start(self) -> None:
        """Start the workers."""
        self._read()
        self._start("road", self._work)
        self._start("writer", self._writer.run)

    def _start(self, what: str, work: Callable[[], None]) -> None:
        self._workers[what] = Worker(f"live-{what}-{self.board.name}", work)

    def _read(self) -> None:
        self._start("reader", Reader(self.board, self._inbox, self._numbers, self._backoff).run)

    def _work(self) -> None:
        """The stages, until the inbox is closed and empty; a fault of ours begins them anew."""
        while not self._inbox.is_over:
            try:
                self._stages()
            except Exception:
                log.error("%s: a stage failed; all begin anew", self.board.name, exc_info=True)
            for _ in range(self._taken - self._handed_on):
                self.board.dropped(None, "failed")
            self._handed_on = self._taken
        self._outbox.close()

    def _stages(self) -> None:
        board = self.board
        with Lanes() as lanes:
            for item in lanes.run(f"find-{board.name}", self._road.find(self._take()), depth=1):
                self._outbox.put(item if isinstance(item, Packet) else self._road.restore(item))
                self._handed_on += isinstance(item, Found)
                fault = self._road.fault
                if isinstance(fault, SystemLibraryError):
                    board.give_up(fault)
                elif fault is not None and board.settings.relay.strict:
                    board.give_up(EngineError(f"{board.name}: {fault}"))

    def _take(self) -> Iterator[Frame | Packet]:
        for item in self._inbox:
            self._taken += isinstance(item, Frame)
            yield item

    def watch(self) -> None:
        """Look at the workers' clocks: who is silent, who hangs, and whether all is over."""
        board, now, live = self.board, time.monotonic(), self.board.settings.relay
        if board.stop.is_set():
            self._inbox.close()
        silent_s = now - board.last_picture
        if board.state is State.RUNNING and silent_s > live.stall_after_s:
            board.happened(Event.SILENCE, f"{board.source}: no picture for {silent_s:.1f} s")
        trying_s = now - max(board.attempt_began, board.last_picture)
        is_silent = board.state is State.STALLED and silent_s > live.reconnect_after_s
        is_stuck = board.state in (State.CONNECTING, State.RECONNECTING) and trying_s > live.reconnect_after_s + HUNG_S
        if (is_silent or is_stuck) and not board.stop.is_set():
            board.source_generation += 1
            board.attempt_began = now
            board.metrics.abandoned.labels(board.name).inc()
            fault = LinkError(Cause.TIMEOUT, f"{board.source}: silent, left and opened anew")
            self._backoff.after_fault(now)
            if 0 <= live.max_retries < self._backoff.attempts:
                board.give_up(fault)
            else:
                board.happened(Event.LOST, str(fault))
                self._read()
        board.metrics.waiting.labels(board.name, "road").set(len(self._inbox))
        board.metrics.waiting.labels(board.name, "writer").set(len(self._outbox))
        board.metrics.clock_jumps.labels(board.name).set(board.clock.jumps)

    def told(self) -> dict[str, Any]:
        """How it is, for people and for the page."""
        board, name, metrics = self.board, self.board.name, self.board.metrics
        late, latest = sorted(board.latencies), board.latest
        return {
            "state": board.state,
            "since": board.since,
            "source": str(board.source),
            "sink": str(board.sink),
            "frames_in": int(metrics.value("unsmear_frames_in_total", stream=name)),
            "frames_out": int(metrics.value("unsmear_frames_out_total", stream=name)),
            "frames_passed_on": int(metrics.total("unsmear_frames_passed_on_total", name)),
            "frames_dropped": int(metrics.total("unsmear_frames_dropped_total", name)),
            "frames_bridged": int(metrics.value("unsmear_frames_bridged_total", stream=name)),
            "faces_restored": int(metrics.value("unsmear_faces_restored_total", stream=name)),
            "latency_ms": 1000 * late[len(late) // 2] if late else None,
            "faces": [patch.told() for patch in latest.patches] if latest is not None else [],
            "events": list(board.events),
        }

    def summary(self) -> str:
        """The same in a line."""
        told = self.told()
        late = "" if told["latency_ms"] is None else f", {told['latency_ms']:.0f} ms late"
        keys = ("in", "out", "passed_on", "dropped", "bridged")
        counts = ", ".join(f"{told[f'frames_{key}']} {key.replace('_', ' ')}" for key in keys)
        return f"{told['state']}: frames {counts}; {told['faces_restored']} faces restored{late}"

    @property
    def is_over(self) -> bool:
        """Whether it has ended by itself, and all is sent."""
        return self.board.stop.is_set() and self._outbox.is_over and not self._workers["writer"].is_alive

    def stop(self) -> None:
        """Read no more, send what is there, close in order."""
        self.board.happened(Event.OVER, "stopped")
        if not self._workers["reader"].join(2.0):  # it hangs in the network, and is left there
            self.board.source_generation += 1
        self._inbox.close()
        if not self._workers["road"].join(10.0):
            self._outbox.close()
        if not self._workers["writer"].join(5.0):
            self._writer.abort()
            self._workers["writer"].join(5.0)
        self._outbox.clear("stopping")
        self.close()
        log.info("%s: %s", self.board.name, self.summary())

    def close(self) -> None:
        """Give the engine's seat back: all that there is to do for one that was never started."""
        self._engine.close()


def _is_frame(item: Frame | Packet) -> bool:
    return isinstance(item, Frame)


def _is_relayed(item: Relayed | Packet) -> bool:
    return isinstance(item, Relayed)
