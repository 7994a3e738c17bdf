"""One training run, as a TOML file says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from engine.base import KERNEL_SIDE
from stream import settings
from stream.errors import UsageError
from stream.faces.align import CROP_HEIGHT, CROP_WIDTH
from training.data import MARGIN
from training.kernels import KernelConfig, Share
from training.network import NetworkConfig

Count = Annotated[int, Meta(ge=1)]
PART_MIN_PX = 16  # of a crop, that a step may see
Precision = Literal["float32", "bfloat16", "auto"]


class DegradeConfig(Struct, frozen=True, kw_only=True):
    """What happens to a sharp crop beside the kernel."""

    unblurred_share: Share
    soft_share: Share
    soft_sigma_px: Annotated[float, Meta(gt=0.3, le=2)]
    defocus_share: Share
    defocus_px: Annotated[float, Meta(gt=0.5, le=4)]
    small_share: Share
    small_scale: Annotated[float, Meta(gt=0, le=1)]
    still_background_share: Share
    moving_background_share: Share
    uneven_share: Share
    highlight_share: Share
    linear_share: Share
    noise_share: Share
    noise_max: Share
    photon_noise_max: Share
    jpeg_share: Share
    jpeg_min_quality: Annotated[int, Meta(ge=1, le=100)]
    h264_share: Share
    h264_max_crf: Annotated[int, Meta(ge=18, le=51)]
    shift_px: Annotated[int, Meta(ge=0, le=16)]
    turn_share: Share
    turn_deg: Annotated[float, Meta(ge=0, le=45)]
    turn_scale: Annotated[float, Meta(ge=0, le=0.5)]
    gain: Share


class NeighbourConfig(Struct, frozen=True, kw_only=True):
    """The frame before, for networks of two frames: the same face a little moved, under the motion before this one."""

    shift_px: Annotated[float, Meta(ge=0, le=16)]
    turn_deg: Annotated[float, Meta(ge=0, le=45)]
    bend_px: Annotated[float, Meta(ge=0, le=8)]
    same_share: Share
    other_share: Share
    milder_share: Share
    wrong_share: Share
    twice_share: Share


class ToldConfig(Struct, frozen=True, kw_only=True):
    """Samples whose motion is told, as the run time fits it to what frames around have shown: the sharp face, but not
    quite."""

    share: Annotated[float, Meta(ge=0, le=1)]
    shift_px: Annotated[float, Meta(ge=0, le=8)]
    bend_px: Annotated[float, Meta(ge=0, le=8)]
    soft_sigma_px: Annotated[float, Meta(gt=0.3, le=2)]


class Stage(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Other weights of eq. 5 from a step on; the paper sets them by hand, in stages."""

    step: Count
    tv: Annotated[float, Meta(ge=0)]
    facial: Annotated[float, Meta(ge=0)]


class LossConfig(Struct, frozen=True, kw_only=True):
    """Weights of eq. 5."""

    pixel: Literal["charbonnier", "l2", "log_l2"]
    tv: Annotated[float, Meta(ge=0)]
    facial: Annotated[float, Meta(ge=0)]
    kernel: Annotated[float, Meta(ge=0)]  # networks that find the motion: its error
    guess: Annotated[float, Meta(ge=0)]  # and the pixel loss of the face before that, where it learns
    recogniser: str  # an .onnx file; read only where facial is not 0
    stages: tuple[Stage, ...] = ()  # in their order

    def at(self, step: int) -> LossConfig:
        """The weights of a step, 0 the first."""
        reached = [stage for stage in self.stages if stage.step <= step]
        return replace(self, tv=reached[-1].tv, facial=reached[-1].facial) if reached else self


class OptimizerConfig(Struct, frozen=True, kw_only=True):
    """How the weights move."""

    kind: Literal["adamw", "muon", "rmsprop"]
    frozen: tuple[str, ...]  # parts of the network that do not learn
    learning_rate: Annotated[float, Meta(gt=0)]
    betas: tuple[float, float]
    weight_decay: Annotated[float, Meta(ge=0)]
    clip_norm: Annotated[float, Meta(gt=0)]
    warmup_steps: int
    decay_steps: int
    halve_after: int
    decay_rate: Annotated[float, Meta(gt=0, le=1)]
    fan_in: Annotated[int, Meta(ge=0)]  # weights of sums of more values than this learn more slowly; 0: none does


