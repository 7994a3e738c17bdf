"""What a kernel says of a face's motion, and how much of the change it calls for."""

import numpy as np
import pytest

from stream.frame import Motion
from stream.motion import motion_of, need

UPRIGHT = np.array([[1.0, 0, 0], [0, 1, 0]])


def line(length, angle_deg, side=33):
    """A straight path's kernel, drawn finely; the angle counter-clockwise as seen."""
    kernel = np.zeros((side, side), np.float32)
    t = np.linspace(-0.5, 0.5, 4001) * (length - 1)
    x = 16 + t * np.cos(np.radians(angle_deg))
    y = 16 - t * np.sin(np.radians(angle_deg))
    np.add.at(kernel, (np.rint(y).astype(int), np.rint(x).astype(int)), 1)
    return kernel / kernel.sum()


@pytest.mark.parametrize("angle", [-60, -30, 0, 45, 80])
@pytest.mark.parametrize("length", [7, 15, 25])
def test_a_straight_path_has_its_length_and_direction(length, angle):
    found = motion_of(line(length, angle), UPRIGHT)
    assert found.length_px == pytest.approx(length - 1, rel=0.08)
    assert found.direction_deg == pytest.approx(angle, abs=60 / length)
    assert found.spread_px == pytest.approx((length - 1) / np.sqrt(12), rel=0.1)


def test_the_motion_is_told_in_the_frames_pixels():
    turn = np.radians(30)  # the crop shows the face upright; in the frame it is turned, and three times as large
    matrix = np.array([[np.cos(turn), np.sin(turn), 5], [-np.sin(turn), np.cos(turn), 7]]) / 3
    found = motion_of(line(13, 0), matrix)
    assert found.length_px == pytest.approx(3 * 12, rel=0.08)
    assert found.direction_deg == pytest.approx(-30, abs=3)
    across = matrix[:, :2] @ [np.cos(turn), np.sin(turn)]
    assert across == pytest.approx([1 / 3, 0]), "that way in the frame is along the crop's rows"


def test_no_motion_is_none_and_a_haze_about_a_peak_is_no_motion():
    still = np.zeros((33, 33), np.float32)
    still[16, 16] = 1
    assert motion_of(still, UPRIGHT)[:2] == (0, 0)
    hazy = still * 0.8 + 0.2 / 1089
    assert motion_of(hazy, UPRIGHT).spread_px < 0.1


def test_a_broken_kernel_calls_for_nothing():
    for value in (0.0, np.nan, np.inf):
        assert motion_of(np.full((33, 33), value, np.float32), UPRIGHT) == Motion(0, 0, 0)


def test_the_need_rises_smoothly_from_nothing_to_all():
    shares = [need(Motion(spread, 0, 0), 0.5) for spread in np.linspace(0, 2, 201)]
    assert shares[:51] == [0] * 51 and shares[150:] == [1] * 51
    steps = np.diff(shares)
    assert steps.min() >= 0 and steps.max() < 0.02, "nothing pops"
    assert need(Motion(0, 0, 0), 0.0) == 1


def test_the_shipped_model_leaves_a_sharp_face_alone_and_not_a_smeared_one(astronaut_face):
    from engine import open_engine

    with open_engine("onnxruntime", "fast") as engine:
        cut = 32 - engine.spec.margin
        face = astronaut_face[cut:-cut, cut:-cut]
        smeared = np.mean([np.roll(face, k, 1) for k in range(-5, 6)], 0).round().astype(np.uint8)
        kernels = engine.run(np.stack([face, smeared])).kernels
    still, moved = (motion_of(kernel, UPRIGHT) for kernel in kernels)
    assert need(still, 0.5) < 0.3 and need(moved, 0.5) == 1
    assert abs(moved.direction_deg) < 15 and moved.length_px == pytest.approx(10, rel=0.4)
