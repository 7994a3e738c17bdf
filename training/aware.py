"""The kernel-aware network: guess the sharp face, find the motion that makes the blurry one of it, undo that, repair.

A plain U-Net guesses, a finder (`training/kernel_finder.py`) tells the kernel between that and the blurry crop.
Wiener's filter undoes that motion in the crop with its surroundings, at three strengths, and a small U-Net makes one
face of it all. With two looks, a sketch is drawn of what the first kernel, undone, shows of the face, and the kernel
found anew beside it. One pass, one graph.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training.fourier import Grid
from training.kernel_finder import REACH, SIDE, KernelFinder, full_precision
from training.layers import SLOPE, Answer, inner
from training.unet import UNet

DOUBTS = 4  # ways in which a kernel may be unsure, see `_doubt_shapes`
# Wiener's r at the highest frequency, at first: one in colour, two in grey.
STRENGTHS = (0.01, 0.002, 0.05)
GREYS = len(STRENGTHS) - 1
UNDONE_CHANNELS = 3 + 3 + 3 + GREYS  # what the repair sees: blurry, guess, undone


class DoubtingFinder(KernelFinder):
    """A finder that also says how unsure its kernels are."""

    def __init__(self, features: int, again: bool = False) -> None:
        super().__init__(features, again)
        self.doubt = nn.Linear(self.stem.out_channels, DOUBTS)
        nn.init.zeros_(self.doubt.weight)
        nn.init.zeros_(self.doubt.bias)

    def forward(
        self, blurry: Tensor, guess: Tensor, features: Tensor, before: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `KernelFinder`, with doubts (N, DOUBTS) in place of what they are told by."""
        kernels, seen, guess = super().forward(blurry, guess, features, before)
        return kernels, self.doubt(seen), guess


