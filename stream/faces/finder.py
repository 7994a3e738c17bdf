"""What a finder is, and where it looks: square tiles of a frame, in turn.

A new finder is one new file and one line here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stream.errors import UsageError
from stream.frame import Face, Rect


class Finder(Protocol):
    """Finds faces in square RGB pictures. Calls come from one thread."""

    side_px: int  # the side that pictures are best given in: larger ones are only shrunk again

    def search(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Boxes and scores (N, 5) of the faces in a square picture (side, side, 3): x0 y0 x1 y1 px, score 0..1."""
        ...

    def look(self, image: NDArray[np.uint8], last: NDArray[np.float64] | None = None, track: int = 0) -> Face | None:
        """The one face in the middle of a square picture, with its points; None if there is none. `last` is where its
        points (5, 2) were when it was seen before, px of the picture: help for whoever finds them hard to see. `track`
        is its number where it is followed, for whoever remembers something of it."""
        ...

    def close(self) -> None:
        """Free the models."""
        ...


def _yunet(model: str) -> Finder:
    from stream.faces.yunet_finder import YuNetFinder

    return YuNetFinder(model)


def _mediapipe(model: str) -> Finder:
    from stream.faces.mediapipe_finder import MediaPipeFinder

    return MediaPipeFinder()


FINDERS: dict[str, Callable[[str], Finder]] = {"mediapipe": _mediapipe, "yunet": _yunet}


def open_finder(name: str, model: str = "") -> Finder:
    """The finder of that name; `model` is its file where it does not come with the package.

    Raises:
        UsageError: there is none, or its model cannot be loaded.
        SystemLibraryError: a library that it loads is not installed.
    """
    if name not in FINDERS:
        near = difflib.get_close_matches(name, FINDERS, n=1, cutoff=0.4)
        raise UsageError(f"unknown finder '{name}'; " + (f"did you mean '{near[0]}'?" if near else ", ".join(FINDERS)))
    return FINDERS[name](model)


def tiles(width: int, height: int, side: int) -> list[Rect]:
    """Square tiles that cover a picture with overlap: the whole picture first (a square that reaches past it), then
    tiles of `side` px, where those are smaller."""
    longest = max(width, height)
    whole = (0, 0, longest, longest)
    if side >= longest:
        return [whole]
    side = min(side, width, height)
    xs, ys = _starts(width, side), _starts(height, side)
    return [whole, *((x, y, x + side, y + side) for y in ys for x in xs)]


def _starts(length: int, side: int) -> list[int]:
    """Where tiles start so that neighbours share a fifth of their side."""
    count = 1 if length <= side else int(np.ceil((length - side) / (0.8 * side))) + 1
    return [round(i * (length - side) / max(count - 1, 1)) for i in range(count)]
