"""What a camera and a codec add to a blurry picture: noise, compression, rounding."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import DegradeConfig


def spoil(images: Tensor, rng: np.random.Generator, config: DegradeConfig) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1] with noise, JPEG or H.264, and the rounding to 8 bit that every frame has."""
    count = len(images)
    noisy = rng.random(count) < config.noise_share
    read, photon = (
        torch.from_numpy((rng.uniform(0, most, count) * noisy).astype(np.float32))[:, None, None, None]
        for most in (config.noise_max, config.photon_noise_max)
    )
    noise = torch.from_numpy(rng.standard_normal(images.shape, np.float32))
    # A dark sensor's noise, and that of counting photons, whose variance grows with the light.
    noise *= (read**2 + photon**2 * images.clamp(0, 1)).sqrt()
    rounded = ((images + noise) * 255).round().clamp(0, 255).to(torch.uint8)
    draw = rng.random(count)
    for i in np.flatnonzero(draw < config.jpeg_share + config.h264_share):
        picture = rounded[i].permute(1, 2, 0).numpy()
        if draw[i] < config.jpeg_share:
            picture = jpeg(picture, int(rng.integers(config.jpeg_min_quality, 96)))
        else:
            picture = h264(picture, int(rng.integers(18, config.h264_max_crf + 1)))
        rounded[i] = torch.from_numpy(picture).permute(2, 0, 1)
    return rounded.float() / 255


def jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) through JPEG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", quality=quality)
    return np.array(Image.open(buffer))


def h264(image: NDArray[np.uint8], crf: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3), even sides, through H.264 in 4:2:0."""
    import av

    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt, encoder.time_base, encoder.thread_count = "yuv420p", Fraction(1, 25), 1
    encoder.options = {"crf": str(crf), "preset": "ultrafast", "tune": "zerolatency"}
    packets = [*encoder.encode(av.VideoFrame.from_ndarray(image, "rgb24")), *encoder.encode(None)]
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    return np.asarray(frames[0].to_ndarray(format="rgb24"), np.uint8)
