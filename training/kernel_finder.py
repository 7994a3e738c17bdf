"""The kernel between a guess of the sharp face and the blurry crop.

Between the differences of both it is a least-squares answer in Fourier space, `conj(P) Y / (|P|^2 + r)`, at several
weightings of the frequencies, which a small network cleans.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training.fourier import Grid
from training.layers import SLOPE, ResidualBlock

SIDE = 33  # px of a kernel
REACH = SIDE // 2
TAPER = 24  # px over which a crop is faded out before its motion is looked for
# Each least-squares map: the power of |D|^2 that weighs the frequencies, and r beside the mean power, at first.
MAPS = ((0.5, 0.3), (0.5, 1.0), (1.0, 1.0), (1.0, 3.0))
FAINT = 1e-5  # of a first kernel's highest value, as which less counts when the second look sets out from it


class KernelFinder(nn.Module):
    """The kernel between a sharp guess and a blurry crop; `again`: beside the one found before."""

    window: Tensor

    def __init__(self, features: int, again: bool = False, width: int = 48, blocks: int = 3) -> None:
        super().__init__()
        grid = Grid(CROP_HEIGHT + REACH, CROP_WIDTH + REACH)
        self.into = grid.into(CROP_HEIGHT, CROP_WIDTH)
        self.back = grid.back(SIDE, SIDE, origin=REACH)
        self.register_buffer("window", _window(CROP_HEIGHT, CROP_WIDTH), persistent=False)
        spread = (grid.laplacian() + 1e-3).log()
        self.log_weights = nn.Parameter(torch.stack([power * spread for power, _ in MAPS]))
        self.log_r = nn.Parameter(torch.tensor([math.log(r) for _, r in MAPS])[:, None, None])
        # Where to look, and how the guess should rather be for this end: at first everywhere, and as it is.
        self.look = nn.Conv2d(features, 8, 3, padding=1)
        # At half resolution; one pixel of padding makes the side even.
        self.stem = nn.Conv2d(4 * (len(MAPS) + again), width, 3, padding=1)
        self.blocks = nn.Sequential(*[ResidualBlock(width) for _ in range(blocks)])
        self.head = nn.Conv2d(width, 4, 3, padding=1)
        if again:
            self.trust = nn.Parameter(torch.zeros(()))  # in the new map, in place of the kernel found before
        for layer in (self.look, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(
        self, blurry: Tensor, guess: Tensor, features: Tensor, before: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Grey crops and guesses (N, 1, 112, 96), the guesses' features (N, features, 56, 48), and the kernels found
        before, to kernels (N, 33, 33) of sum 1, what was seen in all of each (N, width) and the bettered guesses
        (N, 1, 112, 96)."""
        look = F.pixel_shuffle(self.look(features), 2).float()
        guess = guess + look[:, :1]
        with full_precision(blurry):
            maps = self._maps(blurry, guess, look[:, 1:])
            # The last map without its noise is already a good kernel: the network corrects its logarithm.
            known = ((maps[:, -1] - 0.1).clamp(min=0) + 1e-3).log()
            if before is not None:
                before = before.float() / before.float().amax((1, 2), keepdim=True)
                maps = torch.cat([maps, before[:, None]], 1)
                known = torch.lerp((before + FAINT).log(), known, self.trust)
        halves = F.pixel_unshuffle(F.pad(maps, (0, 1, 0, 1)), 2).to(self.stem.weight.dtype)
        found = self.blocks(F.leaky_relu(self.stem(halves), SLOPE))
        logits = known + F.pixel_shuffle(self.head(found), 2)[:, 0, :SIDE, :SIDE]
        return logits.flatten(1).softmax(1).view_as(logits), found.mean((2, 3)), guess

    def _maps(self, blurry: Tensor, guess: Tensor, where: Tensor) -> Tensor:
        """The least-squares kernels (N, MAPS, 33, 33), their highest value 1."""
        grey = torch.cat([guess, blurry], 1)
        # One mean for both, or their difference would be taken for motion.
        grey = (grey - grey[:, :1].mean((2, 3), keepdim=True)) * (self.window * (2 * where.sigmoid()))
        spectra = self.into(grey)
        height = spectra.shape[-2] // 2
        (pr, pi), (yr, yi) = ((s[:, :height], s[:, height:]) for s in spectra.unbind(1))
        weights = self.log_weights.exp()
        power = weights * (pr * pr + pi * pi)[:, None]
        share = weights / (power + power.mean((2, 3), keepdim=True) * self.log_r.exp() + 1e-6)
        maps = self.back(torch.cat([share * (pr * yr + pi * yi)[:, None], share * (pr * yi - pi * yr)[:, None]], 2))
        return maps / maps.amax((2, 3), keepdim=True).clamp(min=1e-6)


def full_precision(x: Tensor) -> torch.autocast:
    """No autocast: quotients of spectra need more than the eight bits of a bfloat16."""
    return torch.autocast(x.device.type, enabled=False)


def _window(height: int, width: int) -> Tensor:
    """Ones that fade to nothing over TAPER px at the rim."""
    fade = (1 - np.cos(np.linspace(0, np.pi, TAPER + 2)[1:-1])) / 2
    lines = [np.concatenate([fade, np.ones(side - 2 * TAPER), fade[::-1]]) for side in (height, width)]
    return torch.from_numpy(np.outer(*lines).astype(np.float32))
