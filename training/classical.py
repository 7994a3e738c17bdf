"""Classical methods beside ours: unsharp masking, a lower reference; Wiener and Richardson-Lucy with the true kernel.

No classical method could know the kernel: with it they show what deconvolution could reach at best.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

BALANCE = 0.05  # Wiener's regularisation and Richardson-Lucy's rounds: the best of a few tried on folds 1-2 of LFW
ROUNDS = 10


def unsharp(crops: NDArray[np.uint8], kernel: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    """Unsharp masking, radius 2 px, amount 1."""
    from skimage.filters import unsharp_mask

    return _whole([unsharp_mask(crop, radius=2, amount=1, channel_axis=2) for crop in crops])


def wiener(crops: NDArray[np.uint8], kernel: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    """Wiener deconvolution with the true kernel."""
    from skimage.restoration import wiener as deconvolve

    return crops if kernel is None else _channels(crops, lambda image: deconvolve(image, kernel, BALANCE, clip=False))


def richardson_lucy(crops: NDArray[np.uint8], kernel: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    """Richardson-Lucy deconvolution with the true kernel."""
    from skimage.restoration import richardson_lucy as deconvolve

    return crops if kernel is None else _channels(crops, lambda image: deconvolve(image, kernel, num_iter=ROUNDS))


def _channels(
    crops: NDArray[np.uint8], deconvolve: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.uint8]:
    """Each channel of each crop by itself, its border repeated far enough that the kernel never meets an edge."""
    padded = np.pad(crops.astype(np.float64) / 255, ((0, 0), (16, 16), (16, 16), (0, 0)), mode="edge")
    done = [np.dstack([deconvolve(crop[..., c]) for c in range(3)])[16:-16, 16:-16] for crop in padded]
    return _whole(done)


def _whole(images: list[NDArray[np.float64]]) -> NDArray[np.uint8]:
    return np.rint(np.clip(np.stack(images), 0, 1) * 255).astype(np.uint8)


METHODS = {"unsharp": unsharp, "Wiener, true kernel": wiener, "Richardson-Lucy, true kernel": richardson_lucy}
