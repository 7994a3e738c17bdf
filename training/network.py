"""The networks by name: what a config says, and what it builds.

`inception` is the paper's, `unet` a plain residual U-Net made for CPUs (with a kernel head it tells the motion beside),
`aware` that with the motion found and undone.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from msgspec import Meta, Struct
from torch import nn

from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training.aware import UNDONE_CHANNELS, Aware
from training.inception import Inception
from training.kernel_finder import KernelFinder
from training.unet import UNet


class NetworkConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a checkpoint needs to build its network again."""

    kind: Literal["inception", "unet", "aware"]
    frames: Annotated[int, Meta(ge=1, le=2)] = 1  # that the network sees: this one, and the one before
    margin: Annotated[int, Meta(ge=0)] = 0  # px of surroundings round the crop that the network sees
    reduction: bool = True  # inception: the 1x1 reductions; false is the ablation of table 5
    channels: Annotated[int, Meta(ge=8, multiple_of=2)] = 64  # inception: a narrower one may be grown from
    widths: tuple[int, ...] = (32, 64, 128, 192)  # unet, and the guess of aware: channels a level, from half resolution
    blocks: tuple[int, ...] = (1, 2, 2, 2)  # residual blocks a level
    up_blocks: tuple[int, ...] = (1, 2, 2)  # on the way up
    kernel_head: bool = False  # unet: whether it tells the motion, too
    repair_widths: tuple[int, ...] = (32, 64, 96)  # aware: the U-Net after the motion is undone
    repair_blocks: tuple[int, ...] = (0, 1, 2)
    repair_up_blocks: tuple[int, ...] = (1, 0)
    looks: Annotated[int, Meta(ge=1, le=2)] = 1  # aware: how often the motion is looked for

    @property
    def tells_motion(self) -> bool:
        """Whether the network answers with a kernel."""
        return self.kind == "aware" or (self.kind == "unet" and self.kernel_head)

    @property
    def takes_motion(self) -> bool:
        """Whether it undoes a kernel that it is told."""
        return self.kind == "aware"


def build_network(config: NetworkConfig) -> nn.Module:
    """The network of a config, freshly initialised."""
    if config.kind == "inception":
        return Inception(config.reduction, config.channels)
    if config.kind == "aware":
        return Aware(
            config.margin,
            UNet(config.widths, config.blocks, config.up_blocks, inputs=12 * config.frames),
            UNet(
                config.repair_widths,
                config.repair_blocks,
                config.repair_up_blocks,
                inputs=4 * UNDONE_CHANNELS + config.widths[0],
            ),
            config.widths[0],
            config.looks,
        )
    finder = KernelFinder(config.widths[0]) if config.tells_motion else None
    return UNet(config.widths, config.blocks, config.up_blocks, config.margin, 12 * config.frames, finder)


def count_parameters(network: nn.Module) -> int:
    """Trainable numbers."""
    return sum(p.numel() for p in network.parameters())


def count_macs(network: nn.Module, margin: int = 0, frames: int = 1) -> int:
    """Multiply-accumulates of the convolutions and matrix products for one face."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.zeros(1, 3 * frames, CROP_HEIGHT + 2 * margin, CROP_WIDTH + 2 * margin))
    return int(counter.get_total_flops()) // 2
