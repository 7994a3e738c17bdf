"""What the networks share."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.1  # of the leaky ReLU: the paper gives none


class Answer(NamedTuple):
    """What a network makes of blurry crops (N, 3, 112 + 2 margin, 96 + 2 margin), RGB in [0, 1]."""

    image: Tensor  # (N, 3, 112, 96), not clamped
    kernel: Tensor | None = None  # (N, 33, 33) of sum 1, where the network finds the motion
    guess: Tensor | None = None  # (N, 3, 112, 96): the face before the motion was known
    first: Tensor | None = None  # (N, 33, 33): the kernel found first, where the network looks twice,
    sketch: Tensor | None = None  # (N, 1, 112, 96): and the face in grey beside which it looked again


def half(network: nn.Module) -> nn.Module:
    """The network with its convolutions in float16, where nearly all of the work is; what is between keeps float32."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.half()
    return network


def inner(images: Tensor, margin: int) -> Tensor:
    """The pictures without their margin."""
    return images[..., margin : images.shape[-2] - margin, margin : images.shape[-1] - margin]


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
