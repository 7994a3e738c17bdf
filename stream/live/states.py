"""The states of a stream's source, and what leads from one to the other."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a source is doing."""

    CONNECTING = "connecting"  # for the first time: no picture has come yet
    RUNNING = "running"  # pictures come
    STALLED = "stalled"  # it is open and gives no picture
    RECONNECTING = "reconnecting"  # it was lost, or could not be opened, and is tried again
    STOPPED = "stopped"  # for good


class Event(StrEnum):
    """What happens to it."""

    PICTURE = "picture"  # the first of a connection, or the first after a silence
    SILENCE = "silence"  # no picture for a while
    LOST = "lost"  # it ended, failed, or could not be opened
    OVER = "over"  # it has ended for good, the retries are spent, or the stream is being stopped


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.CONNECTING: {
        Event.PICTURE: State.RUNNING,
        Event.SILENCE: State.CONNECTING,
        Event.LOST: State.RECONNECTING,
        Event.OVER: State.STOPPED,
    },
    State.RUNNING: {
        Event.PICTURE: State.RUNNING,
        Event.SILENCE: State.STALLED,
        Event.LOST: State.RECONNECTING,
        Event.OVER: State.STOPPED,
    },
    State.STALLED: {
        Event.PICTURE: State.RUNNING,
        Event.SILENCE: State.STALLED,
        Event.LOST: State.RECONNECTING,
        Event.OVER: State.STOPPED,
    },
    State.RECONNECTING: {
        Event.PICTURE: State.RUNNING,
        Event.SILENCE: State.RECONNECTING,
        Event.LOST: State.RECONNECTING,
        Event.OVER: State.STOPPED,
    },
    State.STOPPED: {},
}


def after(state: State, event: Event) -> State:
    """The state that follows; once stopped, a source stays so."""
    return TRANSITIONS[state].get(event, state)
