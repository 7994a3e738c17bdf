"""What half precision costs a network: the same faces through float32 and float16, compared pixel by pixel."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from training.checkpoint import load_weights
from training.evaluate import mean_psnr
from training.export import CropModel
from training.layers import half
from training.network import build_network
from training.protocol import KERNELS, blurred, cut, load_kernels, load_pictures

BATCH = 8


class Halved(NamedTuple):
    """One kernel's figures; differences in steps of 255."""

    kernel: str
    mean: float
    largest: int
    over_three: float  # share of the samples that are more than 3 steps off
    psnr_db: float  # of float32, against the sharp pictures
    lost_db: float  # by float16


def compare(weights: Path, faces: Path, kernels: Path, count: int) -> list[Halved]:
    """Sharp and smeared faces through the network and through its half, by torch: it rounds after every layer, as a GPU
    does.

    Raises:
        InputError: weights, faces or kernels cannot be read.
    """
    config, values, _ = load_weights(weights)
    network = build_network(config).eval()
    network.load_state_dict(values)
    whole, halved = CropModel(network), CropModel(half(copy.deepcopy(network)))
    known, sharp = load_kernels(kernels), load_pictures(faces, count)
    truth, rows = cut(sharp, 0), []
    for kernel in tqdm((*KERNELS, "sharp"), unit="kernel"):
        crops = cut(blurred(sharp, known.get(kernel)), config.margin)
        crops = np.concatenate([crops] * config.frames, 3)
        full, lower = _restored(whole, crops), _restored(halved, crops)
        off = np.abs(full.astype(np.int16) - lower)
        before = mean_psnr(full, truth)
        rows.append(
            Halved(
                kernel,
                float(off.mean()),
                int(off.max()),
                float((off > 3).mean()),
                before,
                before - mean_psnr(lower, truth),
            )
        )
    return rows


def _restored(model: CropModel, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    with torch.inference_mode():
        parts = [model(torch.from_numpy(crops[i : i + BATCH]))[0].numpy() for i in range(0, len(crops), BATCH)]
    return np.concatenate(parts)


def markdown(rows: list[Halved]) -> str:
    """A table."""
    lines = [
        "| | mean difference | largest | more than 3 off | float32 dB | float16 loses dB |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.kernel} | {r.mean:.3f} | {r.largest} | {r.over_three:.4%} | {r.psnr_db:.2f} | {r.lost_db:.3f} |"
        for r in rows
    ]
    return "\n".join(lines)
