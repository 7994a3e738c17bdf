"""Makes the pictures of the documentation again. Needs the test and training extras.

    python docs/make_pictures.py --kernels ../shared/data/kernels/levin.npz --run runs/fast \\
        --paper training/checkpoints/paper_modern.pt

The face is scikit-image's public-domain photograph; it was in no training set.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast

import av
import numpy as np
import torch
from PIL import Image
from scipy.ndimage import convolve
from skimage import data

from engine import open_engine
from stream.faces.align import similarity, warp
from stream.settings import shipped
from training.checkpoint import load_weights
from training.config import load_config
from training.inception import Inception, InceptionModule
from training.kernels import draw_kernels, rasterise, sample_paths
from training.network import build_network
from training.protocol import KERNELS, MARGIN, blurred, cut, load_kernels

HERE = Path(__file__).parent
PART = (slice(0, 256), slice(96, 352))
POINTS = np.array([[203.2, 101.2], [246.2, 103.2], [222.9, 130.3], [201.6, 138.8], [244.3, 140.2]])


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


def before_and_after() -> np.ndarray:
    """Three motions of a whole photograph; above as smeared, below as the command restores it."""
    sharp = data.astronaut()
    columns = []
    with tempfile.TemporaryDirectory() as name:
        for length, turn in ((8, 0.3), (13, 1.2), (18, 2.4)):
            blurry = shaken(sharp, length, turn)
            columns.append(np.vstack([blurry[PART], restored(blurry, Path(name))[PART]]))
    return np.hstack(columns)


def neighbours() -> np.ndarray:
    """Five frames of a shaken clip of a photograph: as smeared, each restored by itself, and with its neighbours."""
    sharp, rng, count = data.astronaut(), np.random.default_rng(5), 24
    clip = []
    for i in range(count):
        path = sample_paths(rng, 1, 60)[0]
        extent = 27 * 0.5 * (1 - np.cos(2 * np.pi * i / (count - 1)))
        kernel = rasterise(path * extent / np.ptp(path, axis=0).max() + 1e-3 * np.arange(60)[:, None], 33)
        moved = np.roll(sharp, (i - count // 2, count // 2 - i), (0, 1))
        clip.append(np.dstack([np.rint(convolve(moved[..., c].astype(float), kernel)) for c in range(3)]))
    shown = range(8, 17, 2)
    rows = [
        np.hstack([np.roll(clip[i].astype(np.uint8), (count // 2 - i, i - count // 2), (0, 1))[PART] for i in shown])
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with av.open(folder / "in.mkv", "w") as file:
            stream = file.add_stream("ffv1", 25, width=512, height=512, pix_fmt="bgr0")
            for picture in clip:
                file.mux(
                    stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), "rgb24").reformat(format="bgr0"))
                )
            file.mux(stream.encode(None))
        for fuse in ("none", "both"):
            (folder / "my.toml").write_text(f'[restore]\nfuse = "{fuse}"\n[encoder]\nname = "ffv1"\n')
            command = [sys.executable, "-m", "stream", "restore", "in.mkv", "-o", "out.mkv", "--config", "my.toml"]
            subprocess.run([*command, "--overwrite", "-q"], cwd=folder, check=True)
            with av.open(folder / "out.mkv") as file:
                done = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
            rows.append(np.hstack([np.roll(done[i], (count // 2 - i, i - count // 2), (0, 1))[PART] for i in shown]))
    return np.vstack(rows)


def drawn(kernel: np.ndarray, side: int = 96) -> np.ndarray:
    """A kernel as a grey picture, its root so that faint parts are seen."""
    grey = Image.fromarray(np.rint(255 * np.sqrt(kernel / kernel.max())).astype(np.uint8))
    return np.repeat(np.asarray(grey.resize((side, side), Image.Resampling.NEAREST))[..., None], 3, 2)


def kernel_samples() -> np.ndarray:
    """Figure 2 of the paper: kernels drawn for training, a row as the paper does, one as `fast` has them."""
    recipes = [load_config(shipped(name)).kernels for name in ("paper", "fast")]
    return np.vstack([np.hstack([drawn(k) for k in draw_kernels(np.random.default_rng(4), 12, r)]) for r in recipes])


def benchmark_kernels(path: Path) -> np.ndarray:
    """Figure 6 of the paper: the benchmark kernels, what they do, what comes back, and the motion that was found."""
    known = load_kernels(path)
    picture = warp(data.astronaut(), similarity(POINTS), MARGIN)[None]
    columns = []
    with open_engine("onnxruntime", "fast") as engine:
        for name in KERNELS:
            smeared = blurred(picture, known[name])
            done, found = engine.run(np.ascontiguousarray(cut(smeared, engine.spec.margin)))
            assert found is not None
            columns.append(np.vstack([drawn(known[name]), cut(smeared, 0)[0], done[0], drawn(found[0])]))
    return np.hstack(columns)


def responses(weights: Path) -> np.ndarray:
    """Figure 4 of the paper: what the first module's branches of 1, 3, 5, 7 and 14 px answer to a smeared face.

    A row a branch: the six of its 32 channels that answer most, from little (black) to much (white) but for the rim.
    """
    config, values, _ = load_weights(weights)
    network = build_network(config)
    network.load_state_dict(values)
    assert isinstance(network, Inception)
    smeared = cut(warp(shaken(data.astronaut(), 13, 1.2), similarity(POINTS), MARGIN)[None], 0)
    with torch.no_grad():
        x = torch.from_numpy(np.ascontiguousarray(smeared)).permute(0, 3, 1, 2).float() / 255
        rows = [
            branch[0].numpy() for branch in cast("InceptionModule", network.modules_[0]).respond(network.features(x))
        ]
    strips = []
    for row in rows:
        strongest = row[np.argsort(-row.std((1, 2)))[:6]]
        low, high = np.quantile(strongest[:, 8:-8, 8:-8], (0.01, 0.99), (1, 2), keepdims=True)
        grey = np.rint(255 * ((strongest - low) / np.maximum(high - low, 1e-6)).clip(0, 1)).astype(np.uint8)
        strips.append(np.repeat(np.hstack(list(grey))[..., None], 3, 2))
    return np.hstack([np.vstack([smeared[0]] * len(strips)), np.vstack(strips)])


def learning_curve(runs: list[Path], path: Path) -> None:
    """Gain over the blurry input on held-out faces, by samples; each run goes on from the one before."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    before = 0
    for run in runs:
        rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        config = json.loads((run / "config.json").read_text())["config"]
        seen = [(row["step"] * config["run"]["batch"], row["gain"]) for row in rows if "gain" in row]
        name = f"{config['network']['channels']} channels, {config['optimizer']['kind']}, {config['loss']['pixel']}"
        axes.plot([(before + faces) / 1000 for faces, _ in seen], [gain for _, gain in seen], marker=".", label=name)
        before += seen[-1][0]
    axes.set(xlabel="samples, thousands", ylabel="gain on held-out faces, dB")
    axes.grid(alpha=0.3)
    if len(runs) > 1:
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def main() -> None:
    """All pictures whose inputs are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=Path, help="levin.npz: makes eight-kernels.png")
    parser.add_argument("--paper", type=Path, help="an ema.pt of the paper's network: makes responses.png")
    parser.add_argument("--run", type=Path, help="a run's folder: makes learning-curve.png")
    parser.add_argument(
        "--paper-runs", type=Path, nargs="+", help="folders of the paper's network: makes paper-curve.png"
    )
    given = parser.parse_args()
    Image.fromarray(before_and_after()).save(HERE / "before-after.png")
    Image.fromarray(neighbours()).save(HERE / "neighbours.jpg", quality=90)
    Image.fromarray(kernel_samples()).save(HERE / "kernel-samples.png")
    if given.kernels is not None:
        Image.fromarray(benchmark_kernels(given.kernels)).save(HERE / "eight-kernels.png")
    if given.paper is not None:
        Image.fromarray(responses(given.paper)).save(HERE / "responses.png")
    if given.run is not None:
        learning_curve([given.run], HERE / "learning-curve.png")
    if given.paper_runs:
        learning_curve(given.paper_runs, HERE / "paper-curve.png")


if __name__ == "__main__":
    main()