class Sketch(nn.Module):
    """What the kernel found first, undone, shows of the face: features beside which the motion is looked for again."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4 * (2 + GREYS), features, 3, padding=1)
        self.known = nn.Conv2d(features, features, 1, bias=False)
        self.draw = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, grey: Tensor, guess: Tensor, undone: Tensor, features: Tensor) -> Tensor:
        """Grey crops and guesses (N, 1, 112, 96), undone (N, GREYS, 112, 96) and the guess's features
        (N, features, 56, 48) to as many of its own."""
        seen = F.pixel_unshuffle(torch.cat([grey, guess - grey, undone - grey], 1), 2)
        drawn = self.stem(seen.to(features.dtype)) + self.known(features)
        return features + self.draw(F.leaky_relu(drawn, SLOPE))


class Wiener(nn.Module):
    """A crop with its surroundings, deconvolved with one kernel at several strengths (r learned by frequency)."""

    shapes: Tensor

    def __init__(self, margin: int, sketches: bool) -> None:
        super().__init__()
        grid = Grid(CROP_HEIGHT + 2 * margin + REACH, CROP_WIDTH + 2 * margin + REACH)
        self.picture = grid.into(CROP_HEIGHT + 2 * margin, CROP_WIDTH + 2 * margin, origin=margin, join=True)
        self.kernel = grid.into(SIDE, SIDE, origin=REACH)
        self.back = grid.back(CROP_HEIGHT, CROP_WIDTH)
        spread = (grid.laplacian() / 8 + 0.01).log()
        self.log_r = nn.Parameter(torch.stack([math.log(r) + 0.5 * spread for r in STRENGTHS]))
        if sketches:
            self.sketch_log_r = nn.Parameter(self.log_r[1:].detach().clone())
        self.register_buffer("shapes", _doubt_shapes(grid), persistent=False)

    def forward(self, y: Tensor, kernels: Tensor, doubts: Tensor) -> Tensor:
        """Spectra by `picture` of (N, 3, 112 + 2 margin, 96 + 2 margin), kernels (N, 33, 33) and doubts (N, DOUBTS) to
        colour, and grey at the other strengths, (N, 3 + GREYS, 112, 96)."""
        y = torch.cat([y, _greys(y)], 1)
        return self._undone(y, kernels, doubts, torch.cat([self.log_r[:1].expand(3, -1, -1), self.log_r[1:]]))

    def sketched(self, y: Tensor, kernels: Tensor, doubts: Tensor) -> Tensor:
        """The same to grey alone, (N, GREYS, 112, 96)."""
        return self._undone(_greys(y), kernels, doubts, self.sketch_log_r)

    def _undone(self, y: Tensor, kernels: Tensor, doubts: Tensor, log_r: Tensor) -> Tensor:
        k = self.kernel(kernels)
        height = y.shape[-2] // 2
        yr, yi = y[:, :, :height], y[:, :, height:]
        kr, ki = k[:, None, :height], k[:, None, height:]
        doubt = (doubts @ self.shapes.flatten(1)).view(-1, *self.shapes.shape[1:])
        share = 1 / (kr * kr + ki * ki + (log_r + doubt[:, None]).exp())
        return self.back(torch.cat([share * (kr * yr + ki * yi), share * (kr * yi - ki * yr)], -2))


class Aware(nn.Module):
    """The whole: (N, 3 frames, 112 + 2 margin, 96 + 2 margin) to the face, its kernel and the first guess.

    A frame before the first helps the guess alone: what one motion took from a face, another kept.
    """

    def __init__(self, margin: int, guess: UNet, repair: UNet, features: int, looks: int) -> None:
        super().__init__()
        self.margin = margin
        self.guess = guess
        self.finder = DoubtingFinder(features)
        self.sketch = Sketch(features) if looks > 1 else None
        self.finder_again = DoubtingFinder(features, again=True) if looks > 1 else None
        self.wiener = Wiener(margin, looks > 1)
        self.repair = repair

    def forward(self, x: Tensor, known: Tensor | None = None) -> Answer:
        """See the class. Where a kernel is `known` (N, 33, 33), not all zeros, that is undone and not the one found."""
        frames = F.pixel_unshuffle(inner(x, self.margin), 2)
        x, blurry = x[:, :3], frames[:, :12]
        crop = inner(x, self.margin)
        features = self.guess.trunk(frames)
        guess = self.guess.head(features)
        with full_precision(x):
            y, grey = self.wiener.picture(x), crop.mean(1, keepdim=True)
        guessed = grey + F.pixel_shuffle(guess.unflatten(1, (3, 4)).mean(1), 2)
        kernel, doubts, _ = self.finder(grey, guessed, features)
        first, sketch = None, None
        if self.sketch is not None and self.finder_again is not None:
            first = kernel
            with full_precision(x):
                undone = self.wiener.sketched(y, first.float(), doubts.float())
            drawn = self.sketch(grey, guessed, undone, features)
            kernel, more, sketch = self.finder_again(grey, guessed, drawn, first)
            doubts = doubts + more
        found = kernel
        if known is not None:
            kernel = torch.where(known.sum((1, 2), keepdim=True) > 0.5, known, kernel)
        with full_precision(x):
            undone = self.wiener(y, kernel.float(), doubts.float())
            undone = F.pixel_unshuffle(undone - torch.cat([crop, _greys(crop)], 1), 2)
        repaired = self.repair.trunk(torch.cat([blurry, guess, undone, features], 1))
        image = F.pixel_shuffle(blurry + guess + self.repair.head(repaired), 2)
        if not self.training:
            return Answer(image, kernel)
        # The kernel found, for of one that is told it cannot learn.
        return Answer(image, found, F.pixel_shuffle(blurry + guess, 2), first, sketch)


def _greys(colours: Tensor) -> Tensor:
    """The mean of three channels (N, 3, ...), GREYS times."""
    return colours.mean(1, keepdim=True).expand(-1, GREYS, -1, -1)


def _doubt_shapes(grid: Grid) -> Tensor:
    """How doubt of a kernel may raise Wiener's r: everywhere, for high frequencies, by direction; (DOUBTS, ...)."""
    rows = np.sin(np.pi * np.arange(grid.height) / grid.height) ** 2
    columns = np.sin(np.pi * np.arange(grid.columns) / grid.width) ** 2
    total = rows[:, None] + columns + 1e-3
    across = (columns - rows[:, None]) / total
    sign = np.sign(np.fft.fftfreq(grid.height))[:, None]
    aslant = 2 * sign * np.sqrt(rows[:, None] * columns) / total
    return torch.from_numpy(np.stack([np.ones_like(total), np.log(total) / 4 + 0.5, across, aslant]).astype(np.float32))
