"""The kernel-aware network: guess the sharp face, find the motion that makes the blurry one of it, undo that, repair.

A plain U-Net guesses. Between the guess's and the blurry crop's differences the kernel is a least-squares answer in
Fourier space, `conj(P) Y / (|P|^2 + r)`, which a small network cleans. Wiener's filter undoes that motion in the crop
with its surroundings, at three strengths, and a small U-Net makes one face of it all. One pass, one graph.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training.fourier import Grid
from training.layers import SLOPE, Answer, ResidualBlock, inner
from training.unet import UNet

SIDE = 33  # px of a kernel
DOUBTS = 4  # ways in which a kernel may be unsure, see `_doubt_shapes`
REACH = SIDE // 2
TAPER = 24  # px over which a crop is faded out before its motion is looked for
# Each least-squares map: the power of |D|^2 that weighs the frequencies, and r beside the mean power, at first.
MAPS = ((0.5, 0.3), (0.5, 1.0), (1.0, 1.0), (1.0, 3.0))
# Wiener's r at the highest frequency, at first: one in colour, two in grey.
STRENGTHS = (0.01, 0.002, 0.05)
UNDONE_CHANNELS = 3 + 3 + 3 + len(STRENGTHS) - 1  # what the repair sees: blurry, guess, undone


class KernelFinder(nn.Module):
    """The kernel between a sharp guess and a blurry crop."""

    window: Tensor

    def __init__(self, features: int, width: int = 48, blocks: int = 3) -> None:
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
        self.stem = nn.Conv2d(4 * len(MAPS), width, 3, padding=1)
        self.blocks = nn.Sequential(*[ResidualBlock(width) for _ in range(blocks)])
        self.head = nn.Conv2d(width, 4, 3, padding=1)
        self.doubt = nn.Linear(width, DOUBTS)
        for layer in (self.look, self.head, self.doubt):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, blurry: Tensor, guess: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Crops (N, 3, 112, 96) and the guess's features to kernels (N, 33, 33) of sum 1, and doubts (N, DOUBTS)."""
        look = F.pixel_shuffle(self.look(features), 2)
        with full_precision(blurry):
            maps = self._maps(blurry, guess.float(), look.float())
        halves = F.pixel_unshuffle(F.pad(maps, (0, 1, 0, 1)), 2).to(self.stem.weight.dtype)
        found = self.blocks(F.leaky_relu(self.stem(halves), SLOPE))
        # The last map without its noise is already a good kernel: the network corrects its logarithm.
        known = (maps[:, -1] - 0.1).clamp(min=0) + 1e-3
        logits = known.log() + F.pixel_shuffle(self.head(found), 2)[:, 0, :SIDE, :SIDE]
        return logits.flatten(1).softmax(1).view_as(logits), self.doubt(found.mean((2, 3)))

    def _maps(self, blurry: Tensor, guess: Tensor, look: Tensor) -> Tensor:
        """The least-squares kernels (N, MAPS, 33, 33), their highest value 1."""
        better, where = look.unbind(1)
        grey = torch.stack([guess.mean(1) + better, blurry.mean(1)], 1)
        # One mean for both, or their difference would be taken for motion.
        grey = (grey - grey[:, :1].mean((2, 3), keepdim=True)) * (self.window * (2 * where.sigmoid()))[:, None]
        spectra = self.into(grey)
        height = spectra.shape[-2] // 2
        (pr, pi), (yr, yi) = ((s[:, :height], s[:, height:]) for s in spectra.unbind(1))
        weights = self.log_weights.exp()
        power = weights * (pr * pr + pi * pi)[:, None]
        share = weights / (power + power.mean((2, 3), keepdim=True) * self.log_r.exp() + 1e-6)
        maps = self.back(torch.cat([share * (pr * yr + pi * yi)[:, None], share * (pr * yi - pi * yr)[:, None]], 2))
        return maps / maps.amax((2, 3), keepdim=True).clamp(min=1e-6)


