"""The settings of `unsmear restore` and `unsmear relay`, as the files in `configs/` and a user's own say them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from stream import settings
from stream.errors import UsageError
from stream.find import FaceSettings
from stream.media.encode import EncoderSettings


class EngineSettings(Struct, frozen=True, kw_only=True):
    """Table [restore]."""

    engine: str
    model: str
    batch: Annotated[int, Meta(ge=1, le=256)]
    threads: Annotated[int, Meta(ge=0)]
    device: Annotated[int, Meta(ge=0)]
    max_batch: Annotated[int, Meta(ge=1, le=256)]
    strength: Annotated[float, Meta(ge=0, le=1)]
    still_px: Annotated[float, Meta(ge=0, le=10)]
    fuse: Literal["none", "past", "both"]
    refit: bool

    @property
    def of_the_engine(self) -> tuple[object, ...]:
        """What is one for all streams of a process."""
        return self.engine, self.model, self.batch, self.threads, self.device, self.max_batch


class RestoreSettings(Struct, frozen=True, kw_only=True):
    """All tables."""

    faces: FaceSettings
    restore: EngineSettings
    encoder: EncoderSettings


class LiveSettings(Struct, frozen=True, kw_only=True):
    """Table [relay]."""

    source: str
    sink: str
    loop: bool
    transport: Literal["tcp", "udp"]
    max_latency_ms: Annotated[float, Meta(gt=0)]
    max_retries: Annotated[int, Meta(ge=-1)]
    strict: bool
    segment_s: Annotated[float, Meta(ge=1)]
    fill_after_ms: Annotated[float, Meta(ge=100)]
    slate_after_ms: Annotated[float, Meta(ge=100)]
    stall_after_s: Annotated[float, Meta(gt=0)]
    reconnect_after_s: Annotated[float, Meta(gt=0)]


class RelaySettings(Struct, frozen=True, kw_only=True):
    """All that one stream of a relay is told."""

    faces: FaceSettings
    restore: EngineSettings
    encoder: EncoderSettings
    relay: LiveSettings


def load_relay(user: Path | None, options: dict[str, Any]) -> dict[str, RelaySettings]:
    """The streams by name: a file's [streams.NAME] tables, or the one that the command line names.

    Raises:
        UsageError: no stream, one without a source, streams that want different engines; see `stream.settings.build`.
    """
    values = settings.overlay(
        settings.load_toml(settings.shipped("restore")), settings.load_toml(settings.shipped("relay"))
    )
    own = settings.load_toml(user) if user is not None else {}
    tables = own.pop("streams", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UsageError(f"{user}: streams are tables, [streams.NAME]")
    values = settings.overlay(values, own)
    settings.build(RelaySettings, values, str(user))
    values = settings.overlay(values, options)
    if values["relay"]["source"]:
        tables = {**tables, "stream": {}}
    streams = {}
    for name, table in tables.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise UsageError(f"{user}: a stream's name has letters, digits, '-', '_' and '.', not '{name}'")
        mine = {key: value for key, value in table.items() if isinstance(value, dict)}
        mine = settings.overlay(mine, {"relay": {k: v for k, v in table.items() if k not in mine}})
        where = f"{user} [streams.{name}]" if table else "command line"
        streams[name] = settings.build(RelaySettings, settings.overlay(values, mine), where)
        if not streams[name].relay.source:
            raise UsageError(f"{where}: the stream has no source")
    if not streams:
        raise UsageError("nothing to relay: give a SOURCE, or a --config with [streams.NAME] tables")
    if len({each.restore.of_the_engine for each in streams.values()}) > 1:
        raise UsageError(f"{user}: all streams share one engine: set engine, model and the like in [restore]")
    return streams


def load_settings(user: Path | None, options: dict[str, Any]) -> RestoreSettings:
    """The shipped defaults, a user's file over them, and the command line's options over both.

    Raises:
        UsageError: see `stream.settings.build`.
    """
    values = settings.load_toml(settings.shipped("restore"))
    if user is not None:
        own = settings.load_toml(user)
        values = settings.overlay(values, own)
        settings.build(RestoreSettings, values, str(user))
    return settings.build(RestoreSettings, settings.overlay(values, options), "command line")
