"""The motion of a smeared face once the face is known. From one frame the network has to guess both; where frames
around have shown the face, its motion alone is left, and that is a least-squares problem. Given that kernel the network
restores what it would have guessed wrongly, or not seen at all.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.faces.align import CROP_HEIGHT, CROP_WIDTH, INNER, SIZE
from stream.frame import Fit, Patch, Picture
from stream.motion import middle_of, motion_of, sharpness, smeared

SOFTER = 0.9  # of the known face's sharpness, from which a crop that has less is worth the fit
LEAST_PX = 2.5  # spread of the motion, in px of the crop, from which the fit is better than the network
LIKE = 0.45  # mean likeness from which the face is the one that was smeared: another one's is below 0.3
SURE = 0.8  # and from which its motion is told better than the network finds it,
AGREE = 0.8  # below, only where the network found quite another one
ALIKE, ALIKE_PX = 6.0, 2.0  # RMS, of 255, over about so many px, at which a likeness is 1 / e,
FAINT_FACE = 14.0  # less in faces whose contrast (RMS, of 255) is below this: in the dark all are alike,
NOISE = 1.0  # but no less than this
PLAIN = 2.0  # contrast (RMS, of 255) of a face below which it tells nothing: a covered lens, a flash
REACH = 20  # px that a motion may reach from the middle, its own place not being known yet,
KEPT = 16  # and once it is
RIM, BLIND_RIM = 4, 6  # px of a crop in which a restored face is worst, and of half a crop that a long motion spoils
DETAIL_PX, COARSE_DETAIL_PX = 3.0, 1.0  # what varies over more than about this (of half the crop) tells no motion
STEPS, COARSE_STEPS = 20, 30  # of the fit, and before it at half the size
SPARSE = 0.01  # of the best single value's gain must every value bring
LEAST = 0.02  # of the highest value: what lies below is noise,
APART = 0.05  # and of the heaviest part's sum: what is not joined to it and weighs less, too, for a motion is one way
NOWHERE = np.zeros(2)
FAR_PX = 12.0  # spread at which the middle of a motion says as much of where a face is as where it was seen does


class Guess(NamedTuple):
    """A motion as it is seen at half the size."""

    kernel: NDArray[np.float32]  # (41, 41), of the whole size
    like: float  # mean likeness, 0 to 1, to what it makes of the face


def fit(given: NDArray[np.uint8], face: Picture, matrix: NDArray[np.float64]) -> Fit | None:
    """The motion that makes the smeared crop (112, 96, 3) of a known face (112, 96, 3) that lies near; None where it is
    small, the crop about as sharp, the face plain, or the two not alike. `matrix` cut the crop out of its frame."""
    guess = guessed(given, face)
    return None if guess is None else fit_from(guess, given, face, matrix)


def guessed(given: NDArray[np.uint8], face: Picture) -> Guess | None:
    """The first part of `fit`, a third of its time; None where the crop is about as sharp, or the face plain."""
    grey = to_grey(face)
    if sharpness(given) > SOFTER * sharpness(face) or grey[INNER].std() < PLAIN:
        return None
    return _guess(grey, to_grey(given))


def fit_from(guess: Guess, given: NDArray[np.uint8], face: Picture, matrix: NDArray[np.float64]) -> Fit | None:
    """The other part of `fit`, from what was guessed of the same face."""
    grey, seen = to_grey(face), to_grey(given)
    kernel, off = centred(_refined(guess.kernel, grey, seen))
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
    kernel = warped(found.kernel, np.eye(2), -found.back)
    restored = np.clip(moved(patch.restored.astype(np.float32), found.back) + 0.5, 0, 255).astype(np.uint8)
    motion = motion_of(kernel, patch.crop.matrix)
    return replace(patch, restored=restored, kernel=kernel, motion=motion, is_refitted=True)


def _guess(sharp: Picture, seen: Picture) -> Guess:
    """The same at half the size, from any motion."""
    import cv2

    a, b = (
        np.asarray(cv2.resize(g, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.float32) for g in (sharp, seen)
    )
    flat = np.full((REACH + 1, REACH + 1), np.float32(1 / (REACH + 1) ** 2))
    kernel = _descend(flat, a, b, _blind(), COARSE_DETAIL_PX, COARSE_STEPS)
    doubled = cv2.warpAffine(kernel, np.diag([2.0, 2.0, 0])[:2], (2 * REACH + 1,) * 2, flags=cv2.INTER_LINEAR)
    inner = tuple(slice(part.start // 2, part.stop // 2) for part in INNER)
    off = smeared(a, _of_sum_1(without_noise(kernel))) - b
    like = float(alike(off, float(b[inner].std()))[inner].mean())
    return Guess(np.asarray(doubled / 4, np.float32), like)


def _refined(start: NDArray[np.float32], sharp: Picture, seen: Picture) -> NDArray[np.float32]:
    """The kernel (41, 41), at least 0 and of sum 1, that makes one grey crop (112, 96) of the other, from a first one:
    where the crop shows all that such a motion smears into a pixel."""
    return _of_sum_1(_descend(start, sharp, seen, shown(start), DETAIL_PX, STEPS))


def _descend(
    kernel: NDArray[np.float32], sharp: Picture, seen: Picture, weight: Picture, detail_px: float, steps: int
) -> NDArray[np.float32]:
    """A kernel (side, side) bettered: the least squares of what it makes of the details of one grey picture (H, W)
    against those of the other, each pixel by its weight. A projected gradient with momentum (FISTA), circular."""
    import cv2

    side, reach = len(kernel), len(kernel) // 2
    spectrum = cv2.dft(_details(sharp, detail_px))
    # A kernel stands in a corner here, not about it: all that it makes lies so much further right and down.
    wanted, weight = (np.roll(each, (reach, reach), (0, 1)) for each in (_details(seen, detail_px), weight))

    def correlated(picture: Picture) -> NDArray[np.float32]:
        product = cv2.mulSpectrums(cv2.dft(picture * weight), spectrum, 0, conjB=True)
        return np.asarray(cv2.idft(product, flags=cv2.DFT_SCALE, nonzeroRows=side)[:side, :side], np.float32)

    power = cv2.mulSpectrums(spectrum, spectrum, 0, conjB=True).max()
    step = np.float32(1 / max(float(power * weight.mean()), 1e-6))
    least = SPARSE * correlated(wanted).max()
    plane = np.zeros_like(sharp)
    ahead, momentum = kernel, 1.0
    for _ in range(steps):
        plane[:side, :side] = ahead
        made = cv2.idft(cv2.mulSpectrums(cv2.dft(plane, nonzeroRows=side), spectrum, 0), flags=cv2.DFT_SCALE)
        before, kernel = kernel, np.maximum(ahead - step * (correlated(made - wanted) + least), 0)
        more = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead, momentum = kernel + np.float32((momentum - 1) / more) * (kernel - before), more
    return kernel


def _details(picture: Picture, detail_px: float) -> Picture:
    """A picture without what varies over more than about so many px."""
    import cv2

    return np.asarray(picture - cv2.GaussianBlur(picture, (0, 0), detail_px), np.float32)


def shown(kernel: NDArray[np.float32]) -> Picture:
    """1 where all that a motion smears into a pixel lies in the crop, RIM px of it left out, 0 where some does not."""
    import cv2

    kernel = without_noise(kernel)
    inside = np.zeros((CROP_HEIGHT, CROP_WIDTH), np.float32)
    inside[RIM:-RIM, RIM:-RIM] = 1 / max(kernel.sum(), 1e-9)
    share = cv2.filter2D(inside, -1, cv2.flip(kernel, -1), borderType=cv2.BORDER_CONSTANT)
    return np.asarray(np.clip((share - 0.85) / 0.1, 0, 1), np.float32)


def centred(kernel: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A kernel (41, 41) without its noise, its centre of mass moved into the middle of (33, 33), and where that
    was: px right and down of the middle."""
    kernel = without_noise(kernel)
    off = middle_of(kernel)
    return _cut(warped(kernel, np.eye(2), -off)), off


