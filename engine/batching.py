"""One engine for all streams of a process: their crops go through it together, in a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.base import Engine, EngineError, Restored, unknown

log = logging.getLogger(__name__)
FORGIVEN_AFTER = 1000  # batches that go well after a fault, until the next one may rebuild the engine again
CLOSING_S = 10.0  # for what was handed in to be finished; an engine that hangs is left behind


@dataclass(slots=True)
class _Call:
    crops: NDArray[np.uint8]
    known: NDArray[np.float32] | None
    answer: Future[Restored] = field(default_factory=Future)


class SharedEngine:
    """Batches what several seats hand in, in the order in which it came; a context manager.

    A fault is every waiting caller's: their crops are as they were. The engine is then made anew, once; if it fails
    again soon after, it is given up, and each call fails with the reason; where `retry_s` is given, it is made anew
    after so many seconds. Where `limit_s` is given, as in live use, no caller waits longer than that for an engine that
    hangs, nor at all for one that is being made anew.
    """

    def __init__(
        self,
        make: Callable[[], Engine],
        batch: int,
        patience_s: float = 0.0,
        retry_s: float | None = None,
        limit_s: float | None = None,
    ) -> None:
        """Make the engine. A batch below `batch` crops waits up to `patience_s` for seats that have none in yet.

        Raises:
            EngineError: it cannot be made.
        """
        self._make, self._batch, self._patience, self._retry_s = make, batch, patience_s, retry_s
        self._limit_s = limit_s
        self._being_made = False
        self._given_up = 0.0  # when
        self._calls: queue.Queue[_Call | None] = queue.Queue()
        self._seats = 0
        self._reason: str | None = None  # why the engine was given up
        self._since_fault = FORGIVEN_AFTER
        self._closing = threading.Lock()  # no call may be handed in behind the last one
        self._closed = False
        ready: Future[Engine] = Future()
        self._thread = threading.Thread(target=self._work, args=(ready,), name="engine", daemon=True)
        self._thread.start()
        engine = ready.result()
        self.spec, self.about = engine.spec, engine.about

    def seat(self) -> Seat:
        """A stream's own access to the engine, an engine itself."""
        with self._closing:
            self._seats += 1
        return Seat(self)

    def leave(self) -> None:
        """A seat is given up."""
        with self._closing:
            self._seats -= 1

    def close(self) -> None:
        """Finish what was handed in, then free the device."""
        with self._closing:
            self._closed = True
            self._calls.put(None)
        self._thread.join(CLOSING_S)

    def run(self, crops: NDArray[np.uint8], known: NDArray[np.float32] | None = None) -> Restored:
        """Crops for the next batch; waits for the answer. See `Engine.run`.

        Raises:
            EngineError: the engine is closed, failed, is being made anew, or does not answer.
        """
        if self._being_made and self._limit_s is not None:
            raise EngineError("the engine is being made anew")
        answer = self._hand_in(_Call(crops, known))
        try:
            return answer.result(self._limit_s)
        except NoAnswer:
            answer.cancel()
            raise EngineError(f"the engine did not answer within {self._limit_s:g} s") from None

    def _hand_in(self, call: _Call) -> Future[Restored]:
        with self._closing:
            if self._closed:
                raise EngineError("the engine is closed")
            self._calls.put(call)
        return call.answer

    def __enter__(self) -> SharedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self, ready: Future[Engine]) -> None:
        try:
            engine = self._make()  # in this thread: a GPU's context belongs to the thread that made it
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(engine)
        while calls := self._gather():
            if self._reason is not None and self._is_time_to_retry():
                engine = self._made_anew(engine, EngineError(self._reason))
            if self._reason is not None:
                _fail(calls, EngineError(self._reason))
                continue
            try:
                _deliver(calls, engine)
                self._since_fault += 1
            except Exception as error:  # a vendor's library may raise anything: no caller may wait for ever
                fault = error if isinstance(error, EngineError) else EngineError(f"{type(error).__name__}: {error}")
                _fail(calls, fault)
                engine = self._again(engine, fault)
        with contextlib.suppress(Exception):
            engine.close()

    def _gather(self) -> list[_Call]:
        """The next calls, together a batch where they can be; none when all is over."""
        while (first := self._calls.get()) is not None and not _is_awaited(first):
            pass
        if first is None:
            return []
        calls, count = [first], len(first.crops)
        until = time.monotonic() + self._patience
        while count < self._batch:
            # Nobody to wait for where every seat has its crops in.
            left = until - time.monotonic() if len(calls) < self._seats else 0
            try:
                call = self._calls.get(timeout=left) if left > 0 else self._calls.get_nowait()
            except queue.Empty:
                break
            if call is None:
                self._calls.put(None)
                break
            if _is_awaited(call):
                calls.append(call)
                count += len(call.crops)
        return calls

    def _again(self, engine: Engine, error: EngineError) -> Engine:
        """The engine made anew after a fault, or given up."""
        if self._since_fault < FORGIVEN_AFTER:
            self._give_up(f"the engine failed again after it was made anew: {error}")
            return engine
        self._since_fault = 0
        return self._made_anew(engine, error)

    def _made_anew(self, engine: Engine, error: EngineError) -> Engine:
        log.warning("the engine failed (%s); making it anew", error)
        self._being_made = True
        with contextlib.suppress(Exception):
            engine.close()
        try:
            made = self._make()
        except Exception as again:
            self._give_up(f"the engine failed ({error}) and cannot be made anew: {again}")
            return engine
        finally:
            self._being_made = False
        self._reason = None
        return made

    def _give_up(self, reason: str) -> None:
        self._reason, self._given_up = reason, time.monotonic()
        log.error(reason)

    def _is_time_to_retry(self) -> bool:
        return self._retry_s is not None and time.monotonic() - self._given_up > self._retry_s


class Seat(Engine):
    """One stream's access to a shared engine."""

    def __init__(self, shared: SharedEngine) -> None:
        self._shared, self._left = shared, False
        self.spec, self.about = shared.spec, shared.about

    def run(self, crops: NDArray[np.uint8], known: NDArray[np.float32] | None = None) -> Restored:
        """See `Engine.run`; waits while the batch fills and other streams' crops are under way."""
        return self._shared.run(crops, known)

    def close(self) -> None:
        """Nobody waits for this stream any more."""
        if not self._left:
            self._left = True
            self._shared.leave()


def _is_awaited(call: _Call) -> bool:
    return call.answer.set_running_or_notify_cancel()  # who has waited too long is gone


def _deliver(calls: list[_Call], engine: Engine) -> None:
    crops, known = calls[0].crops, calls[0].known
    if len(calls) > 1:
        crops = np.concatenate([call.crops for call in calls])
        if any(call.known is not None for call in calls):
            known = np.concatenate([unknown(len(call.crops)) if call.known is None else call.known for call in calls])
    restored = engine.run(crops, known)
    if restored.kernels is not None and not np.isfinite(restored.kernels).all():
        raise EngineError("the engine returned numbers that are not finite")
    at = 0
    for call in calls:
        part = slice(at, at + len(call.crops))
        kernels = None if restored.kernels is None else restored.kernels[part]
        call.answer.set_result(Restored(restored.crops[part], kernels))
        at = part.stop


def _fail(calls: list[_Call], error: EngineError) -> None:
    for call in calls:
        if not call.answer.done():
            call.answer.set_exception(EngineError(str(error)))  # each caller's own: it is raised in his thread
