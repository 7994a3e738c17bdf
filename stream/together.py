"""Neighbouring frames of a smeared face undone together. Each motion takes other details, so what several frames show
of a face that hardly changes is more than the mean of what each is restored to: it is the face that, smeared by each
frame's own motion, looks as that frame does. That is a least-squares problem about the face as it is known so far, a
step of which is solved in Fourier space. Then neighbours are averaged, and motions fitted anew to what comes of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.faces import align
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH, INNER
from stream.frame import MOST_WAITING, Mended, Packet, Patch, Picture
from stream.memory import found_in
from stream.motion import motion_of
from stream.refit import LEAST_PX, alike, fit_kernel, kept, likeness, to_grey, warped
from stream.stats import Stats

NEAR, STEADY = 2, 2  # frames to either side that a face is corrected by, and averaged with,
WAIT = 2 * (NEAR + STEADY)
LESS = 0.3  # each by 1 / (1 + LESS n) at n frames' distance
MOST = 4.0  # times as much as its own picture, at most, does one count that was smeared less
KNOWN, FLOOR = 0.03, 0.1  # the face as known counts by KNOWN ((10 f)^2 + FLOOR^2) at f cycles a px, a sharp frame by 1
MARGIN, RIM = 8, 4  # px about the crop that are undone with it, and those of them that do not count
HEIGHT, WIDTH = CROP_HEIGHT + 2 * MARGIN, CROP_WIDTH + 2 * MARGIN
BETTER = 0.02  # of likeness must a motion that is fitted anew bring

Spectrum = NDArray[np.complex64]
Near = Sequence[tuple[int, Patch]]  # the same face in other frames, and how many frames away that is
Step = Callable[[Patch, Near], Patch]


class Together:
    """Frames with restored patches in, the same out, what was smeared mended by its neighbours."""

    def __init__(self, refits: bool, stats: Stats) -> None:
        """Motions are fitted anew where it `refits`."""
        import cv2

        self._refits, self._stats = refits, stats
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def run(self, items: Iterator[Mended | Packet]) -> Iterator[Mended | Packet]:
        """Two rounds of all: packets pass, order is kept, frames wait for WAIT later ones."""
        items = self._stepped(items, NEAR, corrected)
        items = self._stepped(items, STEADY, lambda *seen: self._fitted(self._steadied(*seen)))
        items = self._stepped(items, NEAR, corrected)
        return self._stepped(items, STEADY, self._steadied)

    def _steadied(self, patch: Patch, near: Near) -> Patch:
        return steadied(patch, near, self._flow)

    def _fitted(self, patch: Patch) -> Patch:
        return refitted(patch) if self._refits else patch

    def _stepped(self, items: Iterator[Mended | Packet], reach: int, step: Step) -> Iterator[Mended | Packet]:
        """Every smeared face through a step that sees it in so many frames before and after as well, as they came."""
        waiting: deque[Mended | Packet] = deque()
        frames: list[Mended] = []  # those that the next one to go sees,
        at = 0  # and which that is of them
        for item in chain(items, (None,)):
            if item is not None:
                waiting.append(item)
            if isinstance(item, Mended):
                frames.append(item)
            while waiting and (
                item is None
                or isinstance(waiting[0], Packet)
                or len(frames) > at + reach
                or len(waiting) >= MOST_WAITING
            ):
                first = waiting.popleft()
                if isinstance(first, Mended):
                    with self._stats.timed("fuse"):
                        first = _mended(frames, at, reach, step)
                    del frames[: max(at + 1 - reach, 0)]
                    at = min(at + 1, reach)
                yield first


def _mended(frames: list[Mended], at: int, reach: int, step: Step) -> Mended:
    away = [abs(each.frame.index - frames[at].frame.index) for each in frames]
    around = [(n, each) for n, each in zip(away, frames, strict=True) if 0 < n <= reach]
    patches = []
    for patch in frames[at].patches:
        if patch.strength > 0 and patch.motion is not None and patch.motion.spread_px >= LEAST_PX:
            near = [(n, other) for n, each in around for other in each.patches if _shows(other, patch.crop.track.id)]
            patch = step(patch, near) if near else patch
        patches.append(patch)
    return replace(frames[at], patches=tuple(patches))


def _shows(patch: Patch, track: int) -> bool:
    """Whether a patch is of that track, seen, and of known motion."""
    known = patch.kernel is not None and bool(np.isfinite(patch.kernel).all())
    return patch.crop.track.id == track and patch.crop.track.lost == 0 and known


def corrected(patch: Patch, near: Near) -> Patch:
    """A patch whose face is moved towards what, smeared as each frame was, looks as it and those near do: one step of
    least squares, each frame's error by pixel as far as it may be of the same face, gains by frequency."""
    assert patch.kernel is not None
    seen, kernels, counts = [_wide(patch)], [patch.kernel], [1.0]
    for frames, other in near:
        assert other.kernel is not None
        into = _between(other, patch)
        seen.append(_laid(_wide(other), into))
        kernels.append(warped(other.kernel, into[:, :2]))
        counts.append(1 / (1 + LESS * frames))
    face = patch.restored.astype(np.float32)
    transfer = _transfer(np.stack(kernels))
    off: Picture = np.stack(seen) - _picture(transfer * _spectrum(np.pad(to_grey(face), MARGIN, mode="edge")))
    contrast = float(to_grey(patch.given)[INNER].std())
    trusted = np.stack([alike(each, contrast) for each in off]) * _inside()
    count = np.array(counts, np.float32)[:, None, None]
    gained = (count * np.conj(transfer) * _spectrum(off * trusted)).sum(0)
    shown = (count * np.square(np.abs(transfer))).sum(0)
    more = _picture(gained / (shown + _known()))[MARGIN:-MARGIN, MARGIN:-MARGIN, None]
    return replace(patch, restored=np.clip(face + more + 0.5, 0, 255).astype(np.uint8))


