"""A run's log: JSON lines, TensorBoard curves, and progress on the terminal."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import torch
from torch import nn
from tqdm import tqdm

from training.config import TrainConfig
from training.network import count_macs, count_parameters

EVERY = 100  # steps between two lines; a run's last step has one, too


class RunLog:
    """A context manager; the run's folder is made by it."""

    def __init__(self, run: Path, config: TrainConfig, network: nn.Module, step: int) -> None:
        run.mkdir(parents=True, exist_ok=True)
        about = {
            "config": msgspec.to_builtins(config),
            "revision": _revision(),
            "parameters": count_parameters(network),
            "macs": count_macs(copy.deepcopy(network).cpu(), config.network.margin, config.network.frames),
            "torch": str(torch.__version__),
        }
        (run / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(about)))
        self._batch = config.run.batch
        self._file = (run / "log.jsonl").open("a", encoding="utf-8")
        self._curves = _tensorboard(run)
        self._bar = tqdm(
            total=config.run.steps, initial=step, desc=config.name, unit="step", file=sys.stderr, mininterval=5
        )
        self._began, self._first = time.monotonic(), step
        self._sum, self._count = torch.zeros((), dtype=torch.float64), 0  # since the last line
        self._hours = _hours(run / "log.jsonl")

    def step(self, step: int, loss: torch.Tensor, rate: float) -> None:
        """One step is done. Its loss stays where it was computed: a GPU that is asked at every step stands still."""
        self._sum, self._count = self._sum.to(loss.device) + loss, self._count + 1
        self._bar.update()
        if step % EVERY and step != self._bar.total:
            return
        mean, self._sum, self._count = float(self._sum) / self._count, torch.zeros_like(self._sum), 0
        seconds = time.monotonic() - self._began
        faces, speed = step * self._batch, (step - self._first) * self._batch / seconds
        hours = self._hours + seconds / 3600
        self._write(step, {"loss": mean, "rate": rate, "faces": faces, "faces_per_second": speed, "hours": hours})
        self._bar.set_postfix(loss=f"{mean:.5f}", refresh=False)

    def validated(self, step: int, found: dict[str, float]) -> None:
        """A validation is done."""
        self._write(step, found)
        text = f"step {step}: validation {found['psnr']:.2f} dB, {found['gain']:+.2f} over the blurry input"
        self._bar.write(text, sys.stderr)

    def _write(self, step: int, values: dict[str, float]) -> None:
        print(json.dumps({"step": step, **values}), file=self._file, flush=True)
        if self._curves is not None:
            for name, value in values.items():
                self._curves.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._file.close()
        if self._curves is not None:
            self._curves.close()


def _hours(log: Path) -> float:
    """How long a run has already been computed, by its log's last whole line of steps."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    told = [line for line in lines if '"hours"' in line and line.endswith("}")]  # a machine that died tears a line
    return float(json.loads(told[-1])["hours"]) if told else 0.0


def _revision() -> str | None:
    """The commit that runs, where there is a checkout and a git."""
    try:
        git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return git.stdout.strip() or None


def _tensorboard(run: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """A writer, where TensorBoard is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run))
