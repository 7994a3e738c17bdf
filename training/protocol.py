"""The pictures of the benchmark.

A sharp picture is warped to the crop with 24 px of margin, each channel convolved with the kernel, rounded to 8 bit,
and the margin cut off: blur made of real surroundings. The benchmark kernels never enter training.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stream.errors import InputError
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH, similarity, warp
from stream.faces.finder import open_finder
from training.collect import faces_of
from training.data import read_image, read_landmarks
from training.degrade import blur
from training.kernel_finder import SIDE

MARGIN = 24
BATCH = 32
KERNELS = ("c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "linear")
EIGHT = KERNELS[:8]


def find_faces(folder: Path) -> NDArray[np.uint8]:
    """Every face that is found in a folder's pictures, aligned, (N, 160, 144, 3)."""
    paths = sorted(path for path in folder.glob("*") if path.is_file())
    with closing(open_finder("mediapipe")) as finder:
        found = [face for path in paths for face in faces_of(path, finder)]
    faces = [warp(image, similarity(points), MARGIN) for _, image, points in found if len(points)]
    print(f"{folder}: {len(faces)} faces found in {len(paths)} pictures", file=sys.stderr)
    if not faces:
        raise InputError(f"no face found in {folder}")
    return np.stack(faces)


def load_pictures(folder: Path, count: int | None, wanted: tuple[str, ...] | None = None) -> NDArray[np.uint8]:
    """The first `count` pictures of a folder, or the `wanted` ones, aligned, (N, 160, 144, 3)."""
    names, points = read_landmarks(folder)
    if wanted is not None:
        place = {name: i for i, name in enumerate(names)}
        missing = next((name for name in wanted if name not in place), None)
        if missing is not None:
            raise InputError(f"{missing} stands in the pairs, but not in {folder / 'landmarks.csv'}")
        names, points = list(wanted), points[[place[name] for name in wanted]]
    try:
        return np.stack(
            [
                warp(read_image(folder / "images" / name), similarity(p), MARGIN)
                for name, p in zip(names[:count], points, strict=False)
            ]
        )
    except OSError as error:
        raise InputError(f"cannot read a picture of {folder}: {error}") from error


def load_kernels(path: Path) -> dict[str, NDArray[np.float32]]:
    """The kernels of KERNELS, each (33, 33)."""
    try:
        with np.load(path) as file:
            return {name: file[name].astype(np.float32) for name in KERNELS}
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is no .npz with the kernels {', '.join(KERNELS)}: {error}") from error


def identity_kernel() -> NDArray[np.float32]:
    """No motion, (33, 33)."""
    kernel = np.zeros((SIDE, SIDE), np.float32)
    kernel[SIDE // 2, SIDE // 2] = 1
    return kernel


def blurred(pictures: NDArray[np.uint8], kernel: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    """Pictures (N, H, W, 3) convolved with a kernel and rounded; as they are without one. The rim wraps round."""
    if kernel is None:
        return pictures
    out = np.empty_like(pictures)
    for start in range(0, len(pictures), BATCH):
        part = torch.from_numpy(pictures[start : start + BATCH]).permute(0, 3, 1, 2).float()
        smeared = blur(part, torch.from_numpy(kernel).expand(len(part), -1, -1))
        out[start : start + BATCH] = smeared.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return out


def cut(pictures: NDArray[np.uint8], margin: int) -> NDArray[np.uint8]:
    """The crop with `margin` px of surroundings."""
    side = MARGIN - margin
    return pictures[:, side : side + CROP_HEIGHT + 2 * margin, side : side + CROP_WIDTH + 2 * margin]
