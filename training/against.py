"""Another method's own program beside ours: it reads a folder of blurry pictures and writes one with the same names."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine import EngineError
from stream.errors import UsageError
from training.data import read_image


def parse(text: str) -> tuple[str, list[str]]:
    """Name and words of `NAME=command {input} {output}`.

    Raises:
        UsageError: the name or a placeholder is missing.
    """
    name, _, command = text.partition("=")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--against {name}: {error}") from error
    if not name or not all(any(part in word for word in words) for part in ("{input}", "{output}")):
        raise UsageError(f"--against wants NAME='command {{input}} {{output}}', two folders of PNG files, not '{text}'")
    return name, words


def program(
    name: str, words: list[str]
) -> Callable[[NDArray[np.uint8], NDArray[np.float32] | None], NDArray[np.uint8]]:
    """The program as a function of crops (N, 112, 96, 3), one run for all of them; it is not told the kernel."""

    def restore(crops: NDArray[np.uint8], kernel: NDArray[np.float32] | None) -> NDArray[np.uint8]:
        with TemporaryDirectory() as place:
            before, after = Path(place, "input"), Path(place, "output")
            before.mkdir()
            after.mkdir()
            for i, crop in enumerate(crops):
                Image.fromarray(crop).save(before / f"{i:05d}.png")
            command = [word.replace("{input}", str(before)).replace("{output}", str(after)) for word in words]
            try:
                done = subprocess.run(command, capture_output=True, text=True)
            except OSError as error:
                raise UsageError(f"--against {name}: cannot run {command[0]}: {error.strerror}") from error
            if done.returncode:
                said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
                raise EngineError(f"the program of {name} failed with code {done.returncode}: {said[-1]}")
            return np.stack([_result(name, after / f"{i:05d}.png", crop.shape) for i, crop in enumerate(crops)])

    return restore


def _result(name: str, path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        image = read_image(path)
    except OSError as error:
        raise EngineError(f"the program of {name} did not write a readable {path.name}") from error
    if image.shape != shape:
        raise EngineError(f"the program of {name} wrote {image.shape[1]}x{image.shape[0]}, not 96x112")
    return image