class RunConfig(Struct, frozen=True, kw_only=True):
    """How long, and how often to look and to save."""

    batch: Count
    steps: Count
    part_px: tuple[int, int]
    whole_steps: Annotated[int, Meta(ge=0)]
    ema: Share
    validate_every: Annotated[int, Meta(ge=0)]
    save_every: Count


class TrainConfig(Struct, frozen=True, kw_only=True):
    """Everything that decides a run's numbers."""

    name: str
    faces: str  # a folder
    seed: int
    threads: Count
    precision: Precision
    compile: bool
    network: NetworkConfig
    kernels: KernelConfig
    degrade: DegradeConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    run: RunConfig
    neighbour: NeighbourConfig | None = None
    told: ToldConfig | None = None


def load_config(path: Path) -> TrainConfig:
    """A run's settings; every key must be there, none may be unknown.

    Raises:
        UsageError: see `stream.settings.build`; or two values do not fit each other.
    """
    config = settings.build(TrainConfig, settings.load_toml(path), str(path))
    for wrong, what in (*_misfits(config), *_unbuildable(config)):
        if wrong:
            raise UsageError(f"{path}: {what}")
    return config


def _misfits(config: TrainConfig) -> Iterator[tuple[bool, str]]:
    network, kernels = config.network, config.kernels
    begin = [stage.step for stage in config.loss.stages]
    yield begin != sorted(set(begin)), "loss.stages must come one after the other"
    two, told = config.neighbour is not None, config.told is not None
    yield (network.frames == 2) != two, "a network of two frames needs the table [neighbour], and only such a one"
    yield told and not network.takes_motion, "only a network that undoes the motion can be told it (the table [told])"
    other = network.tells_motion and kernels.side_px != KERNEL_SIDE
    yield other, f"kernels.side_px must be {KERNEL_SIDE}: motion is told by kernels of {KERNEL_SIDE} px"
    yield kernels.side_px % 2 == 0, "kernels.side_px must be odd: a kernel has a middle"
    yield (
        kernels.side_px // 2 + network.margin > MARGIN,
        (f"kernels.side_px and network.margin reach further than the {MARGIN} px that are kept round a crop"),
    )
    ascending = ["valid_min_px valid_max_px", "samples_min samples_max", "valid_max_px side_px"]
    ascending += ["valid_min_px mild_max_px"] * bool(kernels.mild_share)
    ascending += ["steps_min steps_max"] * bool(kernels.stepped_share)
    for low, high in map(str.split, ascending):
        yield getattr(kernels, low) > getattr(kernels, high), f"kernels.{low} is above kernels.{high}"


def _unbuildable(config: TrainConfig) -> Iterator[tuple[bool, str]]:
    network, part, whole = config.network, config.run.part_px, (CROP_HEIGHT, CROP_WIDTH)
    inside = all(PART_MIN_PX <= mine <= side for mine, side in zip(part, whole, strict=True))
    yield not inside, f"run.part_px must lie between {PART_MIN_PX} and {list(whole)}"
    yield network.kernel_head and network.kind != "unet", "network.kernel_head: only a unet has one"
    if network.kind == "inception":
        yield network.margin > 0 or network.frames > 1, "an inception network sees one frame, without a margin"
        return
    yield network.takes_motion and part != whole, f"run.part_px must be {list(whole)}: motion is undone in whole crops"
    for of in ("", "repair_") if network.kind == "aware" else ("",):
        widths, down, up = (len(getattr(network, of + what)) for what in ("widths", "blocks", "up_blocks"))
        yield (down, up) != (widths, widths - 1), f"network.{of}blocks are one a width, {of}up_blocks one fewer"
        margin = 0 if network.kind == "aware" else network.margin
        for side in (*part, *whole):
            odd = (side + 2 * margin) % 2**widths
            yield (
                odd > 0,
                f"network.{of}widths: {side + 2 * margin} px, a side that is seen, is no multiple of {2**widths}",
            )
