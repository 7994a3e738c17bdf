"""The training loop, read from top to bottom: faces, network, optimiser, steps.

A run's folder holds `config.json`, `log.jsonl`, `state.pt` (everything: a resumed run gives the losses of an
uninterrupted one) and `ema.pt` (the averaged weights in half precision, with what builds their network).
"""

from __future__ import annotations

import copy
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from stream.errors import InputError
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training import losses
from training.config import Precision, TrainConfig
from training.data import load_faces
from training.degrade import Batch, make_batch
from training.network import NetworkConfig, build_network, count_macs, count_parameters
from training.phi import Phi

VALIDATION_FACES = 256  # the last faces of a folder, never trained on; blurred by the same kernels at every validation


def train(config: TrainConfig, run: Path, weights: Path | None = None) -> None:
    """Train until `config.run.steps`, going on from `run` if a state lies there, or starting from an `ema.pt`.

    Raises:
        InputError: the faces or the weights cannot be read.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    low_precision = use_bfloat16(config.precision, device)
    faces = load_faces(Path(config.faces), run.parent / "cache")
    train_count = max(len(faces) - VALIDATION_FACES, len(faces) // 2)

    network = build_network(config.network)
    if weights is not None:
        network.load_state_dict(load_weights(weights)[1])
    network = network.to(device)
    ema = copy.deepcopy(network).requires_grad_(False)
    phi = Phi(Path(config.loss.recogniser)).to(device) if config.loss.facial else None
    optimizer = make_optimizer(config, network)
    step, rate, best, waited = 0, 1.0, float("inf"), 0
    state_path = run / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        step, rate, best, waited = state["step"], state["rate"], state["best"], state["waited"]

    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(describe(config, network))))
    progress = tqdm(total=config.run.steps, initial=step, desc=config.name, unit="step", file=sys.stderr, mininterval=5)
    began, seen, running = time.monotonic(), 0, 0.0
    with (run / "log.jsonl").open("a", encoding="utf-8") as log, prefetch(config, faces, train_count, step) as batches:
        try:
            while step < config.run.steps:
                batch = next(batches)
                for group in optimizer.param_groups:
                    group["lr"] = config.optimizer.learning_rate * rate * schedule(config, step)
                with torch.autocast(device.type, torch.bfloat16, enabled=low_precision):
                    restored = inner(network(batch.blurry.to(device)), config.network.margin).float()
                    loss = losses.total(restored, batch.sharp.to(device), batch.mask.to(device), config.loss, phi)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), config.optimizer.clip_norm)
                optimizer.step()
                step += 1
                update_ema(ema, network, min(config.run.ema, step / (step + 10)))

                seen += config.run.batch
                running += float(loss.detach())
                progress.update()
                if step % 100 == 0:
                    line = {
                        "step": step,
                        "loss": running / 100,
                        "rate": optimizer.param_groups[0]["lr"],
                        "faces": step * config.run.batch,
                        "faces_per_second": seen / (time.monotonic() - began),
                    }
                    print(json.dumps(line), file=log, flush=True)
                    progress.set_postfix(loss=f"{running / 100:.5f}", refresh=False)
                    running = 0.0
                if step % config.run.validate_every == 0 or step == config.run.steps:
                    found = validate(ema, config, faces[train_count:], device)
                    print(json.dumps({"step": step, **found}), file=log, flush=True)
                    progress.write(
                        f"step {step}: validation {found['psnr']:.2f} dB, {found['gain']:+.2f} over the blurry input",
                        sys.stderr,
                    )
                    waited = 0 if found["loss"] < best else waited + 1
                    best = min(best, found["loss"])
                    if config.optimizer.halve_after and waited >= config.optimizer.halve_after:
                        rate, waited = rate / 2, 0
                if step % config.run.save_every == 0:
                    save(run, network, ema, optimizer, config, step, rate, best, waited)
        finally:
            progress.close()
            save(run, network, ema, optimizer, config, step, rate, best, waited)


def schedule(config: TrainConfig, step: int) -> float:
    """The share of the learning rate at a step: up, level (or exponentially down), to nothing over the last stretch."""
    o = config.optimizer
    up = min(1.0, (step + 1) / o.warmup_steps) if o.warmup_steps else 1.0
    down = min(1.0, (config.run.steps - step) / o.decay_steps) if o.decay_steps else 1.0
    return float(up * down * o.decay_rate ** (step / 1000))


def make_optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """RMSProp as in section 4.1, or AdamW."""
    o = config.optimizer
    if o.kind == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), o.learning_rate, weight_decay=o.weight_decay)
    return torch.optim.AdamW(network.parameters(), o.learning_rate, o.betas, weight_decay=o.weight_decay, fused=True)


def use_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether to multiply in bfloat16. In software that is ten times slower than float32: `auto` asks the processor."""
    if precision != "auto":
        return precision == "bfloat16"
    return device.type == "cuda" or bool(torch.cpu._is_avx512_bf16_supported())


