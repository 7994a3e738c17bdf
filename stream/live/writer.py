"""The sink's worker: opens, writes, bridges what the source leaves out, loses, waits, and opens again."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from stream.errors import Cause, LinkError
from stream.frame import Frame, Packet
from stream.lanes import Inbox
from stream.live.board import Board
from stream.live.pause import Backoff
from stream.live.reader import REFUSALS
from stream.live.road import Relayed
from stream.live.slate import blank, slate
from stream.media.live_sink import LiveSink, Shape, open_sink, shape_of
from stream.media.live_source import TICKS, Sound

log = logging.getLogger(__name__)
START_S = 4.0  # without any picture yet until there is a slate: the source's own size is better known first


class Writer:
    """What the sink's worker does."""

    def __init__(self, board: Board, outbox: Inbox[Relayed | Packet]) -> None:
        self._board, self._outbox, self._metrics = board, outbox, board.metrics
        self._sink: LiveSink | None = None
        self._shape: Shape | None = None
        self._sound: Sound | None = None
        self._backoff, self._refusals, self._next_try = Backoff(), 0, 0.0
        self._slate: Frame | None = None
        self._sent = self._came = time.monotonic()  # when the last frame was sent, and the last of the source's came

    def run(self) -> None:
        """Write until all is sent; while the sink is away, frames go by, and are counted."""
        while not self._outbox.is_over:
            item = self._outbox.get(self._patience_s())
            try:
                self._take(item)
            except Exception as error:  # a fault of ours must not end a stream
                log.error("%s: the sink failed", self._board.name, exc_info=True)
                self._lost(LinkError(Cause.BROKEN, f"{self._board.sink}: {type(error).__name__}: {error}"))
                if isinstance(item, Relayed):
                    self._board.dropped(item, "failed")
        self._close()

    def _take(self, item: Relayed | Packet | None) -> None:
        if isinstance(item, Relayed):
            self._picture(item)
        elif item is None:
            self._bridge()
        elif self._sink is not None:
            self._write(item)

    def _patience_s(self) -> float:
        """How long to wait for a picture until one is made up."""
        now = time.monotonic()
        begins = self._came + self._board.settings.relay.fill_after_ms / 1000
        due = begins if now < begins else self._sent + 1 / float(self._board.rate)
        return max(due - now, 0.01)

    def _picture(self, item: Relayed) -> None:
        board, frame = self._board, item.frame
        self._came = time.monotonic()
        self._slate, board.latest = None, item
        if frame.pts <= board.last_pts:
            board.dropped(item, "behind what bridged the gap")
            board.clock.passed(board.last_pts * TICKS)  # a picture may have come with a time far ahead: it catches up
        elif self._send(frame, board.sound):
            self._metrics.frames_out.labels(board.name).inc()
            board.latencies.append(self._sent - frame.arrived)
            self._metrics.seconds.labels(board.name, "total").observe(self._sent - frame.arrived)
        else:
            board.dropped(item, "sink away")

    def _bridge(self) -> None:
        """Send the last picture again, or the slate."""
        board, live, now = self._board, self._board.settings.relay, time.monotonic()
        away_s = now - self._came
        is_long = away_s >= live.slate_after_ms / 1000
        last = None if board.latest is None else board.latest.frame
        if board.stop.is_set() or away_s < live.fill_after_ms / 1000 or (last is None and away_s < START_S):
            return
        if is_long and self._slate is None:
            self._slate = slate(last or blank(), f"no picture since {time.strftime('%H:%M:%S')}")
        frame = self._slate or last
        assert frame is not None
        # On the wall's time: as long behind the last picture as it is since that was sent.
        pts = board.last_pts + max(round((now - self._sent) / TICKS), 1)
        if board.last_pts < 0:
            pts = round((now - board.began) / TICKS)
        if self._send(replace(frame, pts=pts), self._sound if self._sink is not None else board.sound):
            self._metrics.bridged.labels(board.name).inc()
            board.clock.passed(pts * TICKS)

    def _send(self, frame: Frame, sound: Sound | None) -> bool:
        """Encode and send a frame, opening the sink where it is closed or does not fit."""
        board = self._board
        if self._sink is not None and (self._shape != shape_of(frame) or self._sound != sound):
            board.note(f"{board.sink}: opened anew, for {frame.width}x{frame.height}")
            self._close()
        began = time.monotonic()
        is_open = self._sink is not None  # if not it is opened with this frame
        done = self._write(frame) if is_open else began >= self._next_try and self._open(frame, sound)
        self._sent = time.monotonic()
        if done:
            board.last_pts = frame.pts
            self._backoff.reset()
            self._metrics.seconds.labels(board.name, "write").observe(self._sent - began)
        return done

    def _open(self, frame: Frame, sound: Sound | None) -> bool:
        board = self._board
        try:
            sink = open_sink(board.sink, frame, board.rate, sound, board.settings.encoder)
        except LinkError as fault:
            self._lost(fault)
            return False
        self._sink, self._shape, self._sound, self._refusals = sink, shape_of(frame), sound, 0
        self._metrics.sink_up.labels(board.name).set(1)
        for text in (f"{board.sink}: open", *sink.notes):
            board.note(text)
        return True

    def _write(self, item: Frame | Packet) -> bool:
        assert self._sink is not None
        try:
            self._sink.write(item)
        except LinkError as fault:
            self._lost(fault)
            return False
        return True

    def abort(self) -> None:
        """End a write that waits for the sink; from another thread."""
        sink = self._sink
        if sink is not None:
            sink.abort()

    def _lost(self, fault: LinkError) -> None:
        board, limit = self._board, self._board.settings.relay.max_retries
        self._metrics.lost.labels(board.name, "sink", fault.cause).inc()
        line = f"sink lost: {fault}"
        if not board.events or board.events[-1][1] != line:
            board.note(line, logging.WARNING)
        self._close()
        self._next_try = time.monotonic() + self._backoff.after_fault(time.monotonic())
        self._refusals = self._refusals + 1 if fault.cause is Cause.UNAUTHORIZED else 0
        if self._refusals >= REFUSALS or 0 <= limit < self._backoff.attempts:
            board.give_up(fault)

    def _close(self) -> None:
        if self._sink is not None:
            self._sink.close()
        self._sink = None
        self._metrics.sink_up.labels(self._board.name).set(0)
