"""The gate that a compiled model must pass: the same crops through it and through the FP32 model in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.base import KERNEL_SIDE, Engine, EngineError, ModelSpec, unknown

CROPS = 8


class Bound(NamedTuple):
    """How far a precision may be off: crops in 8-bit steps, kernels in shares of their sum."""

    mean: float
    largest: int
    kernel: float


BOUNDS = {
    "float32": Bound(0.05, 1, 0.001),
    "float16": Bound(1.0, 3, 0.02),  # 11 bits of mantissa
    "bfloat16": Bound(1.0, 8, 0.05),  # 8 bits
}


class Difference(NamedTuple):
    """What the gate measured."""

    mean: float
    largest: int
    kernel: float  # the largest of the kernels, not a number where one is not finite

    def passes(self, bound: Bound) -> bool:
        """Within the bound, and every number one."""
        return self.mean <= bound.mean and self.largest <= bound.largest and self.kernel <= bound.kernel

    def __str__(self) -> str:
        return f"mean {self.mean:.3f}, largest {self.largest} of 255, kernels {self.kernel:.4f}"


def measure(engine: Engine, model: Path, batches: tuple[int, ...] = (CROPS, 1, 5)) -> Difference:
    """`engine` beside the FP32 `model` in ONNX Runtime, in batches of several sizes: each may be compiled apart.

    Raises:
        EngineError: one of them cannot run.
    """
    from engine.onnxruntime_cpu import OnnxRuntimeEngine

    crops, known = fixed_crops(engine.spec), fixed_kernels()
    with OnnxRuntimeEngine(model) as reference:
        expected = reference.run(crops, known)
    differences, kernels = [], [0.0]
    for batch in batches:
        which = np.arange(batch) % CROPS
        found = engine.run(crops[which], known[which])
        if found.crops.shape != expected.crops[which].shape:
            raise EngineError(f"the compiled model returns crops of {found.crops.shape}")
        differences.append(np.abs(found.crops.astype(np.int16) - expected.crops[which]))
        if found.kernels is not None and expected.kernels is not None:
            kernels.append(float(np.abs(found.kernels - expected.kernels[which]).max()))
    mean = max(float(difference.mean()) for difference in differences)
    largest = max(int(difference.max()) for difference in differences)
    return Difference(round(mean, 4), largest, round(float(np.max(kernels)), 5))


def fixed_kernels() -> NDArray[np.float32]:
    """For every second of the `CROPS` a motion along the rows that is known, longer ones later."""
    known = unknown(CROPS)
    middle = KERNEL_SIDE // 2
    for i in range(1, CROPS, 2):
        known[i, middle, middle - i : middle + i + 1] = 1 / (2 * i + 1)
    return known


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
