"""An engine that returns its input: for dry runs, and for tests of all that is around an engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.base import CROP_HEIGHT, CROP_WIDTH, Engine, ModelSpec, Restored


class EchoEngine(Engine):
    """Cuts the margin off and changes nothing."""

    def __init__(self, margin: int = 0) -> None:
        self.spec = ModelSpec("echo", margin)
        self.about = {"engine": "echo"}

    def run(self, crops: NDArray[np.uint8], known: NDArray[np.float32] | None = None) -> Restored:
        """See `Engine.run`."""
        m = self.spec.margin
        return Restored(crops[:, m : m + CROP_HEIGHT, m : m + CROP_WIDTH, :3], None)

    def close(self) -> None:
        """See `Engine.close`."""
