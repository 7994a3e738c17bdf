"""Sharp aligned faces into training pairs: y = x * k + n (eq. 1), a new kernel for every sample.

A batch depends only on (seed, step), so a run that resumes sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training.config import DegradeConfig
from training.data import MARGIN
from training.kernels import KernelConfig, draw_kernels


class Batch(NamedTuple):
    """One training batch, float32 in [0, 1]."""

    blurry: Tensor  # (N, 3, 112 + 2 margin, 96 + 2 margin)
    sharp: Tensor  # (N, 3, 112, 96)
    mask: Tensor  # (N, 1, 112, 96), 1 where the blurry pixel was made of pixels that the source picture had
    kernels: Tensor  # (N, side, side)


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Images (N, C, H, W) convolved with kernels (N, side, side) by FFT, circularly.

    The outer side // 2 pixels hold what wrapped round: the caller cuts them off.
    """
    height, width = images.shape[-2:]
    side = kernels.shape[-1]
    padded = torch.zeros(len(kernels), height, width)
    padded[:, :side, :side] = kernels
    spectrum = torch.fft.rfft2(padded.roll((-(side // 2), -(side // 2)), (1, 2)))
    return torch.fft.irfft2(torch.fft.rfft2(images) * spectrum[:, None], s=(height, width))


def make_batch(
    faces: NDArray[np.uint8],
    indices: NDArray[np.int64],
    rng: np.random.Generator,
    kernels: KernelConfig,
    degrade: DegradeConfig,
    margin: int,
    size: tuple[int, int] = (CROP_HEIGHT, CROP_WIDTH),
) -> Batch:
    """The faces of `indices` shifted, flipped, brightened, blurred, made noisy and compressed.

    A `size` (height, width) smaller than the crop cuts a part out of each, where the picture covers it best.
    """
    count, reach = len(indices), kernels.side_px // 2
    pad = margin + reach
    height, width = size[0] + 2 * pad, size[1] + 2 * pad
    patches = np.empty((count, height, width, 4), np.uint8)
    for i, face in enumerate(indices):
        top, left = _place(faces[face, ..., 3], rng, size, min(degrade.shift_px, MARGIN - pad)) - pad
        patch = faces[face, top : top + height, left : left + width]
        patches[i] = patch[:, ::-1] if rng.random() < 0.5 else patch
    gain = torch.from_numpy(rng.uniform(1 - degrade.gain, 1 + degrade.gain, (count, 1, 1, 1)).astype(np.float32))
    x = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255
    x[:, :3] = (x[:, :3] * gain).clamp(0, 1)

    soft = np.flatnonzero(rng.random(count) < degrade.soft_share)
    if len(soft):
        x[soft, :3] = blur(x[soft, :3], _gaussians(rng, len(soft), degrade.soft_sigma_px))

    k = draw_kernels(rng, count, kernels)
    delta = np.zeros_like(k[0])
    delta[reach, reach] = 1
    k[rng.random(count) < degrade.unblurred_share] = delta
    drawn = torch.from_numpy(k)
    y = blur(x, drawn)[..., reach : height - reach, reach : width - reach]
    apart = np.flatnonzero(rng.random(count) < degrade.still_background_share)
    if len(apart):
        still = x[apart][..., reach : height - reach, reach : width - reach]
        face = _face_shape(rng, len(apart), y.shape[-2:])
        y[apart] = y[apart] * face + still * (1 - face)
    blurry = _spoil(y[:, :3], rng, degrade)
    centre = (..., slice(margin, margin + size[0]), slice(margin, margin + size[1]))
    sharp = x[:, :3, reach : height - reach, reach : width - reach][centre]
    return Batch(blurry, sharp.contiguous(), (y[:, 3:] > 0.995).float()[centre], drawn)


def _gaussians(rng: np.random.Generator, count: int, largest: float) -> Tensor:
    """Gaussian kernels (count, 9, 9): pictures are soft by their lens and codec, and that is not to be mended."""
    sigma = rng.uniform(0.3, largest, (count, 1))
    line = np.exp(-(np.arange(-4, 5)[None] ** 2) / (2 * sigma**2))
    line /= line.sum(1, keepdims=True)
    return torch.from_numpy((line[:, :, None] * line[:, None, :]).astype(np.float32))


def _face_shape(rng: np.random.Generator, count: int, size: torch.Size) -> Tensor:
    """Soft ellipses (count, 1, H, W) about a face: a head moves, what is behind it does not."""
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    radius = rng.uniform(0.75, 1.3, (2, count, 1, 1))
    inside = 1 - np.hypot(y / radius[0], x / radius[1])
    return torch.from_numpy(np.clip(inside * 6 + 0.5, 0, 1).astype(np.float32))[:, None]


def _place(alpha: NDArray[np.uint8], rng: np.random.Generator, size: tuple[int, int], room: int) -> NDArray[np.int64]:
    """Top and left of a part of that size, inside the crop moved by up to `room`; of four draws the best covered."""
    places = [
        MARGIN + rng.integers(-room, (CROP_HEIGHT - size[0] + room + 1, CROP_WIDTH - size[1] + room + 1))
        for _ in range(4 if size[0] < CROP_HEIGHT else 1)
    ]
    return max(places, key=lambda p: alpha[p[0] : p[0] + size[0] : 4, p[1] : p[1] + size[1] : 4].mean())


def _spoil(images: Tensor, rng: np.random.Generator, config: DegradeConfig) -> Tensor:
    """Noise, JPEG and the rounding to 8 bit that every decoded frame has."""
    count = len(images)
    sigma = rng.uniform(0, config.noise_max, count) * (rng.random(count) < config.noise_share)
    noise = rng.standard_normal(images.shape, np.float32) * sigma[:, None, None, None].astype(np.float32)
    rounded = ((images + torch.from_numpy(noise)) * 255).round().clamp(0, 255).to(torch.uint8)
    for i in np.flatnonzero(rng.random(count) < config.jpeg_share):
        quality = int(rng.integers(config.jpeg_min_quality, 96))
        rounded[i] = torch.from_numpy(_jpeg(rounded[i].permute(1, 2, 0).numpy(), quality)).permute(2, 0, 1)
    return rounded.float() / 255


def _jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", quality=quality)
    return np.array(Image.open(buffer))
