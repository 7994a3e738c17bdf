"""Remakes the paper's ablations (table 5, figure 9) at an equal small budget, as a Markdown table and a picture.

    python docs/ablate.py --weights runs/paper_modern/ema.pt --steps 80 --kernels ../shared/data/kernels/levin.npz \\
        --faces ../shared/data/lfw_pairs --verifier ../shared/data/recognisers/verify_mobilefacenet.param

Losses and kernels go on from the same weights, on whole crops (a part of a face has no identity). The 1x1 reductions
change the network: both start anew, on parts. Needs the test and training extras.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_pictures import POINTS
from msgspec.structs import replace
from PIL import Image
from skimage import data

from stream.faces.align import similarity, warp
from stream.settings import shipped
from training.checkpoint import load_weights
from training.config import TrainConfig, load_config
from training.evaluate import each_psnr
from training.network import build_network
from training.protocol import EIGHT, KERNELS, MARGIN, blurred, cut, load_kernels, load_pictures
from training.recogniser import Recogniser, open_recogniser
from training.train import train

HERE = Path(__file__).parent
ALPHA, BETA = 0.3, 0.003  # of a mean TV and of features of length 1: here both weigh about as much as the L2
FIGURE_9 = ("L2 + TV + facial, alpha/beta 0.2", "L2 + TV + facial, alpha/beta 1", "L2 + TV + facial, alpha/beta 5")


@dataclass(frozen=True, slots=True)
class Variant:
    """What one run changes."""

    loss: dict[str, float]
    kernels: dict[str, int]
    reduction: bool | None = None  # None: goes on from the given weights


VARIANTS = {
    "as the weights came, no further step": None,
    "L2": Variant({}, {}),
    "L2 + TV": Variant({"tv": ALPHA}, {}),
    "L2 + facial": Variant({"facial": BETA}, {}),
    **{
        f"L2 + TV + facial, alpha/beta {ratio:g}": Variant({"tv": ratio * ALPHA, "facial": BETA}, {})
        for ratio in (0.2, 1, 5)
    },
    "L2, kernels of 3 to 12 px": Variant({}, {"valid_min_px": 3, "valid_max_px": 12, "mild_share": 0.0}),
    "L2, kernels of 8 to 20 px (the paper's)": Variant({}, {"valid_min_px": 8, "valid_max_px": 20, "mild_share": 0.0}),
    "anew, with the 1x1 reductions": Variant({}, {}, True),
    "anew, without them": Variant({}, {}, False),
}


def changed(config: TrainConfig, variant: Variant, steps: int, batch: int) -> TrainConfig:
    """The run of a variant."""
    anew = variant.reduction is not None
    run = replace(config.run, steps=steps, batch=batch, whole_steps=0 if anew else steps, validate_every=0)
    return replace(
        config,
        network=replace(config.network, reduction=variant.reduction) if anew else config.network,
        kernels=replace(config.kernels, **variant.kernels),
        loss=replace(config.loss, **{"pixel": "l2", "tv": 0.0, "facial": 0.0, **variant.loss}),
        optimizer=replace(config.optimizer, learning_rate=1e-3 if anew else 3e-4, warmup_steps=10, decay_steps=steps),
        run=replace(run, ema=0.9),
    )


@torch.no_grad()
def restored(network: torch.nn.Module, crops: np.ndarray) -> np.ndarray:
    """uint8 crops through a network."""
    made = [network(torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255).image for crop in crops]
    return (torch.cat(made) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def measured(network: torch.nn.Module, faces: np.ndarray, known: Any, verifier: Recogniser) -> list[float]:
    """Gain over the eight kernels and on the linear one, PSNR without blur, identity distance over the eight."""
    truth = cut(faces, 0)
    identity, gains, distances = verifier.embed(truth), {}, {}
    for name in KERNELS:
        smeared = np.ascontiguousarray(cut(blurred(faces, known[name]), 0))
        done = restored(network, smeared)
        gains[name] = float((each_psnr(done, truth) - each_psnr(smeared, truth)).mean())
        distances[name] = float(1 - (verifier.embed(done) * identity).sum(1).mean())
    sharp = float(each_psnr(restored(network, np.ascontiguousarray(truth)), truth).mean())
    eight = [float(np.mean([values[name] for name in EIGHT])) for values in (gains, distances)]
    return [eight[0], gains["linear"], sharp, eight[1]]


def main() -> None:
    """Train, measure and show every variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="an ema.pt of the paper's network")
    for name in ("kernels", "faces", "verifier"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--count", type=int, default=24, help="pictures of --faces")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs"))
    given = parser.parse_args()
    config = load_config(shipped("paper_modern"))
    known, faces, verifier = (
        load_kernels(given.kernels),
        load_pictures(given.faces, given.count),
        open_recogniser(given.verifier),
    )
    face = warp(data.astronaut(), similarity(POINTS), MARGIN)[None]
    shown = np.ascontiguousarray(cut(blurred(face, known["c6"]), 0))
    sheet = [cut(face, 0)[0], shown[0]]
    print("| | gain, mean of the eight | linear | sharp | identity distance |\n|---|---|---|---|---|")
    for number, (name, variant) in enumerate(VARIANTS.items()):
        weights = given.weights
        if variant is not None:
            run = given.output / f"ablation-{number}"
            if run.exists():
                raise SystemExit(f"{run} is there already, and would go on: remove it first")
            train(
                changed(config, variant, given.steps, given.batch), run, weights if variant.reduction is None else None
            )
            weights = run / "ema.pt"
        known_config, values, _ = load_weights(weights)
        network = build_network(known_config)
        network.load_state_dict(values)
        gain, linear, sharp, distance = measured(network, faces, known, verifier)
        print(f"| {name} | {gain:+.2f} | {linear:+.2f} | {sharp:.1f} | {distance:.3f} |", flush=True)
        if name in FIGURE_9:
            sheet.append(restored(network, shown)[0])
    Image.fromarray(np.hstack(sheet)).save(HERE / "loss-weights.png")


if __name__ == "__main__":
    main()
