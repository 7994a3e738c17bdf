"""What happens to a sharp face on its way into training."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed")

from msgspec.structs import replace  # noqa: E402

from stream.motion import motion_of  # noqa: E402
from stream.refit import LEAST_PX  # noqa: E402
from stream.settings import shipped  # noqa: E402
from training.config import DegradeConfig, NeighbourConfig, ToldConfig, load_config  # noqa: E402
from training.degrade import discs, make_batch  # noqa: E402
from training.kernels import KernelConfig, draw_kernels, draw_sequences  # noqa: E402
from training.losses import motion  # noqa: E402
from training.spoil import h264, jpeg, spoil  # noqa: E402
from training.told import UPRIGHT, tell  # noqa: E402

CLEAN = replace(
    load_config(shipped("plain")).degrade,
    **dict.fromkeys([name for name in DegradeConfig.__struct_fields__ if name.endswith("_share")], 0.0),
    gain=0.0,
    shift_px=0,
)
WAYS = ("", "still", "moving")
KERNELS = KernelConfig(side_px=33, valid_min_px=9, valid_max_px=19)


@pytest.fixture(scope="module")
def faces(astronaut_face):
    """Four times the same face, (4, 176, 160, 4), known everywhere."""
    return np.stack([np.dstack([astronaut_face, np.full(astronaut_face.shape[:2], 255, np.uint8)])] * 4)


def batch(faces, margin=0, kernels=KERNELS, **degrade):
    rng = np.random.default_rng(3)
    return make_batch(faces, np.arange(len(faces)), rng, kernels, replace(CLEAN, **degrade), margin)


def test_noise_of_counting_photons_grows_with_the_light():
    light = torch.cat([torch.full((1, 3, 64, 64), 0.1), torch.full((1, 3, 64, 64), 0.9)])
    config = replace(CLEAN, noise_share=1.0, noise_max=0.0, photon_noise_max=0.05)
    ratios = []
    for seed in range(20):
        noisy = spoil(torch.cat([light, light]), np.random.default_rng(seed), config) - torch.cat([light, light])
        ratios.append(noisy[1::2].std() / noisy[::2].std())
    assert 1.5 < float(np.median(ratios)) < 6, "the root of 9, within what rounding and four draws leave"
    assert torch.equal(spoil(light, np.random.default_rng(0), CLEAN), (light * 255).round() / 255)


@pytest.mark.parametrize(("codec", "mild", "hard"), [(jpeg, 95, 20), (h264, 18, 45)])
def test_a_codec_loses_a_little_or_much(codec, mild, hard, astronaut_face):
    losses = [np.abs(codec(astronaut_face, quality).astype(int) - astronaut_face).mean() for quality in (mild, hard)]
    assert 0 < losses[0] < 4 < losses[1] < 30, losses


def test_a_lamp_smears_brighter_than_white(faces):
    lamps = faces.copy()
    lamps[..., :3] //= 2
    lamps[:, 80:84, 76:80, :3] = 255
    plain, bright = batch(lamps), batch(lamps, highlight_share=1.0)
    assert torch.equal(plain.sharp, bright.sharp) and torch.equal(plain.kernels, bright.kernels)
    assert bright.blurry.sum() > plain.blurry.sum() + 10 and bright.blurry.max() <= 1


def test_motion_may_change_across_the_face(faces):
    even, uneven = batch(faces), batch(faces, uneven_share=1.0)
    assert torch.equal(even.sharp, uneven.sharp)
    assert not torch.allclose(even.blurry, uneven.blurry, atol=0.02)
    assert torch.allclose(uneven.kernels.sum((1, 2)), torch.ones(4), atol=1e-4)
    assert (uneven.kernels - even.kernels).abs().sum((1, 2)).min() > 0.05


def test_what_is_behind_a_face_may_stand_still_or_move_otherwise(faces):
    one, still, moving = (batch(faces, margin=16, **{f"{how}_background_share": 1.0} if how else {}) for how in WAYS)
    face, rim = (..., slice(60, 90), slice(54, 74)), (..., slice(-3, None), slice(-3, None))
    for other in (still, moving):
        assert torch.allclose(other.blurry[face], one.blurry[face], atol=0.02), "the face moved as it did"
    sharp = batch(faces, margin=16, unblurred_share=1.0)

    def apart(a, b):
        return float((a.blurry[rim] - b.blurry[rim]).abs().mean())

    assert apart(still, sharp) < 0.1 * apart(one, sharp)
    assert min(apart(moving, sharp), apart(moving, one)) > 0.3 * apart(one, sharp)
    assert torch.equal(moving.kernels, one.kernels), "the kernel is the face's"


def test_a_turned_face_is_masked_where_nothing_is_known(faces):
    turned = batch(faces, margin=16, turn_share=1.0, turn_deg=45.0, turn_scale=0.5)
    straight = batch(faces, margin=16)
    assert straight.mask.min() == 1 and turned.mask.mean() < 0.999
    assert not torch.allclose(turned.sharp, straight.sharp, atol=0.1)


def test_a_small_face_has_less_detail_and_its_target_too(faces):
    small, plain = batch(faces, small_share=1.0, small_scale=0.3), batch(faces)
    assert small.sharp.diff(dim=3).abs().mean() < 0.9 * plain.sharp.diff(dim=3).abs().mean()


def test_a_jerky_path_rests_somewhere():
    smooth, jerky = (
        draw_kernels(np.random.default_rng(0), 200, replace(KERNELS, jerky_share=share)) for share in (0.0, 1.0)
    )
    assert np.allclose(jerky.sum((1, 2)), 1, atol=1e-5)
    assert np.median(jerky.max((1, 2))) > 1.5 * np.median(smooth.max((1, 2)))
    y, x = np.indices((33, 33))
    assert all(np.abs((jerky * axis).sum((1, 2)) - 16).max() < 0.05 for axis in (x, y))


def test_light_adds_up_brighter_than_the_values_that_code_it(faces):
    coded, light = batch(faces), batch(faces, linear_share=1.0)
    assert torch.equal(coded.sharp, light.sharp) and torch.equal(coded.kernels, light.kernels)
    step = 1 / 255
    assert (light.blurry - coded.blurry).min() >= -step, "a power above 1 is convex"
    assert (light.blurry - coded.blurry).mean() > step
    black = np.concatenate([np.zeros_like(faces[..., :3]), faces[..., 3:]], 3)
    assert torch.isfinite(batch(black, linear_share=1.0, soft_share=1.0).blurry).all()
    still = batch(faces, linear_share=1.0, unblurred_share=1.0)
    assert (still.blurry - still.sharp).abs().max() <= step, "and back again"


def test_averaged_frames_leave_a_few_spots():
    line, spots = (
        draw_kernels(np.random.default_rng(0), 200, replace(KERNELS, stepped_share=share, steps_max=5))
        for share in (0.0, 1.0)
    )
    assert (spots > 0).sum((1, 2)).max() <= 5 * 4, "each between four pixels"
    assert np.median((line > 0).sum((1, 2))) > 30
    assert np.allclose(spots.sum((1, 2)), 1, atol=1e-5)


def test_successive_kernels_are_parts_of_one_path_each_about_its_own_middle():
    config = replace(KERNELS, valid_min_px=15, valid_max_px=15)
    pairs = draw_sequences(np.random.default_rng(0), 100, 2, config)
    assert pairs.shape == (100, 2, 33, 33) and np.allclose(pairs.sum((2, 3)), 1, atol=1e-5)
    sides = [max(np.ptp(axis) + 1 for axis in np.nonzero(kernel)) for kernel in pairs[:, 0]]
    assert 13 <= np.median(sides) <= 15, "the newest has the size that was asked for"
    y, x = np.indices((33, 33))
    assert all(np.abs((pairs * axis).sum((2, 3)) - 16).max() < 0.05 for axis in (x, y))
    assert np.abs(pairs[:, 0] - pairs[:, 1]).sum((1, 2)).min() > 0.1, "another part, another kernel"
    alone = draw_sequences(np.random.default_rng(0), 100, 1, config)[:, 0]
    assert np.array_equal(alone, draw_kernels(np.random.default_rng(0), 100, config))


NEIGHBOUR = NeighbourConfig(
    shift_px=0.0,
    turn_deg=0.0,
    bend_px=0.0,
    same_share=0.0,
    other_share=0.0,
    milder_share=0.0,
    wrong_share=0.0,
    twice_share=0.0,
)


def two(faces, kernels=KERNELS, **shares):
    rng = np.random.default_rng(3)
    found = make_batch(faces, np.arange(len(faces)), rng, kernels, CLEAN, 0, neighbour=replace(NEIGHBOUR, **shares))
    assert found.blurry.shape == (len(faces), 6, 112, 96)
    return found, found.blurry[:, :3], found.blurry[:, 3:]


def test_the_frame_before_is_the_same_face_under_another_motion(faces):
    _, now, before = two(faces)
    assert not torch.allclose(now, before, atol=0.05)
    lowpass = torch.nn.functional.avg_pool2d
    assert (lowpass(now, 16) - lowpass(before, 16)).abs().mean() < 0.05, "in its place"
    _, now, before = two(faces, twice_share=1.0)
    assert torch.equal(now, before)
    _, now, before = two(faces, same_share=1.0)
    assert (now - before).abs().mean() < 0.03, "a little larger or smaller, nothing more"


def test_the_frame_before_may_be_sharper_and_of_another_expression(faces):
    def detail(x):
        return (x[..., 1:] - x[..., :-1]).abs().mean()

    _, now, before = two(faces, same_share=1.0)
    _, _, milder = two(faces, same_share=1.0, milder_share=1.0)
    assert detail(milder) > 1.2 * detail(before)
    _, _, bent = two(faces, same_share=1.0, bend_px=4.0)
    assert (bent - before).abs().mean() > 0.01
    lowpass = torch.nn.functional.avg_pool2d
    assert (lowpass(now, 16) - lowpass(bent, 16)).abs().mean() < 0.05, "in its place"


def test_the_frame_before_may_be_another_face(faces):
    others = faces.copy()
    others[1::2, ..., :3] = 255 - others[1::2, ..., :3]
    _, now, before = two(others, wrong_share=1.0)
    assert (now - (1 - before)).abs().mean() < 0.1 < (now - before).abs().mean()


def test_a_straight_kernel_lies_on_a_line_and_is_even_along_it():
    config = replace(KERNELS, valid_min_px=15, valid_max_px=19, straight_share=1.0)
    for kernel in draw_kernels(np.random.default_rng(0), 20, config):
        points, weight = np.argwhere(kernel > 0).astype(float), kernel[kernel > 0]
        points -= weight @ points
        variances, axes = np.linalg.eigh((points.T * weight) @ points)
        assert variances[0] < 0.5 and variances[1] == pytest.approx(np.ptp(points @ axes[:, 1]) ** 2 / 12, rel=0.3)


def test_a_picture_out_of_focus_is_not_to_be_mended(faces):
    def detail(x):
        return (x[..., 1:] - x[..., :-1]).abs().mean()

    sharp = batch(faces, unblurred_share=1.0)
    soft = batch(faces, unblurred_share=1.0, defocus_share=1.0, defocus_px=4.0)
    assert detail(soft.sharp) < 0.8 * detail(sharp.sharp)
    assert (soft.blurry - soft.sharp).abs().max() < 0.01, "what comes out of the lens is the truth"
    disc = discs(np.random.default_rng(0), 50, 2.5)
    assert torch.allclose(disc.sum((1, 2)), torch.ones(50).to(disc.dtype))
    assert 0 < disc[:, 4, 4].min() < 0.1 < 0.5 < disc[:, 4, 4].max() and not disc[:, 0].any()


def test_a_mild_kernel_stays_small():
    mild = draw_kernels(np.random.default_rng(0), 200, replace(KERNELS, valid_min_px=3, mild_share=1.0, mild_max_px=6))
    sides = [max(np.ptp(axis) + 1 for axis in np.nonzero(kernel)) for kernel in mild]
    assert 3 <= max(sides) <= 6


@pytest.mark.parametrize("margin", [0, 16])
def test_the_motion_is_told_as_neighbouring_frames_would_fit_it(faces, margin):
    config = ToldConfig(share=1.0, shift_px=0.5, bend_px=0.3, soft_sigma_px=0.5)
    plain = batch(faces, margin=margin)
    assert not plain.known.any()
    told = tell(plain, margin, np.random.default_rng(0), config)
    long = torch.tensor([motion_of(kernel, UPRIGHT).spread_px > LEAST_PX for kernel in plain.kernels.numpy()])
    assert 1 < long.sum() < 4 and torch.allclose(told.known.sum((1, 2)), long.float(), atol=1e-4), "what the run tells"
    known, kernels, others = told.known[long], told.kernels[long], told.kernels.roll(1, 0)[long]
    assert motion(known, kernels) < 0.3 * motion(others, kernels), "its own motion, not another's"
    assert not torch.allclose(known, kernels, atol=1e-3), "as it is fitted, not as it was"
    assert torch.equal(told.blurry, plain.blurry) and torch.equal(told.sharp, plain.sharp)
    assert not tell(plain, margin, np.random.default_rng(0), replace(config, share=0.0)).known.any()
    still = tell(batch(faces, margin=margin, unblurred_share=1.0), margin, np.random.default_rng(0), config)
    assert not still.known.any(), "there is no motion to tell"
