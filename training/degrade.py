"""Sharp aligned faces into training pairs: y = x * k + n (eq. 1), a new kernel for every sample.

A batch depends only on (seed, step), so a run that resumes sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training.config import DegradeConfig, NeighbourConfig
from training.data import MARGIN
from training.kernels import KernelConfig, draw_sequences
from training.spoil import spoil

GAMMA = 2.2  # light is the value to this power, nearly


class Batch(NamedTuple):
    """One training batch, float32 in [0, 1]."""

    blurry: Tensor  # (N, 3 frames, 112 + 2 margin, 96 + 2 margin), the newest frame first
    sharp: Tensor  # (N, 3, 112, 96)
    mask: Tensor  # (N, 1, 112, 96), 1 where the blurry pixel was made of pixels that the source picture had
    kernels: Tensor  # (N, side, side)
    known: Tensor  # and those of them that the network is told; zeros where it is not


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
    neighbour: NeighbourConfig | None = None,
) -> Batch:
    """The faces of `indices` moved, flipped, brightened, blurred, made noisy and compressed.

    With a `neighbour`, the same faces as the frame before shows them stand behind them. A `size` (height, width)
    smaller than the crop cuts a part out of each, where the picture covers it best.
    """
    reach = kernels.side_px // 2
    x = _sharp(faces, indices, rng, degrade, size, margin + reach)
    lens = rng.random(len(x))
    soft = np.flatnonzero(lens < degrade.soft_share)
    if len(soft):
        x[soft, :3] = blur(x[soft, :3], gaussians(rng, len(soft), degrade.soft_sigma_px))
    unfocused = np.flatnonzero((lens >= degrade.soft_share) & (lens < degrade.soft_share + degrade.defocus_share))
    if len(unfocused):
        x[unfocused, :3] = blur(x[unfocused, :3], discs(rng, len(unfocused), degrade.defocus_px))
    for i in np.flatnonzero(rng.random(len(x)) < degrade.small_share):
        x[i, :3] = _enlarged(x[i, :3], rng.uniform(degrade.small_scale, 1))
    drawn = draw_sequences(rng, len(x), 1 if neighbour is None else 2, kernels)
    drawn[rng.random(len(x)) < degrade.unblurred_share] = _delta(kernels.side_px)
    y, k = _smear(x, drawn[:, 0], rng, degrade)
    centre = (..., slice(margin, margin + size[0]), slice(margin, margin + size[1]))
    sharp = x[:, :3, reach : x.shape[2] - reach, reach : x.shape[3] - reach][centre]
    mask = (y[:, 3:] > 0.995).float()[centre]
    blurry = spoil(y[:, :3], rng, degrade)
    if neighbour is not None:
        blurry = torch.cat([blurry, _frame_before(x, blurry, drawn, rng, degrade, neighbour)], 1)
    return Batch(blurry, sharp.contiguous(), mask, k, torch.zeros_like(k))


def _frame_before(
    x: Tensor,
    blurry: Tensor,
    drawn: NDArray[np.float32],
    rng: np.random.Generator,
    degrade: DegradeConfig,
    config: NeighbourConfig,
) -> Tensor:
    """The frame before, (N, 3, ...), of sharp faces x: moved a little, under the motion before, or useless."""
    count = len(x)
    turn, scale = np.radians(rng.uniform(-config.turn_deg, config.turn_deg, count)), rng.uniform(0.98, 1.02, count)
    shift = rng.uniform(-config.shift_px, config.shift_px, (count, 2)) * 2 / np.array(x.shape[:1:-1])
    cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
    theta = np.stack([np.stack([cos, -sin, shift[:, 0]], 1), np.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(torch.from_numpy(theta.astype(np.float32)), list(x.shape), align_corners=False)
    grid = grid + bends(rng, config.bend_px, x)
    before = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    wrong = np.flatnonzero(rng.random(count) < config.wrong_share)
    before[wrong] = before.roll(1, 0)[wrong]
    same = rng.random(count) < config.same_share
    other = rng.random(count) < config.other_share
    kernels = np.where(same[:, None, None], drawn[:, 0], drawn[:, -1])
    kernels = np.where(other[:, None, None], np.roll(drawn[:, -1], 1, 0), kernels).astype(np.float32)
    for i in np.flatnonzero(rng.random(count) < config.milder_share):
        kernels[i] = _milder(kernels[i], rng.random())
    found = spoil(_smear(before, kernels, rng, degrade)[0][:, :3], rng, degrade)
    twice = np.flatnonzero(rng.random(count) < config.twice_share)
    found[twice] = blurry[twice]
    return found


def _sharp(
    faces: NDArray[np.uint8],
    indices: NDArray[np.int64],
    rng: np.random.Generator,
    degrade: DegradeConfig,
    size: tuple[int, int],
    pad: int,
) -> Tensor:
    """Faces (N, 4, height + 2 pad, width + 2 pad): RGB, and 1 where the picture had pixels."""
    height, width = size[0] + 2 * pad, size[1] + 2 * pad
    patches = np.empty((len(indices), height, width, 4), np.uint8)
    for i, index in enumerate(indices):
        face = faces[index]
        if rng.random() < degrade.turn_share:
            face = _turned(face, rng, degrade)
        top, left = _place(face[..., 3], rng, size, min(degrade.shift_px, MARGIN - pad)) - pad
        patch = face[top : top + height, left : left + width]
        patches[i] = patch[:, ::-1] if rng.random() < 0.5 else patch
    gain = torch.from_numpy(rng.uniform(1 - degrade.gain, 1 + degrade.gain, (len(indices), 1, 1, 1)).astype(np.float32))
    x = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255
    x[:, :3] = (x[:, :3] * gain).clamp(0, 1)
    return x


def _turned(face: NDArray[np.uint8], rng: np.random.Generator, degrade: DegradeConfig) -> NDArray[np.uint8]:
    """A face as wrong landmarks align it: turned, scaled and moved a little. What lay outside is not known."""
    import cv2

    height, width = face.shape[:2]
    turn = rng.uniform(-degrade.turn_deg, degrade.turn_deg)
    matrix = cv2.getRotationMatrix2D(
        (width / 2, height / 2), turn, rng.uniform(1 - degrade.turn_scale, 1 + degrade.turn_scale)
    )
    matrix[:, 2] += rng.uniform(-degrade.shift_px, degrade.shift_px, 2)
    rgb = cv2.warpAffine(face[..., :3], matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.dstack([rgb, cv2.warpAffine(face[..., 3], matrix, (width, height))])


def _smear(
    x: Tensor, drawn: NDArray[np.float32], rng: np.random.Generator, degrade: DegradeConfig
) -> tuple[Tensor, Tensor]:
    """Faces (N, 4, H, W) smeared, side // 2 px cut off all round, and the kernels (N, side, side) that did it."""
    count, reach = len(x), drawn.shape[-1] // 2
    inside = (..., slice(reach, x.shape[2] - reach), slice(reach, x.shape[3] - reach))
    k = torch.from_numpy(drawn.copy())
    light = x.clone()
    linear = np.flatnonzero(rng.random(count) < degrade.linear_share)
    light[linear, :3] = light[linear, :3].clamp(min=0) ** GAMMA  # softening by FFT leaves tiny negatives
    bright = np.flatnonzero(rng.random(count) < degrade.highlight_share)
    if len(bright):  # a lamp is brighter than white: its smear is too, and then clips
        more = torch.from_numpy(rng.uniform(2, 12, (len(bright), 1, 1, 1)).astype(np.float32))
        light[bright, :3] += (light[bright, :3] - 0.85).clamp(min=0) * more
    y = blur(light, k)[inside]
    uneven = np.flatnonzero(rng.random(count) < degrade.uneven_share)
    if len(uneven):  # a turning or nearing head: the motion changes from one side of the face to the other
        other = torch.from_numpy(np.stack([_changed(kernel, rng) for kernel in drawn[uneven]]))
        ramp = _ramps(rng, len(uneven), y.shape[-2:])
        y[uneven] = y[uneven] * (1 - ramp) + blur(light[uneven], other)[inside] * ramp
        k[uneven] = (k[uneven] + other) / 2
    behind = rng.random(count)
    still = np.flatnonzero(behind < degrade.still_background_share)
    most = degrade.still_background_share + degrade.moving_background_share
    moving = np.flatnonzero((behind >= degrade.still_background_share) & (behind < most))
    if len(still):
        face = _face_shape(rng, len(still), y.shape[-2:])
        y[still] = y[still] * face + light[still][inside] * (1 - face)
    if len(moving):  # as another sample's face does
        face = _face_shape(rng, len(moving), y.shape[-2:])
        others = torch.from_numpy(np.roll(drawn, 1, 0)[moving])
        y[moving] = y[moving] * face + blur(light[moving], others)[inside] * (1 - face)
    y[linear, :3] = y[linear, :3].clamp(min=0) ** (1 / GAMMA)
    return y, k


