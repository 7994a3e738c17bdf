"""TensorRT on an NVIDIA GPU: half precision, two batches in flight, no allocation and one launch a batch."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine import half_precision, tensorrt_plan
from engine.base import CROP_HEIGHT, CROP_WIDTH, KERNEL_SIDE, Engine, EngineError, ModelSpec, Restored
from engine.cuda import Buffer, Gpu, Stream, call, gpus, stopwatch
from engine.parity import BOUNDS, measure
from engine.plan_cache import Built, PlanCache, digest

log = logging.getLogger(__name__)


class TensorRtEngine(Engine):
    """A plan from the cache, compiled first where there is none.

    Two slots take turns: while one computes, the other's crops are copied. In each, every size of batch (1, 2, 4, ...)
    has a CUDA graph of its own: copy, compute, copy.
    """

    def __init__(
        self,
        model: Path,
        flavour: str = "tensorrt",
        device: int = 0,
        max_batch: int = tensorrt_plan.MAX_BATCH,
        cache: PlanCache | None = None,
    ) -> None:
        """Load `model` on a GPU.

        Raises:
            EngineError: package, GPU or file is missing, or the plan fails the parity gate in FP16 and in FP32.
        """
        trt = tensorrt_plan.load(flavour)
        gpu = _gpu(device)
        call("cudaSetDevice", gpu.device)
        self.spec = tensorrt_plan.spec_of(model)
        self._trt, self._max_batch = trt, max_batch
        self._slots: list[_Slot] = []
        self._gpu = gpu
        key = plan_key(trt, flavour, model, gpu, max_batch)
        name = f"{self.spec.name}-{digest(str(model.resolve()).encode())[:8]}-{flavour}-{max_batch}-{gpu.name}"
        try:
            built = (cache or PlanCache()).get(name, key, partial(self._build, model))
            if not self._slots:
                self._load(built.plan)
        except BaseException:
            self.close()
            raise
        self.about = {"engine": flavour, "version": trt.__version__, "device": gpu.name, **built.about}

    def run(self, crops: NDArray[np.uint8], known: NDArray[np.float32] | None = None) -> Restored:
        """See `Engine.run`."""
        call("cudaSetDevice", self._gpu.device)  # of this thread
        restored = np.empty((len(crops), CROP_HEIGHT, CROP_WIDTH, 3), np.uint8)
        kernels = np.empty((len(crops), KERNEL_SIDE, KERNEL_SIDE), np.float32) if self.spec.kernels else None
        given = self.spec.feed(crops, known)
        for turn, start in enumerate(range(0, len(crops), self._max_batch)):
            slot = self._slots[turn % 2]
            slot.collect()
            part = slice(start, start + self._max_batch)
            mine = {name: values[part] for name, values in given.items()}
            slot.begin(mine, restored[part], None if kernels is None else kernels[part])
        for slot in self._slots:
            slot.collect()
        return Restored(restored, kernels)

    def compute_ms(self, batch: int) -> float | None:
        """See `Engine.compute_ms`."""
        if batch > self._max_batch or batch & (batch - 1):
            return None
        call("cudaSetDevice", self._gpu.device)
        slot = self._slots[0]
        slot.compute(batch)
        with stopwatch(slot.stream) as elapsed_ms:
            for _ in range(20):
                slot.compute(batch)
        return elapsed_ms() / 20

    def close(self) -> None:
        """See `Engine.close`."""
        slots, self._slots = self._slots, []
        for slot in slots:
            slot.free()

    def _build(self, model: Path) -> Built:
        """Half precision where it is near enough to FP32, else FP32."""
        for precision, path in (("float16", half_precision(model)), ("float32", model)):
            if not path.is_file():
                log.warning("%s is missing; 'unsmear export' writes it. Compiling in float32", path.name)
                continue
            built = tensorrt_plan.build(self._trt, path, self._max_batch)
            try:
                self._load(built.plan)
                found = measure(self, model, (8, 1, 5, self._max_batch + 1))
            except EngineError as error:
                log.warning("%s in %s does not run: %s", model.name, precision, error)
            else:
                if found.passes(BOUNDS[precision]):
                    return Built(built.plan, {"precision": precision, "parity": found._asdict(), **built.about})
                log.warning("%s in %s is too far from FP32 (%s)", model.name, precision, found)
            self.close()
        raise EngineError(f"TensorRT does not compute {model.name} rightly on this GPU; use another engine")

    def _load(self, plan: bytes) -> None:
        self._log = tensorrt_plan.logger(self._trt)
        self._runtime = self._trt.Runtime(self._log)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(f"TensorRT cannot load the plan: {'; '.join(self._log.errors[:1])}")
        self._slots = [_Slot(self._trt, engine, self.spec, self._max_batch) for _ in "12"]


class _Graphs(NamedTuple):
    """What one size of batch needs."""

    whole: Any  # copy, compute, copy
    compute: Any  # without the copies, for measurements
    context: Any  # which both of them use


class _Slot:
    """One batch in flight: its stream, its memory, its graphs."""

    def __init__(self, trt: Any, engine: Any, spec: ModelSpec, max_batch: int) -> None:
        self._trt, self._engine, self._max_batch = trt, engine, max_batch
        self.stream = Stream()
        self._given = {"crops": Buffer((max_batch, *spec.input_shape), np.uint8)}
        self._results = {"restored": Buffer((max_batch, CROP_HEIGHT, CROP_WIDTH, 3), np.uint8)}
        if spec.known:
            self._given["known"] = Buffer((max_batch, KERNEL_SIDE, KERNEL_SIDE), np.float32)
        if spec.kernels:
            self._results["kernels"] = Buffer((max_batch, KERNEL_SIDE, KERNEL_SIDE), np.float32)
        # Contexts of one slot never run at once: they share their scratch memory.
        self._scratch_bytes = max(1, int(engine.device_memory_size_v2))
        self._scratch = call("cudaMalloc", self._scratch_bytes)
        self._graphs: dict[int, _Graphs] = {}
        self._pending: Callable[[], None] | None = None

    def begin(
        self, given: dict[str, NDArray[Any]], restored: NDArray[np.uint8], kernels: NDArray[np.float32] | None
    ) -> None:
        """Start a batch, its inputs by name, whose results `collect` puts into the other arrays."""
        count = len(restored)
        for name, values in given.items():
            self._given[name].host[:count] = values
        self.stream.launch(self._graph(min(1 << (count - 1).bit_length(), self._max_batch)).whole)

        def finish() -> None:
            self.stream.wait()
            restored[:] = self._results["restored"].host[:count]
            if kernels is not None:
                kernels[:] = self._results["kernels"].host[:count]

        self._pending = finish

    def collect(self) -> None:
        """Wait for the batch in flight, if there is one."""
        if self._pending is not None:
            finish, self._pending = self._pending, None
            finish()

    def compute(self, batch: int) -> None:
        """One batch without its copies, for measurements."""
        self.stream.launch(self._graph(batch).compute)

    def free(self) -> None:
        """Give everything back; what is in flight is waited for."""
        self._pending = None
        graphs, self._graphs = self._graphs, {}
        steps: list[Callable[[], object]] = [self.stream.wait]
        steps += [
            partial(call, "cudaGraphExecDestroy", graph) for g in graphs.values() for graph in (g.whole, g.compute)
        ]
        steps += [buffer.free for buffer in (*self._given.values(), *self._results.values())]
        steps += [partial(call, "cudaFree", self._scratch), partial(call, "cudaStreamDestroy", self.stream.handle)]
        for step in steps:  # after a fault of the device each of them may fail, and the others are tried still
            with contextlib.suppress(EngineError):
                step()

    def _graph(self, batch: int) -> _Graphs:
        """The captured graphs of a size of batch. A context serves one shape only, as a graph keeps its addresses."""
        if batch not in self._graphs:
            context = _context(self._trt, self._engine)
            context.set_device_memory(int(self._scratch), self._scratch_bytes)
            taken = [
                context.set_input_shape(name, (batch, *buffer.host.shape[1:])) for name, buffer in self._given.items()
            ]
            taken += [
                context.set_tensor_address(name, int(buffer.device))
                for name, buffer in (*self._given.items(), *self._results.items())
            ]
            if not all(taken):
                raise EngineError(f"TensorRT refuses the shapes of a batch of {batch}")
            compute = partial(self._enqueue, context)
            compute()  # once outside a capture: TensorRT finishes its own set-up
            self.stream.wait()

            def whole() -> None:
                for buffer in self._given.values():
                    buffer.up(batch, self.stream)
                compute()
                for buffer in self._results.values():
                    buffer.down(batch, self.stream)

            self._graphs[batch] = _Graphs(self.stream.capture(whole), self.stream.capture(compute), context)
        return self._graphs[batch]

    def _enqueue(self, context: Any) -> None:
        if not context.execute_async_v3(int(self.stream.handle)):
            raise EngineError("TensorRT refused a batch")


def _context(trt: Any, engine: Any) -> Any:
    """An execution context that brings no memory of its own.

    TensorRT for RTX else compiles kernels for a shape in the background and runs slower ones until then: a graph that
    is captured at once would keep those.
    """
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        context = engine.create_execution_context(config)
    else:
        context = engine.create_execution_context(strategy)
    if context is None:
        raise EngineError("TensorRT cannot make an execution context")
    return context


def plan_key(trt: Any, flavour: str, model: Path, gpu: Gpu, max_batch: int) -> dict[str, str]:
    """All that a plan depends on."""
    try:
        data = model.read_bytes()
        half = half_precision(model).read_bytes() if half_precision(model).is_file() else b""
    except OSError as error:
        raise EngineError(f"model weights missing: {model}: {error.strerror}") from error
    return {
        "onnx": digest(data),
        "onnx in float16": digest(half),
        "flavour": flavour,
        "version": trt.__version__,
        "gpu": gpu.name,
        "capability": gpu.capability,
        "driver": gpu.driver,
        "batch": f"1 to {max_batch}",
        "flags": "strongly typed, no TF32, user allocation",
    }


def _gpu(device: int) -> Gpu:
    found = gpus()
    if device >= len(found):
        names = ", ".join(f"cuda:{gpu.device} {gpu.name}" for gpu in found)
        raise EngineError(f"there is no cuda:{device}; there are: {names}")
    return found[device]
