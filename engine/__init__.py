"""Crops in, crops out. `open_engine(name, model)` is the way in; a new engine is one new file and one line here."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from engine.base import Engine, EngineError, EngineUnknown, ModelSpec, Restored

__all__ = ["ENGINES", "Engine", "EngineError", "EngineUnknown", "ModelSpec", "Restored", "find_model", "open_engine"]

WEIGHTS = Path(__file__).parent / "weights"


def _onnxruntime(model: Path, threads: int) -> Engine:
    from engine.onnxruntime_cpu import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, threads)


def _echo(model: Path, threads: int) -> Engine:
    from engine.echo import EchoEngine

    return EchoEngine()


ENGINES: dict[str, Callable[[Path, int], Engine]] = {"onnxruntime": _onnxruntime, "echo": _echo}


def find_model(model: str) -> Path:
    """The file of a model: a shipped one by its name, or a path that ends in .onnx.

    Raises:
        EngineUnknown: neither.
    """
    if model.endswith(".onnx"):
        return Path(model)
    path = WEIGHTS / f"{model}.onnx"
    if not path.is_file():
        names = sorted(p.stem for p in WEIGHTS.glob("*.onnx"))
        raise EngineUnknown(
            f"model weights missing: no shipped model is called '{model}' "
            f"(shipped: {', '.join(names) or 'none'}; or give the path of an .onnx file)"
        )
    return path


def open_engine(name: str, model: str, threads: int = 0) -> Engine:
    """The engine `name` with `model` loaded.

    Raises:
        EngineUnknown: no such engine or model.
        EngineError: its package, device or weights are missing.
    """
    if name not in ENGINES:
        near = difflib.get_close_matches(name, ENGINES, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(ENGINES)}"
        raise EngineUnknown(f"unknown engine '{name}'; {hint}")
    return ENGINES[name](find_model(model), threads)
