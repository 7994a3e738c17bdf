"""The few calls of the CUDA runtime that an engine needs, each checked; memory that is freed with its owner.

NVIDIA's own bindings rather than torch: 31 MB against gigabytes, and nothing else is wanted of it.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.base import EngineError


class Gpu(NamedTuple):
    """One NVIDIA GPU."""

    device: int
    name: str
    capability: str  # as "9.0"
    memory_bytes: int
    driver: str  # the highest CUDA version that it speaks


def _runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise EngineError("NVIDIA's cuda-bindings are not installed; pip install 'unsmear[tensorrt]'") from error
    return runtime


def call(name: str, *arguments: Any) -> Any:
    """What the runtime's function `name` returns beside its status.

    Raises:
        EngineError: the status is not success.
    """
    status, *results = getattr(_runtime(), name)(*arguments)
    if int(status) != 0:
        raise EngineError(f"CUDA: {name} failed with {status.name}")
    return results[0] if len(results) == 1 else tuple(results)


def gpus() -> list[Gpu]:
    """The GPUs of this machine.

    Raises:
        EngineError: there is none, or its driver is missing or too old.
    """
    try:
        count = call("cudaGetDeviceCount")
    except EngineError as error:
        raise EngineError(f"no NVIDIA GPU can be used ({error})") from error
    version = call("cudaDriverGetVersion")
    driver = f"{version // 1000}.{version % 1000 // 10}"
    found = []
    for index in range(count):
        p = call("cudaGetDeviceProperties", index)
        found.append(Gpu(index, p.name.decode().rstrip("\0"), f"{p.major}.{p.minor}", p.totalGlobalMem, driver))
    if not found:
        raise EngineError("no NVIDIA GPU is there")
    return found


class Stream:
    """Work that the device does in order; a context manager."""

    def __init__(self) -> None:
        # Non-blocking: what others put on the default stream must not break a capture.
        self.handle = call("cudaStreamCreateWithFlags", _runtime().cudaStreamNonBlocking)

    def wait(self) -> None:
        """Until all is done.

        Raises:
            EngineError: some of it failed.
        """
        call("cudaStreamSynchronize", self.handle)

    def capture(self, work: Callable[[], None]) -> Any:
        """What `work` puts on this stream as a graph that is launched with one call."""
        runtime = _runtime()
        call("cudaStreamBeginCapture", self.handle, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            work()
        except EngineError:
            with contextlib.suppress(EngineError):  # the first fault is the one to tell
                call("cudaStreamEndCapture", self.handle)
            raise
        graph = call("cudaStreamEndCapture", self.handle)
        try:
            return call("cudaGraphInstantiate", graph, 0)
        finally:
            call("cudaGraphDestroy", graph)

    def launch(self, graph: Any) -> None:
        """Do a captured graph once more."""
        call("cudaGraphLaunch", graph, self.handle)


class Buffer:
    """Memory of the device, and page-locked memory of the host beside it, of one shape."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.row_bytes = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
        size = shape[0] * self.row_bytes
        self.device = call("cudaMalloc", size)
        self._pinned = call("cudaMallocHost", size)
        memory = (ctypes.c_uint8 * size).from_address(int(self._pinned))
        self.host: NDArray[Any] = np.ndarray(shape, dtype, memoryview(memory))

    def up(self, rows: int, stream: Stream) -> None:
        """The first rows from the host to the device."""
        kind = _runtime().cudaMemcpyKind.cudaMemcpyHostToDevice
        call("cudaMemcpyAsync", self.device, self._pinned, rows * self.row_bytes, kind, stream.handle)

    def down(self, rows: int, stream: Stream) -> None:
        """The first rows from the device to the host."""
        kind = _runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        call("cudaMemcpyAsync", self._pinned, self.device, rows * self.row_bytes, kind, stream.handle)

    def free(self) -> None:
        """Give both memories back; `host` is not to be touched again."""
        call("cudaFree", self.device)
        call("cudaFreeHost", self._pinned)


@contextmanager
def stopwatch(stream: Stream) -> Iterator[Callable[[], float]]:
    """The device's own milliseconds between entering and leaving, told by the function that it yields."""
    begin, end = call("cudaEventCreate"), call("cudaEventCreate")
    call("cudaEventRecord", begin, stream.handle)
    yield lambda: float(call("cudaEventElapsedTime", begin, end))
    call("cudaEventRecord", end, stream.handle)
    call("cudaEventSynchronize", end)  # the two events live as long as the process: a benchmark makes few
