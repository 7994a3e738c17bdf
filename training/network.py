"""The networks: blurry crops in, sharp crops out. (N, 3, H, W) float in [0, 1], RGB, to the same (not clamped).

`Inception` is the paper's one-step network (section 3.3, figure 3). `UNet` is a plain residual U-Net made for CPUs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from msgspec import Struct
from torch import Tensor, nn


class NetworkConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a checkpoint needs to build its network again."""

    kind: Literal["inception", "unet"]
    margin: int = 0  # px of surroundings round the crop that the network sees
    reduction: bool = True  # inception: the 1x1 reductions; false is the ablation of table 5
    widths: tuple[int, ...] = (32, 64, 128, 192)  # unet: channels a level, from half resolution down
    blocks: tuple[int, ...] = (1, 2, 2, 2)  # unet: residual blocks a level


SLOPE = 0.1  # of the leaky ReLU: the paper gives none


class InceptionModule(nn.Module):
    """Five branches of 1, 3, 5, 7 and 14 px, joined by a 1x1 convolution, plus the input (figure 3)."""

    KERNELS = (1, 3, 5, 7, 14)

    def __init__(self, channels: int = 64, reduced: int = 32, reduction: bool = True) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(channels, reduced, 1) for _ in self.KERNELS) if reduction else None
        width = reduced if reduction else channels
        self.branches = nn.ModuleList(nn.Conv2d(width, reduced, k) for k in self.KERNELS)
        self.join = nn.Conv2d(reduced * len(self.KERNELS), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same size."""
        branches = []
        for i, (conv, k) in enumerate(zip(self.branches, self.KERNELS, strict=True)):
            y = x if self.reduce is None else F.leaky_relu(self.reduce[i](x), SLOPE)
            before, after = (k - 1) // 2, k // 2  # an even kernel (14) pads 6 before and 7 after
            branches.append(F.leaky_relu(conv(F.pad(y, (before, after, before, after))), SLOPE))
        return x + F.leaky_relu(self.join(torch.cat(branches, 1)), SLOPE)


class Inception(nn.Module):
    """The paper's network: 3x3 stem to 64 channels, six inception modules, 1x1 head."""

    def __init__(self, reduction: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.modules_ = nn.ModuleList(InceptionModule(reduction=reduction) for _ in range(6))
        self.head = nn.Conv2d(64, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same size."""
        y = F.leaky_relu(self.stem(x), SLOPE)
        for module in self.modules_:
            y = module(y)
        out: Tensor = self.head(y)
        return out


class ResidualBlock(nn.Module):
    """x + conv3x3(leaky ReLU(conv3x3(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same size."""
        out: Tensor = x + self.conv2(F.leaky_relu(self.conv1(x), SLOPE))
        return out


class UNet(nn.Module):
    """A residual U-Net on the 2x-unshuffled crop; its output is added to the input. H and W are multiples of 16."""

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(pairwise(widths))

        def level(width: int, count: int) -> nn.Sequential:
            return nn.Sequential(*[ResidualBlock(width) for _ in range(count)])

        self.stem = nn.Conv2d(12, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(level(w, n) for w, n in zip(widths, blocks, strict=True))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairs)
        self.decoder = nn.ModuleList(level(w, n) for w, n in zip(widths[:-1], blocks, strict=False))
        self.head = nn.Conv2d(widths[0], 12, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same size."""
        y = self.stem(F.pixel_unshuffle(x, 2))
        skips: list[Tensor] = []
        for level, down in zip(self.encoder, self.down, strict=False):
            y = level(y)
            skips.append(y)
            y = down(y)
        y = self.encoder[-1](y)
        for up, level in zip(reversed(self.up), reversed(self.decoder), strict=True):
            y = level(F.pixel_shuffle(up(y), 2) + skips.pop())
        return x + F.pixel_shuffle(self.head(y), 2)


def build_network(config: NetworkConfig) -> nn.Module:
    """The network of a config, freshly initialised."""
    if config.kind == "inception":
        return Inception(config.reduction)
    return UNet(config.widths, config.blocks)


def count_parameters(network: nn.Module) -> int:
    """Trainable numbers."""
    return sum(p.numel() for p in network.parameters())


def count_macs(network: nn.Module, height: int = 112, width: int = 96) -> int:
    """Multiply-accumulates of the convolutions for one face of that size."""
    total = 0

    def add(module: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += out[0, 0].numel() * module.weight.numel()

    hooks = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        network(torch.zeros(1, 3, height, width))
    for hook in hooks:
        hook.remove()
    return total
