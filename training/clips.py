"""Sharp clips smeared in known ways, frame by frame, so that the truth of every frame is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stream.faces.align import scale_of
from stream.frame import Frame, Plane
from stream.repeats import Exposures
from training.degrade import GAMMA
from training.kernels import rasterise, sample_paths

CYCLE = 60  # frames from sharp to the heaviest shake and back
HEAVIEST_PX = 27.0  # of a shake, in px of the crop
EXPOSURE = 60  # samples of a path that one frame sees
AVERAGED = 3  # frames on either side that an averaged frame holds

# The frames of a clip, its faces' alignment (frame px to crop px) by frame, and a seed, to smeared frames.
Smear = Callable[[list[Frame], list[NDArray[np.float64] | None], int], list[Frame]]


def shake(frames: list[Frame], matrices: list[NDArray[np.float64] | None], seed: int) -> list[Frame]:
    """A camera that shakes from not at all to heavily and back; each kernel has its centre of mass in its middle."""
    return [
        smeared(frame, path / _scale(matrices, i))
        for i, (frame, path) in enumerate(zip(frames, shake_paths(len(frames), seed), strict=True))
    ]


def head(frames: list[Frame], matrices: list[NDArray[np.float64] | None], seed: int) -> list[Frame]:
    """The same motion of the face alone: what is behind it stays sharp."""
    moved = shake(frames, matrices, seed)
    return [
        frame if matrix is None else blended(frame, other, matrix)
        for frame, other, matrix in zip(frames, moved, matrices, strict=True)
    ]


def average(frames: list[Frame], matrices: list[NDArray[np.float64] | None], seed: int) -> list[Frame]:
    """Each frame the mean light of itself and as many on either side: the clip's own motion, as of a long exposure, in
    whose middle the frame is."""
    reach = [min(AVERAGED, i, len(frames) - 1 - i) for i in range(len(frames))]
    return [averaged(frames[i - n : i + n + 1], frame) for i, (n, frame) in enumerate(zip(reach, frames, strict=True))]


def untouched(frames: list[Frame], matrices: list[NDArray[np.float64] | None], seed: int) -> list[Frame]:
    """The clip as it is: nothing may get worse."""
    return frames


KINDS: dict[str, Smear] = {"shake": shake, "head": head, "average": average, "untouched": untouched}


def smear(kind: str, frames: list[Frame], matrices: list[NDArray[np.float64] | None], seed: int) -> list[Frame]:
    """A clip smeared in one way. A frame that shows the one before once more (clips that were brought to another rate
    hold such) was exposed only once, and so it is smeared once, too."""
    if KINDS[kind] is untouched:
        return frames
    shown = exposures(frames)
    kept = sorted(set(shown))
    made = KINDS[kind]([frames[i] for i in kept], [matrices[i] for i in kept], seed)
    planes = {i: frame.planes for i, frame in zip(kept, made, strict=True)}
    return [replace(frame, planes=planes[i]) for i, frame in zip(shown, frames, strict=True)]


def exposures(frames: list[Frame]) -> list[int]:
    """For each frame the index of the one that it shows: its own, or an earlier one."""
    told, shown = Exposures(), 0
    return [shown := i if told.is_new(frame) else shown for i, frame in enumerate(frames)]


def shake_paths(count: int, seed: int) -> list[NDArray[np.float64]]:
    """For each frame the way (EXPOSURE, 2) in px of the crop that it sees, about its own mean."""
    rng = np.random.default_rng(seed)
    paths = []
    for i in range(count):
        path = sample_paths(rng, 1, EXPOSURE)[0]
        extent = HEAVIEST_PX * 0.5 * (1 - np.cos(2 * np.pi * i / CYCLE))
        path *= extent / np.ptp(path, axis=0).max()
        paths.append(path - path.mean(0))
    return paths


def smeared(frame: Frame, path: NDArray[np.float64]) -> Frame:
    """A frame convolved with the kernel of a path (T, 2) in its px."""
    planes = []
    for index, plane in enumerate(frame.planes):
        shift = frame.color.shift if frame.color.family == "yuv" and index in (1, 2) else (0, 0)
        planes.append(_convolved(plane, path / 2.0 ** np.array(shift)))
    return replace(frame, planes=tuple(planes))


def averaged(frames: list[Frame], centre: Frame) -> Frame:
    """The mean of frames, in light for the luma, as it is for the colour."""
    planes: list[Plane] = []
    most = 2**centre.color.depth - 1
    for index, plane in enumerate(centre.planes):
        power = GAMMA if index == 0 else 1.0
        light = np.mean([(f.planes[index].astype(np.float32) / most) ** power for f in frames], 0)
        planes.append(np.rint(light ** (1 / power) * most).astype(plane.dtype))
    return replace(centre, planes=tuple(planes))


def blended(outside: Frame, inside: Frame, matrix: NDArray[np.float64]) -> Frame:
    """`inside` in a soft ellipse about the face, a little larger than it, `outside` around."""
    planes: list[Plane] = []
    for index, (a, b) in enumerate(zip(outside.planes, inside.planes, strict=True)):
        shift = outside.color.shift if outside.color.family == "yuv" and index in (1, 2) else (0, 0)
        x, y = np.meshgrid(*(np.arange(n) * 2**s for n, s in zip(a.shape[::-1], shift, strict=True)))
        u, v = (matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in (0, 1))
        share = np.clip((1.1 - np.hypot((u - 47.5) / 55, (v - 60) / 75)) * 5, 0, 1)
        planes.append(np.rint(a + (b.astype(np.float32) - a) * share).astype(a.dtype))
    return replace(outside, planes=tuple(planes))


def _convolved(plane: Plane, path: NDArray[np.float64]) -> Plane:
    import cv2

    side = 2 * int(np.ceil(np.abs(path).max() + 1)) + 1
    if np.ptp(path, axis=0).max() < 0.05:
        return plane
    done: Plane = cv2.filter2D(plane, -1, rasterise(path, side), borderType=cv2.BORDER_REPLICATE)
    return done


def _scale(matrices: list[NDArray[np.float64] | None], i: int) -> float:
    """Crop px per frame px at a frame, or at the nearest one that has a face."""
    near = sorted(range(len(matrices)), key=lambda j: abs(j - i))
    found = next((matrices[j] for j in near if matrices[j] is not None), None)
    return 1.0 if found is None else scale_of(found)
