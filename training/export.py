"""Averaged weights into one ONNX file that says what it is: uint8 NHWC in and out, all arithmetic in the graph."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training.aware import Aware
from training.checkpoint import load_weights
from training.network import build_network

OPSET = 18


class CropModel(nn.Module):
    """uint8 crops (N, 112 + 2 margin, 96 + 2 margin, 3) to uint8 crops (N, 112, 96, 3), and kernels (N, 33, 33)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Scale, restore, clamp and round."""
        x = crops.permute(0, 3, 1, 2).float() / 255
        answer = self.network(x)
        # Clamp, then add one half: casting to uint8 truncates, and so does TensorRT at its outputs.
        crops = ((answer.image.permute(0, 2, 3, 1) * 255).clamp(0, 255) + 0.5).to(torch.uint8)
        return (crops,) if answer.kernel is None else (crops, answer.kernel)


def export(weights: Path, output: Path) -> None:
    """Write `output` (.onnx) from an `ema.pt`.

    Raises:
        InputError: the weights cannot be read.
    """
    import onnx

    config, values, about = load_weights(weights)
    network = build_network(config)
    network.load_state_dict(values)
    model = CropModel(network).eval()
    example = torch.zeros(2, CROP_HEIGHT + 2 * config.margin, CROP_WIDTH + 2 * config.margin, 3, dtype=torch.uint8)
    finds_motion = isinstance(network, Aware)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["crops"],
            output_names=["restored", "kernels"] if finds_motion else ["restored"],
            dynamic_shapes={"crops": {0: torch.export.Dim("N")}},
            external_data=False,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in values.values())).hexdigest()[:12]
    onnx.helper.set_model_props(
        proto,
        {
            "unsmear.name": str(about["name"]),
            "unsmear.margin": str(config.margin),
            "unsmear.kernels": str(int(finds_motion)),
            "unsmear.version": digest,
            "unsmear.faces_seen": str(about["faces"]),
            "unsmear.terms": "Weights: research, non-commercial. A restored face is a guess, no evidence of identity.",
        },
    )
    proto.doc_string = ""
    onnx.checker.check_model(proto)
    output.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, str(output))
