"""The losses of eq. 5 to 8, each a mean over the batch, weighted by the mask (N, 1, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor

from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training.config import LossConfig
from training.phi import Phi


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / (mask.sum() * values.shape[1]).clamp(min=1)


def l2(restored: Tensor, sharp: Tensor, mask: Tensor) -> Tensor:
    """Eq. 6: the mean squared difference over pixels and channels."""
    return _masked_mean((restored - sharp).square(), mask)


def charbonnier(restored: Tensor, sharp: Tensor, mask: Tensor, epsilon: float = 1e-3) -> Tensor:
    """sqrt(d^2 + epsilon^2), a smooth absolute difference: kinder to a few large errors than eq. 6."""
    return _masked_mean(((restored - sharp).square() + epsilon**2).sqrt(), mask)


def total_variation(restored: Tensor) -> Tensor:
    """Eq. 7: squared differences to the right and lower neighbour.

    The paper's is a sum, thousands of times the averaged L2 of eq. 6; this is the mean, so that alpha compares with it.
    """
    right = (restored[..., :, 1:] - restored[..., :, :-1]).square().mean()
    return right + (restored[..., 1:, :] - restored[..., :-1, :]).square().mean()


def facial(restored: Tensor, sharp: Tensor, phi: Phi) -> Tensor:
    """Eq. 8: the squared distance of both pictures' features, 0 to 4 as they have length 1."""
    with torch.no_grad():
        wanted = phi(sharp)
    return (phi(restored.clamp(0, 1)) - wanted).square().sum(1).mean()


def total(
    restored: Tensor, sharp: Tensor, mask: Tensor, config: LossConfig, phi: Phi | None = None, share: float = 1.0
) -> Tensor:
    """Eq. 5. The facial term is left out without a Phi, and for parts of a crop, in which it knows no face.

    `share` is how much the masked mean of these samples counts beside those of other processes.
    """
    pixel = charbonnier if config.pixel == "charbonnier" else l2
    loss = share * pixel(restored, sharp, mask)
    if config.tv:
        loss = loss + config.tv * total_variation(restored)
    if phi is not None and restored.shape[-2:] == (CROP_HEIGHT, CROP_WIDTH):
        loss = loss + config.facial * facial(restored, sharp, phi)
    return loss
