"""Milliseconds a face, by engine, model and size of batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine import Engine, Options, open_engine
from engine.parity import fixed_crops

BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Row(NamedTuple):
    """One measurement."""

    engine: str
    precision: str
    device: str
    model: str
    batch: int
    ms_p50: float  # a face, everything
    ms_p95: float
    compute_ms: float | None  # a face, on the device alone: without the copies
    gmacs_per_s: float | None  # of the network's own products, where its work is known


def bench(
    engine_name: str, model: str, options: Options, batches: tuple[int, ...] = BATCHES, seconds: float = 2.0
) -> Iterator[Row]:
    """Rows of one engine and model, each measured for about `seconds`.

    Raises:
        EngineError: it cannot be opened or run.
    """
    with open_engine(engine_name, model, options) as engine:
        crops = fixed_crops(engine.spec)
        for batch in batches:
            given = np.ascontiguousarray(np.tile(crops, (-(-batch // len(crops)), 1, 1, 1))[:batch])
            engine.run(given)  # compiles, captures, warms up
            taken = _repeat(engine, given, seconds)
            whole = statistics.median(taken)
            compute = engine.compute_ms(batch)
            macs = engine.spec.macs / 1e9 if engine.spec.macs else None
            yield Row(
                engine.about["engine"],
                engine.about.get("precision", ""),
                engine.about.get("device", "CPU"),
                engine.spec.name,
                batch,
                round(whole / batch, 3),
                round(float(np.percentile(taken, 95)) / batch, 3),
                None if compute is None else round(compute / batch, 3),
                None if macs is None else round(macs * batch / (compute or whole) * 1e3, 1),
            )


def _repeat(engine: Engine, given: NDArray[np.uint8], seconds: float) -> list[float]:
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < 5 or time.perf_counter() < until:
        begin = time.perf_counter()
        engine.run(given)
        taken.append((time.perf_counter() - begin) * 1e3)
    return taken


def matrix_rate(device: str = "CPU") -> float | None:
    """GMAC/s of large matrix products: in half precision on the GPU, by torch if it is there; in FP32 on the CPU."""
    if device == "CPU":
        a = np.random.default_rng(0).standard_normal((2048, 2048)).astype(np.float32)
        a @ a
        begin = time.perf_counter()
        for _ in range(5):
            a @ a
        return round(5 * 2048**3 / (time.perf_counter() - begin) / 1e9, 1)
    from engine.torch_any import gpu_matrix_rate

    return gpu_matrix_rate()


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| engine | precision | device | model | batch | ms a face, p50 | p95 | without copies | GMAC/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = ["" if value is None else str(value) for value in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
