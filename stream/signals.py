"""Ctrl-C and SIGTERM: the first one ends a run in order, and nothing tears what is being closed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_BOTH = (signal.SIGINT, signal.SIGTERM)


def install() -> None:
    """Let the first signal raise KeyboardInterrupt in the main thread; those after it are ignored."""
    for number in _BOTH:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> NoReturn:
    for each in _BOTH:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A file is being closed: signals are ignored meanwhile."""
    try:
        before = {number: signal.signal(number, signal.SIG_IGN) for number in _BOTH}
    except ValueError:  # not the main thread, which alone gets signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
