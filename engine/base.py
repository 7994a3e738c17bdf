"""What an engine is: uint8 crops in, uint8 crops out. It knows nothing of faces, video or torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

if TYPE_CHECKING:  # the command imports this file for its errors alone, and must start at once
    import numpy as np
    from numpy.typing import NDArray

CROP_HEIGHT, CROP_WIDTH = 112, 96
KERNEL_SIDE = 33


class EngineError(Exception):
    """An engine cannot be made or cannot run; the message names what is missing and how to get it."""


class EngineUnknown(EngineError):
    """No engine or model of that name."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model file says of itself, in its ONNX metadata."""

    name: str
    margin: int = 0  # px of real surroundings on each side of an input crop
    frames: int = (
        1  # that the model sees of a face: this one, and behind it in the channels the one before, as restored
    )
    kernels: bool = False  # whether it also returns the motion kernels that it found
    known: bool = False  # whether it also takes kernels that are known, to undo them in place of its own
    version: str = ""
    macs: int = 0  # multiply-accumulates a face; 0 where the file does not say

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one input crop."""
        return CROP_HEIGHT + 2 * self.margin, CROP_WIDTH + 2 * self.margin, 3 * self.frames

    def feed(self, crops: NDArray[np.uint8], known: NDArray[np.float32] | None) -> dict[str, NDArray[Any]]:
        """The model's inputs by name."""
        if not self.known:
            return {"crops": crops}
        return {"crops": crops, "known": unknown(len(crops)) if known is None else known}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str) -> ModelSpec:
        """The spec in an ONNX file's metadata.

        Raises:
            EngineError: the file was not exported by `unsmear export`.
        """
        try:
            return cls(
                metadata["unsmear.name"],
                int(metadata["unsmear.margin"]),
                int(metadata.get("unsmear.frames", 1)),
                metadata["unsmear.kernels"] == "1",
                metadata.get("unsmear.known", metadata["unsmear.kernels"]) == "1",  # older files lack it
                metadata.get("unsmear.version", ""),
                int(metadata.get("unsmear.macs", 0)),
            )
        except (KeyError, ValueError) as error:
            raise EngineError(
                f"{source} is not a model of this program (its metadata lack {error}); make one with 'unsmear export'"
            ) from error


def unknown(count: int) -> NDArray[np.float32]:
    """Kernels of crops whose motion is not known."""
    import numpy as np

    return np.zeros((count, KERNEL_SIDE, KERNEL_SIDE), np.float32)


class Restored(NamedTuple):
    """What an engine returns for N crops."""

    crops: NDArray[np.uint8]  # (N, 112, 96, 3) RGB
    kernels: NDArray[np.float32] | None  # (N, 33, 33), each of sum 1, where the model estimates motion


class Engine(Protocol):
    """A model ready to run; a context manager. Calls come from one thread at a time. Engines inherit from it."""

    spec: ModelSpec
    about: dict[str, Any]  # "engine", and what is worth telling: precision, device, parity, what `auto` passed over

    def run(self, crops: NDArray[np.uint8], known: NDArray[np.float32] | None = None) -> Restored:
        """Restore crops (N, 112 + 2 margin, 96 + 2 margin, 3 frames), RGB, N >= 1.

        A model that takes known motion undoes the kernels of `known` (N, 33, 33), each of sum 1 and with its centre of
        mass in its middle, in place of its own; its own where a row is all zeros. Others do not look at them.

        Raises:
            EngineError: the device failed. The crops are as they were.
        """
        ...

    def compute_ms(self, batch: int) -> float | None:
        """The device's own milliseconds for a batch, without its copies; None where that is not told apart."""
        return None

    def close(self) -> None:
        """Free the device; `run` is not called again."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
