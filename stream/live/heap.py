"""The C library's memory, in a process that runs for months. Only glibc needs, and has, these calls."""

from __future__ import annotations

import ctypes
from contextlib import suppress

M_ARENA_MAX = -8  # of <malloc.h>


def bound_arenas() -> None:
    """Let all threads share two arenas: else nearly every one gets its own, and outages make new threads."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def give_back() -> None:
    """Return to the system what is free: what waited while a sink was gone stays else, megabytes for each outage."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