def _delta(side: int) -> NDArray[np.float32]:
    kernel = np.zeros((side, side), np.float32)
    kernel[side // 2, side // 2] = 1
    return kernel


def _changed(kernel: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The same motion, turned and stretched about its centre of mass."""
    import cv2

    centre = (kernel.shape[1] - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), rng.uniform(-30, 30), rng.uniform(0.5, 1.15))
    changed = np.maximum(cv2.warpAffine(kernel, matrix, kernel.shape[::-1]), 0)
    return (changed / changed.sum()).astype(np.float32) if changed.sum() > 0.01 else kernel


def _milder(kernel: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """The same motion, `share` as far."""
    import cv2

    half = kernel.shape[0] // 2
    reach = round(half * share)
    milder = np.zeros_like(kernel)
    inside = slice(half - reach, half + reach + 1)
    milder[inside, inside] = cv2.resize(kernel, (2 * reach + 1,) * 2, interpolation=cv2.INTER_AREA)
    return milder / milder.sum()


def bends(rng: np.random.Generator, most_px: float, x: Tensor) -> Tensor:
    """Ways (N, H, W, 2), of half a side, by which parts of a face (N, C, H, W) move: it speaks and looks about."""
    count, size = len(x), x.shape[-2:]
    bends = rng.standard_normal((count, 2, 7, 6)) * rng.uniform(0, most_px / 2, (count, 1, 1, 1))
    smooth = F.interpolate(torch.from_numpy(bends.astype(np.float32)), tuple(size), mode="bicubic")
    return smooth.permute(0, 2, 3, 1) * 2 / torch.tensor(list(size[::-1]))


def _ramps(rng: np.random.Generator, count: int, size: torch.Size) -> Tensor:
    """From 0 on one side to 1 on the other, (count, 1, H, W), in any direction."""
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    turn = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    ramp = np.clip(0.5 + 0.6 * (x * np.cos(turn) + y * np.sin(turn)), 0, 1)
    return torch.from_numpy(ramp.astype(np.float32))[:, None]


def gaussians(rng: np.random.Generator, count: int, largest: float) -> Tensor:
    """Gaussian kernels (count, 9, 9): pictures are soft by their lens and codec, and that is not to be mended."""
    sigma = rng.uniform(0.3, largest, (count, 1))
    line = np.exp(-(np.arange(-4, 5)[None] ** 2) / (2 * sigma**2))
    line /= line.sum(1, keepdims=True)
    return torch.from_numpy((line[:, :, None] * line[:, None, :]).astype(np.float32))


def discs(rng: np.random.Generator, count: int, largest: float) -> Tensor:
    """Discs (count, 9, 9) of a radius up to `largest` (4 px at most): a lens out of focus, not to be mended either."""
    radius = rng.uniform(0.5, largest, (count, 1, 1))
    fine = (np.arange(9 * 8) + 0.5) / 8 - 4.5  # eight lines a pixel
    disc = (np.hypot(fine[:, None], fine)[None] < radius).astype(np.float32)
    disc = disc.reshape(count, 9, 8, 9, 8).mean((2, 4))
    return torch.from_numpy(disc / disc.sum((1, 2), keepdims=True))


def _enlarged(image: Tensor, scale: float) -> Tensor:
    """A picture (3, H, W) as if its face had been smaller than the crop: nobody knows the detail that it lacks."""
    height, width = image.shape[-2:]
    small = F.interpolate(image[None], (round(height * scale), round(width * scale)), mode="bilinear", antialias=True)
    return F.interpolate(small, (height, width), mode="bilinear")[0]


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
