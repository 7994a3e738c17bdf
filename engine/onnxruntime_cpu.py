"""The embedded default: ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.base import Engine, EngineError, ModelSpec, Restored


class OnnxRuntimeEngine(Engine):
    """An ONNX model in an ONNX Runtime session. Scaling, clamping and rounding are inside the graph."""

    def __init__(self, model: Path, threads: int = 0) -> None:
        """Load `model`; `threads` of the CPU work on one batch, 0 for half of the cores.

        Raises:
            EngineError: the file is missing or no model.
        """
        import onnxruntime as ort

        if not model.is_file():
            raise EngineError(f"model weights missing: {model} does not exist")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or max(1, (os.cpu_count() or 1) // 2)
        # A spinning worker would take the core that decodes and encodes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise EngineError(f"ONNX Runtime cannot load {model}: {str(error).splitlines()[0]}") from error
        self.about = {"engine": "onnxruntime", "version": ort.__version__, "precision": "float32"}
        self.spec = ModelSpec.from_metadata(self._session.get_modelmeta().custom_metadata_map, str(model))

    def run(self, crops: NDArray[np.uint8], known: NDArray[np.float32] | None = None) -> Restored:
        """See `Engine.run`."""
        try:
            out = self._session.run(None, self.spec.feed(crops, known))
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {str(error).splitlines()[0]}") from error
        return Restored(out[0], out[1] if self.spec.kernels else None)

    def close(self) -> None:
        """See `Engine.close`."""
        self._session = None
