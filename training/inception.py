"""The paper's one-step network (section 3.3, figure 3).

Where the paper is silent: the network starts as the identity (three of its 64 channels carry the picture, and modules
add nothing yet), and a module's sum precedes its activation, so that it can take away as well as add.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.layers import SLOPE, Answer

WIDE_PX = 8  # from here on a kernel is trained in Fourier space
TILE_PX = 32


class SameConv2d(nn.Conv2d):
    """A convolution that keeps the size; an even kernel (14) pads 6 before and 7 after.

    A wide one learns in Fourier space on a CPU in float32: the same numbers to single precision, and 14x14 four to
    seven times as fast.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same size."""
        side = self.kernel_size[0]
        learns_in_float32 = self.training and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        if side >= WIDE_PX and x.device.type == "cpu" and learns_in_float32:
            return self._in_fourier_space(x.float().contiguous(), side)
        before, after = (side - 1) // 2, side // 2
        return self._conv_forward(F.pad(x, (before, after, before, after)), self.weight, self.bias)

    def _in_fourier_space(self, x: Tensor, side: int) -> Tensor:
        """Overlapping tiles, of which the part that does not wrap round is kept (overlap-save)."""
        assert self.bias is not None
        (count, _, height, width), step, before = x.shape, TILE_PX - side + 1, (side - 1) // 2
        rows, columns = -(-height // step), -(-width // step)
        below, right = (n * step + side - 1 - before - size for n, size in ((rows, height), (columns, width)))
        tiles = F.pad(x, (before, right, before, below)).unfold(2, TILE_PX, step).unfold(3, TILE_PX, step)
        pictures = torch.fft.rfft2(tiles).permute(4, 5, 0, 2, 3, 1).flatten(2, 4).flatten(0, 1)  # frequency, tile, in
        kernels = torch.fft.rfft2(self.weight.float(), (TILE_PX, TILE_PX)).conj()  # networks correlate, not convolve
        made = pictures @ kernels.permute(2, 3, 1, 0).flatten(0, 1)  # frequency, tile, out
        made = made.unflatten(1, (count, rows, columns)).unflatten(0, (TILE_PX, TILE_PX // 2 + 1))
        placed = made.permute(2, 5, 3, 0, 4, 1)  # picture, channel, row of tiles, y, column of tiles, x
        whole = torch.fft.irfft2(placed, (TILE_PX, TILE_PX), dim=(3, 5))[:, :, :, :step, :, :step]
        return whole.flatten(4, 5).flatten(2, 3)[..., :height, :width] + self.bias[:, None, None]


class InceptionModule(nn.Module):
    """Five branches of 1, 3, 5, 7 and 14 px, joined by a 1x1 convolution, plus the input (figure 3)."""

    KERNELS = (1, 3, 5, 7, 14)

    def __init__(self, channels: int = 64, reduced: int = 32, reduction: bool = True) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(channels, reduced, 1) for _ in self.KERNELS) if reduction else None
        width = reduced if reduction else channels
        self.branches = nn.ModuleList(SameConv2d(width, reduced, k) for k in self.KERNELS)
        self.join = nn.Conv2d(reduced * len(self.KERNELS), channels, 1)

    def respond(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) to what each scale makes of it, (N, 32, H, W) each: figure 4."""
        return list(self._branched(x).chunk(len(self.KERNELS), 1))

    def _branched(self, x: Tensor) -> Tensor:
        made = [conv(y) for conv, y in zip(self.branches, self._reduced(x), strict=True)]
        return F.leaky_relu(torch.cat(made, 1), SLOPE)

    def _reduced(self, x: Tensor) -> Sequence[Tensor]:
        """What each branch sees, (N, 32, H, W) each; one convolution of 160 channels is quicker than five of 32."""
        if self.reduce is None:
            return [x] * len(self.KERNELS)
        layers = [cast("nn.Conv2d", layer) for layer in self.reduce]
        weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
        return F.leaky_relu(F.conv2d(x, weight, bias), SLOPE).chunk(len(layers), 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same size."""
        return F.leaky_relu(x + self.join(self._branched(x)), SLOPE)


class Inception(nn.Module):
    """The paper's network: 3x3 stem to 64 channels, six inception modules, 1x1 head; a narrower one to grow from."""

    def __init__(self, reduction: bool = True, channels: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.modules_ = nn.ModuleList(InceptionModule(channels, channels // 2, reduction) for _ in range(6))
        self.head = nn.Conv2d(channels, 3, 1)
        self._begin_as_identity()

    @torch.no_grad()
    def _begin_as_identity(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, SLOPE)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for layer in self.modules():
            if isinstance(layer, InceptionModule):
                nn.init.zeros_(layer.join.weight)
        self.head.weight.zero_()
        for color in range(3):
            self.stem.weight[color].zero_()
            self.stem.weight[color, color, 1, 1] = self.head.weight[color, color] = 1

    def features(self, x: Tensor) -> Tensor:
        """Blurry crops (N, 3, H, W) to what the first module sees, (N, 64, H, W)."""
        return F.leaky_relu(self.stem(x.to(self.stem.weight.dtype)), SLOPE)

    def forward(self, x: Tensor) -> Answer:
        """Blurry crops (N, 3, H, W) to sharp ones."""
        y = self.features(x)
        for module in self.modules_:
            y = module(y)
        return Answer(self.head(y).float())


def grown(values: dict[str, Tensor], network: Inception) -> dict[str, Tensor]:
    """Weights of a narrower network, in the shapes of `network`, whose answers are the same.

    What is new sees what was there, and is not yet heard by it (Chen et al., Net2Net, with zeros in place of copies).
    """
    wide = network.state_dict()
    return {name: _grown(values[name], fresh, 5 if ".join." in name else 1) for name, fresh in wide.items()}


def _grown(value: Tensor, fresh: Tensor, groups: int) -> Tensor:
    """`value` in the first rows and, of each group of equally many, the first columns of `fresh`."""
    out = fresh.clone()
    if value.ndim == 1:
        out[: len(value)] = value
        return out
    rows, columns = len(value), value.shape[1] // groups
    seen = out.view(len(out), groups, -1, *out.shape[2:])
    seen[:rows, :, columns:] = 0
    seen[:rows, :, :columns] = value.reshape(rows, groups, columns, *value.shape[2:])
    return out
