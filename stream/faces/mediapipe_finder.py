"""MediaPipe, full-range detector for the search, face landmarker for the points: the only file that knows it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import SystemLibraryError
from stream.faces.align import yaw_of
from stream.frame import Face

log = logging.getLogger(__name__)

MODELS = Path(__file__).parent / "models"

GLIMPSE = 0.25  # score from which something may be a face
MOUTH = 0.83  # width of a mouth beside the distance of the eyes, as the template has it
# Points of the mesh: lids and corners of each eye (their mean is the eye), nose tip, mouth corners; image-left first.
_POINTS = ([33, 133, 159, 145], [362, 263, 386, 374], [1], [61], [291])


class MediaPipeFinder:
    """See `Finder`."""

    side_px = 256

    def __init__(self) -> None:
        """Load the models.

        Raises:
            SystemLibraryError: libGL, libEGL or a relative of theirs is missing.
        """
        self._noisy = 8  # calls to come in which the native code may still speak up
        try:
            with _silenced():
                self._load()
        except (ImportError, OSError) as error:
            if "shared object file" not in str(error):
                raise
            raise SystemLibraryError(
                f"a system library is missing ({str(error).split(':')[0]}); on Debian or Ubuntu: "
                "apt-get install libgl1 libglib2.0-0 libegl1 libgles2"
            ) from error

    def _load(self) -> None:
        from mediapipe import Image, ImageFormat
        from mediapipe.tasks.python import BaseOptions, vision

        self._image, self._format = Image, ImageFormat.SRGB
        self._detector = vision.FaceDetector.create_from_options(
            vision.FaceDetectorOptions(
                BaseOptions(model_asset_path=str(MODELS / "face_detection_full_range.tflite")),
                min_detection_confidence=GLIMPSE,
            )
        )
        try:
            self._landmarker = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    BaseOptions(model_asset_path=str(MODELS / "face_landmarker.task")),
                    num_faces=1,
                    min_face_detection_confidence=0.3,
                    min_face_presence_confidence=0.4,
                )
            )
        except BaseException:
            self._detector.close()  # collected later, amid another call, it would wait for ever
            raise

    def search(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """See `Finder.search`."""
        with self._hushed():
            found = self._detector.detect(self._picture(image)).detections
        rows = [
            (b.origin_x, b.origin_y, b.origin_x + b.width, b.origin_y + b.height, d.categories[0].score)
            for d in found
            for b in [d.bounding_box]
        ]
        return np.array(rows, np.float64).reshape(-1, 5)

    def look(self, image: NDArray[np.uint8], last: NDArray[np.float64] | None = None, track: int = 0) -> Face | None:
        """See `Finder.look`."""
        with self._hushed():
            found = self._landmarker.detect(self._picture(image)).face_landmarks
        if not found:  # too blurred for the landmarker: the detector sees it still, and where its features are
            return self._glimpse(image)
        size = np.array(image.shape[1::-1], np.float64)
        mesh = np.array([(p.x, p.y, p.z) for p in found[0]])
        points = np.array([mesh[i, :2].mean(0) for i in _POINTS]) * size - 0.5  # pixel centres are whole numbers here
        low, high = mesh[:, :2].min(0) * size, mesh[:, :2].max(0) * size
        return Face(np.concatenate([low, high]), points, 1.0, _yaw(mesh))

    def _glimpse(self, image: NDArray[np.uint8]) -> Face | None:
        """The face in the middle of a picture by the detector's own six points: coarser than the landmarker's."""
        with self._hushed():
            found = self._detector.detect(self._picture(image)).detections
        size = np.array(image.shape[1::-1], np.float64)

        def distance(detection: Any) -> float:
            b = detection.bounding_box
            return float(np.hypot(*(np.array([b.origin_x + b.width / 2, b.origin_y + b.height / 2]) - size / 2)))

        nearest = min(found, key=distance, default=None)
        if nearest is None or distance(nearest) > size[0] / 4:
            return None
        left, right, nose, mouth = np.array([(p.x, p.y) for p in nearest.keypoints[:4]]) * size - 0.5
        half_mouth = MOUTH * (right - left) / 2
        b = nearest.bounding_box
        box = np.array([b.origin_x, b.origin_y, b.origin_x + b.width, b.origin_y + b.height], np.float64)
        points = np.stack([left, right, nose, mouth - half_mouth, mouth + half_mouth])
        return Face(box, points, float(nearest.categories[0].score), yaw_of(points))

    def _hushed(self) -> AbstractContextManager[None]:
        self._noisy -= 1
        return _silenced() if self._noisy >= 0 else nullcontext()

    def _picture(self, image: NDArray[np.uint8]) -> Any:
        # MediaPipe misreads arrays that are not contiguous.
        return self._image(image_format=self._format, data=np.ascontiguousarray(image))

    def close(self) -> None:
        """See `Finder.close`; an object left open prints a traceback at interpreter exit."""
        with _silenced():
            self._detector.close()
            self._landmarker.close()


@contextmanager
def _silenced() -> Iterator[None]:
    """MediaPipe's native code writes its start-up notes straight to the terminal; no setting of its own stops them."""
    if log.isEnabledFor(logging.DEBUG):
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _yaw(mesh: NDArray[np.float64]) -> float:
    """Degrees that the head is turned: how far the line through both cheeks (234, 454) points into the picture.

    The mesh's z is in the scale of x, so the angle needs no camera.
    """
    across = mesh[454] - mesh[234]
    return float(abs(np.degrees(np.arctan2(across[2], np.hypot(across[0], across[1])))))
