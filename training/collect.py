"""Any folder of pictures into a training folder: `images/`, `landmarks.csv`, and `skipped.csv` with the reasons."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from tqdm import tqdm

from stream.config import load_settings
from stream.errors import InputError, OutputError, UnsmearError
from stream.faces.align import apply, corners, inverse, scale_of, similarity, warp
from stream.faces.finder import Finder, open_finder
from stream.find import FaceFinding
from stream.frame import Face, Found
from stream.media.source import FileSource
from stream.stats import Stats
from training.data import MARGIN, POINTS, read_image

LARGEST_SCALE = 1.3  # crop px per picture px: a face that would be enlarged more teaches softness
LEAST_SHARPNESS = 4.0  # RMS of the crop minus its Gaussian blur of sigma 1
MAX_YAW_DEG = 45.0


def collect(raw: Path, output: Path) -> Counter[str]:
    """Find, judge and copy the faces of all pictures below `raw`; how many were kept, and skipped for which reason.

    Raises:
        InputError: `raw` is no folder.
        OutputError: `output` exists and is not empty, or cannot be written.
    """
    if not raw.is_dir():
        raise InputError(f"{raw} is no folder")
    if output.exists() and any(output.iterdir()):
        raise OutputError(f"{output} is not empty; give a new folder")
    try:
        (output / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {output}: {error.strerror}") from error
    counts: Counter[str] = Counter()
    finder = open_finder("mediapipe")
    try:
        with (
            (output / "landmarks.csv").open("w", newline="", encoding="utf-8") as kept_file,
            (output / "skipped.csv").open("w", newline="", encoding="utf-8") as skipped_file,
        ):
            kept, skipped = csv.writer(kept_file), csv.writer(skipped_file)
            kept.writerow(["image", *(f"{point}_{axis}" for point in POINTS for axis in "xy"), "source"])
            skipped.writerow(["picture", "why"])
            paths = sorted(path for path in raw.rglob("*") if path.is_file())
            for path in tqdm(paths, "aligning", unit="picture", file=sys.stderr):
                for why, image, points in faces_of(path, finder):
                    counts[why or "kept"] += 1
                    if why is not None:
                        skipped.writerow([path.relative_to(raw), why])
                        continue
                    name = f"{counts['kept'] - 1:07d}.png"
                    write_image(output / "images" / name, image)
                    kept.writerow([name, *np.round(points, 2).ravel(), path.relative_to(raw)])
    finally:
        finder.close()
    return counts


def faces_of(path: Path, finder: Finder) -> list[tuple[str | None, NDArray[np.uint8], NDArray[np.float64]]]:
    """Every face of a picture: why it is skipped (or None), the part of the picture around it, its points there."""
    nothing = (np.empty((0, 0, 3), np.uint8), np.empty((0, 2)))
    settings = replace(load_settings(None, {}).faces, min_size_px=40, max_yaw_deg=180.0, look_every=1)
    try:
        with FileSource(path) as source:
            if not source.info.still:
                return [("no still picture", *nothing)]
            found = [item for item in FaceFinding(finder, settings, 0, Stats()).run(source) if isinstance(item, Found)]
        picture = read_image(path)
    except (UnsmearError, OSError):
        return [("unreadable", *nothing)]
    faces = [crop.track.face for crop in found[0].crops]
    return [judge(picture, face) for face in faces] or [("no face", *nothing)]


def judge(picture: NDArray[np.uint8], face: Face) -> tuple[str | None, NDArray[np.uint8], NDArray[np.float64]]:
    """Whether a face is worth training on, and the part of the picture that its crop and surroundings need."""
    matrix = similarity(face.landmarks)
    around = apply(inverse(matrix), corners(MARGIN))
    x0, y0 = np.maximum(np.floor(around.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(around.max(0)).astype(int) + 1, picture.shape[1::-1])
    part, points = picture[y0:y1, x0:x1], face.landmarks - (x0, y0)
    if face.score < 1:  # the detector's own points, where the landmarker gave up
        return "unclear", part, points
    if face.yaw > MAX_YAW_DEG:
        return "turned away", part, points
    if scale_of(matrix) > LARGEST_SCALE:
        return "too small", part, points
    return ("soft" if sharpness(warp(picture, matrix)) < LEAST_SHARPNESS else None), part, points


def sharpness(crop: NDArray[np.uint8]) -> float:
    """RMS of a crop minus its Gaussian blur of sigma 1 px; higher is sharper."""
    import cv2

    image = crop.astype(np.float32)
    return float(np.sqrt(((image - cv2.GaussianBlur(image, (0, 0), 1.0)) ** 2).mean()))


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """A picture file, lossless."""
    from PIL import Image

    Image.fromarray(image).save(path)
