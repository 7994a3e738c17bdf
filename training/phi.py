"""Phi of eq. 8: a frozen face recogniser as a torch module through which gradients flow to the picture.

Read from its ONNX file, whose few kinds of nodes are run one by one: the converters at hand want a torchvision that
fits no CPU build of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stream.errors import InputError


def _conv(inputs: list[Any], about: dict[str, Any]) -> Tensor:
    x, weight, bias = (*inputs, None)[:3]
    top, left, bottom, right = about.get("pads", [0, 0, 0, 0])
    assert (top, left) == (bottom, right)
    out: Tensor = F.conv2d(x, weight, bias, about.get("strides", 1), (top, left), groups=about.get("group", 1))
    return out


_RUN: dict[str, Callable[[list[Any], dict[str, Any]], Tensor]] = {
    "Conv": _conv,
    "Relu": lambda inputs, about: F.relu(inputs[0]),
    "Add": lambda inputs, about: inputs[0] + inputs[1],
    "Clip": lambda inputs, about: inputs[0].clamp(*[v if v is None else float(v) for v in inputs[1:]]),
    "Reshape": lambda inputs, about: inputs[0].flatten(1),
}


class Phi(nn.Module):
    """Crops (N, 3, 112, 96) in [0, 1] to features (N, D) of length 1: eq. 8 then does not depend on their scale."""

    def __init__(self, path: Path) -> None:
        """Load an ONNX network with one input (1, 3, 112, 112), RGB, (v - 127.5) / 128, and one output (1, D).

        Raises:
            InputError: the file is missing, or has a node that is not known here.
        """
        super().__init__()
        import onnx
        from onnx import numpy_helper

        if not path.is_file():
            raise InputError(f"the recogniser of the facial loss is missing: {path} does not exist")
        graph = onnx.load(str(path)).graph
        self._input, self._output = graph.input[0].name, graph.output[0].name
        values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        self._nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        for node in graph.node:
            about = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                values[node.output[0]] = numpy_helper.to_array(about["value"])
            elif node.op_type not in _RUN:
                raise InputError(f"{path} has a {node.op_type} node, which the facial loss does not know")
            else:
                self._nodes.append((node.op_type, list(node.input), node.output[0], about))
        self._places = {name: f"value_{i}" for i, name in enumerate(values)}
        for name, place in self._places.items():
            self.register_buffer(place, torch.from_numpy(values[name].copy()))

    def forward(self, crops: Tensor) -> Tensor:
        """See the class."""
        values = {name: self.get_buffer(place) for name, place in self._places.items()}
        values[self._input] = (F.pad(crops, (8, 8, 0, 0), mode="replicate") * 255 - 127.5) / 128
        for kind, inputs, output, about in self._nodes:
            values[output] = _RUN[kind]([values.get(name) for name in inputs], about)
        return F.normalize(values[self._output].flatten(1))