class Wiener(nn.Module):
    """A crop with its surroundings, deconvolved with one kernel at several strengths (r learned by frequency)."""

    shapes: Tensor

    def __init__(self, margin: int) -> None:
        super().__init__()
        grid = Grid(CROP_HEIGHT + 2 * margin + REACH, CROP_WIDTH + 2 * margin + REACH)
        self.picture = grid.into(CROP_HEIGHT + 2 * margin, CROP_WIDTH + 2 * margin, origin=margin, join=True)
        self.kernel = grid.into(SIDE, SIDE, origin=REACH)
        self.back = grid.back(CROP_HEIGHT, CROP_WIDTH)
        spread = (grid.laplacian() / 8 + 0.01).log()
        self.log_r = nn.Parameter(torch.stack([math.log(r) + 0.5 * spread for r in STRENGTHS]))
        self.register_buffer("shapes", _doubt_shapes(grid), persistent=False)

    def forward(self, images: Tensor, kernels: Tensor, doubts: Tensor) -> Tensor:
        """(N, 3, 112 + 2 margin, 96 + 2 margin), (N, 33, 33) and doubts (N, DOUBTS) to (N, 3 + 2, 112, 96)."""
        y, k = self.picture(images), self.kernel(kernels)
        y = torch.cat([y, y.mean(1, keepdim=True).expand(-1, len(STRENGTHS) - 1, -1, -1)], 1)
        height = y.shape[-2] // 2
        yr, yi = y[:, :, :height], y[:, :, height:]
        kr, ki = k[:, None, :height], k[:, None, height:]
        doubt = (doubts @ self.shapes.flatten(1)).view(-1, *self.shapes.shape[1:])
        share = 1 / (kr * kr + ki * ki + (self.log_r + doubt[:, None]).exp())
        share = torch.cat([share[:, :1].expand(-1, 3, -1, -1), share[:, 1:]], 1)
        return self.back(torch.cat([share * (kr * yr + ki * yi), share * (kr * yi - ki * yr)], -2))


class Aware(nn.Module):
    """The whole: (N, 3 frames, 112 + 2 margin, 96 + 2 margin) to the face, its kernel and the first guess.

    A frame before the first helps the guess alone: what one motion took from a face, another kept.
    """

    def __init__(self, margin: int, guess: UNet, repair: UNet, features: int) -> None:
        super().__init__()
        self.margin = margin
        self.guess = guess
        self.finder = KernelFinder(features)
        self.wiener = Wiener(margin)
        self.repair = repair

    def forward(self, x: Tensor, known: Tensor | None = None) -> Answer:
        """See the class. Where a kernel is `known` (N, 33, 33), not all zeros, that is undone and not the one found."""
        frames = inner(x, self.margin)
        features = self.guess.trunk(F.pixel_unshuffle(frames, 2))
        x, blurry = x[:, :3], frames[:, :3]
        guess = blurry + F.pixel_shuffle(self.guess.head(features), 2)
        kernel, doubts = self.finder(blurry, guess, features)
        found = kernel
        if known is not None:
            kernel = torch.where(known.sum((1, 2), keepdim=True) > 0.5, known, kernel)
        with full_precision(x):
            undone = self.wiener(x, kernel.float(), doubts.float())
        grey = blurry.mean(1, keepdim=True).expand(-1, len(STRENGTHS) - 1, -1, -1)
        seen = torch.cat([blurry, guess - blurry, undone - torch.cat([blurry, grey], 1)], 1)
        repaired = self.repair.trunk(torch.cat([F.pixel_unshuffle(seen, 2), features], 1))
        # In training the finder's own, for what is told it cannot learn from.
        return Answer(guess + F.pixel_shuffle(self.repair.head(repaired), 2), found if self.training else kernel, guess)


def full_precision(x: Tensor) -> torch.autocast:
    """No autocast: quotients of spectra need more than the eight bits of a bfloat16."""
    return torch.autocast(x.device.type, enabled=False)


def _doubt_shapes(grid: Grid) -> Tensor:
    """How doubt of a kernel may raise Wiener's r: everywhere, for high frequencies, by direction; (DOUBTS, ...)."""
    rows = np.sin(np.pi * np.arange(grid.height) / grid.height) ** 2
    columns = np.sin(np.pi * np.arange(grid.columns) / grid.width) ** 2
    total = rows[:, None] + columns + 1e-3
    across = (columns - rows[:, None]) / total
    sign = np.sign(np.fft.fftfreq(grid.height))[:, None]
    aslant = 2 * sign * np.sqrt(rows[:, None] * columns) / total
    return torch.from_numpy(np.stack([np.ones_like(total), np.log(total) / 4 + 0.5, across, aslant]).astype(np.float32))


def _window(height: int, width: int) -> Tensor:
    """Ones that fade to nothing over TAPER px at the rim."""
    fade = (1 - np.cos(np.linspace(0, np.pi, TAPER + 2)[1:-1])) / 2
    lines = [np.concatenate([fade, np.ones(side - 2 * TAPER), fade[::-1]]) for side in (height, width)]
    return torch.from_numpy(np.outer(*lines).astype(np.float32))
