"""Verification on pairs, as LFW does it: one picture of a pair stays sharp, the other is blurred or restored.

A pair is called the same person where the cosine of its embeddings exceeds a threshold; each fold is judged by the
threshold that is best on all the others.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.errors import InputError


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of pictures, by their place in `names`."""

    names: tuple[str, ...]
    sharp: NDArray[np.int64]  # (P,) the picture that stays sharp
    other: NDArray[np.int64]  # (P,) the one that is blurred or restored
    same: NDArray[np.bool_]  # (P,)
    fold: NDArray[np.int64]  # (P,)


def read_pairs(path: Path, folds: frozenset[int]) -> Pairs:
    """The pairs of some folds of a `pairs.csv` (columns fold, a, b, same).

    Raises:
        InputError: the file cannot be read, or holds fewer than two of those folds.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["fold"]) in folds]
        names = sorted({row[key] for row in rows for key in ("a", "b")})
        place = {name: i for i, name in enumerate(names)}
        columns = [[place[row["a"]], place[row["b"]], int(row["same"]), int(row["fold"])] for row in rows]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} needs the columns fold, a, b, same") from error
    if len({row["fold"] for row in rows}) < 2:
        wanted = ", ".join(str(fold) for fold in sorted(folds))
        raise InputError(f"{path} needs pairs of two of the folds {wanted}: a fold's threshold comes from the others")
    a, b, same, fold = np.array(columns).T
    return Pairs(tuple(names), a, b, same.astype(bool), fold)


def accuracy(sharp: NDArray[np.float32], other: NDArray[np.float32], pairs: Pairs) -> float:
    """Share of pairs judged rightly, 0..1; embeddings (names, D) of the sharp and of the other pictures."""
    cosine = (sharp[pairs.sharp] * other[pairs.other]).sum(1)
    right = 0
    for fold in np.unique(pairs.fold):
        held_out = pairs.fold == fold
        threshold = best_threshold(cosine[~held_out], pairs.same[~held_out])
        right += int(((cosine[held_out] > threshold) == pairs.same[held_out]).sum())
    return right / len(cosine)


def best_threshold(cosine: NDArray[np.float32], same: NDArray[np.bool_]) -> float:
    """The threshold with the highest accuracy; the middle of the gap where it lies."""
    order = np.argsort(cosine)
    values = cosine[order]
    # Cutting after position i: those up to i are called different, the rest the same.
    right = np.cumsum(~same[order]) + (same.sum() - np.cumsum(same[order]))
    cut = int(np.argmax(right[:-1])) if len(values) > 1 else 0
    return float((values[cut] + values[min(cut + 1, len(values) - 1)]) / 2)
