"""What a run keeps: its full state, and its averaged weights with what builds their network."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from stream.errors import InputError, UsageError
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training.aware import Aware
from training.config import OptimizerConfig, TrainConfig
from training.inception import Inception, grown
from training.muon import Muon
from training.network import NetworkConfig, build_network
from training.unet import UNet


@dataclass(slots=True)
class State:
    """Everything that changes in a run."""

    network: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    rate: float = 1.0  # halved on a plateau
    best: float = float("inf")  # validation loss
    waited: int = 0  # validations since the best one

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """ema = decay ema + (1 - decay) network; faster in the first steps."""
        decay = min(decay, self.step / (self.step + 10))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.network.parameters()), 1 - decay)

    def plateau(self, loss: float, halve_after: int) -> None:
        """Halve the rate where the validation loss has not fallen `halve_after` times; 0: never."""
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(self.best, loss)
        if halve_after and self.waited >= halve_after:
            self.rate, self.waited = self.rate / 2, 0


def start(config: TrainConfig, run: Path, weights: Path | None, device: torch.device) -> State:
    """The state that lies in `run`, or a new one, from `weights` (an `ema.pt`) where given.

    Raises:
        InputError: the weights cannot be read, or the state is another network's.
        UsageError: see `freeze`.
    """
    network = build_network(config.network)
    try:
        if weights is not None:
            known, values, _ = load_weights(weights)
            part = network
            if isinstance(network, Aware) and known.kind == "unet":
                # A plain U-Net's weights are a kernel-aware network's guess, which may have fewer blocks.
                part = network.guess
                values = {name: value for name, value in values.items() if name in part.state_dict()}
            if isinstance(network, UNet):  # it may gain a kernel head, or lose it
                head = {name: value for name, value in network.state_dict().items() if name.startswith("finder.")}
                values = head | {n: value for n, value in values.items() if n in head or not n.startswith("finder.")}
            narrow = known.kind == "inception" and known.channels < config.network.channels
            if isinstance(network, Inception) and narrow and known.reduction == config.network.reduction:
                values = grown(values, network)
            part.load_state_dict(widened(values, part))
        freeze(network, config)
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        ema = copy.deepcopy(network).requires_grad_(False)
        state = State(network, ema, make_optimizer(config.optimizer, network))
        path = run / "state.pt"
        if path.exists():
            saved = torch.load(path, map_location=device, weights_only=True)
            network.load_state_dict(saved["network"])
            ema.load_state_dict(saved["ema"])
            shares = [group["share"] for group in state.optimizer.param_groups]
            state.optimizer.load_state_dict(saved["optimizer"])
            for group, share in zip(state.optimizer.param_groups, shares, strict=True):
                group["share"] = share  # the config's, not the saved run's
            state.step, state.rate = saved["step"], saved["rate"]
            state.best, state.waited = saved["best"], saved["waited"]
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{weights or run} holds another network than the config's: {str(error).splitlines()[0]}"
        ) from error
    return state


def freeze(network: nn.Module, config: TrainConfig) -> None:
    """Let the parts that are to be frozen learn nothing.

    Raises:
        UsageError: there is no such part, or all that learns rests.
    """
    parts = dict(network.named_modules())
    for name in config.optimizer.frozen:
        if name not in parts:
            there = ", ".join(name for name, _ in network.named_children())
            raise UsageError(f"optimizer.frozen: the network has no part '{name}'; it has {there}")
        parts[name].requires_grad_(False)
    learning = [name for name, values in network.named_parameters() if values.requires_grad]
    whole = config.run.part_px == (CROP_HEIGHT, CROP_WIDTH)
    if isinstance(network, UNet) and not whole and all(name.startswith("finder.") for name in learning):
        raise UsageError(
            f"run.part_px must be {[CROP_HEIGHT, CROP_WIDTH]}: a kernel head learns from whole crops alone"
        )


def widened(values: dict[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of a network that sees fewer frames: what it does not know of, it does not heed at first."""
    wanted = network.state_dict()
    return {
        name: torch.cat([value, value.new_zeros(len(value), more, *value.shape[2:])], 1)
        if name.endswith("stem.weight") and name in wanted and (more := wanted[name].shape[1] - value.shape[1]) > 0
        else value
        for name, value in values.items()
    }


def make_optimizer(config: OptimizerConfig, network: nn.Module) -> torch.optim.Optimizer:
    """RMSProp as in section 4.1, AdamW or Muon; each group's `share` of the learning rate follows from its fan-in.

    All move every weight equally far in a step, or nearly: a sum of 6272 (a 14x14 kernel's) then moves 22 times as far
    as one of 288 (a 3x3's), and never settles. (Yang et al., Tensor Programs V, table 3.)
    """
    alike: dict[float, list[nn.Parameter]] = {}
    for values in network.parameters():
        fan_in = values[0].numel() if values.ndim == 4 else 1
        alike.setdefault(min(1.0, config.fan_in / fan_in) if config.fan_in else 1.0, []).append(values)
    groups = [{"params": values, "share": share} for share, values in alike.items()]
    if config.kind == "rmsprop":
        return torch.optim.RMSprop(groups, config.learning_rate, weight_decay=config.weight_decay)
    kind = Muon if config.kind == "muon" else torch.optim.AdamW
    return kind(groups, config.learning_rate, config.betas, weight_decay=config.weight_decay, fused=True)


def save(run: Path, state: State, config: TrainConfig) -> None:
    """Full state and averaged weights (half precision), each whole or not at all."""
    full = {
        "network": state.network.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
        "rate": state.rate,
        "best": state.best,
        "waited": state.waited,
    }
    averaged = {
        "network": msgspec.to_builtins(config.network),
        "name": config.name,
        "weights": {k: v.half().cpu() for k, v in state.ema.state_dict().items()},
        "step": state.step,
        "faces": state.step * config.run.batch,
    }
    for name, value in (("state.pt", full), ("ema.pt", averaged)):
        part = run / f"{name}.part"
        torch.save(value, part)
        part.rename(run / name)


def load_weights(path: Path) -> tuple[NetworkConfig, dict[str, torch.Tensor], dict[str, Any]]:
    """Network, float32 weights and the rest of an `ema.pt`.

    Raises:
        InputError: no such file, or not one of ours.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network = msgspec.convert(state.pop("network"), NetworkConfig)
        weights = {k: v.float() for k, v in state.pop("weights").items()}
    except OSError as error:
        raise InputError(f"cannot read the weights {path}: {error.strerror}") from error
    except Exception as error:  # torch.load has an error of its own for every kind of damage
        raise InputError(f"{path} is no checkpoint of this program (an ema.pt of a run is wanted)") from error
    return network, weights, state
