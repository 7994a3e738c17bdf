"""Muon (Jordan et al., https://kellerjordan.github.io/posts/muon), an optimiser for the weights of sums.

AdamW where a parameter is no convolution's weight. A convolution's is moved along its momentum made orthogonal: every
direction counts alike, those too that many gradients hardly show; as far as AdamW would move it (Liu et al., Muon is
scalable for LLM training, equation 4).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
STEPS = 5  # of Newton and Schulz
WEIGHTS = (3.4445, -4.7750, 2.0315)  # of the step: it brings singular values near 1, from anywhere in (0, 1)
ADAMS = 0.2  # root mean square of what AdamW moves at a rate of 1
LEAST = 4  # rows and columns of a matrix whose directions are worth the name


class Muon(torch.optim.AdamW):
    """Muon for weights (out, in, height, width) as matrices (out, in * height * width), AdamW for all else."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; gradients of convolutions are used up by it."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and weight.ndim == 4 and min(len(weight), weight[0].numel()) >= LEAST:
                    self._turn(weight, weight.grad, group)
                    weight.grad = None  # AdamW passes it over
        super().step()

    def _turn(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(weight)}  # AdamW wants steps where it loads
        momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(momentum, MOMENTUM).flatten(1)  # Nesterov's
        far = group["lr"] * ADAMS * max(ahead.shape) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(orthogonal(ahead).reshape(weight.shape), alpha=-far)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix (rows, columns) whose singular values are near 1 (some 0.7 to 1.2), but for tiny ones."""
    x = matrix.T if len(matrix) > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-12)
    a, b, c = WEIGHTS
    for _ in range(STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if len(matrix) > matrix.shape[1] else x
