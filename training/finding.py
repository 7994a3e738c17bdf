"""How well faces are found in large frames: pictures of faces set into noise, smeared by the benchmark's kernels.

The truth of a face's points is what the same finder sees on the sharp picture, moved by the kernel's centre of mass.
Other people in a picture, cut off by its rim or out of focus, need not be found, and are not false where they are.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine import Engine
from engine.echo import EchoEngine
from stream.config import load_settings
from stream.faces.finder import Finder, tiles
from stream.faces.tracker import overlap
from stream.find import FaceFinding
from stream.frame import Color, Face, Found, Frame
from stream.region import View
from stream.stats import Stats
from training.data import read_image, read_landmarks
from training.video import MATCH, eyes_px

FRAME = (1080, 1920)
EYES_PER_FACE = 2.3  # a face is about so many times wider than its eyes are apart
EYES_IN_CROP = 35.2  # px, of the template
PLAIN = Color("gbrp", "gbr", 8, (0, 0), (0.0, 0.0), True, (2, 0, 1, 1), None, 0)


@dataclass(slots=True)
class Found1080:
    """One kernel's figures."""

    faces: int = 0
    found: int = 0
    others: int = 0  # people beside the one whom the picture is of
    false: int = 0
    point_error: list[float] = field(default_factory=list)  # in distances of the eyes


def find_in_frames(
    folder: Path,
    kernels: dict[str, NDArray[np.float32] | None],
    count: int,
    face_px: float,
    finder: Finder,
    engine: Engine,
) -> dict[str, Found1080]:
    """The first `count` faces of a folder, `face_px` wide in a frame, under each kernel (None: sharp).

    Raises:
        InputError: the folder cannot be read.
    """
    from tqdm import tqdm

    names, points = read_landmarks(folder)
    rows = {name: Found1080() for name in kernels}
    for i in tqdm(range(min(count, len(names))), "finding", unit="face", file=sys.stderr, disable=None):
        picture = read_image(folder / "images" / names[i])
        sharp, face_box = picture_in_noise(picture, points[i], face_px, seed=i)
        own = box_of(points[i])
        others = (others_in(picture, own, finder) - np.tile(own[:2], 2)) * (face_px / width_of(points[i]))
        others += np.tile(face_box[:2], 2)
        truth = best(faces_in(sharp, finder, EchoEngine()), face_box)
        for name, kernel in kernels.items():
            scale = face_px / EYES_PER_FACE / EYES_IN_CROP
            frame, offset = (sharp, np.zeros(2)) if kernel is None else smeared(sharp, kernel, scale)
            found = faces_in(frame, finder, engine)
            hit = best(found, face_box)
            row = rows[name]
            row.faces += 1
            row.found += hit is not None
            beside = [any(overlap(face.box, other) > MATCH for other in others) for face in found if face is not hit]
            row.others += sum(beside)
            row.false += len(beside) - sum(beside)
            if hit is not None and truth is not None:
                off = np.hypot(*(hit.landmarks - truth.landmarks - offset).T).mean()
                row.point_error.append(float(off) / eyes_px(truth))
    return rows


def faces_in(image: NDArray[np.uint8], finder: Finder, engine: Engine) -> list[Face]:
    """What the stage finds in one frame, as in the first of a scene."""
    settings = load_settings(None, {}).faces
    finding = FaceFinding.for_engine(finder, settings, engine, Stats())
    found = next(item for item in finding.run([as_frame(image)]) if isinstance(item, Found))
    return [crop.track.face for crop in found.crops]


def as_frame(image: NDArray[np.uint8]) -> Frame:
    """A picture as a frame of a video."""
    return Frame(0, 0, 1, Fraction(1, 25), tuple(np.ascontiguousarray(image[..., c]) for c in (1, 2, 0)), PLAIN)


def others_in(picture: NDArray[np.uint8], own: NDArray[np.float64], finder: Finder) -> NDArray[np.float64]:
    """Boxes (N, 4) of whatever else the finder may take for a face in a picture that is searched closely, besides the
    one in the box `own`, and apart from it."""
    frame = as_frame(picture)
    side = round(1.5 * float(own[2] - own[0]) / 2) * 2
    views = [View(frame, rect, finder.side_px) for rect in tiles(frame.width, frame.height, side)]
    boxes = [view.box_to_frame(row[:4]) for view in views for row in finder.search(view.image)]
    middles = [(box[:2] + box[2:]) / 2 for box in boxes]
    apart = [bool(np.any((at < own[:2]) | (at > own[2:]))) for at in middles]
    return np.array([box for box, is_apart in zip(boxes, apart, strict=True) if is_apart], np.float64).reshape(-1, 4)


def best(faces: list[Face], box: NDArray[np.float64]) -> Face | None:
    """The face that lies on a box."""
    face = max(faces, key=lambda f: overlap(f.box, box), default=None)
    return face if face is not None and overlap(face.box, box) > MATCH else None


def picture_in_noise(
    picture: NDArray[np.uint8], points: NDArray[np.float64], face_px: float, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A frame of noise with a picture in it, at such a size and place, and the box of its face there."""
    import cv2

    rng = np.random.default_rng(seed)
    scale = face_px / width_of(points)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=method)
    frame = noise(rng)
    top, left = (int(rng.integers(0, n - s + 1)) for n, s in zip(FRAME, small.shape[:2], strict=True))
    frame[top : top + small.shape[0], left : left + small.shape[1]] = small
    return frame, box_of(points) * scale + (left, top, left, top)


def width_of(points: NDArray[np.float64]) -> float:
    """How wide the face of such landmarks (5, 2) is."""
    return EYES_PER_FACE * float(np.hypot(*(points[1] - points[0])))


def box_of(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The square about such landmarks that is as wide as their face."""
    return np.concatenate([points.mean(0) - width_of(points) / 2, points.mean(0) + width_of(points) / 2])


def noise(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A frame with the spectrum of natural pictures (1/f)."""
    height, width = FRAME
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    spectrum = np.fft.rfft2(rng.standard_normal(FRAME)) / np.maximum(frequency, 1 / height)
    plane = np.fft.irfft2(spectrum, FRAME)
    grey = np.clip(110 + 40 * plane / plane.std(), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2)


def smeared(
    frame: NDArray[np.uint8], kernel: NDArray[np.float32], scale: float
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A frame under a kernel of the crop's scale, and how far its centre of mass moved the picture, in px."""
    import cv2

    side = max(3, round(kernel.shape[0] * scale) // 2 * 2 + 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    sized = np.maximum(cv2.resize(kernel, (side, side), interpolation=method), 0)
    sized /= sized.sum()
    y, x = np.indices(sized.shape) - side // 2
    offset = np.array([(sized * x).sum(), (sized * y).sum()])
    return cv2.filter2D(frame, -1, sized[::-1, ::-1], borderType=cv2.BORDER_REFLECT), offset


def markdown(rows: dict[str, Found1080], face_px: float) -> str:
    """One column a kernel."""
    lines = [f"Faces {face_px:g} px wide in a frame of 1920x1080", "", "| | " + " | ".join(rows) + " |"]
    lines.append("|---|" + "---|" * len(rows))
    for title, cells in (
        ("found", [f"{r.found / max(r.faces, 1):.3f}" for r in rows.values()]),
        ("other people a frame", [f"{r.others / max(r.faces, 1):.3f}" for r in rows.values()]),
        ("false a frame", [f"{r.false / max(r.faces, 1):.3f}" for r in rows.values()]),
        ("point error, eye distances", [f"{np.mean(r.point_error or [0]):.3f}" for r in rows.values()]),
    ):
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
