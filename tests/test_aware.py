"""The network that finds the motion: its Fourier products, its kernel, what it undoes."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed")

from msgspec.structs import replace  # noqa: E402

from engine import open_engine  # noqa: E402
from stream.errors import InputError  # noqa: E402
from stream.settings import shipped  # noqa: E402
from training.aware import DOUBTS, DoubtingFinder, Wiener  # noqa: E402
from training.checkpoint import save, start  # noqa: E402
from training.config import load_config  # noqa: E402
from training.degrade import blur  # noqa: E402
from training.export import export  # noqa: E402
from training.fourier import Grid  # noqa: E402
from training.kernels import KernelConfig, draw_kernels  # noqa: E402
from training.layers import inner  # noqa: E402
from training.losses import motion  # noqa: E402
from training.network import build_network  # noqa: E402


def aware(config=None, looks=1):
    config = config or load_config(shipped("fast"))
    small = replace(config.network, kind="aware", margin=16, widths=(8, 8), blocks=(1, 1), up_blocks=(1,), looks=looks)
    return replace(config, network=replace(small, repair_widths=(8, 8), repair_blocks=(1, 1), repair_up_blocks=(1,)))


@pytest.fixture(scope="module")
def smeared(astronaut_face):
    """One face under eight kernels: sharp (8, 3, 112, 96), blurry (8, 3, 144, 128), kernels (8, 33, 33)."""
    sharp = torch.from_numpy(astronaut_face).permute(2, 0, 1).float()[None].expand(8, -1, -1, -1) / 255
    config = KernelConfig(side_px=33, valid_min_px=9, valid_max_px=19)
    kernels = torch.from_numpy(draw_kernels(np.random.default_rng(5), 8, config))
    blurry = ((inner(blur(sharp, kernels), 16) * 255).round() / 255).clamp(0, 1)
    return inner(sharp, 32), blurry, kernels


def test_the_products_are_the_fourier_transform_and_its_inverse():
    grid, x = Grid(40, 30), torch.rand(2, 3, 33, 20)
    ours = grid.into(33, 20, origin=4)(x)
    theirs = torch.fft.rfft2(torch.nn.functional.pad(x, (0, 10, 0, 7)).roll((-4, -4), (2, 3)))
    assert torch.allclose(ours, torch.cat([theirs.real, theirs.imag], 2), atol=1e-3)
    assert torch.allclose(grid.back(33, 20, origin=4)(ours), x, atol=1e-5)
    assert torch.allclose(grid.back(10, 12, origin=0)(ours), x[..., 4:14, 4:16], atol=1e-5), "a part of the plane"


def test_a_joined_picture_comes_back_and_its_edges_meet():
    grid, x = Grid(40, 30), torch.rand(1, 1, 33, 20)
    spectrum = grid.into(33, 20, join=True)(x)
    assert torch.allclose(grid.back(33, 20)(spectrum), x, atol=1e-5)
    plane = grid.back(40, 30)(spectrum)[0, 0]
    steps = (plane.roll(-1, 0) - plane)[32:40, :20].abs()
    assert torch.allclose(steps, (x[0, 0, 0] - x[0, 0, -1]).abs().expand(8, -1) / 8, atol=1e-5)


def grey(pictures):
    return pictures.mean(1, keepdim=True)


def test_an_untrained_finder_sees_the_motion_between_a_sharp_and_a_blurry_face(smeared):
    sharp, blurry, kernels = smeared
    with torch.no_grad():
        found, doubt, seen = DoubtingFinder(8)(grey(inner(blurry, 16)), grey(sharp), torch.zeros(8, 8, 56, 48))
    assert torch.equal(seen, grey(sharp)), "it betters nothing yet"
    assert torch.allclose(found.sum((1, 2)), torch.ones(8), atol=1e-5) and not doubt.any()
    one_for_all = kernels.mean(0).expand(8, -1, -1)
    assert motion(found, kernels) < 0.5 * motion(one_for_all, kernels)
    overlap = torch.nn.functional.cosine_similarity(found.flatten(1), kernels.flatten(1))
    assert overlap.min() > 0.6, overlap


def test_an_untrained_finder_sees_no_motion_where_there_is_none(smeared):
    sharp, _, _ = smeared
    with torch.no_grad():
        found, *_ = DoubtingFinder(8)(grey(sharp[:1]), grey(sharp[:1]), torch.zeros(1, 8, 56, 48))
    y, x = np.unravel_index(int(found[0].argmax()), (33, 33))
    assert (y, x) == (16, 16)


def test_an_untrained_second_look_keeps_what_the_first_found_until_it_trusts_itself(smeared):
    sharp, blurry, kernels = smeared
    again, seen = DoubtingFinder(8, again=True), (grey(inner(blurry, 16)), grey(sharp), torch.zeros(8, 8, 56, 48))
    with torch.no_grad():
        kept, *_ = again(*seen, kernels.roll(1, 0))
        assert (kept - kernels.roll(1, 0)).abs().max() < 0.01 * kernels.max()
        again.trust.fill_(1)
        found, *_ = again(*seen, kernels.roll(1, 0))
        assert torch.allclose(found, DoubtingFinder(8)(*seen)[0], atol=1e-5)
    network = build_network(aware(looks=2).network)
    answer = network(blurry)
    assert torch.allclose(answer.kernel, answer.first, atol=0.01)
    assert (answer.sketch - grey(inner(blurry, 16))).abs().max() < 1e-5
    answer = network.eval()(blurry)
    assert answer.first is None and answer.sketch is None, "for losses alone"


def test_a_second_look_learns(smeared):
    _, blurry, kernels = smeared
    torch.manual_seed(2)
    network = build_network(aware(looks=2).network)
    for name, values in network.named_parameters():
        values.requires_grad_(name.startswith(("sketch.", "finder_again.")))
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 3e-3)
    errors = []
    for _ in range(30):
        answer = network(blurry)
        loss = motion(answer.kernel, kernels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.7 * errors[0] and float(motion(answer.first, kernels)) > 0.99 * errors[0], errors


def test_the_true_motion_is_undone(smeared):
    sharp, blurry, kernels = smeared
    with torch.no_grad():
        wiener = Wiener(16, sketches=True)
        undone = wiener(wiener.picture(blurry), kernels, torch.zeros(8, DOUBTS))
        greys = wiener.sketched(wiener.picture(blurry), kernels, torch.zeros(8, DOUBTS))
    assert undone.shape == (8, 5, 112, 96) and torch.allclose(greys, undone[:, 3:], atol=1e-5)
    before = (inner(blurry, 16) - sharp).square().mean((1, 2, 3))
    after = (undone[:, :3] - sharp).square().mean((1, 2, 3))
    gains = 10 * (before / after).log10()
    assert gains.min() > 0 and gains.median() > 5, "dB; what a kernel takes away whole, no filter brings back"


def test_an_untrained_repair_leaves_the_guess_which_may_be_a_plain_networks(tmp_path, smeared):
    plain = aware()
    plain = replace(plain, network=replace(plain.network, kind="unet", margin=0))
    state = start(plain, tmp_path / "plain", None, torch.device("cpu"))
    torch.nn.init.normal_(state.ema.head.weight, std=0.01)
    (tmp_path / "plain").mkdir()
    save(tmp_path / "plain", state, plain)
    network = start(aware(), tmp_path / "aware", tmp_path / "plain" / "ema.pt", torch.device("cpu")).network
    _, blurry, _ = smeared
    with torch.no_grad():
        answer, guess = network(blurry), state.ema(inner(blurry, 16)).image
    assert torch.equal(answer.image, answer.guess) and answer.kernel.shape == (8, 33, 33)
    assert torch.allclose(answer.guess, guess, atol=2e-3), "the weights are kept in half precision"


def test_a_plain_network_tells_the_motion_by_a_head_of_its_own(tmp_path, smeared):
    _, blurry, kernels = smeared
    plain = aware()
    plain = replace(plain, network=replace(plain.network, kind="unet"))
    before = start(plain, tmp_path, None, torch.device("cpu"))
    torch.nn.init.normal_(before.ema.head.weight, std=0.01)
    save(tmp_path, before, plain)
    headed = replace(plain, network=replace(plain.network, kernel_head=True))
    state = start(headed, tmp_path / "headed", tmp_path / "ema.pt", torch.device("cpu"))
    with torch.no_grad():
        answer, expected = state.network(blurry), before.ema(blurry).image
        assert torch.allclose(answer.image, expected, atol=2e-3), "the weights are kept in half precision"
        assert torch.allclose(answer.kernel.sum((1, 2)), torch.ones(8), atol=1e-5)
        assert state.network(blurry[..., 16:-16, 16:-16]).kernel is None, "a part of a crop shows no motion of 27 px"
    (tmp_path / "headed").mkdir()
    save(tmp_path / "headed", state, headed)
    again = start(plain, tmp_path / "again", tmp_path / "headed" / "ema.pt", torch.device("cpu"))
    assert torch.equal(again.network.head.weight, state.ema.head.weight.half().float()), "and may lose it"
    with pytest.raises(InputError, match="another network"):
        start(
            replace(plain, network=replace(plain.network, widths=(8, 16))),
            tmp_path / "again",
            tmp_path / "headed" / "ema.pt",
            torch.device("cpu"),
        )
    optimizer = torch.optim.Adam(state.network.finder.parameters(), 3e-3)
    errors = []
    for _ in range(30):
        loss = motion(state.network(blurry).kernel, kernels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.7 * errors[0], errors
    state.ema.load_state_dict(state.network.state_dict())
    save(tmp_path / "headed", state, headed)
    export(tmp_path / "headed" / "ema.pt", tmp_path / "headed.onnx")
    crops = (blurry * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    with open_engine("onnxruntime", str(tmp_path / "headed.onnx")) as engine:
        assert engine.spec.kernels and not engine.spec.known
        restored, told = engine.run(crops), engine.run(crops, kernels.numpy())
    assert np.array_equal(restored.crops, told.crops), "it has no use for a motion that is known"
    with torch.no_grad():
        assert np.abs(restored.kernels - state.network(blurry).kernel.numpy()).max() < 2e-3


def test_the_motion_is_found_in_full_precision_beside_bfloat16(smeared):
    sharp, blurry, _ = smeared
    finder = DoubtingFinder(8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, *_ = finder(grey(inner(blurry, 16)), grey(sharp), torch.zeros(8, 8, 56, 48))
    with torch.no_grad():
        exact, *_ = finder(grey(inner(blurry, 16)), grey(sharp), torch.zeros(8, 8, 56, 48))
    assert (found - exact).abs().max() < 0.01 * exact.max()
    network = build_network(aware(looks=2).network)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        answer = network(blurry)
    assert answer.kernel.dtype == torch.float32


def test_a_frozen_part_does_not_learn():
    config = aware()
    config = replace(config, optimizer=replace(config.optimizer, frozen=("guess",)))
    network = start(config, Path("nowhere"), None, torch.device("cpu")).network
    network(torch.rand(1, 3, 144, 128)).image.mean().backward()
    assert all(p.grad is None for p in network.guess.parameters())
    assert network.repair.head.weight.grad is not None


def test_a_frame_more_is_not_heeded_until_it_is_learned(tmp_path, smeared):
    one = start(aware(), tmp_path / "one", None, torch.device("cpu"))
    torch.nn.init.normal_(one.ema.repair.head.weight, std=0.01)
    (tmp_path / "one").mkdir()
    save(tmp_path / "one", one, aware())
    config = aware(load_config(shipped("two_frames")))
    assert config.network.frames == 2
    two = start(config, tmp_path / "two", tmp_path / "one" / "ema.pt", torch.device("cpu"))
    _, blurry, _ = smeared
    both = torch.cat([blurry, blurry.flip(0)], 1)
    with torch.no_grad():
        known, more = two.network(both), two.network(torch.cat([blurry, blurry], 1))
    assert torch.allclose(known.image, more.image, atol=1e-5)
    two.network(both).image.square().mean().backward()
    assert two.network.guess.stem.weight.grad[:, 12:].abs().max() > 0, "and it can be learned"
    (tmp_path / "two").mkdir()
    save(tmp_path / "two", two, config)
    export(tmp_path / "two" / "ema.pt", tmp_path / "two.onnx")
    with open_engine("onnxruntime", str(tmp_path / "two.onnx")) as engine:
        assert engine.spec.frames == 2 and engine.spec.input_shape == (144, 128, 6)
        crops = (both * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        expected = (known.image.clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
        assert np.abs(engine.run(crops).crops - expected).max() <= 2, "the weights are kept in half precision"


@pytest.mark.parametrize("looks", [1, 2])
def test_the_exported_network_returns_the_motion_too(tmp_path, smeared, looks):
    config = aware(looks=looks)
    state = start(config, tmp_path, None, torch.device("cpu"))
    torch.nn.init.normal_(state.ema.repair.head.weight, std=0.01)
    save(tmp_path, state, config)
    export(tmp_path / "ema.pt", tmp_path / "aware.onnx")
    crops = (smeared[1] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    with open_engine("onnxruntime", str(tmp_path / "aware.onnx")) as engine:
        assert engine.spec.margin == 16 and engine.spec.kernels
        restored = engine.run(crops)
        kernels = smeared[2].numpy() * (np.arange(8) % 2)[:, None, None].astype(np.float32)
        told = engine.run(crops, kernels)
    network = build_network(config.network)
    network.load_state_dict({k: v.half().float() for k, v in state.ema.state_dict().items()})
    with torch.no_grad():
        answer = network(smeared[1])
    expected = (answer.image.clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(restored.crops - expected).max() <= 0.6
    assert restored.kernels is not None and np.abs(restored.kernels - answer.kernel.numpy()).max() < 1e-3
    with torch.no_grad():
        expected = (network(smeared[1], smeared[2]).image.clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(told.kernels[1::2], kernels[1::2]), "a motion that is known is the one"
    assert np.abs(told.crops[1::2] - expected[1::2]).max() <= 0.6
    assert np.array_equal(told.crops[::2], restored.crops[::2]), "those whose motion is not known are as they were"
