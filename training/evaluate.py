"""The measuring stick: blurry, restored and sharp faces, for the benchmark kernels, the linear one, and no blur."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stream.config import EngineSettings, load_settings
from stream.errors import InputError
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH, TEMPLATE
from stream.frame import Crop, Face, Patch, Track
from stream.motion import motion_of
from stream.paste import masked_change
from stream.restore import strength
from training.data import read_image
from training.losses import motion as motion_error
from training.methods import Method, needs_truth, open_methods
from training.protocol import EIGHT, KERNELS, blurred, cut, find_faces, identity_kernel, load_kernels, load_pictures
from training.recogniser import Recogniser, open_recogniser
from training.verification import Pairs, accuracy, read_pairs

SHARP = "sharp"
TRUE = "true"
SSIM_PICTURES = 200  # at most, the first: it takes longer than restoring


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured, and on what."""

    models: tuple[str, ...]
    faces: Path  # a folder with images/ and landmarks.csv
    kernels: Path
    engines: tuple[str, ...] = ("onnxruntime",)
    count: int | None = 600  # pictures, the first; None for all, and all where pairs are verified
    pairs: Path | None = None  # the pictures are those of its folds, to be verified where there is a verifier
    folds: frozenset[int] = frozenset({3, 4, 5})
    verifier: Path | None = None
    classical: bool = False
    against: tuple[str, ...] = ()  # other methods' programs, NAME=command {input} {output}
    ceiling: Path | None = None  # an `ema.pt` of a network that undoes motion: told the truth, how far would it get?
    paired: Path | None = None  # NAME_blurred.png beside NAME_sharp.png, 160x144: real motion
    real: Path | None = None  # pictures of faces that a camera smeared; nobody knows them sharp
    fill_margin: bool = False  # show models with a margin also with the border repeated instead of real surroundings


@dataclass(slots=True)
class Row:
    """One method's figures, by kernel."""

    psnr_db: dict[str, float] = field(default_factory=dict)
    ssim: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)  # of verification, 0..1
    distance: dict[str, float] = field(default_factory=dict)  # 1 - cosine to the sharp picture's embedding
    motion: dict[str, float] = field(default_factory=dict)  # error of the kernels found, as `training.losses.motion`
    ms_a_face: float = 0.0  # mean over the kernels
    margin: int = 0
    paired_db: tuple[float, float] | None = None  # PSNR of the real pairs, before and after
    paired_worse: int = 0  # real pairs that lost
    pasted_db: float | None = None  # after, as the pipeline pastes what it finds,
    pasted_worse: int = 0  # and the pairs that lost so


@dataclass(slots=True)
class Evaluation:
    """All rows, and the first picture of every kernel by method."""

    pictures: int
    pairs: int
    paired: int = 0
    rows: dict[str, Row] = field(default_factory=dict)
    sheet: dict[str, dict[str, NDArray[np.uint8]]] = field(default_factory=dict)  # kernel -> method -> pictures
    kernels: dict[str, dict[str, NDArray[np.float32]]] = field(default_factory=dict)  # the same of kernels, and TRUE
    real: dict[str, NDArray[np.uint8]] = field(default_factory=dict)  # method -> pictures without truth


def evaluate(setting: Setting) -> Evaluation:
    """Measure every model, and the references, on every kernel.

    Raises:
        InputError: faces, kernels, pairs or the verifier cannot be read.
        EngineError: the engine cannot run.
    """
    pairs = read_pairs(setting.pairs, setting.folds) if setting.pairs is not None else None
    known = load_kernels(setting.kernels)
    verifier = open_recogniser(setting.verifier) if setting.verifier is not None else None
    verifies = pairs is not None and verifier is not None
    names = None if pairs is None else pairs.names
    sharp = load_pictures(setting.faces, None if verifies else setting.count, names)
    truth = cut(sharp, 0)
    identity = verifier.embed(truth) if verifier is not None else None
    result = Evaluation(len(sharp), 0 if pairs is None else len(pairs.same))
    with open_methods(
        setting.models, setting.engines, setting.fill_margin, setting.classical, setting.against, setting.ceiling
    ) as (ready, margins):
        result.rows.update({name: Row(margin=margins.get(name, 0)) for name in ready})
        for kernel in (*KERNELS, SHARP):
            spoiled, true = blurred(sharp, known.get(kernel)), known.get(kernel, identity_kernel())
            result.sheet[kernel], result.kernels[kernel] = {}, {TRUE: true[None]}
            for name, method in ready.items():
                began = time.perf_counter()
                restored, kernels = method(spoiled, known.get(kernel))
                row = result.rows[name]
                row.ms_a_face += (time.perf_counter() - began) * 1e3 / len(sharp) / (len(KERNELS) + 1)
                measure(row, kernel, restored, truth, verifier, identity, pairs)
                result.sheet[kernel][name] = restored[:6]
                if kernels is not None:
                    row.motion[kernel] = float(motion_error(torch.from_numpy(kernels), torch.from_numpy(true)[None]))
                    result.kernels[kernel][name] = kernels[:6]
                print(f"{kernel} {name}: {row.psnr_db[kernel]:.2f} dB", file=sys.stderr)
            result.sheet[kernel][SHARP] = truth[:6]
        if setting.paired is not None:
            measure_paired(setting.paired, ready, result)
        if setting.real is not None:
            faces = find_faces(setting.real)
            result.real = {name: method(faces, None).crops for name, method in ready.items() if not needs_truth(name)}
    for row in result.rows.values():
        for values in (row.psnr_db, row.ssim, row.accuracy, row.distance, row.motion):
            if values:
                values["mean"] = float(np.mean([values[k] for k in EIGHT]))
    return result


