"""How far a face moved during the exposure, which way, and whether it needs restoring: by a kernel, or by its edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.faces.align import INNER, scale_of
from stream.frame import Motion, Picture

NOISE = 0.02  # of a kernel's highest value: what lies below is no motion
FULL = 3.0  # times the spread below which a face is left alone, at which it is restored in full


def motion_of(kernel: NDArray[np.float32], matrix: NDArray[np.float64]) -> Motion:
    """The motion in a kernel (33, 33) of sum 1 that was found in the crop which `matrix` cut out of its frame."""
    if not is_known(kernel):
        return Motion(0.0, 0.0, 0.0)
    weight = np.clip(kernel - NOISE * kernel.max(), 0, None).astype(np.float64)
    weight /= weight.sum()
    y, x = np.indices(kernel.shape)
    points = np.stack([x.ravel(), y.ravel()]).astype(np.float64)
    points -= (points * weight.ravel()).sum(1, keepdims=True)
    covariance = (points * weight.ravel()) @ points.T
    variances, axes = np.linalg.eigh(covariance)
    # The crop may be turned: back into the frame, where rows run downwards.
    main = np.linalg.inv(matrix[:, :2]) @ axes[:, 1]
    direction = float(np.degrees(np.arctan2(-main[1], main[0])))
    direction = (direction + 90) % 180 - 90
    # A straight path of n px has a variance of n^2 / 12.
    length = float(np.sqrt(12 * max(variances[1], 0.0))) / scale_of(matrix)
    return Motion(float(np.sqrt(max(covariance.trace(), 0.0))), length, direction)


def is_known(kernel: NDArray[np.float32]) -> bool:
    """Whether a kernel tells anything: numbers, and not all of them 0."""
    return bool(np.isfinite(kernel).all() and kernel.max() > 0)


def middle_of(kernel: NDArray[np.float32]) -> NDArray[np.float64]:
    """Where the centre of mass of a square kernel is: px right and down of its middle."""
    rows, columns = np.indices(kernel.shape) - kernel.shape[0] // 2
    off: NDArray[np.float64] = np.array([(columns * kernel).sum(), (rows * kernel).sum()]) / max(kernel.sum(), 1e-9)
    return off


def smeared(picture: Picture, kernel: NDArray[np.float32]) -> Picture:
    """A picture (H, W) or (H, W, 3), its border repeated, as the motion of that kernel smears it."""
    import cv2

    return np.asarray(cv2.filter2D(picture, -1, cv2.flip(kernel, -1), borderType=cv2.BORDER_REPLICATE), np.float32)


def need(motion: Motion, still_px: float) -> float:
    """How much restoring helps, 0..1: nothing below a spread of `still_px`, all from FULL times that, smoothly."""
    if still_px <= 0:
        return 1.0
    share = float(np.clip((motion.spread_px / still_px - 1) / (FULL - 1), 0, 1))
    return share * share * (3 - 2 * share)


def sharpness(crop: NDArray[np.uint8] | Picture) -> float:
    """Edges beside contrast of a crop (112, 96, 3) at half its size, in the face itself: .45 to .9 of sharp faces,
    .2 to .5 of smeared ones."""
    import cv2

    half = cv2.resize(crop[INNER], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).mean(2, dtype=np.float32)
    return float(cv2.Laplacian(half, cv2.CV_32F).std() / (half.std() + 2))
