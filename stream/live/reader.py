"""The source's worker: opens, reads, loses, waits, and again. It alone retries."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from stream.errors import Cause, LinkError
from stream.frame import Frame, Packet
from stream.lanes import Inbox, Stop
from stream.live.board import Board
from stream.live.pause import Backoff
from stream.live.states import Event, State
from stream.media.address import Address, answers
from stream.media.live_source import TICKS, LiveSource

log = logging.getLogger(__name__)
KNOCK_EVERY_S = 0.2
REFUSALS = 3  # of user and password in a row, until a stream is given up


def wait(address: Address, fault: LinkError, wait_s: float, stop: Stop) -> None:
    """Until the next attempt. Where nobody listened, a mere knock tells when somebody does: then it is time at once."""
    until = time.monotonic() + wait_s
    while not stop.wait(min(KNOCK_EVERY_S, max(until - time.monotonic(), 0.0))) and time.monotonic() < until:
        if fault.cause is Cause.REFUSED and answers(address):
            return


class _LeftBehind(Exception):
    """Another worker has taken over, or the stream is being stopped."""


class Reader:
    """What one generation of the source's worker does."""

    def __init__(self, board: Board, inbox: Inbox[Frame | Packet], numbers: Iterator[int], backoff: Backoff) -> None:
        self._board, self._inbox, self._numbers = board, inbox, numbers
        self._generation = board.source_generation
        self._backoff, self._refusals = backoff, 0

    def run(self) -> None:
        """Read until it is over, or this worker is left behind."""
        while not self._is_left_behind:
            try:
                self._read()
            except _LeftBehind:
                return
            except LinkError as fault:
                self._lost(fault)
            except Exception as error:  # a fault of ours must not end a stream
                log.error("%s: the source failed", self._board.name, exc_info=True)
                self._lost(LinkError(Cause.BROKEN, f"{self._board.source}: {type(error).__name__}: {error}"))

    @property
    def _is_left_behind(self) -> bool:
        return self._board.stop.is_set() or self._generation != self._board.source_generation

    def _read(self) -> None:
        board = self._board
        board.attempt_began = time.monotonic()
        with LiveSource(board.source, board.settings.relay.loop) as source:
            if self._is_left_behind:
                return
            board.clock.restart()
            board.rate, board.sound = source.rate, source.sound
            damaged = 0
            for item in source.frames(self._place, self._numbers):
                if self._is_left_behind:
                    return
                if source.damaged > damaged:
                    board.metrics.damaged.labels(board.name).inc(source.damaged - damaged)
                    damaged = source.damaged
                self._inbox.put(self._picture(item, source.rate) if isinstance(item, Frame) else item)

    def _place(self, stream: int, raw: Fraction, arrived: float) -> Fraction:
        if self._is_left_behind:
            raise _LeftBehind
        return self._board.clock.offset(stream, raw, arrived)

    def _picture(self, frame: Frame, rate: Fraction) -> Frame:
        board = self._board
        if board.source.is_paced:  # wait until it is due
            board.stop.wait(max(0.0, float(frame.pts * TICKS) + board.began - time.monotonic()))
            frame = replace(frame, arrived=time.monotonic())
        board.last_picture = time.monotonic()
        if board.state is not State.RUNNING:
            self._backoff.reset()
            self._refusals = 0
            size = f"{frame.width}x{frame.height}, {float(rate):.3g} frames a second"
            board.happened(Event.PICTURE, f"{board.source}, {size}")
        board.metrics.frames_in.labels(board.name).inc()
        return frame

    def _lost(self, fault: LinkError) -> None:
        board, limit = self._board, self._board.settings.relay.max_retries
        if self._is_left_behind:
            return
        board.metrics.lost.labels(board.name, "source", fault.cause).inc()
        if fault.cause is Cause.ENDED and board.source.kind == "file":
            board.happened(Event.OVER, str(fault))
            return
        wait_s = self._backoff.after_fault(time.monotonic())
        self._refusals = self._refusals + 1 if fault.cause is Cause.UNAUTHORIZED else 0
        if self._refusals >= REFUSALS or 0 <= limit < self._backoff.attempts:
            board.give_up(fault)
            return
        board.happened(Event.LOST, str(fault))
        board.attempt_began = time.monotonic() + wait_s  # who waits does not hang
        wait(board.source, fault, wait_s, board.stop)
