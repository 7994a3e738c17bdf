"""YuNet through OpenCV: one small network for boxes and points. The user gives its file; none is in the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.errors import UsageError
from stream.faces.align import yaw_of
from stream.frame import Face


class YuNetFinder:
    """See `Finder`."""

    side_px = 320

    def __init__(self, model: str) -> None:
        """Load the model, such as OpenCV's face_detection_yunet_2026may.onnx.

        Raises:
            UsageError: no file was named, or it is no such model.
        """
        import cv2

        if not model:
            raise UsageError("the finder yunet needs its model: [faces] finder_model = 'face_detection_yunet.onnx'")
        if not Path(model).is_file():
            raise UsageError(f"the finder's model {model} does not exist")
        try:
            self._net = cv2.FaceDetectorYN.create(model, "", (self.side_px, self.side_px), 0.5, 0.3, 50)
        except cv2.error as error:
            raise UsageError(f"OpenCV cannot load {model} as YuNet: {str(error).strip().splitlines()[0]}") from error

    def search(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """See `Finder.search`."""
        rows = self._detect(image)
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1)
        return np.concatenate([boxes, rows[:, 14:15]], 1)

    def look(self, image: NDArray[np.uint8], last: NDArray[np.float64] | None = None, track: int = 0) -> Face | None:
        """See `Finder.look`."""
        rows = self._detect(image)
        if not len(rows):
            return None
        middle = np.array(image.shape[1::-1]) / 2
        row = min(rows, key=lambda r: float(np.hypot(*(r[:2] + r[2:4] / 2 - middle))))
        points = row[4:14].reshape(5, 2) - 0.5  # pixel centres are whole numbers here
        return Face(np.concatenate([row[:2], row[:2] + row[2:4]]), points, float(row[14]), yaw_of(points))

    def _detect(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        self._net.setInputSize(image.shape[1::-1])
        _, rows = self._net.detect(np.ascontiguousarray(image[..., ::-1]))  # it was trained on blue first
        return np.zeros((0, 15)) if rows is None else rows.astype(np.float64)

    def close(self) -> None:
        """See `Finder.close`."""
        del self._net
