"""Aligned faces, decoded and warped once into one memory-mapped array.

A face is (176, 160, 4) uint8: the crop with 32 px of surroundings, RGB and a fourth channel that is 255 where the
source picture had pixels. Outside it the picture is mirrored; the loss is masked there.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from stream.errors import InputError
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH, similarity, warp

MARGIN = 32  # px stored round the crop: the reach of a 33 px kernel and as much again for a model's margin and shifts
POINTS = ("eye_left", "eye_right", "nose", "mouth_left", "mouth_right")


def read_landmarks(folder: Path) -> tuple[list[str], NDArray[np.float64]]:
    """File names and points (N, 5, 2) of a folder's `landmarks.csv`.

    Raises:
        InputError: no such file, or it is empty or lacks columns.
    """
    path = folder / "landmarks.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        points = [[[float(row[f"{p}_x"]), float(row[f"{p}_y"])] for p in POINTS] for row in rows]
        names = [row["image"] for row in rows]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; training needs images/ and landmarks.csv") from error
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} needs the columns image and <point>_x, <point>_y for {', '.join(POINTS)}") from error
    if not rows:
        raise InputError(f"{path} lists no faces")
    return names, np.array(points)


def read_image(path: Path) -> NDArray[np.uint8]:
    """A picture file as RGB (H, W, 3)."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def align_face(image: NDArray[np.uint8], points: NDArray[np.float64], margin: int = MARGIN) -> NDArray[np.uint8]:
    """The aligned face with its surroundings, (112 + 2 margin, 96 + 2 margin, 4): RGB and where the picture was."""
    matrix = similarity(points)
    inside = np.full(image.shape[:2], 255, np.uint8)
    rgb, alpha = warp(image, matrix, margin), warp(inside, matrix, margin, border=0)
    return np.dstack([rgb, alpha])


def load_faces(folder: Path, cache: Path) -> NDArray[np.uint8]:
    """All faces of a folder, (N, 176, 160, 4), memory-mapped from `cache`; made there if it is not yet.

    Raises:
        InputError: the folder has no landmarks or a picture cannot be read.
    """
    names, points = read_landmarks(folder)
    key = hashlib.sha256(f"{folder.resolve()} {MARGIN} 1 ".encode() + points.tobytes()).hexdigest()[:16]
    path = cache / f"faces-{key}.npy"
    if not path.exists():
        import filelock

        cache.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock")):  # of the processes of a run one makes it
            if not path.exists():
                _align_all([folder / "images" / name for name in names], points, path)
    loaded: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return loaded


def _align_all(pictures: list[Path], points: NDArray[np.float64], path: Path) -> None:
    from tqdm import tqdm

    part = path.with_suffix(".part")
    shape = (len(pictures), CROP_HEIGHT + 2 * MARGIN, CROP_WIDTH + 2 * MARGIN, 4)
    faces = open_memmap(part, "w+", np.uint8, shape)
    for i, picture in enumerate(tqdm(pictures, "aligning faces", unit="face", file=sys.stderr)):
        try:
            faces[i] = align_face(read_image(picture), points[i])
        except OSError as error:
            raise InputError(f"cannot read {picture}: {error}") from error
    faces.flush()
    part.rename(path)
