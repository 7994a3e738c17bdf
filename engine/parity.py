"""The gate that a compiled model must pass: the same crops through it and through the FP32 model in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.base import Engine, EngineError, ModelSpec

CROPS = 8


class Bound(NamedTuple):
    """How far a precision may be off, in 8-bit steps."""

    mean: float
    largest: int


BOUNDS = {
    "float32": Bound(0.05, 1),
    "float16": Bound(1.0, 3),  # 11 bits of mantissa
    "bfloat16": Bound(1.0, 8),  # 8 bits
}


class Difference(NamedTuple):
    """What the gate measured."""

    mean: float
    largest: int
    finite: bool

    def passes(self, bound: Bound) -> bool:
        """Within the bound, and every number one."""
        return self.finite and self.mean <= bound.mean and self.largest <= bound.largest

    def __str__(self) -> str:
        return f"mean {self.mean:.3f}, largest {self.largest} of 255" + ("" if self.finite else ", not all finite")


def measure(engine: Engine, model: Path) -> Difference:
    """`engine` beside the FP32 `model` in ONNX Runtime.

    Raises:
        EngineError: one of them cannot run.
    """
    from engine.onnxruntime_cpu import OnnxRuntimeEngine

    crops = fixed_crops(engine.spec)
    with OnnxRuntimeEngine(model) as reference:
        expected = reference.run(crops)
    found = engine.run(crops)
    if found.crops.shape != expected.crops.shape:
        raise EngineError(f"the compiled model returns crops of {found.crops.shape}, not {expected.crops.shape}")
    difference = np.abs(found.crops.astype(np.int16) - expected.crops)
    finite = found.kernels is None or bool(np.isfinite(found.kernels).all())
    return Difference(round(float(difference.mean()), 4), int(difference.max()), finite)


def fixed_crops(spec: ModelSpec) -> NDArray[np.uint8]:
    """The same `CROPS` pictures every time: noise with natural pictures' spectrum (1/f), the later ones smeared."""
    height, width, channels = spec.input_shape
    rng = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    spectrum = np.fft.rfft2(rng.standard_normal((CROPS, channels, height, width))) / np.maximum(frequency, 1 / height)
    smear = np.sinc(np.fft.rfftfreq(width) * np.linspace(0, 12, CROPS)[:, None])  # px, along the rows
    pictures = np.fft.irfft2(spectrum * smear[:, None, None], (height, width))
    pictures = 128 + 48 * pictures / pictures.std((1, 2, 3), keepdims=True)
    return np.ascontiguousarray(pictures.clip(0, 255).round().astype(np.uint8).transpose(0, 2, 3, 1))
