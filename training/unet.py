"""A plain residual U-Net, made for CPUs; with a finder it tells the motion beside."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training.kernel_finder import KernelFinder
from training.layers import Answer, ResidualBlock, inner


class UNet(nn.Module):
    """A residual U-Net on the 2x-unshuffled crop; its output is added to the input. H and W are multiples of 16.

    `blocks` are residual blocks a level on the way down, `up_blocks` on the way up. The finder tells the kernel
    between what is restored and the input, for whole crops.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        up_blocks: tuple[int, ...],
        margin: int = 0,
        inputs: int = 12,
        finder: KernelFinder | None = None,
    ) -> None:
        super().__init__()
        pairs = list(pairwise(widths))

        def level(width: int, count: int) -> nn.Sequential:
            return nn.Sequential(*[ResidualBlock(width) for _ in range(count)])

        self.margin = margin
        self.stem = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(level(w, n) for w, n in zip(widths, blocks, strict=True))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairs)
        self.decoder = nn.ModuleList(level(w, n) for w, n in zip(widths[:-1], up_blocks, strict=True))
        self.head = nn.Conv2d(widths[0], 12, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.finder = finder

    def forward(self, x: Tensor) -> Answer:
        """Blurry crops (N, 3 frames, H, W) to sharp ones of the first frame, without the margin."""
        features = self.trunk(F.pixel_unshuffle(x, 2))
        blurry = inner(x[:, :3], self.margin)
        image = blurry + inner(F.pixel_shuffle(self.head(features), 2), self.margin)
        if self.finder is None or image.shape[-2:] != (CROP_HEIGHT, CROP_WIDTH):
            return Answer(image)
        greys = blurry.mean(1, keepdim=True), image.float().mean(1, keepdim=True)
        kernel, *_ = self.finder(*greys, inner(features, self.margin // 2))
        return Answer(image, kernel)

    def trunk(self, x: Tensor) -> Tensor:
        """(N, inputs, H / 2, W / 2) to features (N, widths[0], H / 2, W / 2), which the head reads."""
        y = self.stem(x.to(self.stem.weight.dtype))
        skips: list[Tensor] = []
        for level, down in zip(self.encoder, self.down, strict=False):
            y = level(y)
            skips.append(y)
            y = down(y)
        y = self.encoder[-1](y)
        for up, level in zip(reversed(self.up), reversed(self.decoder), strict=True):
            y = level(F.pixel_shuffle(up(y), 2) + skips.pop())
        return y
