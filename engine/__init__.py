"""Crops in, crops out. `open_engine(name, model)` is the way in; a new engine is one new file and one line here."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engine.base import Engine, EngineError, EngineUnknown, ModelSpec, Restored, unknown

if TYPE_CHECKING:
    from engine.batching import SharedEngine
    from engine.cuda import Gpu

__all__ = [
    "AUTO",
    "ENGINES",
    "Engine",
    "EngineError",
    "EngineUnknown",
    "ModelSpec",
    "Options",
    "Restored",
    "find_model",
    "found_gpus",
    "half_precision",
    "open_engine",
    "open_shared",
    "plan_folder",
    "shipped_models",
    "unknown",
]

log = logging.getLogger(__name__)
WEIGHTS = Path(__file__).parent / "weights"


class Options(NamedTuple):
    """What engines may be told; each heeds what concerns it."""

    threads: int = 0  # of the CPU, for one batch; 0: half of the cores
    device: int = 0  # which GPU
    max_batch: int = 32  # crops at once that a GPU's plan is made for


DEFAULTS = Options()


def _onnxruntime(model: Path, options: Options) -> Engine:
    from engine.onnxruntime_cpu import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, options.threads)


def _openvino(model: Path, options: Options) -> Engine:
    from engine.openvino_cpu import OpenVinoEngine

    return OpenVinoEngine(model, options.threads)


def _tensorrt(model: Path, options: Options) -> Engine:
    from engine.tensorrt_gpu import TensorRtEngine

    return TensorRtEngine(model, "tensorrt", options.device, options.max_batch)


def _tensorrt_rtx(model: Path, options: Options) -> Engine:
    from engine.tensorrt_gpu import TensorRtEngine

    return TensorRtEngine(model, "tensorrt-rtx", options.device, options.max_batch)


def _torch(model: Path, options: Options) -> Engine:
    from engine.torch_any import TorchEngine

    return TorchEngine(model, options.threads)


def _echo(model: Path, options: Options) -> Engine:
    from engine.echo import EchoEngine

    return EchoEngine()


ENGINES: dict[str, Callable[[Path, Options], Engine]] = {
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
    "torch": _torch,
    "echo": _echo,
}
AUTO = ("tensorrt", "tensorrt-rtx", "openvino", "onnxruntime")  # fastest first


def half_precision(model: Path) -> Path:
    """Where a model's half-precision twin lies."""
    return model.with_suffix(".fp16.onnx")


def shipped_models() -> list[str]:
    """The names of the models in the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.onnx") if not path.stem.endswith(".fp16"))


def find_model(model: str) -> Path:
    """The file of a model: a shipped one by its name, or a path that ends in .onnx.

    Raises:
        EngineUnknown: neither.
    """
    if model.endswith(".onnx"):
        return Path(model)
    path = WEIGHTS / f"{model}.onnx"
    if not path.is_file():
        names = shipped_models()
        raise EngineUnknown(
            f"model weights missing: no shipped model is called '{model}' "
            f"(shipped: {', '.join(names) or 'none'}; or give the path of an .onnx file)"
        )
    return path


def open_engine(name: str, model: str, options: Options = DEFAULTS) -> Engine:
    """The engine `name` with `model` loaded; `auto` takes the fastest that runs here, and its `about` says why.

    Raises:
        EngineUnknown: no such engine or model.
        EngineError: its package, device or weights are missing.
    """
    if name == "auto":
        return _first_that_runs(find_model(model), options)
    if name not in ENGINES:
        near = difflib.get_close_matches(name, ["auto", *ENGINES], n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: auto, {', '.join(ENGINES)}"
        raise EngineUnknown(f"unknown engine '{name}'; {hint}")
    return ENGINES[name](find_model(model), options)


def open_shared(
    name: str,
    model: str,
    batch: int,
    options: Options = DEFAULTS,
    patience_s: float = 0.0,
    retry_s: float | None = None,
    limit_s: float | None = None,
) -> SharedEngine:
    """One engine for all streams of a process, each with a `seat()`; see `SharedEngine` and `open_engine`."""
    from engine.batching import SharedEngine

    return SharedEngine(lambda: open_engine(name, model, options), batch, patience_s, retry_s, limit_s)


def found_gpus() -> list[Gpu]:
    """The NVIDIA GPUs of this machine.

    Raises:
        EngineError: there is none that can be used, or the extra for them is not installed.
    """
    from engine.cuda import gpus

    return gpus()


def plan_folder() -> Path:
    """Where compiled models are kept."""
    from engine.plan_cache import default_folder

    return default_folder()


def _first_that_runs(model: Path, options: Options) -> Engine:
    passed_over: list[str] = []
    for name in AUTO[:-1]:
        try:
            engine = ENGINES[name](model, options)
        except EngineError as error:
            log.debug("auto: %s", error)
            passed_over.append(f"{name}: {error}")
        else:
            break
    else:  # what the last one lacks, nobody has
        engine = ENGINES[AUTO[-1]](model, options)
    engine.about = {**engine.about, "passed_over": passed_over}
    return engine
