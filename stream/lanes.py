"""Every thread and queue of the pipeline: a stage runs in a lane of its own, some items ahead of the next.

A `Lanes` scope owns all threads. A fault of a stage travels through the queues and is raised where its result is
awaited. Leaving the scope, for whatever reason, stops and joins every thread. Queues are bounded: a full one makes its
stage wait.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")
_POLL_S = 0.1  # how soon a waiting lane notices that the scope is left


class _End:
    """The last item of a lane: its stage is done, or has failed with `fault`."""

    def __init__(self, fault: BaseException | None = None) -> None:
        self.fault = fault


class Lane(Generic[T]):
    """Iterate it to take what its stage makes."""

    def __init__(self, stop: threading.Event, depth: int) -> None:
        self._stop = stop
        self._queue: queue.Queue[T | _End] = queue.Queue(depth)

    def put(self, item: T | _End) -> bool:
        """Hand on, waiting for room; False when the scope is being left."""
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._get()
            if isinstance(item, _End):
                if item.fault is not None:
                    raise item.fault
                return
            yield item

    def _get(self) -> T | _End:
        while not self._stop.is_set():
            try:
                return self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        return _End()


class Lanes:
    """The scope. `lanes.run(name, items)` iterates `items` in a thread and gives back what it yields, in order."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def run(self, name: str, items: Iterable[T], depth: int = 4) -> Lane[T]:
        """Start a thread called `name`, at most `depth` items ahead."""
        lane: Lane[T] = Lane(self._stop, depth)

        def work() -> None:
            fault: BaseException | None = None
            try:
                for item in items:
                    if not lane.put(item):
                        return
            except BaseException as error:  # it is raised where the lane is awaited
                fault = error
            lane.put(_End(fault))

        thread = threading.Thread(target=work, name=f"lane-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return lane

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
