"""The measuring stick: PSNR of restored beside blurry faces, for the benchmark kernels, the linear one, and no blur.

Protocol: the sharp picture is warped to the crop with 24 px of margin, each channel convolved with the kernel, rounded
to 8 bit, and the margin cut off: blur made of real surroundings. The benchmark kernels never enter training.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine import Engine, open_engine
from stream.errors import InputError
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH, similarity, warp
from training.data import read_image, read_landmarks
from training.degrade import blur

MARGIN = 24
BATCH = 32
KERNELS = ("c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "linear")
EIGHT = KERNELS[:8]
SHARP = "sharp"


def evaluate(
    model: str,
    engine: str,
    faces: Path,
    kernels: Path,
    count: int,
    as_json: Path | None = None,
    sheet: Path | None = None,
) -> str:
    """A Markdown table of one model's PSNR; also JSON and a picture sheet where asked for.

    Raises:
        InputError: faces or kernels cannot be read.
        EngineError: the engine cannot run.
    """
    sharp, known = load_pictures(faces, count), load_kernels(kernels)
    table: dict[str, dict[str, float]] = {"blurry": {}, model: {}}
    pictures: dict[str, list[NDArray[np.uint8]]] = {}
    began, restored_count = time.perf_counter(), 0
    with open_engine(engine, model) as runner:
        margin = runner.spec.margin
        for name in (*KERNELS, SHARP):
            spoiled = blurred(sharp, known.get(name))
            restored = run(runner, cut(spoiled, margin))
            truth, given = cut(sharp, 0), cut(spoiled, 0)
            table["blurry"][name], table[model][name] = mean_psnr(given, truth), mean_psnr(restored, truth)
            pictures[name] = [given[0], restored[0], truth[0]]
            restored_count += len(restored)
            print(f"{name}: {table['blurry'][name]:.2f} -> {table[model][name]:.2f} dB", file=sys.stderr)
    for row in table.values():
        row["mean"] = float(np.mean([row[k] for k in EIGHT]))
    if sheet is not None:
        write_sheet(sheet, pictures)
    if as_json is not None:
        seconds = time.perf_counter() - began
        as_json.write_text(
            json.dumps(
                {
                    "model": model,
                    "engine": engine,
                    "pictures": len(sharp),
                    "psnr_db": table,
                    "seconds": round(seconds, 1),
                    "margin": margin,
                },
                indent=2,
            )
            + "\n"
        )
    return markdown(table, len(sharp))


def load_pictures(folder: Path, count: int) -> NDArray[np.uint8]:
    """The first `count` pictures of a folder, aligned, (N, 160, 144, 3)."""
    names, points = read_landmarks(folder)
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


def run(engine: Engine, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """All crops through an engine."""
    return np.concatenate(
        [engine.run(np.ascontiguousarray(crops[i : i + BATCH])).crops for i in range(0, len(crops), BATCH)]
    )


def mean_psnr(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Mean over pictures of their PSNR in dB; one that is equal counts as 99."""
    mse = ((pictures.astype(np.float32) - truth) ** 2).mean((1, 2, 3))
    return float(np.where(mse > 0, 10 * np.log10(255**2 / np.maximum(mse, 1e-9)), 99.0).mean())


def markdown(table: dict[str, dict[str, float]], count: int) -> str:
    """The table, with the gain of each row over the blurry one."""
    columns = [*EIGHT, "mean", "linear", SHARP]
    lines = [
        f"PSNR in dB, mean over {count} pictures",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for name, row in table.items():
        cells = ["(as it is)" if name == "blurry" and c == SHARP else f"{row[c]:.2f}" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        if name != "blurry":
            gains = [f"{row[c] - table['blurry'][c]:+.2f}" if c != SHARP else "" for c in columns]
            lines.append("| gain | " + " | ".join(gains) + " |")
    return "\n".join(lines)


def write_sheet(path: Path, pictures: dict[str, list[NDArray[np.uint8]]]) -> None:
    """Rows blurry, restored, sharp; a column a kernel."""
    from PIL import Image

    rows = [np.hstack([pictures[name][i] for name in pictures]) for i in range(3)]
    Image.fromarray(np.vstack(rows)).save(path)
