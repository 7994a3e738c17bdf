"""Every thread and queue of the pipeline: a stage runs in a lane of its own, some items ahead of the next.

A `Lanes` scope owns all its threads. A fault of a stage travels through the queues and is raised where its result is
awaited. Leaving the scope, for whatever reason, stops and joins every thread. Queues are bounded: a full lane makes its
stage wait, a full `Inbox`, in live use, loses its oldest frame.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")
_POLL_S = 0.1  # how soon a waiting lane notices that the scope is left
Stop = threading.Event
Lock = threading.Lock
Room = threading.BoundedSemaphore


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


class Inbox(Generic[T]):
    """What comes in live: putting never waits, taking does.

    The oldest item that may be lost is lost when it is full, or when that is stale and something newer waits behind it;
    `lost` is told of each, with why.
    """

    def __init__(
        self,
        depth: int,
        may_be_lost: Callable[[T], bool],
        lost: Callable[[T, str], None],
        is_stale: Callable[[T], bool] = lambda item: False,
    ) -> None:
        """Hold at most `depth` items that may be lost, and a hundred times as many others."""
        self._depth, self._may_be_lost, self._lost, self._is_stale = depth, may_be_lost, lost, is_stale
        self._items: deque[T] = deque()
        self._droppable = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Hand in. Behind the end it is lost."""
        with self._changed:
            if self._closed:
                if self._may_be_lost(item):
                    self._lost(item, "stopping")
                return
            self._items.append(item)
            self._droppable += self._may_be_lost(item)
            if self._droppable > self._depth:
                self._drop_first("queue full")
            elif len(self._items) > 100 * self._depth:
                self._drop_first_other()
            self._changed.notify()

    def get(self, timeout_s: float) -> T | None:
        """The next item; None if none came in time, or all have been taken behind the end."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while True:
                while self._droppable > 1 and self._is_stale(self._first()):
                    self._drop_first("too late")
                if self._items:
                    item = self._items.popleft()
                    self._droppable -= self._may_be_lost(item)
                    return item
                left = until - time.monotonic()
                if self._closed or left <= 0:
                    return None
                self._changed.wait(left)

    def close(self) -> None:
        """Nothing more comes: what is there may still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def clear(self, why: str) -> None:
        """Lose what nobody will take any more."""
        with self._changed:
            while self._droppable:
                self._drop_first(why)
            self._items.clear()

    @property
    def is_over(self) -> bool:
        """Whether all has been taken behind the end."""
        with self._changed:
            return self._closed and not self._items

    def __len__(self) -> int:
        return self._droppable

    def __iter__(self) -> Iterator[T]:
        while not self.is_over:
            item = self.get(_POLL_S)
            if item is not None:
                yield item

    def _first(self) -> T:
        return next(item for item in self._items if self._may_be_lost(item))

    def _drop_first_other(self) -> None:
        del self._items[next(i for i, other in enumerate(self._items) if not self._may_be_lost(other))]

    def _drop_first(self, why: str) -> None:
        item = self._first()
        # By identity: frames hold arrays, which do not compare to one truth.
        del self._items[next(i for i, other in enumerate(self._items) if other is item)]
        self._droppable -= 1
        self._lost(item, why)


class Worker:
    """A thread of its own that may hang in a foreign library: it is then left behind."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        """Start it."""
        self._thread = threading.Thread(target=work, name=name, daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; False if it did not come in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        """Whether it still works."""
        return self._thread.is_alive()
