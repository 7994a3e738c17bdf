"""Neighbouring frames of a smeared face undone together. Each motion takes other details, so what several frames show
of a face that hardly changes is more than the mean of what each is restored to: it is the face that, smeared by each
frame's own motion, looks as that frame does. That is a least-squares problem about the face as it is known so far, a
step of which is solved in Fourier space. Then neighbours are averaged. Before either, a neighbour's face takes the
place of one that it explains as well, with the motion fitted to it.
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

from stream.config import EngineSettings
from stream.faces import align
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH, INNER, SIZE
from stream.frame import MOST_WAITING, Mended, Packet, Patch, Picture
from stream.memory import LONGEST_S, apart_s, found_in, sameness
from stream.motion import is_known, middle_of, motion_of, need
from stream.refit import LEAST_PX, alike, fit_from, guessed, likeness, to_grey, warped
from stream.restore import strength
from stream.stats import Stats

NEAR = (1, 2)  # frames away, to either side, are those by which a face is corrected,
STEADY = (1, 2), (1, 2, 4)  # and with which it is averaged, in the first round and in the second:
WAIT = 2 * NEAR[-1] + STEADY[0][-1] + STEADY[1][-1]  # that many later ones are waited for,
LESS = 0.3  # and each counts by 1 / (1 + LESS n) at n frames' distance
DOUBTED = 0.03  # at least, of 1, does its own picture count where it does not look as its frame does once smeared
MOST = 4.0  # times as much as its own picture, at most, does one count that is as like, and was smeared less
KNOWN, FLOOR = 0.03, 0.1  # the face as known counts by KNOWN ((10 f)^2 + FLOOR^2) at f cycles a px, a sharp frame by 1
ALIKE = 0.8  # agreement from which on two motions err in the same way, and say together less than two others do
FOLLOW = 0.2  # of likeness more has a neighbour that moved with its crop, and not as the picture did
MARGIN, RIM = 8, 4  # px about the crop that are undone with it, and those of them that do not count
HEIGHT, WIDTH = CROP_HEIGHT + 2 * MARGIN, CROP_WIDTH + 2 * MARGIN
RIGHT = 0.95  # likeness from which a face is not looked for in neighbours,
PULL_PX = 0.25  # so far at most is a face pulled to where the neighbour saw it, for it may walk;
LIKELY = 2  # neighbours, those that look most like it at half the size, are looked at closer;
MADE = 0.06  # and so much of it has a restored face more than theirs because it was made from this frame;
MORE, MORE_PX = (0.15, 0.4), 3.0  # where it has so much more over so many px, it begins to stay, and does

Spectrum = NDArray[np.float32]  # (HEIGHT, WIDTH, 2): real and imaginary parts
Near = Sequence[tuple[int, Patch]]  # the same face in other frames, and how many frames away that is
Told = Sequence[tuple[NDArray[np.float64], Patch]]  # and the matrices (2, 3) from their px to those of this one
Away = tuple[int, ...]  # numbers of frames, in order
Step = Callable[[Patch, Near], Patch]


class Together:
    """Frames with restored patches in, the same out, what was smeared mended by its neighbours."""

    def __init__(self, settings: EngineSettings, stats: Stats) -> None:
        """Faces are told by neighbours where `settings.refit` is set; what needs no restoring stands as it came."""
        import cv2

        self._settings, self._stats = settings, stats
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def run(self, items: Iterator[Mended | Packet]) -> Iterator[Mended | Packet]:
        """Two rounds of all: packets pass, order is kept, frames wait for WAIT later ones."""
        items = self._stepped(items, NEAR, lambda patch, near: corrected(self._retold(patch, near, 1), near))
        items = self._stepped(items, STEADY[0], lambda patch, near: self._steadied(self._retold(patch, near, 2), near))
        items = self._stepped(items, NEAR, corrected)
        return self._stepped(items, STEADY[1], self._steadied)

    def _steadied(self, patch: Patch, near: Near) -> Patch:
        return steadied(patch, near, self._flow)

    def _retold(self, patch: Patch, near: Near, most: int) -> Patch:
        if not self._settings.refit:
            return patch
        told = [(between(other, patch), other) for n, other in near if n <= most]
        if most == 1:  # where a sharp face is seen may be far from here: it lies as its own crop has it
            seen = [replace(sight.patch, restored=sight.patch.given) for sight in patch.sights]
            told += [(np.eye(2, 3), one) for one in seen if all(one.crop is not other.crop for _, other in told)]
        return retold(patch, told, self._settings)

    def _stepped(self, items: Iterator[Mended | Packet], away: Away, step: Step) -> Iterator[Mended | Packet]:
        """Every smeared face through a step that sees it in frames so far before and after as well, as they came."""
        reach = away[-1]
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
                        first = self._mended(frames, at, away, step)
                    del frames[: max(at + 1 - reach, 0)]
                    at = min(at + 1, reach)
                yield first

    def _mended(self, frames: list[Mended], at: int, away: Away, step: Step) -> Mended:
        now = frames[at].frame
        around = [
            (n, each)
            for each in frames
            if (n := abs(each.frame.index - now.index)) in away and apart_s(each.frame, now) <= LONGEST_S
        ]
        patches = []
        for patch in frames[at].patches:
            if patch.strength > 0 and patch.motion is not None and patch.motion.spread_px >= LEAST_PX:
                track = patch.crop.track.id
                near = [(n, self._told(other)) for n, each in around for other in each.patches if _shows(other, track)]
                patch = step(patch, near) if near else patch
            patches.append(patch)
        return replace(frames[at], patches=tuple(patches))

    def _told(self, other: Patch) -> Patch:
        """A neighbour: a sharp one shows its face as it came, not as the network made it."""
        assert other.motion is not None
        return replace(other, restored=other.given) if need(other.motion, self._settings.still_px) == 0 else other


def _shows(patch: Patch, track: int) -> bool:
    """Whether a patch is of that track, seen, and of known motion."""
    if patch.crop.track.id != track or patch.crop.track.lost or patch.kernel is None:
        return False
    return is_known(patch.kernel)


def corrected(patch: Patch, near: Near) -> Patch:
    """A patch whose face is moved towards what, smeared as each frame was, looks as it and those near do: one step of
    least squares, each frame's error by pixel as far as it may be of the same face, gains by frequency. A neighbour
    lies where the picture does, or, where that is more like this face, where its own crop has it: the face moved."""
    import cv2

    assert patch.kernel is not None
    face, contrast = patch.restored.astype(np.float32), float(to_grey(patch.given)[INNER].std())
    spectrum = _spectrum(np.pad(to_grey(face), MARGIN, mode="edge"))
    kernels, places = [patch.kernel], [[_wide(patch)]]
    for _, other in near:
        assert other.kernel is not None
        into, wide = between(other, patch), _wide(other)
        kernels.append(warped(other.kernel, into[:, :2]))
        places.append([_laid(wide, into), wide])
    gained, shown = np.zeros_like(spectrum), _known().copy()
    for count, kernel, seen in zip(_counts([0, *(n for n, _ in near)], kernels), kernels, places, strict=True):
        transfer = _transfer(kernel)
        made = _picture(cv2.mulSpectrums(transfer, spectrum, 0))
        trusted = _trusted([each - made for each in seen], contrast)
        gained += count * cv2.mulSpectrums(_spectrum(trusted), transfer, 0, conjB=True)
        shown += count * np.square(transfer).sum(2)
    more = _picture(gained / shown[..., None])[MARGIN:-MARGIN, MARGIN:-MARGIN, None]
    return replace(patch, restored=np.clip(face + more, 0, 255))


def _counts(frames: Sequence[int], kernels: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """How much frames that are so many away count, by their kernels (33, 33): any number of the same motion, whose
    common error no mean takes away, hardly more than one."""
    import cv2

    counts = 1 / (1 + LESS * np.asarray(frames, np.float32))
    soft = np.stack([cv2.GaussianBlur(kernel, (0, 0), 1.0).ravel() for kernel in kernels])
    soft /= np.linalg.norm(soft, axis=1, keepdims=True)
    same = np.clip((soft @ soft.T - ALIKE) / (1 - ALIKE), 0, 1)
    return np.asarray(counts * counts / (same @ counts), np.float32)


def _trusted(places: list[Picture], contrast: float) -> Picture:
    """The error of a frame, each pixel of it as far as it may be of the same face, at the better of its places."""
    likes = [alike(off, contrast) for off in places]
    means = [float(like[MARGIN:-MARGIN, MARGIN:-MARGIN][INNER].mean()) for like in likes]
    best = len(means) - 1 if means[-1] > means[0] + FOLLOW else 0
    return places[best] * likes[best] * _inside()


def steadied(patch: Patch, near: Near, flow: Any) -> Patch:
    """A patch whose face is the mean of its own and those near, moved onto it, each as far as it would look as this
    frame does if its motion smeared it."""
    import cv2

    assert patch.kernel is not None and patch.motion is not None
    face, given = patch.restored.astype(np.float32), to_grey(patch.given)
    cubic = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    weight: Picture = np.maximum(likeness(to_grey(face), patch.kernel, given), DOUBTED)[..., None]
    total: Picture = face * weight
    for frames, other in near:
        assert other.motion is not None
        into = found_in(to_grey(face), to_grey(other.restored), flow)
        restored = other.restored.astype(np.float32)
        laid = cv2.warpAffine(restored, into, SIZE, flags=cubic, borderMode=cv2.BORDER_REPLICATE)
        picture = np.asarray(laid, np.float32).clip(0, 255)
        sharper = min((1 + patch.motion.spread_px**2) / (1 + other.motion.spread_px**2), MOST)
        like = likeness(to_grey(picture), patch.kernel, given)
        counts = (like * sameness(like) * np.float32(sharper / (1 + LESS * frames)))[..., None]
        total += picture * counts
        weight += counts
    return replace(patch, restored=np.clip(total / weight, 0, 255))


def retold(patch: Patch, told: Told, settings: EngineSettings) -> Patch:
    """A patch with the face of another frame that, smeared by the motion fitted to it, looks most as this frame does,
    if hardly less so than the patch's own. That one was made from this frame, and looks like it whatever it is; another
    that does is the face. Its own stays where it looks clearly more so: an eye closed."""
    import cv2

    assert patch.kernel is not None
    given = to_grey(patch.given)
    mine = likeness(to_grey(patch.restored), patch.kernel, given)
    own, best = float(mine[INNER].mean()), None
    if own > RIGHT:
        return patch
    faces = [(into, other, _moved_into(other, into)) for into, other in told]
    guesses = [(guess, *each) for each in faces if (guess := guessed(patch.given, each[2])) is not None]
    places = LIKELY
    for guess, into, other, face in sorted(guesses, key=lambda each: -each[0].like):
        found = fit_from(guess, patch.given, face, patch.crop.matrix) if places else None
        places -= found is not None
        if found is not None and found.like > (own - MADE if best is None else best[0].like):
            best = found, other, into
    if best is None:
        return patch
    found, other, into = best
    back = found.back * min(1.0, PULL_PX / max(float(np.hypot(*found.back)), 1e-9))
    into[:, 2] += found.off + back
    kernel, face = warped(found.kernel, np.eye(2), -back), _moved_into(other, into)
    more = cv2.GaussianBlur(mine - likeness(to_grey(face), kernel, given), (0, 0), MORE_PX)
    keeps = np.clip((more - MORE[0]) / (MORE[1] - MORE[0]), 0, 1) * _inner()
    there = np.column_stack([np.eye(2), middle_of(patch.kernel) - middle_of(kernel)])
    face += keeps[..., None] * (_moved_into(patch, there) - face)
    motion = motion_of(kernel, patch.crop.matrix)
    shown = strength(patch.crop, motion, settings)
    return replace(patch, restored=face, kernel=kernel, motion=motion, strength=shown, is_refitted=True)


def _moved_into(patch: Patch, into: NDArray[np.float64]) -> Picture:
    """A patch's face where a matrix (2, 3) has its px, (112, 96, 3)."""
    import cv2

    face = patch.restored.astype(np.float32)
    laid = cv2.warpAffine(face, into, SIZE, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(laid, np.float32).clip(0, 255)


def _wide(patch: Patch) -> Picture:
    """The grey crop as it came, with a margin of MARGIN, (HEIGHT, WIDTH): its own, or its border repeated."""
    grey = to_grey(patch.crop.image)
    more = MARGIN - (grey.shape[0] - CROP_HEIGHT) // 2
    return np.pad(grey, more, mode="edge") if more > 0 else grey[-more : HEIGHT - more, -more : WIDTH - more]


def between(other: Patch, patch: Patch) -> NDArray[np.float64]:
    """The matrix (2, 3) from px of one's crop to those of another's, had the face not moved in the picture."""
    back, there = align.inverse(other.crop.matrix), patch.crop.matrix
    return np.column_stack([there[:, :2] @ back[:, :2], there[:, :2] @ back[:, 2] + there[:, 2]])


def _laid(wide: Picture, into: NDArray[np.float64]) -> Picture:
    import cv2

    shifted = into[:, 2] + MARGIN - into[:, :2] @ np.full(2, MARGIN)
    matrix, size = np.column_stack([into[:, :2], shifted]), (WIDTH, HEIGHT)
    laid = cv2.warpAffine(wide, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(laid, np.float32)


def _transfer(kernel: NDArray[np.float32]) -> Spectrum:
    """What a kernel (side, side) does to the spectrum of a wide picture."""
    plane, reach = np.zeros((HEIGHT, WIDTH), np.float32), len(kernel) // 2
    plane[: len(kernel), : len(kernel)] = kernel
    return _spectrum(np.roll(plane, (-reach, -reach), (0, 1)))


def _spectrum(picture: Picture) -> Spectrum:
    import cv2

    return np.asarray(cv2.dft(picture, flags=cv2.DFT_COMPLEX_OUTPUT), np.float32)


def _picture(spectrum: Spectrum) -> Picture:
    import cv2

    return np.asarray(cv2.idft(spectrum, flags=cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT), np.float32)


@cache
def _known() -> Picture:
    """How much the face as it is known counts, by frequency (HEIGHT, WIDTH)."""
    f2 = np.square(np.fft.fftfreq(HEIGHT))[:, None] + np.square(np.fft.fftfreq(WIDTH))
    return (KNOWN * (100 * f2 + FLOOR**2)).astype(np.float32)


@cache
def _inner() -> Picture:
    """1 in the face, 0 at the crop's border, where what is behind it is seen."""
    import cv2

    inner = np.zeros((CROP_HEIGHT, CROP_WIDTH), np.float32)
    inner[INNER] = 1
    return np.asarray(cv2.GaussianBlur(inner, (0, 0), 4.0), np.float32)


@cache
def _inside() -> Picture:
    """1, but for RIM px of a wide picture."""
    import cv2

    inside = np.zeros((HEIGHT, WIDTH), np.float32)
    inside[RIM:-RIM, RIM:-RIM] = 1
    return np.asarray(cv2.GaussianBlur(inside, (0, 0), 3.0), np.float32)
