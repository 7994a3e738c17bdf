"""Motion kernels: the path of a shaking camera drawn from a Gaussian process (section 3.1, eq. 4), rasterised."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

LENGTH_SCALE = 0.3  # l of eq. 4, set by the source that the paper follows
STANDARD_DEVIATION = 0.25  # s of eq. 4
TIME_STEP = 0.01
FINE = 8  # points drawn between two samples of the path, so that no pixel of a fast stretch is skipped


Share = Annotated[float, Meta(ge=0, le=1)]


class KernelConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which kernels are drawn. The paper: valid size 8 to 20 px, in one fixed size (27 holds all)."""

    side_px: Annotated[int, Meta(ge=5)] = 27
    valid_min_px: Annotated[int, Meta(ge=3)] = 8
    valid_max_px: int = 20
    samples_min: Annotated[int, Meta(ge=2)] = 20  # N of section 3.1, samples of TIME_STEP; the paper gives no range
    samples_max: int = 100
    jerky_share: Share = 0.0  # beside the paper: paths that hurry and rest, as a hand does
    straight_share: Share = 0.0  # and straight, even ones, as a head or a camera in one motion makes
    mild_share: Share = 0.0  # kernels of at most mild_max_px, beside those that are that small by chance
    mild_max_px: int = 8
    stepped_share: Share = 0.0  # paths of a few exposures, as of averaged frames, in place of one long one
    steps_min: Annotated[int, Meta(ge=2)] = 5
    steps_max: int = 11


def matern52(distance: NDArray[np.float64], scale: float = LENGTH_SCALE) -> NDArray[np.float64]:
    """The Matern-5/2 covariance of eq. 4 at time distances |t1 - t2|."""
    r = np.sqrt(5.0) * distance / scale
    return STANDARD_DEVIATION**2 * (1.0 + r + r * r / 3.0) * np.exp(-r)


@lru_cache
def _cholesky(samples: int) -> NDArray[np.float64]:
    t = np.arange(samples) * TIME_STEP
    covariance = matern52(np.abs(t[:, None] - t[None, :]))
    return np.asarray(np.linalg.cholesky(covariance + 1e-10 * np.eye(samples)), np.float64)


def sample_paths(rng: np.random.Generator, count: int, samples: int) -> NDArray[np.float64]:
    """`count` paths (count, samples, 2), both coordinates from the process of eq. 4, in its own units."""
    paths: NDArray[np.float64] = np.einsum("ts,nsc->ntc", _cholesky(samples), rng.standard_normal((count, samples, 2)))
    return paths


def uneven(rng: np.random.Generator, path: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same way (T, 2) at a speed that changes from stretch to stretch, down to a rest."""
    last = len(path) - 1
    speed = rng.gamma(0.5, size=rng.integers(3, 9)) + 0.02
    time = np.cumsum(np.concatenate([[0.0], speed]))
    at = np.interp(np.arange(len(path)), np.linspace(0, last, len(time)), time / time[-1] * last)
    return np.stack([np.interp(at, np.arange(len(path)), axis) for axis in path.T], 1)


def straight(rng: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """A straight way (samples, 2) at an even speed, in any direction."""
    turn = rng.uniform(0, 2 * np.pi)
    return np.linspace((0.0, 0.0), (np.cos(turn), np.sin(turn)), samples)


def rasterise(path: NDArray[np.float64], side_px: int, exposures: int = 0) -> NDArray[np.float32]:
    """A path (T, 2) in pixels, evenly spaced in time, as a kernel (side, side): sum 1, centre of mass in the middle.

    The light falls all along it, or at as many moments as there are `exposures`. A path that would reach past the rim,
    as one that dwells at an end, is made smaller.
    """
    steps = np.linspace(0, len(path) - 1, exposures or (len(path) - 1) * FINE + 1)
    low = np.minimum(steps.astype(int), len(path) - 2)
    share = (steps - low)[:, None]
    points = path[low] * (1 - share) + path[low + 1] * share
    points = points - points.mean(0)
    reach = max(np.abs(points).max(), 1e-9)
    points = points * min(1.0, (side_px / 2 - 1.5) / reach) + (side_px - 1) / 2
    corner = np.floor(points).astype(int)
    fx, fy = (points - corner).T
    kernel = np.zeros(side_px * side_px)
    for dx, dy, weight in ((0, 0, (1 - fx) * (1 - fy)), (1, 0, fx * (1 - fy)), (0, 1, (1 - fx) * fy), (1, 1, fx * fy)):
        inside = np.clip(
            corner + np.array([dx, dy]), 0, side_px - 1
        )  # a path fits by its size; rounding may touch the rim
        kernel += np.bincount(inside[:, 1] * side_px + inside[:, 0], weight, side_px * side_px)
    return (kernel / kernel.sum()).reshape(side_px, side_px).astype(np.float32)


def draw_kernels(rng: np.random.Generator, count: int, config: KernelConfig) -> NDArray[np.float32]:
    """`count` new kernels (count, side, side). The larger side of each one's support is its valid size."""
    return draw_sequences(rng, count, 1, config)[:, 0]


def draw_sequences(rng: np.random.Generator, count: int, frames: int, config: KernelConfig) -> NDArray[np.float32]:
    """`count` times the kernels of as many successive frames, the newest first, (count, frames, side, side).

    They are parts of one path; the newest has the size that was drawn, each has its centre of mass in its own middle.
    """
    kernels = np.empty((count, frames, config.side_px, config.side_px), np.float32)
    for i in range(count):
        # Ten lengths are enough variety and keep the Cholesky factors cached.
        samples = int(np.linspace(config.samples_min, config.samples_max, 10)[rng.integers(10)])
        mild = rng.random() < config.mild_share
        valid = int(rng.integers(config.valid_min_px, (config.mild_max_px if mild else config.valid_max_px) + 1))
        path = sample_paths(rng, 1, samples * frames)[0]
        kind = rng.random()
        if kind < config.jerky_share:
            path = uneven(rng, path)
        elif kind < config.jerky_share + config.straight_share:
            path = straight(rng, len(path))
        # Bilinear drawing widens a path by up to two pixels.
        path *= (valid - 2) / np.ptp(path[-samples:], axis=0).max()
        stepped = rng.random() < config.stepped_share
        exposures = int(rng.integers(config.steps_min, config.steps_max + 1)) if stepped else 0
        for frame, part in enumerate(reversed(np.split(path, frames))):
            kernels[i, frame] = rasterise(part, config.side_px, exposures)
    return kernels
