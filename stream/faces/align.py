"""The similarity transform between a face in a picture and the 112x96 template, and pictures warped by it.

A matrix is (2, 3) float64 and maps source pixels to crop pixels, `crop = M @ (x, y, 1)`, with the centre of the first
pixel at (0, 0). Crops are 112 high and 96 wide; a margin of m adds m pixels of surroundings on every side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CROP_HEIGHT, CROP_WIDTH = 112, 96
SIZE = (CROP_WIDTH, CROP_HEIGHT)  # as OpenCV wants it
INNER = (slice(16, -12), slice(12, -12))  # of a crop: the face without what is behind it

# Eyes, nose tip, mouth corners in crop pixels, image-left first (section 4.1 aligns by landmarks; these five are ours).
TEMPLATE: NDArray[np.float64] = np.array(
    [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]]
)
NOSE = 0.5  # of the distance of the eyes: how far a nose stands out


def similarity(points: NDArray[np.floating], target: NDArray[np.floating] = TEMPLATE) -> NDArray[np.float64]:
    """The least-squares similarity (rotation, one scale, shift) that takes `points` (N, 2) to `target` (N, 2)."""
    source = np.asarray(points, np.float64)
    mean_source, mean_target = source.mean(0), target.mean(0)
    a, b = source - mean_source, target - mean_target
    # In the plane, R s = [[p, -q], [q, p]] has a closed form: the complex quotient <a, b> / <a, a>.
    p = (a * b).sum() / (a * a).sum()
    q = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / (a * a).sum()
    rotation = np.array([[p, -q], [q, p]])
    return np.hstack([rotation, (mean_target - rotation @ mean_source)[:, None]])


def scale_of(matrix: NDArray[np.float64]) -> float:
    """Crop pixels per source pixel of a similarity."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix of the way back: crop pixels to source pixels."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.hstack([linear, -linear @ matrix[:, 2:]])


def apply(matrix: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points (N, 2) through a matrix."""
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def corners(margin: int = 0) -> NDArray[np.float64]:
    """The four outer corners (4, 2) of a crop with that margin, in crop pixels."""
    left, top = -0.5 - margin, -0.5 - margin
    right, bottom = CROP_WIDTH - 0.5 + margin, CROP_HEIGHT - 0.5 + margin
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def warp(image: NDArray[Any], matrix: NDArray[np.float64], margin: int = 0, border: int | None = None) -> NDArray[Any]:
    """The crop (112 + 2 margin, 96 + 2 margin, C) that `matrix` cuts out of `image` (H, W, C), bilinear.

    A picture much larger than the crop is halved (by area) first, so that nothing aliases. Outside the picture its
    border is mirrored, or filled with `border`.
    """
    import cv2

    while scale_of(matrix) <= 0.5 and min(image.shape[:2]) >= 2:
        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        image = cv2.resize(image[:height, :width], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        # x = 2 x' + 0.5: the centre of a halved pixel lies between two old ones.
        matrix = matrix @ np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]])
    moved = matrix + np.array([[0.0, 0.0, margin], [0.0, 0.0, margin]])
    size = (CROP_WIDTH + 2 * margin, CROP_HEIGHT + 2 * margin)
    mode = cv2.BORDER_REFLECT_101 if border is None else cv2.BORDER_CONSTANT
    return cv2.warpAffine(image, moved, size, flags=cv2.INTER_LINEAR, borderMode=mode, borderValue=[border or 0] * 4)


def yaw_of(points: NDArray[np.float64]) -> float:
    """Degrees that a head is turned, from how far the nose tip lies beside the middle of the eyes, points (5, 2)."""
    eyes = points[1] - points[0]
    beside = float((points[2] - points[:2].mean(0)) @ eyes) / max(float(eyes @ eyes), 1e-6)
    return float(abs(np.degrees(np.arctan(beside / NOSE))))
