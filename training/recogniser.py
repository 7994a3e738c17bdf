"""Face recognisers behind one verb, named by their file: aligned crops in, embeddings of length 1 out.

The one that verifies must not be the one whose embedding a loss was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stream.errors import InputError, UsageError


class Recogniser(Protocol):
    """Embeds crops."""

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Crops (N, 112, 96, 3) RGB to embeddings (N, D), each of length 1."""
        ...


class OnnxRecogniser:
    """An ONNX network with one input (1, 3, 112, 112), RGB, (v - 127.5) / 128, and one output (1, D)."""

    def __init__(self, path: Path) -> None:
        import onnxruntime as ort

        self._session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Recogniser.embed`."""
        x = ((square(crops).astype(np.float32) - 127.5) / 128).transpose(0, 3, 1, 2)
        return unit(np.concatenate([self._session.run(None, {self._input: one[None]})[0] for one in x]))


class NcnnRecogniser:
    """An ncnn network, `.param` with its `.bin` beside it: blob `data` 3x112x112 RGB 0..255 to blob `fc1`."""

    def __init__(self, path: Path) -> None:
        try:
            import ncnn
        except ImportError as error:
            raise UsageError(f"{path} needs ncnn: pip install ncnn") from error
        self._ncnn, self._net = ncnn, ncnn.Net()
        self._net.opt.num_threads = 1
        self._net.load_param(str(path))
        self._net.load_model(str(path.with_suffix(".bin")))

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Recogniser.embed`."""
        found = []
        for one in square(crops):
            planes = np.ascontiguousarray(one.transpose(2, 0, 1), np.float32)  # must live until the clone is made
            extractor = self._net.create_extractor()
            extractor.input("data", self._ncnn.Mat(planes).clone())
            found.append(np.array(extractor.extract("fc1")[1]))
        return unit(np.stack(found))


def open_recogniser(path: Path) -> Recogniser:
    """The recogniser in a file: `.onnx`, or `.param` for ncnn.

    Raises:
        InputError: no such file, or of another kind.
    """
    if not path.is_file():
        raise InputError(f"there is no recogniser at {path}")
    if path.suffix == ".onnx":
        return OnnxRecogniser(path)
    if path.suffix == ".param":
        return NcnnRecogniser(path)
    raise InputError(f"{path} is no recogniser: an .onnx or a .param file is wanted")


def square(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, 112, 96, 3) to (N, 112, 112, 3), the border repeated left and right."""
    return np.pad(crops, ((0, 0), (0, 0), (8, 8), (0, 0)), mode="edge")


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
