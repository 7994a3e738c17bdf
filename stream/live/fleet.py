"""Many live streams in one process, with one engine: started, watched, changed and stopped, none disturbing another."""

from __future__ import annotations

import logging
from collections.abc import Callable

from engine import Engine
from stream.config import RelaySettings
from stream.errors import UsageError
from stream.faces.finder import Finder
from stream.lanes import Lock, Worker
from stream.live.metrics import Metrics
from stream.live.relay import Relay

log = logging.getLogger(__name__)


class Fleet:
    """The streams by name."""

    def __init__(
        self, seat: Callable[[], Engine], make_finder: Callable[[RelaySettings], Finder], metrics: Metrics
    ) -> None:
        """`seat` gives a stream its access to the shared engine."""
        self._seat, self._make_finder, self.metrics = seat, make_finder, metrics
        self._relays: dict[str, Relay] = {}
        self._ended: dict[str, Exception | None] = {}  # those that ended by themselves, in their order
        self._lock = Lock()

    @property
    def relays(self) -> dict[str, Relay]:
        """A copy, for whoever looks on."""
        with self._lock:
            return dict(self._relays)

    def apply(self, wanted: dict[str, RelaySettings]) -> None:
        """Stop what is not wanted any more or is wanted otherwise, start what is new; leave the rest alone.

        Raises:
            UsageError: a source or sink is no place that is known; nothing has changed then.
        """
        running = self.relays
        same = {name for name, each in wanted.items() if name in running and running[name].board.settings == each}
        fresh: dict[str, Relay] = {}
        try:
            for name in (name for name in wanted if name not in same):
                fresh[name] = self._relay(name, wanted[name])
        except UsageError:
            for relay in fresh.values():
                relay.close()
            raise
        over = [name for name in running if name not in same]
        for name in over:
            log.info("%s: %s", name, "changed" if name in wanted else "removed")
        self._remove(over)
        for name in over:
            if name not in wanted:
                self.metrics.forget(name)
        for name, relay in fresh.items():
            self._ended.pop(name, None)
            with self._lock:
                self._relays[name] = relay
            relay.start()

    def watch(self) -> bool:
        """Look at every stream; whether any is left. Called a few times a second."""
        for name, relay in self.relays.items():
            try:
                relay.watch()
                if relay.is_over and name not in self._ended:
                    relay.stop()
                    self._ended[name] = relay.board.fault
            except Exception:  # a fault of ours in one stream must not end the others
                log.error("%s: cannot be watched", name, exc_info=True)
        return len(self._ended) < len(self.relays)

    def stop(self) -> None:
        """Stop all that are left."""
        self._remove([name for name in self.relays if name not in self._ended])

    def lines(self) -> list[str]:
        """How each stream is, in a line."""
        return [f"{name}: {relay.summary()}" for name, relay in self.relays.items()]

    @property
    def fault(self) -> Exception | None:
        """Why the first stream that failed did."""
        return next((fault for fault in self._ended.values() if fault is not None), None)

    def _relay(self, name: str, settings: RelaySettings) -> Relay:
        seat = self._seat()
        try:
            return Relay(name, settings, seat, lambda: self._make_finder(settings), self.metrics)
        except UsageError:
            seat.close()
            raise

    def _remove(self, names: list[str]) -> None:
        """Stop them, all at once, for each may take a while; the others are watched meanwhile."""
        with self._lock:
            removed = {name: self._relays.pop(name) for name in names}
        workers = [Worker(f"stop-{name}", each.stop) for name, each in removed.items() if name not in self._ended]
        for name in names:
            self._ended.pop(name, None)
        for worker in workers:
            while not worker.join(0.1):
                self.watch()
