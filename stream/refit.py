"""The motion of a smeared face once the face is known. From one frame the network has to guess both; where frames
around have shown the face, its motion alone is left, and that is a least-squares problem. Given that kernel the network
restores what it would have guessed wrongly, or not seen at all.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stream.faces.align import CROP_HEIGHT, CROP_WIDTH, INNER
from stream.faces.second_look import sharpness
from stream.frame import Fit, Patch, Picture
from stream.motion import motion_of, smeared

SOFTER = 0.9  # of the known face's sharpness, from which a crop that has less is worth the fit
LEAST_PX = 1.5  # spread of the motion, in px of the crop, from which the fit is better than the network
LIKE = 0.45  # mean likeness from which the face is the one that was smeared: another one's is below 0.3
SURE = 0.8  # and from which its motion is told better than the network finds it,
AGREE = 0.8  # below, only where the network found quite another one
ALIKE, ALIKE_PX = 7.0, 2.0  # RMS, of 255, over about so many px, at which a likeness is 1 / e,
FAINT_FACE = 14.0  # less in faces whose contrast (RMS, of 255) is below this: in the dark all are alike,
NOISE = 1.0  # but no less than this
FADE_PX = 16  # over which a crop is faded out before its motion is fitted
REACH = 20  # px that a motion may reach from the middle, its own place not being known yet,
KEPT = 16  # and once it is
GRID = 96  # px of the plane in which the fit runs: enough for twice the reach on either side
STEPS = 40  # of the fit: more of them fit the noise
SPARSE = 0.01  # of the best single value's gain must every value bring
LEAST = 0.05  # of the highest value: what lies below is noise
FAR_PX = 12.0  # spread at which the middle of a motion says as much of where a face is as where it was seen does


def fit(given: NDArray[np.uint8], face: Picture, matrix: NDArray[np.float64]) -> Fit | None:
    """The motion that makes the smeared crop (112, 96, 3) of a known face (112, 96, 3) that lies near; None where it is
    small, the crop about as sharp, or the two not alike. `matrix` cut the crop out of its frame."""
    if sharpness(given) > SOFTER * sharpness(face):
        return None
    grey, seen = to_grey(face), to_grey(given)
    kernel, off = centred(fit_kernel(grey, seen))
    spread = motion_of(kernel, matrix).spread_px
    like = float(likeness(moved(grey, off), kernel, seen)[INNER].mean())
    if spread < LEAST_PX or like < LIKE:
        return None
    # The face has moved since it was seen, or the kernel's middle is wrong; a longer motion's middle is less sure.
    return Fit(kernel, off, off * (1 / (1 + (spread / FAR_PX) ** 2) - 1), like)


def is_better(found: Fit, kernel: NDArray[np.float32]) -> bool:
    """Whether a fit tells the motion better than the kernel (33, 33) that the network found by itself."""
    import cv2

    a, b = (cv2.GaussianBlur(each, (0, 0), 1.0).ravel() for each in (found.kernel, kernel))
    agree = float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9)
    return found.like >= SURE or agree < AGREE


def placed(patch: Patch, found: Fit) -> Patch:
    """A patch that was restored with the kernel of a fit, moved to where the face is."""
    kernel = _shifted(found.kernel, -found.back)
    restored = np.clip(moved(patch.restored.astype(np.float32), found.back) + 0.5, 0, 255).astype(np.uint8)
    motion = motion_of(kernel, patch.crop.matrix)
    return replace(patch, restored=restored, kernel=kernel, motion=motion, is_refitted=True)


def fit_kernel(sharp: Picture, smeared: Picture) -> NDArray[np.float32]:
    """The kernel (41, 41), at least 0 and of sum 1, that makes one grey crop (112, 96) of the other, best in the least
    squares of their differences: a projected gradient with momentum (FISTA), in Fourier space."""
    import cv2

    side, lags = 2 * REACH + 1, np.arange(-2 * REACH, 2 * REACH + 1)
    shape = (CROP_HEIGHT + 2 * REACH, CROP_WIDTH + 2 * REACH)
    edges = (np.stack([np.gradient(grey, axis=axis) for axis in (0, 1)]) * WINDOW for grey in (sharp, smeared))
    a, b = (np.fft.rfft2(each, shape) for each in edges)
    auto, cross = (np.fft.irfft2((a.conj() * other).sum(0), shape) for other in (a, b))
    highest = max(auto[0, 0], 1e-6)
    plane = np.zeros((GRID, GRID), np.float32)
    plane[np.ix_(lags, lags)] = auto[np.ix_(lags, lags)] / highest
    blur = cv2.dft(plane)
    gain = (np.roll(cross, (REACH, REACH), (0, 1))[:side, :side] / highest).astype(np.float32)
    gain -= SPARSE * gain.max()
    kernel = ahead = np.full((side, side), np.float32(1 / side**2))
    momentum, step = 1.0, 1 / max(float(blur.max()), 1e-6)
    plane[:] = 0
    for _ in range(STEPS):
        plane[:side, :side] = ahead
        product = cv2.mulSpectrums(cv2.dft(plane, nonzeroRows=side), blur, 0)
        slope = cv2.idft(product, flags=cv2.DFT_SCALE, nonzeroRows=side)[:side, :side] - gain
        before, kernel = kernel, np.maximum(ahead - step * slope, 0)
        more = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead, momentum = kernel + (momentum - 1) / more * (kernel - before), more
    return np.asarray(kernel / max(kernel.sum(), 1e-9), np.float32)


def centred(kernel: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A kernel (41, 41) without what is faint, its centre of mass moved into the middle of (33, 33), and where that
    was: px right and down of the middle."""
    kernel = np.where(kernel < LEAST * kernel.max(), np.float32(0), kernel)
    off = middle_of(kernel)
    cut = slice(REACH - KEPT, REACH + KEPT + 1)
    kernel = _shifted(kernel, -off)[cut, cut]
    return kernel / max(kernel.sum(), 1e-9), off


