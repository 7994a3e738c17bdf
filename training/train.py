"""The training loop, read from top to bottom: faces, network, optimiser, steps.

A run's folder holds `config.json`, `log.jsonl`, TensorBoard's curves, `state.pt` (everything: on a CPU a resumed
run gives the losses of an uninterrupted one) and `ema.pt` (the averaged weights in half precision, with what builds
their network).
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stream.errors import Interrupted
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training import losses
from training.checkpoint import save, start
from training.config import Precision, TrainConfig
from training.data import load_faces
from training.degrade import Batch, make_batch
from training.layers import inner
from training.log import RunLog
from training.phi import Phi
from training.told import tell
from training.world import join

VALIDATION_FACES = 256  # the last faces of a folder, never trained on; blurred by the same kernels at every validation


def train(config: TrainConfig, run: Path, weights: Path | None = None) -> None:
    """Train until `config.run.steps`, going on from `run` if a state lies there, or starting from an `ema.pt`.

    Raises:
        InputError: the faces or the weights cannot be read.
        Interrupted: Ctrl-C; the state of the last whole step is saved.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    world = join(config.run.batch)
    low_precision = use_bfloat16(config.precision, world.device)
    faces = load_faces(Path(config.faces), run.parent / "cache")
    count = max(len(faces) - VALIDATION_FACES, len(faces) // 2)
    facial = config.loss.facial or any(stage.facial for stage in config.loss.stages)
    phi = Phi(Path(config.loss.recogniser)).to(world.device) if facial else None
    state = start(config, run, weights, world.device)
    network = cast("nn.Module", torch.compile(state.network)) if config.compile else state.network
    resting = config.network.kernel_head and config.run.part_px != (CROP_HEIGHT, CROP_WIDTH)  # while parts are seen
    network = world.wrap(network, idle=resting)

    with (
        RunLog(run, config, state.network, state.step) if world.rank == 0 else nullcontext() as log,
        prefetch(config, faces, count, state.step) as batches,
        gentle_stop() as stopped,
    ):
        while state.step < config.run.steps and not world.any(stopped.is_set()):
            batch, share = world.part(next(batches))
            rate = config.optimizer.learning_rate * state.rate * schedule(config, state.step)
            for group in state.optimizer.param_groups:
                group["lr"] = rate * group["share"]
            seen = (batch.blurry, batch.known) if config.told else (batch.blurry,)
            with torch.autocast(world.device.type, torch.bfloat16, enabled=low_precision):
                answer = network(*seen)
            loss = losses.total(answer, batch, config.loss.at(state.step), phi, share)
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(state.network.parameters(), config.optimizer.clip_norm)
            state.optimizer.step()
            state.step += 1
            state.average(config.run.ema)

            whole = world.mean(loss.detach())
            if log is not None:
                log.step(state.step, whole, rate)
            every = config.run.validate_every
            if every and (state.step % every == 0 or state.step == config.run.steps):
                found = validate(state.ema, config, faces[count:], world.device)
                state.plateau(found["loss"], config.optimizer.halve_after)
                if log is not None:
                    log.validated(state.step, found)
            if world.rank == 0 and state.step % config.run.save_every == 0:
                save(run, state, config)
    if world.rank == 0:
        save(run, state, config)
    world.leave()
    if stopped.is_set():
        raise Interrupted(f"interrupted after step {state.step}; the state is in {run}, and the same command goes on")


def schedule(config: TrainConfig, step: int) -> float:
    """The share of the learning rate at a step: up, level (or exponentially down), to nothing over the last stretch."""
    o = config.optimizer
    up = min(1.0, (step + 1) / o.warmup_steps) if o.warmup_steps else 1.0
    down = min(1.0, (config.run.steps - step) / o.decay_steps) if o.decay_steps else 1.0
    return float(up * down * o.decay_rate ** (step / 1000))


def use_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether to multiply in bfloat16. In software that is ten times slower than float32: `auto` asks the processor."""
    if precision != "auto":
        return precision == "bfloat16"
    return device.type == "cuda" or bool(torch.cpu._is_avx512_bf16_supported())


@torch.no_grad()
def validate(
    network: nn.Module, config: TrainConfig, faces: NDArray[np.uint8], device: torch.device
) -> dict[str, float]:
    """Loss, PSNR, gain over the input and the kernels' error, on held-out faces, blurred the same way at every call."""
    rng = np.random.default_rng([config.seed, 2**31])
    found: list[tuple[float, ...]] = []
    network.eval()
    for begin in range(0, len(faces), 16):
        indices = np.arange(begin, min(begin + 16, len(faces)))
        batch = make_batch(
            faces, indices, rng, config.kernels, config.degrade, config.network.margin, neighbour=config.neighbour
        )
        batch = Batch(*(part.to(device) for part in batch))
        answer = network(batch.blurry)
        answer = answer._replace(image=answer.image.clamp(0, 1))
        loss = losses.total(answer, batch, config.loss)
        blurry = inner(batch.blurry[:, :3], config.network.margin)
        before, after = (
            -10 * float(losses.l2(image, batch.sharp, batch.mask).clamp(min=1e-10).log10())
            for image in (blurry, answer.image)
        )
        motion = () if answer.kernel is None else (float(losses.motion(answer.kernel, batch.kernels)),)
        found.append((float(loss), after, after - before, *motion))
    network.train()
    means = (float(v) for v in np.mean(found, 0))
    return dict(zip(("loss", "psnr", "gain", "motion"), means, strict=False))


@contextmanager
def gentle_stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that a step is finished before the state is saved."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def prefetch(config: TrainConfig, faces: NDArray[np.uint8], count: int, step: int) -> Iterator[Iterator[Batch]]:
    """Batches from `step` on, made in a thread, at most four ahead; its fault is raised where the batch is awaited."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(4)
    stop = threading.Event()

    def put(item: Batch | BaseException) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def make() -> None:
        torch.set_num_threads(1)  # of this thread: two pools of threads on the same cores wait for each other
        try:
            for at in range(step, config.run.steps):
                if stop.is_set():
                    return
                put(batch_of(config, faces, count, at))
        except BaseException as error:  # carried to the consumer, which raises it
            put(error)

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
    margin, faces_of_step = config.network.margin, np.concatenate(indices)
    batch = make_batch(faces, faces_of_step, rng, config.kernels, config.degrade, margin, size, config.neighbour)
    return batch if config.told is None else tell(batch, margin, rng, config.told)
