"""The losses of eq. 5 to 8, each a mean over the batch, weighted by the mask (N, 1, H, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training.config import LossConfig
from training.degrade import Batch
from training.layers import Answer
from training.phi import Phi


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / (mask.sum() * values.shape[1]).clamp(min=1)


def l2(restored: Tensor, sharp: Tensor, mask: Tensor) -> Tensor:
    """Eq. 6: the mean squared difference over pixels and channels."""
    return _masked_mean((restored - sharp).square(), mask)


def charbonnier(restored: Tensor, sharp: Tensor, mask: Tensor, epsilon: float = 1e-3) -> Tensor:
    """sqrt(d^2 + epsilon^2), a smooth absolute difference: kinder to a few large errors than eq. 6."""
    return _masked_mean(((restored - sharp).square() + epsilon**2).sqrt(), mask)


def log_l2(restored: Tensor, sharp: Tensor, mask: Tensor, least: float = 1e-5) -> Tensor:
    """The mean of each face's log10 of eq. 6, its PSNR in bel: a decibel counts as much on a face that is hardly
    blurred, and less and less above 50 dB (`least`). Scaled to move the weights about as far as eq. 6's root.
    """
    covered = mask.sum((1, 2, 3))
    error = ((restored - sharp).square() * mask).sum((1, 2, 3)) / (covered * restored.shape[1]).clamp(min=1)
    return ((error + least).log10() * covered).sum() / covered.sum().clamp(min=1) / 40


PIXEL = {"l2": l2, "charbonnier": charbonnier, "log_l2": log_l2}


def total_variation(restored: Tensor, mask: Tensor) -> Tensor:
    """Eq. 7: squared differences to the right and lower neighbour.

    The paper's is a sum, thousands of times the averaged L2 of eq. 6; this is the mean, so that alpha compares with it.
    """
    right = (restored[..., :, 1:] - restored[..., :, :-1]).square() * mask[..., :, 1:] * mask[..., :, :-1]
    down = (restored[..., 1:, :] - restored[..., :-1, :]).square() * mask[..., 1:, :] * mask[..., :-1, :]
    return right.mean() + down.mean()


def facial(restored: Tensor, sharp: Tensor, mask: Tensor, phi: Phi) -> Tensor:
    """Eq. 8: the squared distance of both pictures' features, 0 to 4 as they have length 1; alike outside the mask."""
    with torch.no_grad():
        wanted = phi(sharp)
    return (phi(torch.lerp(sharp, restored.clamp(0, 1), mask)) - wanted).square().sum(1).mean()


def motion(found: Tensor, true: Tensor) -> Tensor:
    """The squared difference of kernels (N, side, side), summed, after a 3x3 mean: a pixel beside is nearly right."""
    return F.avg_pool2d(found - true, 3, 1, 1).square().sum((1, 2)).mean()


def total(answer: Answer, batch: Batch, config: LossConfig, phi: Phi | None = None, share: float = 1.0) -> Tensor:
    """Eq. 5, and for networks that find the motion how well they did, and how good their first guess is.

    The facial term is left out without a Phi, and for parts of a crop, in which it knows no face.
    `share` is how much the masked mean of these samples counts beside those of other processes.
    """
    pixel = PIXEL[config.pixel]
    image = answer.image.float()
    loss = share * pixel(image, batch.sharp, batch.mask)
    if config.tv:
        loss = loss + config.tv * total_variation(image, batch.mask)
    if phi is not None and image.shape[-2:] == (CROP_HEIGHT, CROP_WIDTH):
        loss = loss + config.facial * facial(image, batch.sharp, batch.mask, phi)
    for kernel in (answer.kernel, answer.first):
        if kernel is not None:
            loss = loss + config.kernel * motion(kernel.float(), batch.kernels)
    if answer.guess is not None and answer.guess.requires_grad:
        loss = loss + config.guess * share * pixel(answer.guess.float(), batch.sharp, batch.mask)
    if answer.sketch is not None:
        grey = batch.sharp.mean(1, keepdim=True)
        loss = loss + config.guess * share * pixel(answer.sketch.float(), grey, batch.mask)
    return loss
