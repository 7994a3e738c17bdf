"""Faults that a user can do something about, each with the exit code the command ends with.

A message names the thing, its value and the fix, on one line. Engines have a tree of their own (`engine.EngineError`),
because they know nothing of video; `explain` maps it to exit code 6.
"""

from __future__ import annotations

from enum import StrEnum

from engine import EngineError

ENGINE_EXIT_CODE = 6


class UnsmearError(Exception):
    """Root of the tree; only its children are raised."""

    exit_code = 1


class UsageError(UnsmearError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class InputError(UnsmearError):
    """The input cannot be read: missing, empty, without video, or damaged."""

    exit_code = 3


class Cause(StrEnum):
    """Why a live source or sink was lost."""

    NOT_FOUND = "not found"
    REFUSED = "connection refused"
    UNAUTHORIZED = "authentication refused"
    TIMEOUT = "timed out"
    UNSUPPORTED = "codec not supported"
    ENDED = "end of stream"
    BROKEN = "connection broken"


class LinkError(UnsmearError):
    """A live source or sink is gone: for now, or, where it reaches the user, for good."""

    exit_code = 4

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class OutputError(UnsmearError):
    """The output cannot be written; nothing that existed was harmed."""

    exit_code = 5


class Interrupted(UnsmearError):
    """Stopped by the user; what was written so far was closed and plays."""

    exit_code = 130


class SystemLibraryError(UnsmearError):
    """A system library that OpenCV or MediaPipe loads is not installed."""

    exit_code = 6


def explain(error: Exception) -> tuple[int, str]:
    """Exit code and line of a fault."""
    if isinstance(error, UnsmearError):
        return error.exit_code, str(error)
    if isinstance(error, EngineError):
        return ENGINE_EXIT_CODE, str(error)
    return 1, f"internal error: {type(error).__name__}: {error}; please report it, with what -v shows"
