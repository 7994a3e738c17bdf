"""TOML into frozen, typed settings. An unknown key or a value out of range is refused at load.

Defaults stand in the TOML files of `configs/` and nowhere else: a user's file is laid over the shipped one.
"""

from __future__ import annotations

import difflib
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from stream.errors import UsageError

T = TypeVar("T", bound=msgspec.Struct)


def load_toml(path: Path) -> dict[str, Any]:
    """Parse one TOML file.

    Raises:
        UsageError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


def shipped(name: str) -> Path:
    """Path of a configuration that comes inside the package, such as `restore`."""
    return Path(str(files("configs") / f"{name}.toml"))


def overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, table by table; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = overlay(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def build(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Typed settings from parsed TOML; `where` names the file in errors.

    Raises:
        UsageError: an unknown key (the nearest valid one is named) or a value of the wrong type or out of range.
    """
    _refuse_unknown(kind, values, where, "")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {error}") from error


def _refuse_unknown(kind: type[msgspec.Struct], values: dict[str, Any], where: str, prefix: str) -> None:
    types = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in values.items():
        if key not in types:
            near = difflib.get_close_matches(key, types, n=1, cutoff=0.5)
            hint = f"did you mean '{prefix}{near[0]}'?" if near else f"valid here: {', '.join(types)}"
            raise UsageError(f"{where}: unknown key '{prefix}{key}'; {hint}")
        inner = types[key]
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, dict):
            _refuse_unknown(inner, value, where, f"{prefix}{key}.")
