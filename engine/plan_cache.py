"""Compiled models on the disk: each beside a readable file that says for what it was compiled.

A plan is machine code: it is loaded from the user's own folder only, and only if its bytes are those that were written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from engine.base import EngineError

log = logging.getLogger(__name__)
LOCK_SECONDS = 1800  # a build may take minutes; one that takes longer has died with its lock's machine


class Built(NamedTuple):
    """A fresh plan, and what is worth telling of it (parity, seconds, layers)."""

    plan: bytes
    about: dict[str, Any]


class PlanCache:
    """A folder of plans, `$UNSMEAR_CACHE` or the user's cache folder; closed to everybody else."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open or make the folder.

        Raises:
            EngineError: it cannot be made, or others may write into it.
        """
        self.folder = folder or default_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = self.folder.stat()
        except OSError as error:
            raise EngineError(f"cannot make the cache folder {self.folder}: {error.strerror}") from error
        foreign = hasattr(os, "getuid") and status.st_uid != os.getuid()
        if foreign or (os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o022):
            raise EngineError(
                f"others may write into the cache folder {self.folder}, and a plan is code; "
                "chmod 700 it, or set UNSMEAR_CACHE to another"
            )

    def get(self, name: str, key: dict[str, str], build: Callable[[], Built]) -> Built:
        """The plan of that name, built anew where there is none, where it is damaged, or where the key differs.

        Raises:
            EngineError: it cannot be built, or another process has been building it for half an hour.
        """
        import filelock

        path = self.folder / (re.sub(r"[^A-Za-z0-9._-]+", "_", name) + ".plan")
        try:
            with filelock.FileLock(path.with_suffix(".lock"), timeout=LOCK_SECONDS):
                known, why = _read(path, key)
                if known is not None:
                    return known
                log.warning("%s: %s; this happens once", name, why)
                built = build()
                _write(path, key, built)
                return built
        except filelock.Timeout as error:
            raise EngineError(
                f"another process has been building {name} for half an hour; if not, delete {path.with_suffix('.lock')}"
            ) from error
        except OSError as error:
            raise EngineError(f"cannot keep the plan {path}: {error.strerror}") from error


def default_folder() -> Path:
    """Where plans are kept."""
    import platformdirs

    own = os.environ.get("UNSMEAR_CACHE")
    return Path(own) if own else platformdirs.user_cache_path("unsmear") / "plans"


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _read(path: Path, key: dict[str, str]) -> tuple[Built | None, str]:
    """The plan, or why it is to be built."""
    try:
        sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        plan = path.read_bytes()
        kept, sha, about = dict(sidecar["key"]), sidecar["sha256"], dict(sidecar["about"])
    except FileNotFoundError:
        return None, "compiling"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f"the kept plan's description cannot be read ({type(error).__name__}), compiling anew"
    differing = sorted(part for part in key.keys() | kept.keys() if key.get(part) != kept.get(part))
    if differing:
        changes = ", ".join(f"{part} {kept.get(part, 'unknown')} -> {key.get(part, 'none')}" for part in differing)
        return None, f"the kept plan is for another set-up ({changes}), compiling anew"
    if digest(plan) != sha:
        return None, "the kept plan is damaged, compiling anew"
    return Built(plan, about), ""


def _write(path: Path, key: dict[str, str], built: Built) -> None:
    """Plan first, description last: a description without its plan's sum is never true."""
    sidecar = {"key": key, "sha256": digest(built.plan), "about": built.about}
    for target, data in (
        (path, built.plan),
        (path.with_suffix(".json"), (json.dumps(sidecar, indent=2) + "\n").encode()),
    ):
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=target.name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(target)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