def inner(images: torch.Tensor, margin: int) -> torch.Tensor:
    """The pictures without their margin."""
    return images[..., margin : images.shape[-2] - margin, margin : images.shape[-1] - margin]


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, decay: float) -> None:
    """ema = decay ema + (1 - decay) network."""
    torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - decay)


@torch.no_grad()
def validate(
    network: nn.Module, config: TrainConfig, faces: NDArray[np.uint8], device: torch.device
) -> dict[str, float]:
    """Loss, PSNR and gain over the blurry input, on held-out faces blurred in the same way at every call."""
    rng = np.random.default_rng([config.seed, 2**31])
    found: list[tuple[float, float, float]] = []
    network.eval()
    for start in range(0, len(faces), 16):
        indices = np.arange(start, min(start + 16, len(faces)))
        batch = make_batch(faces, indices, rng, config.kernels, config.degrade, config.network.margin)
        batch = Batch(*(part.to(device) for part in batch))
        restored = inner(network(batch.blurry), config.network.margin).clamp(0, 1)
        loss = losses.total(restored, batch.sharp, batch.mask, config.loss)
        blurry = inner(batch.blurry, config.network.margin)
        before, after = (
            -10 * float(losses.l2(image, batch.sharp, batch.mask).clamp(min=1e-10).log10())
            for image in (blurry, restored)
        )
        found.append((float(loss), before, after))
    network.train()
    mean_loss, mean_before, mean_after = (float(v) for v in np.mean(found, 0))
    return {"loss": mean_loss, "psnr": mean_after, "gain": mean_after - mean_before}


@contextmanager
def prefetch(config: TrainConfig, faces: NDArray[np.uint8], count: int, step: int) -> Iterator[Iterator[Batch]]:
    """Batches from `step` on, made in a thread, at most four ahead; its fault is raised where the batch is awaited."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(4)
    stop = threading.Event()

    def make() -> None:
        try:
            for at in range(step, config.run.steps):
                batch = batch_of(config, faces, count, at)
                while not stop.is_set():
                    try:
                        ready.put(batch, timeout=0.2)
                        break
                    except queue.Full:
                        continue
                if stop.is_set():
                    return
        except BaseException as error:  # carried to the consumer, which raises it
            ready.put(error)

    def take() -> Iterator[Batch]:
        while True:
            got = ready.get()
            if isinstance(got, BaseException):
                raise got
            yield got

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        stop.set()
        thread.join()


def batch_of(config: TrainConfig, faces: NDArray[np.uint8], count: int, step: int) -> Batch:
    """The batch of a step: every face once an epoch, in an order drawn from the seed and the epoch."""
    at = np.arange(step * config.run.batch, (step + 1) * config.run.batch)
    indices = [
        np.random.default_rng([config.seed, 1, epoch]).permutation(count)[at[at // count == epoch] % count]
        for epoch in np.unique(at // count)
    ]
    rng = np.random.default_rng([config.seed, 0, step])
    size = config.run.part_px if step < config.run.steps - config.run.whole_steps else (CROP_HEIGHT, CROP_WIDTH)
    return make_batch(faces, np.concatenate(indices), rng, config.kernels, config.degrade, config.network.margin, size)


def describe(config: TrainConfig, network: nn.Module) -> dict[str, Any]:
    """What stands in a run's `config.json` beside the config: sizes and the revision of the code."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "config": msgspec.to_builtins(config),
        "revision": git.stdout.strip() or None,
        "parameters": count_parameters(network),
        "macs": count_macs(copy.deepcopy(network).cpu()),
        "torch": str(torch.__version__),
    }


def save(
    run: Path,
    network: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    step: int,
    rate: float,
    best: float,
    waited: int,
) -> None:
    """Full state and averaged weights, each whole or not at all."""
    write(
        run / "state.pt",
        {
            "network": network.state_dict(),
            "ema": ema.state_dict(),
            "best": best,
            "waited": waited,
            "optimizer": optimizer.state_dict(),
            "step": step,
            "rate": rate,
        },
    )
    write(
        run / "ema.pt",
        {
            "network": msgspec.to_builtins(config.network),
            "name": config.name,
            "weights": {k: v.half().cpu() for k, v in ema.state_dict().items()},
            "step": step,
            "faces": step * config.run.batch,
        },
    )


def write(path: Path, value: dict[str, Any]) -> None:
    """torch.save by way of a temporary name."""
    part = path.with_suffix(".part")
    torch.save(value, part)
    part.rename(path)


def load_weights(path: Path) -> tuple[NetworkConfig, dict[str, torch.Tensor], dict[str, Any]]:
    """Network, float32 weights and the rest of an `ema.pt`.

    Raises:
        InputError: no such file, or not one of ours.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network = msgspec.convert(state.pop("network"), NetworkConfig)
        weights = {k: v.float() for k, v in state.pop("weights").items()}
    except OSError as error:
        raise InputError(f"cannot read the weights {path}: {error.strerror}") from error
    except (KeyError, AttributeError, msgspec.ValidationError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is no checkpoint of this program (an ema.pt of a run is wanted)") from error
    return network, weights, state