def steadied(patch: Patch, near: Near, flow: Any) -> Patch:
    """A patch whose face is the mean of its own and those near, moved onto it, where they would look as its frame does
    if its motion smeared them."""
    import cv2

    assert patch.kernel is not None and patch.motion is not None
    face, given = patch.restored.astype(np.float32), to_grey(patch.given)
    total, weight = face.copy(), np.ones((CROP_HEIGHT, CROP_WIDTH, 1), np.float32)
    for frames, other in near:
        assert other.motion is not None
        x, y = found_in(to_grey(face), to_grey(other.restored), flow)
        picture = cv2.remap(other.restored, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
        sharper = min((1 + patch.motion.spread_px**2) / (1 + other.motion.spread_px**2), MOST)
        like = likeness(to_grey(picture), patch.kernel, given)
        counts = (like * np.float32(sharper / (1 + LESS * frames)))[..., None]
        total += picture * counts
        weight += counts
    return replace(patch, restored=np.clip(total / weight + 0.5, 0, 255).astype(np.uint8))


def refitted(patch: Patch) -> Patch:
    """A patch with the motion that its face, as it is known now, tells, where that makes it more like its frame."""
    assert patch.kernel is not None
    face, given = to_grey(patch.restored), to_grey(patch.given)
    kernel = kept(fit_kernel(face, given))
    before, now = (float(likeness(face, k, given)[INNER].mean()) for k in (patch.kernel, kernel))
    if now < before + BETTER:
        return patch
    return replace(patch, kernel=kernel, motion=motion_of(kernel, patch.crop.matrix))


def _wide(patch: Patch) -> Picture:
    """The grey crop as it came, with a margin of MARGIN, (HEIGHT, WIDTH): its own, or its border repeated."""
    grey = to_grey(patch.crop.image)
    more = MARGIN - (grey.shape[0] - CROP_HEIGHT) // 2
    return np.pad(grey, more, mode="edge") if more > 0 else grey[-more : HEIGHT - more, -more : WIDTH - more]


def _between(other: Patch, patch: Patch) -> NDArray[np.float64]:
    """The matrix (2, 3) from px of one's crop to those of another's, had the face not moved in the picture."""
    back, there = align.inverse(other.crop.matrix), patch.crop.matrix
    return np.column_stack([there[:, :2] @ back[:, :2], there[:, :2] @ back[:, 2] + there[:, 2]])


def _laid(wide: Picture, into: NDArray[np.float64]) -> Picture:
    import cv2

    shifted = into[:, 2] + MARGIN - into[:, :2] @ np.full(2, MARGIN)
    matrix, size = np.column_stack([into[:, :2], shifted]), (WIDTH, HEIGHT)
    laid = cv2.warpAffine(wide, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(laid, np.float32)


def _transfer(kernels: NDArray[np.float32]) -> Spectrum:
    """What kernels (N, side, side) do to the spectrum of a wide picture, (N, HEIGHT, WIDTH // 2 + 1)."""
    return np.asarray(np.fft.rfft2(kernels, s=(HEIGHT, WIDTH)), np.complex64) * _centred(kernels.shape[1] // 2)


def _spectrum(picture: Picture) -> Spectrum:
    """The half spectra of wide pictures."""
    return np.asarray(np.fft.rfft2(picture), np.complex64)


def _picture(spectrum: Spectrum) -> Picture:
    """The wide pictures of half spectra."""
    return np.asarray(np.fft.irfft2(spectrum, s=(HEIGHT, WIDTH)), np.float32)


@cache
def _centred(reach: int) -> Spectrum:
    """What makes the spectrum of a kernel whose middle lies so many px from the corner that of one about the corner."""
    waves = np.fft.fftfreq(HEIGHT)[:, None] + np.fft.rfftfreq(WIDTH)
    return np.exp(2j * np.pi * reach * waves).astype(np.complex64)


@cache
def _known() -> Picture:
    """How much the face as it is known counts, by frequency (HEIGHT, WIDTH // 2 + 1)."""
    f2 = np.square(np.fft.fftfreq(HEIGHT))[:, None] + np.square(np.fft.rfftfreq(WIDTH))
    return (KNOWN * (100 * f2 + FLOOR**2)).astype(np.float32)


@cache
def _inside() -> Picture:
    """1, but for RIM px of a wide picture."""
    import cv2

    inside = np.zeros((HEIGHT, WIDTH), np.float32)
    inside[RIM:-RIM, RIM:-RIM] = 1
    return np.asarray(cv2.GaussianBlur(inside, (0, 0), 3.0), np.float32)