def _cut(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    cut = slice(REACH - KEPT, REACH + KEPT + 1)
    return _of_sum_1(kernel[cut, cut])


def without_noise(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """A kernel without what is faint, or lies apart and weighs little."""
    import cv2

    kept = (kernel > LEAST * kernel.max()).astype(np.uint8)
    parts = cv2.connectedComponents(kept, connectivity=8)[1]
    weight = np.bincount(parts.ravel(), (kernel * kept).ravel())
    return np.where((weight >= APART * weight.max())[parts] & (kept > 0), kernel, np.float32(0))


def likeness(grey: Picture, kernel: NDArray[np.float32], seen: Picture) -> Picture:
    """How like a smeared grey crop (112, 96) a face is once the kernel smears it too, 0 to 1 by pixel."""
    return alike(smeared(grey, kernel) - seen, float(seen[INNER].std()))


def alike(off: Picture, contrast: float, noise: float = 0.0) -> Picture:
    """How little a difference (H, W) from a face of that contrast (RMS, of 255) is, 0 to 1 by pixel; `noise` (RMS) of
    it is none."""
    import cv2

    least = max(ALIKE * min(1.0, contrast / FAINT_FACE), NOISE)
    power = np.maximum(cv2.GaussianBlur(np.square(off), (0, 0), ALIKE_PX) - np.float32(noise**2), 0)
    return np.asarray(np.exp(-power / np.float32(least**2)), np.float32)


def noise_of(grey: Picture) -> float:
    """The noise (RMS, of 255) of a grey crop (112, 96), by the median of neighbouring pixels' mixed differences, of
    which a smeared face has few (the robust estimator of Donoho and Johnstone, 1994)."""
    face = grey[INNER]
    mixed = face[:-1, :-1] + face[1:, 1:] - face[:-1, 1:] - face[1:, :-1]  # twice the noise of a pixel
    return float(np.median(np.abs(mixed))) / (2 * 0.6745)


def moved(picture: Picture, by: NDArray[np.float64]) -> Picture:
    """A crop (112, 96) or (112, 96, 3) moved by so many px to the right and down."""
    import cv2

    into = np.array([[1, 0, by[0]], [0, 1, by[1]]])
    warped = cv2.warpAffine(picture, into, SIZE, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)


def to_grey(picture: NDArray[np.uint8] | Picture) -> Picture:
    """Luma (H, W) of RGB (H, W, 3)."""
    return picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def warped(
    kernel: NDArray[np.float32], linear: NDArray[np.float64], by: NDArray[np.float64] = NOWHERE
) -> NDArray[np.float32]:
    """A square kernel of sum 1 turned and scaled about its middle by a matrix (2, 2), then moved by so many px to the
    right and down. What leaves it is lost, the rest of sum 1 again."""
    import cv2

    middle = np.full(2, len(kernel) // 2)
    into = np.column_stack([linear, middle - linear @ middle + by])
    turned = np.asarray(cv2.warpAffine(kernel, into, kernel.shape[::-1], flags=cv2.INTER_LINEAR), np.float32)
    return _of_sum_1(turned)


def _of_sum_1(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(kernel / max(kernel.sum(), 1e-9), np.float32)


@cache
def _blind() -> Picture:
    """At half the crop's size, as `shown` is where nothing is known of a motion: 1 but for BLIND_RIM px."""
    import cv2

    inside = np.zeros((CROP_HEIGHT // 2, CROP_WIDTH // 2), np.float32)
    inside[BLIND_RIM:-BLIND_RIM, BLIND_RIM:-BLIND_RIM] = 1
    return np.asarray(cv2.GaussianBlur(inside, (0, 0), 1.0), np.float32)
