"""A program that torch exported (.pt2), on a GPU or the CPU: for who has torch anyway."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base import Engine, EngineError, ModelSpec, Restored


class TorchEngine(Engine):
    """`unsmear export ema.pt -o NAME.onnx --torch` writes NAME.pt2 beside; the graph is that of the ONNX file."""

    def __init__(self, model: Path, threads: int = 0) -> None:
        """Load NAME.pt2 of NAME.onnx.

        Raises:
            EngineError: torch or the file is missing.
        """
        try:
            import torch
        except ImportError as error:
            raise EngineError("the engine torch is not installed; pip install torch") from error
        path = model.with_suffix(".pt2")
        if not path.is_file():
            raise EngineError(f"{path} does not exist; 'unsmear export CHECKPOINT -o {model.name} --torch' writes it")
        if threads:
            torch.set_num_threads(threads)
        extra = {"metadata.json": ""}
        try:
            program = torch.export.load(path, extra_files=extra)
        except Exception as error:  # torch's own errors have no common base
            raise EngineError(f"torch cannot load {path}: {str(error).splitlines()[0]}") from error
        self.spec = ModelSpec.from_metadata(json.loads(extra["metadata.json"]), str(path))
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._module: Any = program.module().to(self._device)
        self._torch = torch
        name = torch.cuda.get_device_name() if self._device.type == "cuda" else "CPU"
        self.about = {"engine": "torch", "version": torch.__version__, "device": name, "precision": "float32"}

    def run(self, crops: NDArray[np.uint8], known: NDArray[np.float32] | None = None) -> Restored:
        """See `Engine.run`."""
        try:
            with self._torch.inference_mode():
                given = self.spec.feed(np.ascontiguousarray(crops), known)
                out = self._module(**{name: self._torch.from_numpy(v).to(self._device) for name, v in given.items()})
        except RuntimeError as error:
            raise EngineError(f"torch failed: {str(error).splitlines()[0]}") from error
        restored, *kernels = (part.cpu().numpy() for part in out)
        return Restored(restored, kernels[0] if kernels else None)

    def close(self) -> None:
        """See `Engine.close`."""
        self._module = None


def gpu_matrix_rate() -> float | None:
    """GMAC/s of large products in half precision; None without torch for CUDA."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    for repeats in (3, 20):  # the first ones warm up
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(repeats):
            square @ square
        torch.cuda.synchronize()
    return round(20 * 8192**3 / (time.perf_counter() - begin) / 1e9, 1)
