"""The measuring stick: blurry, restored and sharp faces, for the benchmark kernels, the linear one, and no blur.

Protocol: the sharp picture is warped to the crop with 24 px of margin, each channel convolved with the kernel, rounded
to 8 bit, and the margin cut off: blur made of real surroundings. The benchmark kernels never enter training.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine import Engine, open_engine
from stream.errors import InputError, UsageError
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH, similarity, warp
from training import against
from training.aware import SIDE, Aware
from training.checkpoint import load_weights
from training.classical import METHODS
from training.data import read_image, read_landmarks
from training.degrade import blur
from training.network import build_network
from training.recogniser import Recogniser, open_recogniser
from training.verification import Pairs, accuracy, read_pairs

MARGIN = 24
BATCH = 32
KERNELS = ("c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "linear")
EIGHT = KERNELS[:8]
SHARP = "sharp"
BLURRY = "blurry"
CEILING = "told the true kernel"

# Spoiled pictures with their margin (N, 160, 144, 3), and the kernel that spoiled them, to crops (N, 112, 96, 3).
Method = Callable[[NDArray[np.uint8], NDArray[np.float32] | None], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured, and on what."""

    models: tuple[str, ...]
    faces: Path  # a folder with images/ and landmarks.csv
    kernels: Path
    engine: str = "onnxruntime"
    count: int | None = 600  # pictures, the folder's first; None for all
    pairs: Path | None = None  # verify on these; then the pictures are those of its folds
    folds: frozenset[int] = frozenset({3, 4, 5})
    verifier: Path | None = None
    classical: bool = False
    against: tuple[str, ...] = ()  # other methods' programs, NAME=command {input} {output}
    ceiling: Path | None = None  # an `ema.pt` of a network that finds the motion: told the truth, how far would it get?
    paired: Path | None = None  # NAME_blurred.png beside NAME_sharp.png, 160x144: real motion
    fill_margin: bool = False  # give models with a margin the repeated border instead of real surroundings


@dataclass(slots=True)
class Row:
    """One method's figures, by kernel."""

    psnr_db: dict[str, float] = field(default_factory=dict)
    ssim: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)  # of verification, 0..1
    distance: dict[str, float] = field(default_factory=dict)  # 1 - cosine to the sharp picture's embedding
    ms_a_face: float | None = None
    margin: int = 0
    paired_db: tuple[float, float] | None = None  # PSNR of the real pairs, before and after
    paired_worse: int = 0  # real pairs that lost


@dataclass(slots=True)
class Evaluation:
    """All rows, and the first picture of every kernel by method."""

    pictures: int
    pairs: int
    paired: int = 0
    rows: dict[str, Row] = field(default_factory=dict)
    sheet: dict[str, dict[str, NDArray[np.uint8]]] = field(default_factory=dict)  # kernel -> method -> pictures


def evaluate(setting: Setting) -> Evaluation:
    """Measure every model, and the references, on every kernel.

    Raises:
        InputError: faces, kernels, pairs or the verifier cannot be read.
        UsageError: pairs without a verifier.
        EngineError: the engine cannot run.
    """
    if setting.pairs is not None and setting.verifier is None:
        raise UsageError("verification on --pairs needs a --verifier")
    pairs = read_pairs(setting.pairs, setting.folds) if setting.pairs is not None else None
    known = load_kernels(setting.kernels)
    sharp = load_pictures(
        setting.faces, setting.count if pairs is None else None, None if pairs is None else pairs.names
    )
    truth = cut(sharp, 0)
    verifier = open_recogniser(setting.verifier) if setting.verifier is not None else None
    identity = verifier.embed(truth) if verifier is not None else None
    result = Evaluation(len(sharp), 0 if pairs is None else len(pairs.same))
    with methods(setting, result) as ready:
        for kernel in (*KERNELS, SHARP):
            spoiled = blurred(sharp, known.get(kernel))
            result.sheet[kernel] = {}
            for name, method in ready.items():
                began = time.perf_counter()
                restored = method(spoiled, known.get(kernel))
                row = result.rows[name]
                row.ms_a_face = (time.perf_counter() - began) * 1e3 / len(sharp)
                measure(row, kernel, restored, truth, verifier, identity, pairs)
                result.sheet[kernel][name] = restored[:6]
                print(f"{kernel} {name}: {row.psnr_db[kernel]:.2f} dB", file=sys.stderr)
            result.sheet[kernel][SHARP] = truth[:6]
        if setting.paired is not None:
            measure_paired(setting.paired, ready, result)
    for row in result.rows.values():
        for values in (row.psnr_db, row.ssim, row.accuracy, row.distance):
            if values:
                values["mean"] = float(np.mean([values[k] for k in EIGHT]))
    return result


