"""OpenVINO on the CPU: faster than ONNX Runtime, in bfloat16 where the processor multiplies it."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base import Engine, EngineError, ModelSpec, Restored
from engine.parity import BOUNDS, measure
from engine.plan_cache import Built, PlanCache, digest

log = logging.getLogger(__name__)
PRECISIONS = {"bfloat16": "bf16", "float32": "f32"}


class OpenVinoEngine(Engine):
    """An ONNX model, compiled once for this processor and kept."""

    def __init__(self, model: Path, threads: int = 0, cache: PlanCache | None = None) -> None:
        """Load `model`; `threads` of the CPU work on one batch, 0 for half of the cores.

        Raises:
            EngineError: the package or the file is missing, or no precision passes the parity gate.
        """
        try:
            import openvino
        except ImportError as error:
            raise EngineError("the engine openvino is not installed; pip install 'unsmear[openvino]'") from error
        if not model.is_file():
            raise EngineError(f"model weights missing: {model} does not exist")
        self._core = openvino.Core()
        self._options = {
            "INFERENCE_NUM_THREADS": threads or max(1, (os.cpu_count() or 1) // 2),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # the other cores decode and encode
        }
        data = model.read_bytes()
        try:
            onnx = self._core.read_model(data)
            self.spec = ModelSpec.from_metadata(_metadata(onnx), str(model))
            capable = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot load {model}: {_first_line(error)}") from error
        key = {
            "onnx": digest(data),
            "openvino": openvino.get_version(),
            "processor": self._core.get_property("CPU", "FULL_DEVICE_NAME"),
            "capabilities": " ".join(sorted(capable)),
        }

        def build() -> Built:
            for precision in ("bfloat16", "float32") if "BF16" in capable else ("float32",):
                begin = time.perf_counter()
                self._compiled = self._compile(data, precision)
                found = measure(self, model)
                if found.passes(BOUNDS[precision]):
                    blob = self._compiled.export_model()
                    seconds = round(time.perf_counter() - begin, 2)
                    about = {"precision": precision, "parity": found._asdict(), "seconds": seconds}
                    return Built(blob.getvalue() if isinstance(blob, BytesIO) else bytes(blob), about)
                log.warning("%s in %s is too far from FP32 (%s)", model.name, precision, found)
            raise EngineError(f"OpenVINO does not compute {model.name} rightly on this processor; use onnxruntime")

        name = f"{self.spec.name}-{digest(str(model.resolve()).encode())[:8]}-openvino"
        try:
            built = (cache or PlanCache()).get(name, key, build)
            self._compiled = self._core.import_model(built.plan, "CPU", self._options)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot compile {model}: {_first_line(error)}") from error
        self.about = {"engine": "openvino", "version": openvino.get_version().split("-")[0], **built.about}

    def run(self, crops: NDArray[np.uint8], known: NDArray[np.float32] | None = None) -> Restored:
        """See `Engine.run`."""
        try:
            out = self._compiled(self.spec.feed(crops, known), share_inputs=True)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {_first_line(error)}") from error
        return Restored(out[0], out[1] if self.spec.kernels else None)

    def close(self) -> None:
        """See `Engine.close`."""
        self._compiled = None

    def _compile(self, data: bytes, precision: str) -> Any:
        model = self._core.read_model(data)
        if precision != "float32":
            model = self._with_islands(model)
        return self._core.compile_model(
            model, "CPU", {**self._options, "INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
        )

    def _with_islands(self, model: Any) -> Any:
        """The model with all that is joined to a matrix product or an output, short of a convolution, kept in FP32.

        These are the Fourier products, the quotients between them and the last sums: the work is in the convolutions.
        """
        import openvino

        waiting = [op for op in model.get_ordered_ops() if op.get_type_name() in ("MatMul", "Result")]
        seen = set()
        while waiting:
            op = waiting.pop()
            if op.get_friendly_name() in seen:
                continue
            seen.add(op.get_friendly_name())
            op.get_rt_info()["precise_0"] = ""
            near = [port.get_source_output().get_node() for port in op.inputs()]
            near += [target.get_node() for output in op.outputs() for target in output.get_target_inputs()]
            waiting += [n for n in near if n.get_type_name() not in ("Convolution", "Constant", "Parameter", "Result")]
        with tempfile.TemporaryDirectory() as folder:
            # Only a model that was written and read again has the mark as the attribute that the compiler heeds.
            openvino.serialize(model, f"{folder}/model.xml", f"{folder}/model.bin")
            weights = Path(folder, "model.bin").read_bytes()
            return self._core.read_model(Path(folder, "model.xml").read_bytes(), weights)


def _metadata(model: Any) -> dict[str, str]:
    """The ONNX file's own metadata, which OpenVINO keeps under `framework`."""
    try:
        return {name: str(value.astype(str)) for name, value in model.get_rt_info(["framework"]).astype(dict).items()}
    except RuntimeError:
        return {}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
