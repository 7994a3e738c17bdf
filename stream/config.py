"""The settings of `unsmear restore`, as `configs/restore.toml` and a user's file say them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from stream import settings
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


class RestoreSettings(Struct, frozen=True, kw_only=True):
    """All tables."""

    faces: FaceSettings
    restore: EngineSettings
    encoder: EncoderSettings


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
