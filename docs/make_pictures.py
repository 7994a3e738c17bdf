"""Makes the pictures of the documentation again: `python docs/make_pictures.py`. Needs the test extra.

The face is scikit-image's public-domain photograph; it was in no training set.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import convolve
from skimage import data

from training.kernels import rasterise

HERE = Path(__file__).parent
PART = (slice(0, 256), slice(96, 352))


def shaken(picture: np.ndarray, length_px: float, turn: float) -> np.ndarray:
    """The picture smeared along a bent path of that length."""
    t = np.linspace(-1, 1, 60)
    bend = np.stack([t * np.cos(turn) - 0.3 * t**2 * np.sin(turn), t * np.sin(turn) + 0.3 * t**2 * np.cos(turn)], 1)
    kernel = rasterise(bend * length_px / 2, 33)
    return np.dstack([np.rint(convolve(picture[..., c].astype(float), kernel)) for c in range(3)]).astype(np.uint8)


def restored(picture: np.ndarray, folder: Path) -> np.ndarray:
    """The picture through the command."""
    Image.fromarray(picture).save(folder / "in.png")
    command = [sys.executable, "-m", "stream", "restore", "in.png", "-o", "out.png", "--overwrite", "-q"]
    subprocess.run(command, cwd=folder, check=True)
    return np.asarray(Image.open(folder / "out.png"))


if __name__ == "__main__":
    sharp = data.astronaut()
    columns = []
    with tempfile.TemporaryDirectory() as name:
        for length, turn in ((8, 0.3), (13, 1.2), (18, 2.4)):
            blurry = shaken(sharp, length, turn)
            columns.append(np.vstack([blurry[PART], restored(blurry, Path(name))[PART]]))
    Image.fromarray(np.hstack(columns)).save(HERE / "before-after.png")
