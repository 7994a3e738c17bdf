"""What the evaluation compares: our models in an engine, classical methods, other programs, and the ceiling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine import Engine, Restored, open_engine
from stream.errors import InputError
from training import against
from training.aware import Aware
from training.checkpoint import load_weights
from training.classical import METHODS as CLASSICAL
from training.network import build_network
from training.protocol import BATCH, cut, identity_kernel

BLURRY = "blurry"
CEILING = "told the true kernel"

# Spoiled pictures with their margin (N, 160, 144, 3), and the kernel that spoiled them, to crops and kernels found.
Method = Callable[[NDArray[np.uint8], NDArray[np.float32] | None], Restored]


def needs_truth(name: str) -> bool:
    """Whether a method works with the true kernel."""
    return name == CEILING or (name in CLASSICAL and name != "unsharp")


@contextmanager
def open_methods(
    models: tuple[str, ...],
    engines: tuple[str, ...],
    fill_margin: bool,
    classical: bool,
    programs: tuple[str, ...],
    ceiling: Path | None,
) -> Iterator[tuple[dict[str, Method], dict[str, int]]]:
    """What is compared, by name, and the margins of those that see one."""
    with ExitStack() as stack:
        margins: dict[str, int] = {}
        ready: dict[str, Method] = {BLURRY: _on_crops(lambda crops, kernel: crops)}
        if classical:
            ready |= {name: _on_crops(method) for name, method in CLASSICAL.items()}
        for text in programs:
            name, words = against.parse(text)
            ready[name] = _on_crops(against.program(name, words))
        for model, engine in product(models, engines):
            runner = stack.enter_context(open_engine(engine, model))
            name = runner.spec.name if runner.spec.name not in ready else model
            name += f", {engine}" if len(engines) > 1 else ""
            ready[name], margins[name] = _model(runner), runner.spec.margin
            if fill_margin and runner.spec.margin:
                ready[f"{name}, border repeated"] = _model(runner, fill_margin=True)
        if ceiling is not None:
            ready[CEILING], margins[CEILING] = _told(ceiling)
        yield ready, margins


def _on_crops(restore: Callable[[NDArray[np.uint8], NDArray[np.float32] | None], NDArray[np.uint8]]) -> Method:
    return lambda spoiled, kernel: Restored(restore(cut(spoiled, 0), kernel), None)


def _told(weights: Path) -> tuple[Method, int]:
    """The network of an `ema.pt` with the true kernel in place of its own, and its margin."""
    config, values, _ = load_weights(weights)
    network = build_network(config)
    if not isinstance(network, Aware):
        raise InputError(f"--ceiling: the network of {weights} does not undo the motion")
    network.load_state_dict(values)

    @torch.no_grad()
    def restore(spoiled: NDArray[np.uint8], kernel: NDArray[np.float32] | None) -> Restored:
        true = torch.from_numpy(identity_kernel() if kernel is None else kernel)
        done = []
        for start in range(0, len(spoiled), BATCH):
            part = (
                torch.from_numpy(cut(spoiled[start : start + BATCH], config.margin)).permute(0, 3, 1, 2).float() / 255
            )
            image = network(part, true.expand(len(part), -1, -1)).image.clamp(0, 1)
            done.append((image * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
        return Restored(np.concatenate(done), None)

    return restore, config.margin


def _model(runner: Engine, fill_margin: bool = False) -> Method:
    def restore(spoiled: NDArray[np.uint8], kernel: NDArray[np.float32] | None) -> Restored:
        m = runner.spec.margin
        crops = cut(spoiled, m)
        if fill_margin:
            crops = np.pad(cut(spoiled, 0), ((0, 0), (m, m), (m, m), (0, 0)), mode="edge")
        if runner.spec.frames == 2:  # a picture has no frame before it: it stands twice
            crops = np.concatenate([crops, crops], 3)
        done = [runner.run(np.ascontiguousarray(crops[i : i + BATCH])) for i in range(0, len(crops), BATCH)]
        kernels = [part.kernels for part in done if part.kernels is not None]
        return Restored(np.concatenate([part.crops for part in done]), np.concatenate(kernels) if kernels else None)

    return restore
