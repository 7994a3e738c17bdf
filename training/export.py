"""Averaged weights into one ONNX file that says what it is: uint8 NHWC in and out, all arithmetic in the graph."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from engine import half_precision
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training.checkpoint import load_weights
from training.kernel_finder import SIDE
from training.layers import half
from training.network import NetworkConfig, build_network, count_macs

OPSET = 18


class CropModel(nn.Module):
    """uint8 crops (N, 112 + 2 margin, 96 + 2 margin, 3 frames) to uint8 (N, 112, 96, 3), and kernels (N, 33, 33).

    One that undoes them also takes them where they are known (N, 33, 33), zeros where not.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor, known: Tensor | None = None) -> tuple[Tensor, ...]:
        """Scale, restore, clamp and round."""
        x = crops.float().permute(0, 3, 1, 2) / 255  # first the cast: TensorRT moves no uint8
        answer = self.network(x) if known is None else self.network(x, known)
        # Clamp, then add one half: casting to uint8 truncates, and so does TensorRT at its outputs.
        crops = ((answer.image.permute(0, 2, 3, 1) * 255).clamp(0, 255) + 0.5).to(torch.uint8)
        return (crops,) if answer.kernel is None else (crops, answer.kernel)


def export(weights: Path, output: Path, with_torch: bool = False) -> None:
    """Write `output` (NAME.onnx) from an `ema.pt`, NAME.fp16.onnx beside it, and with torch's own NAME.pt2.

    The model is called NAME.

    Raises:
        InputError: the weights cannot be read.
    """
    config, values, about = load_weights(weights)
    network = build_network(config)
    network.load_state_dict(values)
    digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in values.values())).hexdigest()[:12]
    about = {
        "unsmear.name": output.stem,
        "unsmear.margin": str(config.margin),
        "unsmear.frames": str(config.frames),
        "unsmear.kernels": str(int(config.tells_motion)),
        "unsmear.known": str(int(config.takes_motion)),
        "unsmear.version": digest,
        "unsmear.macs": str(count_macs(network, config.margin, config.frames)),
        "unsmear.faces_seen": str(about["faces"]),
        "unsmear.terms": "Weights: research, non-commercial. A restored face is a guess, no evidence of identity.",
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    program = _trace(network, config)
    _write(program, about, output)
    if with_torch:
        torch.export.save(program, output.with_suffix(".pt2"), extra_files={"metadata.json": json.dumps(about)})
    _write(_trace(half(network), config), about, half_precision(output))


def _trace(network: nn.Module, config: NetworkConfig) -> torch.export.ExportedProgram:
    height, width = CROP_HEIGHT + 2 * config.margin, CROP_WIDTH + 2 * config.margin
    given = {"crops": torch.zeros(2, height, width, 3 * config.frames, dtype=torch.uint8)}
    if config.takes_motion:
        given["known"] = torch.zeros(2, SIDE, SIDE)
    count = torch.export.Dim("N")
    shapes = {name: {0: count} for name in given}
    return torch.export.export(CropModel(network).eval(), (), given, dynamic_shapes=shapes)


def _write(exported: torch.export.ExportedProgram, about: dict[str, str], output: Path) -> None:
    import onnx

    kernels, known = (about[f"unsmear.{what}"] == "1" for what in ("kernels", "known"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=OPSET,
            input_names=["crops", "known"] if known else ["crops"],
            output_names=["restored", "kernels"] if kernels else ["restored"],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, about)
    proto.doc_string = ""
    onnx.checker.check_model(proto)
    onnx.save(proto, str(output))
