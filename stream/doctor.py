"""What this machine has for the program, and what could be installed."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

from engine import AUTO, EngineError, find_model, open_engine, plan_folder, shipped_models
from stream.errors import UnsmearError

ENCODERS = ("libx264", "libx265", "libsvtav1", "ffv1", "h264_nvenc", "hevc_nvenc", "h264_vaapi", "h264_videotoolbox")


def examine() -> dict[str, dict[str, str]]:
    """Sections of name and finding; what is missing begins with a dash and names what to install."""
    return {
        "program": {
            "unsmear": version("unsmear"),
            "python": platform.python_version(),
            "system": f"{platform.platform()}, {os.cpu_count()} cores",
        },
        "engines": _engines(),
        "GPUs": _gpus(),
        "models": _models(),
        "faces": _faces(),
        "encoders": _encoders(),
        "cache": _cache(),
    }


def _engines() -> dict[str, str]:
    lines: dict[str, str] = {}
    for name in AUTO:
        try:
            with open_engine(name, "fast") as engine:
                about = engine.about
        except EngineError as error:
            lines[name] = f"- {error}"
        else:
            told = [str(about[key]) for key in ("version", "precision", "device") if key in about]
            if "parity" in about:
                told.append(f"(off by {about['parity']['mean']} of 255 in the mean)")
            lines[name] = " ".join(told)
    return lines


def _gpus() -> dict[str, str]:
    from engine import found_gpus

    try:
        found = found_gpus()
    except EngineError as error:
        return {"NVIDIA": f"- {error}"}
    return {
        f"cuda:{gpu.device}": f"{gpu.name}, capability {gpu.capability}, {gpu.memory_bytes / 2**30:.0f} GiB"
        for gpu in found
    }


def _models() -> dict[str, str]:
    lines = {}
    for name in shipped_models():
        with open_engine("onnxruntime", name) as engine:
            size = find_model(name).stat().st_size / 1e6
            lines[name] = f"version {engine.spec.version}, margin {engine.spec.margin} px, {size:.1f} MB"
    return lines


def _faces() -> dict[str, str]:
    from stream.faces.finder import open_finder

    try:
        open_finder("mediapipe").close()
    except UnsmearError as error:
        return {"mediapipe": f"- {error}"}
    return {"mediapipe": version("mediapipe")}


def _encoders() -> dict[str, str]:
    from stream.media.encode import has_encoder

    lines = {name: "yes" for name in ENCODERS if has_encoder(name)}
    missing = [name for name in ENCODERS if name not in lines]
    return {"there": " ".join(lines), "not there": " ".join(missing) or "none of those looked for"}


def _cache() -> dict[str, str]:
    folder = plan_folder()
    sizes = [path.stat().st_size for path in folder.glob("*.plan")] if folder.is_dir() else []
    return {"plans": f"{len(sizes)} in {folder}, {sum(sizes) / 1e6:.0f} MB"}