@contextmanager
def methods(setting: Setting, result: Evaluation) -> Iterator[dict[str, Method]]:
    """What is compared, by name; each gets its row."""
    with ExitStack() as stack:
        margins: dict[str, int] = {}
        ready: dict[str, Method] = {BLURRY: lambda spoiled, kernel: cut(spoiled, 0)}
        if setting.classical:
            for name, classical in METHODS.items():
                ready[name] = lambda spoiled, kernel, classical=classical: classical(cut(spoiled, 0), kernel)  # type: ignore[misc]
        for text in setting.against:
            name, words = against.parse(text)
            ready[name] = _on_crops(against.program(name, words))
        for model in setting.models:
            runner = stack.enter_context(open_engine(setting.engine, model))
            name = runner.spec.name if runner.spec.name not in ready else model
            ready[name] = _model(runner, setting.fill_margin)
            margins[name] = runner.spec.margin
        if setting.ceiling is not None:
            ready[CEILING], margins[CEILING] = _told(setting.ceiling)
        result.rows.update({name: Row(margin=margins.get(name, 0)) for name in ready})
        yield ready


def _on_crops(restore: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Method:
    return lambda spoiled, kernel: restore(cut(spoiled, 0))


def _told(weights: Path) -> tuple[Method, int]:
    """The network of an `ema.pt` with the true kernel in place of its own, and its margin."""
    config, values, _ = load_weights(weights)
    network = build_network(config)
    if not isinstance(network, Aware):
        raise InputError(f"--ceiling: the network of {weights} does not find the motion")
    network.load_state_dict(values)

    @torch.no_grad()
    def restore(spoiled: NDArray[np.uint8], kernel: NDArray[np.float32] | None) -> NDArray[np.uint8]:
        true = torch.zeros(SIDE, SIDE)
        true[SIDE // 2, SIDE // 2] = 1
        if kernel is not None:
            true = torch.from_numpy(kernel)
        done = []
        for start in range(0, len(spoiled), BATCH):
            part = (
                torch.from_numpy(cut(spoiled[start : start + BATCH], config.margin)).permute(0, 3, 1, 2).float() / 255
            )
            image = network(part, true.expand(len(part), -1, -1)).image.clamp(0, 1)
            done.append((image * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
        return np.concatenate(done)

    return restore, config.margin


def _model(runner: Engine, fill_margin: bool) -> Method:
    def restore(spoiled: NDArray[np.uint8], kernel: NDArray[np.float32] | None) -> NDArray[np.uint8]:
        m = runner.spec.margin
        crops = cut(spoiled, m)
        if fill_margin:
            crops = np.pad(cut(spoiled, 0), ((0, 0), (m, m), (m, m), (0, 0)), mode="edge")
        batches = range(0, len(crops), BATCH)
        return np.concatenate([runner.run(np.ascontiguousarray(crops[i : i + BATCH])).crops for i in batches])

    return restore


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
    row.ssim[kernel] = mean_ssim(restored[:200], truth[:200])
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
    before = each_psnr(cut(spoiled, 0), truth)
    result.paired = len(names)
    for name, method in ready.items():
        if name == CEILING or (name in METHODS and name != "unsharp"):
            continue  # they need the true kernel
        after = each_psnr(method(spoiled, None), truth)
        result.rows[name].paired_db = (float(before.mean()), float(after.mean()))
        result.rows[name].paired_worse = int((after < before).sum())


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
