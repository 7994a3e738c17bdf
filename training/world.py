"""One process, or several that torchrun started: who this one is, and what all of them share."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from stream.errors import UsageError
from training.degrade import Batch


@dataclass(frozen=True, slots=True)
class World:
    """This process among `size`; rank 0 logs, validates and saves."""

    size: int
    rank: int
    device: torch.device

    def wrap(self, network: nn.Module, idle: bool) -> nn.Module:
        """The network whose gradients are the mean over all processes; `idle`: parts of it may rest for a step."""
        return network if self.size == 1 else DistributedDataParallel(network, find_unused_parameters=idle)

    def part(self, batch: Batch) -> tuple[Batch, float]:
        """This process's samples of a batch, and the share by which its masked mean counts: together, the whole one."""
        if self.size == 1:
            return Batch(*(part.to(self.device, non_blocking=True) for part in batch)), 1.0
        mine = Batch(*(part[self.rank :: self.size].to(self.device, non_blocking=True) for part in batch))
        return mine, float(mine.mask.sum() / batch.mask.sum().clamp(min=1)) * self.size

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of all processes' values."""
        if self.size > 1:
            dist.all_reduce(value)
        return value / self.size

    def any(self, flag: bool) -> bool:
        """Whether any process says so, so that all stop after the same step."""
        if self.size == 1:
            return flag
        shared = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(shared)
        return bool(shared > 0)

    def leave(self) -> None:
        """The end of the run."""
        if self.size > 1:
            dist.destroy_process_group()


def join(batch: int) -> World:
    """The world that torchrun's environment describes; one process without it.

    Raises:
        UsageError: a batch of that size cannot be shared out evenly.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if batch % size:
        raise UsageError(f"a batch of {batch} cannot be shared among {size} processes")
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True  # there are few sizes, and much to gain with 14x14 kernels
    if size > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(size, rank, device)
