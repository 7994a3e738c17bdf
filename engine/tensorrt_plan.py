"""An ONNX model into a TensorRT plan, by `tensorrt` or `tensorrt_rtx`: the same API under two names.

Networks are strongly typed: a layer computes in the types that the ONNX file gives it, so half precision and what stays
in FP32 are decided there, by `unsmear export`. TensorRT for RTX compiles without a GPU, for a capability that is named.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any

from engine.base import EngineError, ModelSpec
from engine.plan_cache import Built

log = logging.getLogger(__name__)
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
MAX_BATCH = 32


def load(flavour: str) -> Any:
    """The vendor's module.

    Raises:
        EngineError: it is not installed.
    """
    try:
        return importlib.import_module(MODULES[flavour])
    except ImportError as error:
        raise EngineError(f"the engine {flavour} is not installed; pip install 'unsmear[{flavour}]'") from error
    except OSError as error:
        raise EngineError(f"the libraries of {flavour} cannot be loaded: {error}") from error


def logger(trt: Any) -> Any:
    """TensorRT's messages in our log: its errors become ours, the rest is for `-v`."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message)
            log.debug("%s: %s", trt.__name__, message)

    return Logger()


def build(trt: Any, model: Path, max_batch: int = MAX_BATCH, capability: str | None = None) -> Built:
    """The plan of an exported model for batches of 1 to `max_batch`, and what is in it.

    `capability` ("8.9") names the GPU to compile for where it is not the one here; only TensorRT for RTX can do that.

    Raises:
        EngineError: the file cannot be read or compiled.
    """
    begin = time.perf_counter()
    messages = logger(trt)
    try:
        builder = trt.Builder(messages)
    except TypeError as error:  # what its bindings make of a null pointer
        raise EngineError(f"{trt.__name__} cannot start: {'; '.join(messages.errors[:1]) or error}") from error
    # From version 11 on, networks are strongly typed without being asked.
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, messages)
    try:
        data = model.read_bytes()
    except OSError as error:
        raise EngineError(f"model weights missing: {model}: {error.strerror}") from error
    if not parser.parse(data):
        raise EngineError(f"{trt.__name__} cannot read {model.name}: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    monitor = progress_monitor(trt, model.stem)
    config.progress_monitor = monitor
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # FP32 means it: the Fourier products stay in it for their accuracy
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # or a CUDA graph could not be captured
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        given = network.get_input(index)
        _, *one = given.shape
        profile.set_shape(given.name, (1, *one), (max(1, max_batch // 2), *one), (max_batch, *one))
    config.add_optimization_profile(profile)
    if hasattr(trt, "ComputeCapability"):
        _target(trt, config, capability)
    elif capability is not None:
        raise EngineError(f"{trt.__name__} compiles only for the GPU that is here, not for {capability}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"{trt.__name__} cannot compile {model.name}: {messages.errors[0] if messages.errors else ''}"
        )
    about = {"seconds": round(time.perf_counter() - begin, 1), **describe(trt, network, max_batch)}
    return Built(bytes(plan), about)


def describe(trt: Any, network: Any, max_batch: int) -> dict[str, Any]:
    """Inputs, outputs and how many convolutions and matrix products compute in which type."""
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    kinds = {trt.LayerType.CONVOLUTION: "convolution", trt.LayerType.MATRIX_MULTIPLY: "matrix product"}
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    counts = Counter(f"{kinds[layer.type]} {layer.get_output(0).dtype.name}" for layer in layers if layer.type in kinds)
    return {
        "tensors": {t.name: f"{t.dtype.name} {tuple(t.shape)}" for t in tensors},
        "layers": dict(counts),
        "batch": [1, max_batch],
    }


def spec_of(model: Path) -> ModelSpec:
    """What an ONNX file says of itself, read by ONNX Runtime without making a session of it.

    Raises:
        EngineError: it is none of ours.
    """
    from engine.onnxruntime_cpu import OnnxRuntimeEngine

    with OnnxRuntimeEngine(model) as engine:
        return engine.spec


def progress_monitor(trt: Any, name: str) -> Any:
    """TensorRT's phases as a progress bar on stderr."""
    from tqdm import tqdm

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.bars: dict[str, Any] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.bars[phase] = tqdm(total=steps, desc=f"{name}: {phase}", leave=False, delay=1)

        def step_complete(self, phase: str, step: int) -> bool:
            self.bars[phase].update(step + 1 - self.bars[phase].n)
            return True

        def phase_finish(self, phase: str) -> None:
            self.bars.pop(phase).close()

    return Monitor()


def _target(trt: Any, config: Any, capability: str | None) -> None:
    name = "CURRENT" if capability is None else "SM" + capability.replace(".", "")
    if not hasattr(trt.ComputeCapability, name):
        known = sorted(n[2:] for n in dir(trt.ComputeCapability) if n.startswith("SM"))
        known = [f"{n[:-1]}.{n[-1]}" for n in known]
        raise EngineError(f"{trt.__name__} does not compile for {capability}; it knows {', '.join(known)}")
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(getattr(trt.ComputeCapability, name), 0):
        raise EngineError(f"{trt.__name__} refuses to compile for {name}")