def measure(
    row: Row,
    kernel: str,
    restored: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    verifier: Recogniser | None,
    identity: NDArray[np.float32] | None,
    pairs: Pairs | None,
) -> None:
    """Fill a row's figures for one kernel."""
    row.psnr_db[kernel] = mean_psnr(restored, truth)
    row.ssim[kernel] = mean_ssim(restored[:SSIM_PICTURES], truth[:SSIM_PICTURES])
    if verifier is not None and identity is not None:
        found = verifier.embed(restored)
        row.distance[kernel] = float(1 - (found * identity).sum(1).mean())
        if pairs is not None:
            row.accuracy[kernel] = accuracy(identity, found, pairs)


def measure_paired(folder: Path, ready: dict[str, Method], result: Evaluation) -> None:
    """PSNR on real motion, whose kernel nobody knows, and how many pictures lost."""
    names = sorted(path.name.removesuffix("_blurred.png") for path in folder.glob("*_blurred.png"))
    if not names:
        raise InputError(f"{folder} has no NAME_blurred.png beside NAME_sharp.png")
    kinds = ("blurred", "sharp")
    spoiled, sharp = (np.stack([read_image(folder / f"{n}_{kind}.png") for n in names]) for kind in kinds)
    truth = cut(sharp, 0)
    before, settings = each_psnr(cut(spoiled, 0), truth), load_settings(None, {}).restore
    result.paired = len(names)
    for name, method in ready.items():
        if needs_truth(name):
            continue
        found, row = method(spoiled, None), result.rows[name]
        after = each_psnr(found.crops, truth)
        row.paired_db, row.paired_worse = (float(before.mean()), float(after.mean())), int((after < before).sum())
        if found.kernels is not None:
            each = zip(cut(spoiled, 0), found.crops, found.kernels, strict=True)
            after = each_psnr(np.stack([pasted(*one, settings) for one in each]), truth)
            row.pasted_db, row.pasted_worse = float(after.mean()), int((after < before).sum())


def pasted(
    given: NDArray[np.uint8], restored: NDArray[np.uint8], kernel: NDArray[np.float32], settings: EngineSettings
) -> NDArray[np.uint8]:
    """A crop (112, 96, 3) with as much of its restoration as the pipeline pastes, by the motion (33, 33) found."""
    still = np.eye(2, 3)
    face = Face(np.array([0.0, 0.0, CROP_WIDTH, CROP_HEIGHT]), TEMPLATE, 1.0)
    crop, motion = Crop(Track(0, face, TEMPLATE, 0, 0), still, given), motion_of(kernel, still)
    patch = Patch(crop, restored, strength(crop, motion, settings), kernel, motion)
    return np.rint(np.clip(given + masked_change(patch, given.astype(np.float32)), 0, 255)).astype(np.uint8)


def mean_psnr(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Mean over pictures of their PSNR in dB."""
    return float(each_psnr(pictures, truth).mean())


def each_psnr(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """PSNR of each picture in dB (N,); one that is equal counts as 99."""
    mse = ((pictures.astype(np.float32) - truth) ** 2).mean((1, 2, 3), dtype=np.float64)
    return np.where(mse > 0, 10 * np.log10(255**2 / np.maximum(mse, 1e-9)), 99.0)


def mean_ssim(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Mean over pictures of scikit-image's structural similarity."""
    from skimage.metrics import structural_similarity

    return float(np.mean([structural_similarity(a, b, channel_axis=2) for a, b in zip(pictures, truth, strict=True)]))
