"""Fourier transforms as products with constant matrices: plain MatMul in every engine, padding and cutting for free.

A spectrum is real, (..., 2 H, W // 2 + 1): the real parts of the H rows, then the imaginary ones.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Grid:
    """An H x W grid of frequencies, with the matrices that lead to it and back from parts of the plane."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.columns = width // 2 + 1

    def into(self, height: int, width: int, origin: int = 0, join: bool = False) -> Into:
        """From pictures (..., height, width) whose pixel `origin` in both directions is the plane's zero.

        The rest of the plane is zero, or with `join` a ramp from each last pixel to the first one, round the edge: a
        picture that does not jump there rings less when it is deconvolved.
        """
        return Into(
            _forward(self.height, height, origin, join), _forward(self.width, width, origin, join)[: self.columns]
        )

    def back(self, height: int, width: int, origin: int = 0) -> Back:
        """To the part (..., height, width) of the plane whose pixel `origin` in both directions is the plane's zero."""
        return Back(_inverse(self.height, height, origin), _inverse(self.width, width, origin), self.columns)

    def laplacian(self) -> Tensor:
        """The power of the differences to the right and lower neighbour at each frequency, (H, W // 2 + 1), 0 to 8."""
        rows, columns = np.arange(self.height), np.arange(self.columns)
        power = 4 - 2 * np.cos(2 * np.pi * rows / self.height)[:, None] - 2 * np.cos(2 * np.pi * columns / self.width)
        return torch.from_numpy(power.astype(np.float32))


class Into(nn.Module):
    """Pictures to spectra."""

    across: Tensor
    down: Tensor

    def __init__(self, rows: NDArray[np.complex128], columns: NDArray[np.complex128]) -> None:
        super().__init__()
        self.columns = len(columns)
        across = np.concatenate([columns.real, columns.imag]).T
        down = np.block([[rows.real, -rows.imag], [rows.imag, rows.real]])
        self.register_buffer("across", torch.from_numpy(across.astype(np.float32, order="C")), persistent=False)
        self.register_buffer("down", torch.from_numpy(down.astype(np.float32, order="C")), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(..., height, width) to (..., 2 H, W // 2 + 1)."""
        half = images @ self.across
        return self.down @ torch.cat([half[..., : self.columns], half[..., self.columns :]], -2)


class Back(nn.Module):
    """Spectra of real pictures to parts of those."""

    across: Tensor
    down: Tensor

    def __init__(self, rows: NDArray[np.complex128], columns: NDArray[np.complex128], count: int) -> None:
        super().__init__()
        self.rows = len(rows)
        down = np.block([[rows.real, -rows.imag], [rows.imag, rows.real]])
        # A real picture's other frequencies are the conjugates of those kept: these count twice.
        twice = np.full(count, 2.0)
        twice[0] = 1
        if columns.shape[1] % 2 == 0:
            twice[-1] = 1
        kept = (columns[:, :count] * twice).T
        across = np.concatenate([kept.real, -kept.imag])
        self.register_buffer("down", torch.from_numpy(down.astype(np.float32, order="C")), persistent=False)
        self.register_buffer("across", torch.from_numpy(across.astype(np.float32, order="C")), persistent=False)

    def forward(self, spectra: Tensor) -> Tensor:
        """(..., 2 H, W // 2 + 1) to (..., height, width)."""
        half = self.down @ spectra
        return torch.cat([half[..., : self.rows, :], half[..., self.rows :, :]], -1) @ self.across


def _forward(side: int, count: int, origin: int, join: bool) -> NDArray[np.complex128]:
    """(side, count): the transform of `count` pixels set into a line of `side`."""
    place = np.zeros((side, count))
    place[np.arange(count), np.arange(count)] = 1
    if join:
        ramp = np.arange(1, side - count + 1) / (side - count + 1)
        place[count:, -1], place[count:, 0] = 1 - ramp, ramp
    positions = np.arange(side) - origin
    return np.asarray(np.exp(-2j * np.pi * np.outer(np.arange(side), positions) / side) @ place)


def _inverse(side: int, count: int, origin: int) -> NDArray[np.complex128]:
    """(count, side): the inverse transform at `count` pixels of a line of `side`."""
    return np.exp(2j * np.pi * np.outer(np.arange(count) - origin, np.arange(side)) / side) / side
