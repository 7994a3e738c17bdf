"""The motion as frames around would tell it: in video the network is told the kernel that the run time fits to what
they have shown of the face (`stream/refit.py`). Trained with such kernels, right and less right, it learns to use them.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stream.refit import fit
from training.config import ToldConfig
from training.degrade import Batch, bends, blur, gaussians
from training.layers import inner

UPRIGHT = np.eye(2, 3)  # a crop that is its own frame


def tell(batch: Batch, margin: int, rng: np.random.Generator, config: ToldConfig) -> Batch:
    """The batch, `config.share` of it with its kernels told, where the fit trusts itself; the others' are zeros."""
    chosen = np.flatnonzero(rng.random(len(batch.sharp)) < config.share)
    if not len(chosen):
        return batch
    faces = _shown(batch.sharp[chosen], rng, config).permute(0, 2, 3, 1).numpy() * 255
    given = (inner(batch.blurry[chosen, :3], margin) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    known = batch.known.clone()
    for i, face, smeared in zip(chosen, faces, given, strict=True):
        found = fit(np.ascontiguousarray(smeared), np.ascontiguousarray(face), UPRIGHT)
        if found is not None:
            known[i] = torch.from_numpy(found.kernel)
    return batch._replace(known=known)


def _shown(sharp: Tensor, rng: np.random.Generator, config: ToldConfig) -> Tensor:
    """Sharp faces (N, 3, 112, 96) as they were restored some frames before: moved a little, and softer."""
    count, size = len(sharp), list(sharp.shape)
    grid = F.affine_grid(torch.eye(2, 3).expand(count, -1, -1), size, align_corners=False)
    shift = rng.uniform(-config.shift_px, config.shift_px, (count, 1, 1, 2)) * 2 / np.array(size[:1:-1])
    grid = grid + torch.from_numpy(shift.astype(np.float32)) + bends(rng, config.bend_px, sharp)
    moved = F.grid_sample(sharp, grid, mode="bicubic", padding_mode="border", align_corners=False)
    soft = blur(F.pad(moved, (4, 4, 4, 4), mode="replicate"), gaussians(rng, count, config.soft_sigma_px))
    return soft[..., 4:-4, 4:-4].clamp(0, 1)
