"""The paper's one-step network (section 3.3, figure 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.layers import SLOPE, Answer


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

    def forward(self, x: Tensor) -> Answer:
        """Blurry crops (N, 3, H, W) to sharp ones."""
        y = F.leaky_relu(self.stem(x.to(self.stem.weight.dtype)), SLOPE)
        for module in self.modules_:
            y = module(y)
        return Answer(self.head(y).float())