def middle_of(kernel: NDArray[np.float32]) -> NDArray[np.float64]:
    """Where the centre of mass of a square kernel is: px right and down of its middle."""
    rows, columns = np.indices(kernel.shape) - kernel.shape[0] // 2
    off: NDArray[np.float64] = np.array([(columns * kernel).sum(), (rows * kernel).sum()]) / max(kernel.sum(), 1e-9)
    return off


def likeness(grey: Picture, kernel: NDArray[np.float32], seen: Picture) -> Picture:
    """How like a smeared grey crop (112, 96) a face is once the kernel smears it too, 0 to 1 by pixel."""
    import cv2

    off = cv2.GaussianBlur(np.square(smeared(grey, kernel) - seen), (0, 0), ALIKE_PX)
    alike = max(ALIKE * min(1.0, float(seen[INNER].std()) / FAINT_FACE), NOISE)
    return np.asarray(np.exp(-off / np.float32(alike**2)), np.float32)


def moved(picture: Picture, by: NDArray[np.float64]) -> Picture:
    """A crop (112, 96) or (112, 96, 3) moved by so many px to the right and down."""
    import cv2

    into, size = np.array([[1, 0, by[0]], [0, 1, by[1]]]), (CROP_WIDTH, CROP_HEIGHT)
    warped = cv2.warpAffine(picture, into, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)


def to_grey(picture: NDArray[np.uint8] | Picture) -> Picture:
    """Luma (H, W) of RGB (H, W, 3)."""
    return picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _shifted(kernel: NDArray[np.float32], by: NDArray[np.float64]) -> NDArray[np.float32]:
    """A kernel moved by so many px to the right and down; what leaves it is lost."""
    import cv2

    into = np.array([[1, 0, by[0]], [0, 1, by[1]]])
    return np.asarray(cv2.warpAffine(kernel, into, kernel.shape[::-1], flags=cv2.INTER_LINEAR), np.float32)


def _window() -> Picture:
    """Ones that fade to nothing over FADE_PX at the rim."""
    fade = (1 - np.cos(np.linspace(0, np.pi, FADE_PX + 2)[1:-1])) / 2
    lines = [np.concatenate([fade, np.ones(side - 2 * FADE_PX), fade[::-1]]) for side in (CROP_HEIGHT, CROP_WIDTH)]
    return np.outer(*lines).astype(np.float32)


WINDOW = _window()
