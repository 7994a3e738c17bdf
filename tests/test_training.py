"""Network, kernels, degradation and loop against the paper's numbers; needs the training extra."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed")

from msgspec import to_builtins  # noqa: E402
from msgspec.structs import replace  # noqa: E402

from stream.errors import UsageError  # noqa: E402
from stream.settings import shipped  # noqa: E402
from training.checkpoint import make_optimizer, start  # noqa: E402
from training.config import Stage, load_config  # noqa: E402
from training.data import POINTS, load_faces  # noqa: E402
from training.degrade import blur, make_batch  # noqa: E402
from training.export import export  # noqa: E402
from training.inception import Inception, InceptionModule, SameConv2d  # noqa: E402
from training.kernels import KernelConfig, draw_kernels, matern52, sample_paths  # noqa: E402
from training.network import NetworkConfig, build_network, count_macs, count_parameters  # noqa: E402
from training.train import batch_of, schedule, train  # noqa: E402
from zoo import FACE  # noqa: E402


@pytest.fixture(scope="module")
def faces(tmp_path_factory, photograph_module):
    """A folder of twelve faces: the same one, shifted and brightened."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("faces")
    (folder / "images").mkdir()
    with (folder / "landmarks.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *(f"{p}_{axis}" for p in POINTS for axis in "xy")])
        for i in range(12):
            part = np.roll(photograph_module, i, 1)[60:300, :400] // (1 + i % 3)
            Image.fromarray(part).save(folder / "images" / f"{i}.png")
            writer.writerow([f"{i}.png", *(FACE + np.array([i, -60])).ravel()])
    return folder


@pytest.fixture(scope="module")
def photograph_module():
    from skimage import data

    return data.astronaut()


def small(faces: Path, **run):
    config = load_config(shipped("plain"))
    values = {"batch": 2, "steps": 6, "part_px": (48, 48), "whole_steps": 2, "validate_every": 100, "save_every": 100}
    return replace(
        config,
        faces=str(faces),
        precision="float32",
        network=NetworkConfig(kind="unet", widths=(8, 8), blocks=(1, 1), up_blocks=(1,)),
        optimizer=replace(config.optimizer, warmup_steps=0, decay_steps=0),
        run=replace(config.run, **{**values, **run}),
    )


def test_the_papers_network_has_its_parameters_and_its_work():
    network = build_network(NetworkConfig(kind="inception"))
    assert count_parameters(network) == 1_847_491
    assert count_parameters(InceptionModule()) == 307_584
    assert count_parameters(InceptionModule(reduction=False)) == 583_904
    assert count_macs(network) == 1_845_120 * 112 * 96  # 19.84 GMAC a face


@pytest.mark.parametrize("size", [(112, 96), (48, 64), (49, 65)])
def test_the_papers_network_keeps_the_size(size):
    assert Inception()(torch.zeros(1, 3, *size)).image.shape == (1, 3, *size)


def test_the_papers_network_starts_as_the_identity():
    x = torch.rand(2, 3, 40, 33)
    assert torch.equal(Inception()(x).image, x)


@pytest.mark.parametrize("reduction", [True, False])
def test_a_narrow_network_grows_into_a_wide_one_that_answers_the_same(tmp_path, reduction):
    narrow, wide = (NetworkConfig(kind="inception", reduction=reduction, channels=n) for n in (8, 20))
    learnt = build_network(narrow)
    with torch.no_grad():
        for values in learnt.parameters():
            values.add_(0.02 * torch.randn_like(values))
    weights = {name: value.half() for name, value in learnt.state_dict().items()}
    about = {"network": to_builtins(narrow), "name": "narrow", "weights": weights, "step": 0, "faces": 0}
    torch.save(about, tmp_path / "ema.pt")
    learnt.load_state_dict({name: value.float() for name, value in weights.items()})
    config = replace(load_config(shipped("paper_modern")), network=wide)
    network = start(config, tmp_path / "run", tmp_path / "ema.pt", torch.device("cpu")).network
    x = torch.rand(2, 3, 40, 33)
    assert not torch.allclose(learnt(x).image, x, atol=0.05)
    assert torch.allclose(network(x).image, learnt(x).image, atol=1e-5)
    network(x).image.square().mean().backward()
    heard = [p.grad[:, -1].abs().sum() for name, p in network.named_parameters() if name.endswith("join.weight")]
    assert min(heard) > 0, "what is new can come to be heard"


def test_the_papers_network_is_exported_with_plain_convolutions(tmp_path):
    import onnx

    config = NetworkConfig(kind="inception")
    weights = {name: value.half() for name, value in build_network(config).state_dict().items()}
    about = {"network": to_builtins(config), "name": "paper", "weights": weights, "step": 0, "faces": 0}
    torch.save(about, tmp_path / "ema.pt")
    export(tmp_path / "ema.pt", tmp_path / "paper.onnx")
    for name in ("paper.onnx", "paper.fp16.onnx"):
        kinds = [node.op_type for node in onnx.load(tmp_path / name).graph.node]
        assert kinds.count("Conv") == 2 + 6 * 7 and "DFT" not in kinds, "the five reductions are one"
        assert kinds.count("Concat") == 6, "of the branches: the reductions' weights were joined when it was exported"


@pytest.mark.parametrize("size", [(112, 96), (48, 48), (20, 70)])
def test_wide_kernels_learn_in_fourier_space_as_they_would_directly(size):
    conv = SameConv2d(5, 6, 14).double()
    direct = SameConv2d(5, 6, 14).double().requires_grad_(False)
    direct.load_state_dict(conv.state_dict())
    x = torch.rand(2, 5, *size, dtype=torch.double, requires_grad=True)
    weights = torch.rand(2, 6, *size)
    made = conv(x)
    (made * weights).sum().backward()
    with torch.no_grad():
        assert torch.allclose(made.double(), direct(x), atol=1e-5)
    y = torch.nn.functional.pad(x.detach(), (6, 7, 6, 7)).requires_grad_()
    kernel = conv.weight.detach().clone().requires_grad_()
    (torch.nn.functional.conv2d(y, kernel, conv.bias.detach()) * weights).sum().backward()
    assert torch.allclose(x.grad, y.grad[..., 6:-7, 6:-7], atol=1e-4)
    assert torch.allclose(conv.weight.grad, kernel.grad, atol=1e-3)
    assert torch.allclose(conv.bias.grad, weights.double().sum((0, 2, 3)), atol=1e-3)


def test_weights_of_long_sums_learn_more_slowly():
    config = replace(load_config(shipped("paper_modern")).optimizer, fan_in=288)
    shares = {}
    for group in make_optimizer(config, network := Inception()).param_groups:
        shares |= {id(values): group["share"] for values in group["params"]}
    branches = network.modules_[0].branches
    assert [shares[id(conv.weight)] for conv in branches] == pytest.approx([1, 1, 288 / 800, 288 / 1568, 288 / 6272])
    assert len(shares) == len(list(network.parameters()))


def test_muon_moves_convolutions_in_all_directions_as_far_as_adamw_and_the_rest_as_adamw():
    paths = {}
    for kind in ("muon", "adamw"):
        torch.manual_seed(1)
        network = Inception(channels=16).to(memory_format=torch.channels_last)
        with torch.no_grad():
            for values in network.parameters():
                values.add_(0.1 * torch.randn_like(values))
        config = replace(load_config(shipped("paper_modern")).optimizer, kind=kind, weight_decay=0.0, fan_in=0)
        optimizer = make_optimizer(config, network)
        before = {name: value.detach().clone() for name, value in network.named_parameters()}
        network(torch.rand(2, 3, 24, 24)).image.square().mean().backward()
        optimizer.step()
        paths[kind] = {name: (value - before[name]).detach() for name, value in network.named_parameters()}
    rate, name = config.learning_rate, "modules_.2.join.weight"
    turned = paths["muon"][name].flatten(1)
    assert float(turned.square().mean().sqrt()) == pytest.approx(0.2 * rate, rel=0.3)
    values, adams = (torch.linalg.svdvals(paths[kind][name].flatten(1)) for kind in ("muon", "adamw"))
    assert values[0] < 2.5 * values[-2], "all directions alike, but for one that no gradient shows"
    assert adams[0] > 10 * adams[-2]
    for other in ("head.weight", "modules_.5.join.bias"):
        assert torch.equal(paths["muon"][other], paths["adamw"][other])


def test_the_unet_starts_as_the_identity_and_costs_600_million_macs_beside_its_head():
    network = build_network(load_config(shipped("plain")).network)
    x = torch.rand(2, 3, 112, 96)
    assert torch.equal(network(x).image, x)
    assert count_macs(network) == pytest.approx(658e6, rel=0.001)
    network.finder = None
    assert count_macs(network) == pytest.approx(600e6, rel=0.001)


def test_the_shipped_network_costs_800_million_macs():
    config = load_config(shipped("fast")).network
    assert count_macs(build_network(config), config.margin) == pytest.approx(796e6, rel=0.001)


@pytest.mark.parametrize("name", ["fast", "one_look", "two_frames", "plain", "paper", "paper_modern"])
def test_every_recipe_loads_and_is_named_as_its_file(name):
    config = load_config(shipped(name))
    assert config.name == name
    assert config.network.margin == 0 or config.run.part_px == (112, 96), "surroundings are those of the whole crop"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, against itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_learns_the_same(faces, tmp_path):
    for name, compiled in (("plain", False), ("compiled", True)):
        train(replace(small(faces, steps=3, part_px=(112, 96)), compile=compiled), tmp_path / name)
    plain, compiled = (torch.load(tmp_path / run / "state.pt", weights_only=True) for run in ("plain", "compiled"))
    assert list(plain["network"]) == list(compiled["network"])
    assert all(torch.allclose(a, compiled["network"][name], atol=1e-4) for name, a in plain["network"].items())


def test_the_covariance_of_the_paths_is_that_of_equation_4():
    rng = np.random.default_rng(0)
    paths = sample_paths(rng, 40_000, 60)[..., 0]
    for lag in (0, 10, 30, 59):
        found = (paths[:, 0] * paths[:, lag]).mean()
        assert found == pytest.approx(matern52(np.array(lag * 0.01)), abs=0.0015)
    r = np.sqrt(5) * 0.2 / 0.3
    assert matern52(np.array(0.2)) == pytest.approx(0.25**2 * (1 + r + 5 * 0.2**2 / (3 * 0.3**2)) * np.exp(-r))


def test_kernels_sum_to_one_sit_on_their_centre_of_mass_and_have_the_papers_sizes():
    kernels = draw_kernels(np.random.default_rng(1), 400, KernelConfig())
    assert kernels.shape == (400, 27, 27) and (kernels >= 0).all()
    assert np.allclose(kernels.sum((1, 2)), 1, atol=1e-5)
    y, x = np.indices((27, 27))
    for axis in (x, y):
        assert np.abs((kernels * axis).sum((1, 2)) - 13).max() < 0.05
    sizes = np.array([max(np.ptp(np.flatnonzero(k.sum(0))), np.ptp(np.flatnonzero(k.sum(1)))) + 1 for k in kernels])
    assert sizes.min() >= 7 and sizes.max() <= 20
    assert len(np.unique(sizes)) >= 12, "the size is drawn at random"
    assert len({k.tobytes() for k in kernels}) == 400, "none repeats"


def test_blurring_is_convolution_channel_by_channel():
    from scipy.ndimage import convolve

    image, kernel = (
        np.random.default_rng(0).random((3, 60, 50)),
        draw_kernels(np.random.default_rng(2), 1, KernelConfig()),
    )
    ours = blur(torch.from_numpy(image)[None].float(), torch.from_numpy(kernel))[0].numpy()
    for channel in range(3):
        reference = convolve(image[channel], kernel[0].astype(float), mode="wrap")
        assert np.abs(ours[channel] - reference).max() < 1e-5


def test_a_batch_is_blurred_masked_and_depends_on_its_step_alone(faces, tmp_path):
    config, loaded = small(faces, part_px=(112, 96)), load_faces(faces, tmp_path)
    batch = batch_of(config, loaded, 10, 3)
    assert batch.blurry.shape == batch.sharp.shape == (2, 3, 112, 96) and batch.mask.shape == (2, 1, 112, 96)
    again = batch_of(config, loaded, 10, 3)
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    other = batch_of(config, loaded, 10, 4)
    assert not torch.equal(batch.kernels, other.kernels)
    clean = replace(config.degrade, unblurred_share=1.0, noise_share=0.0, jpeg_share=0.0)
    plain = make_batch(loaded, np.arange(4), np.random.default_rng(0), config.kernels, clean, 0)
    assert (plain.blurry - plain.sharp).abs().max() < 1 / 255, "an unblurred sample is the sharp one, rounded"
    assert 0.2 < float(plain.mask.mean()) < 1.0, "the pictures end at the forehead"


def test_a_model_with_a_margin_gets_real_surroundings(faces, tmp_path):
    config, loaded = small(faces), load_faces(faces, tmp_path)
    batch = make_batch(loaded, np.arange(3), np.random.default_rng(0), config.kernels, config.degrade, 16)
    assert batch.blurry.shape == (3, 3, 144, 128) and batch.sharp.shape == (3, 3, 112, 96)


def test_every_face_is_seen_once_an_epoch(faces, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("training.train.make_batch", lambda faces, indices, *rest: seen.extend(indices))
    for step in range(10):
        batch_of(small(faces), np.empty((0,)), 10, step)
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and seen[:10] != seen[10:]


@pytest.mark.parametrize("kind", ["adamw", "muon", "rmsprop"])
def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(faces, tmp_path, kind):
    def run(folder, **changes):
        config = small(faces, **changes)
        train(replace(config, optimizer=replace(config.optimizer, kind=kind, halve_after=1)), folder)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole)
    run(parts, steps=3, whole_steps=0)
    run(parts)
    a, b = (torch.load(run / "state.pt", weights_only=True) for run in (whole, parts))
    assert a["step"] == b["step"] == 6
    for part in ("network", "ema"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    assert not all(torch.equal(a["network"][n], a["ema"][n]) for n in a["network"])
    logs = [map(json.loads, (run / "log.jsonl").read_text().splitlines()) for run in (whole, parts)]
    (row,), (first, last) = ([row for row in log if "rate" in row] for log in logs)
    assert (row["step"], first["step"], last["step"]) == (6, 3, 6) and row["rate"] == last["rate"]
    assert row["loss"] == pytest.approx((first["loss"] + last["loss"]) / 2), "means of the steps since the last line"
    assert last["hours"] > first["hours"] > 0


def test_a_line_that_a_dying_machine_tore_stops_no_run(faces, tmp_path):
    (tmp_path / "run").mkdir()
    log = tmp_path / "run" / "log.jsonl"
    log.write_text('{"step": 100, "hours": 2.5}\n{"step": 200, "loss": 0.03, "hours": 2\n')
    train(small(faces, steps=1, whole_steps=0), tmp_path / "run")
    rows = [json.loads(line) for line in log.read_text().splitlines()[2:]]
    assert 2.5 < rows[0]["hours"] < 2.6


def test_a_fault_where_batches_are_made_ends_the_run(faces, tmp_path):
    (tmp_path / "tiny.toml").write_text(_toml(to_builtins(small(faces))))
    script = """
from training import train
train.make_batch = lambda *_: 1 / 0
from pathlib import Path
from training.config import load_config
kept = []
try:
    train.train(load_config(Path("tiny.toml")), Path("run"))
except ZeroDivisionError as error:
    kept.append(error)  # and with it all that its traceback holds
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_run_needs_no_git(faces, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    train(small(faces, steps=1), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["revision"] is None


@pytest.mark.parametrize(("every", "at"), [(0, []), (2, [2, 3])])
def test_a_run_looks_at_held_out_faces_as_often_as_it_is_told(faces, tmp_path, every, at):
    train(small(faces, steps=3, validate_every=every), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "gain" in row] == at


def test_the_rate_rises_holds_and_falls_to_nothing():
    config = load_config(shipped("plain"))
    run, o = config.run, config.optimizer
    assert schedule(config, 0) == pytest.approx(1 / o.warmup_steps)
    assert schedule(config, o.warmup_steps) == schedule(config, run.steps - o.decay_steps) == 1
    assert 0 < schedule(config, run.steps - 1) <= 1 / o.decay_steps


def test_train_export_and_evaluate_work_as_commands(unsmear, faces, tmp_path, shared):
    import msgspec

    config = msgspec.to_builtins(small(faces, steps=4, whole_steps=2))
    (tmp_path / "tiny.toml").write_text(_toml(config))
    done = unsmear("train", "tiny.toml", "-o", "run")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4 and "gain" in lines[-1]
    assert list((tmp_path / "run").glob("events.out.tfevents.*")), "TensorBoard's curves"
    done = unsmear("export", "run/ema.pt", "-o", "tiny.onnx")
    assert done.returncode == 0, done.stderr
    done = unsmear(
        "evaluate",
        "--model",
        "tiny.onnx",
        "--faces",
        shared / "lfw_pairs",
        "--kernels",
        shared / "kernels" / "levin.npz",
        "--count",
        8,
        "--json",
        "e.json",
        "--sheet",
        "sheet.png",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "e.json").read_text())
    assert (
        found["pictures"] == 8
        and found["rows"]["tiny"]["psnr_db"]["mean"] > 20
        and (tmp_path / "sheet.png").stat().st_size > 10_000
    )
    assert "| blurry |" in done.stdout


def _toml(config: dict) -> str:
    plain = {k: v for k, v in config.items() if v is not None and not isinstance(v, dict)}
    text = "".join(f"{k} = {json.dumps(v)}\n" for k, v in plain.items())
    for name, table in config.items():
        if isinstance(table, dict):
            text += f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items())
    return text


def test_the_blurry_row_is_that_of_the_protocol(shared):
    from training.evaluate import mean_psnr
    from training.protocol import KERNELS, blurred, cut, load_kernels, load_pictures

    expected = [25.86, 24.75, 28.54, 19.30, 27.62, 24.49, 21.35, 21.48, 24.78]
    pictures, kernels = load_pictures(shared / "lfw_pairs", 600), load_kernels(shared / "kernels" / "levin.npz")
    truth = cut(pictures, 0)
    found = [mean_psnr(cut(blurred(pictures, kernels[name]), 0), truth) for name in KERNELS]
    assert np.abs(np.array(found) - expected).max() < 0.1, np.round(found, 2)


def test_phi_is_the_recogniser_and_lets_gradients_through(shared):
    from training.phi import Phi
    from training.recogniser import open_recogniser

    path = shared / "recognisers" / "phi_mobilefacenet.onnx"
    crops = np.random.default_rng(0).integers(0, 256, (3, 112, 96, 3), dtype=np.uint8)
    x = (torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255).requires_grad_()
    features = Phi(path)(x)
    assert np.abs(features.detach().numpy() - open_recogniser(path).embed(crops)).max() < 1e-5
    features[:, 0].sum().backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0


def test_the_losses_are_those_of_equations_6_to_8():
    from training import losses

    a, b = torch.rand(2, 3, 20, 30), torch.rand(2, 3, 20, 30)
    mask = torch.zeros(2, 1, 20, 30)
    mask[..., 5:15] = 1
    assert torch.allclose(losses.l2(a, b, mask), ((a - b) ** 2)[..., 5:15].mean())
    ramp = torch.arange(30.0).expand(1, 3, 20, 30) * 0.1
    known = torch.ones_like(mask)
    assert float(losses.total_variation(ramp, known[:1])) == pytest.approx(0.01, rel=1e-4)
    assert float(losses.total_variation(torch.ones(1, 3, 8, 8), known[:1, :, :8, :8])) == 0
    wild = torch.where(mask > 0, 0.5, a)
    assert float(losses.total_variation(wild, mask)) == 0, "what lay outside the picture does not count"
    seen = []
    assert float(losses.facial(wild, torch.full_like(a, 0.5), mask, lambda x: seen.append(x) or x)) == 0
    assert all(torch.equal(x, torch.full_like(a, 0.5)) for x in seen)
    assert float(losses.charbonnier(a, a, mask)) == pytest.approx(1e-3, rel=1e-4)
    ten, twenty = torch.full_like(a, 0.1**0.5), torch.full_like(a, 0.1)
    bel = [float(losses.log_l2(x, torch.zeros_like(x), known, least=0)) * -40 for x in (ten, twenty)]
    assert bel == pytest.approx([1, 2], rel=1e-4), "10 and 20 dB"
    both = torch.cat([ten, twenty])
    mixed = float(losses.log_l2(both, torch.zeros_like(both), torch.cat([known, known]), least=0))
    assert mixed * -40 == pytest.approx(1.5, rel=1e-4), "the mean of the decibels, not of the errors"


GOLDEN = 0.0325323


def test_a_network_of_two_frames_learns_and_needs_its_table(faces, tmp_path):
    from training.config import NeighbourConfig

    none = dict.fromkeys(("same_share", "other_share", "milder_share", "wrong_share", "twice_share"), 0.1)
    config = small(faces, steps=3, part_px=(112, 96))
    config = replace(
        config,
        network=replace(config.network, frames=2),
        neighbour=NeighbourConfig(shift_px=1.0, turn_deg=1.0, bend_px=1.0, **none),
    )
    train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])["step"] == 3
    text = shipped("two_frames").read_text()
    (tmp_path / "without.toml").write_text(text.replace("frames = 2", "frames = 1"))
    with pytest.raises(UsageError, match=r"\[neighbour\]"):
        load_config(tmp_path / "without.toml")


@pytest.mark.parametrize(
    ("recipe", "changed", "to", "said"),
    [
        ("fast", "side_px = 33", "side_px = 27", "kernels of 33 px"),
        ("plain", "side_px = 33", "side_px = 27", "kernels of 33 px"),
        ("paper", "side_px = 27", "side_px = 28", "must be odd"),
        ("paper", "valid_max_px = 20", "valid_max_px = 40", "above kernels.side_px"),
        ("paper", "valid_min_px = 8", "valid_min_px = 21", "valid_min_px is above kernels.valid_max_px"),
        ("fast", "valid_min_px = 3", "valid_min_px = 9", "valid_min_px is above kernels.mild_max_px"),
        ("paper", "valid_min_px = 8", "valid_min_px = 2", ">= 3"),
        ("plain", "samples_min = 20", "samples_min = 101", "samples_min is above"),
        ("plain", "jerky_share = 0.0", "jerky_share = 2", "<= 1"),
        ("fast", "part_px = [112, 96]", "part_px = [80, 64]", "whole crops"),
        ("plain", "part_px = [80, 64]", "part_px = [50, 50]", "50 px, a side that is seen, is no multiple of 16"),
        ("plain", "margin = 0", "margin = 24", "further than the 32 px"),
        ("plain", 'kind = "unet"', 'kind = "aware"', "only a unet has one"),
        ("paper", "reduction = true", "margin = 8", "without a margin"),
        ("paper", "step = 190000", "step = 100000", "one after the other"),
        ("paper_modern", "part_px = [84, 84]", "part_px = [200, 84]", "between 16 and"),
        ("fast", "repair_blocks = [0, 1, 0]", "repair_blocks = [0, 1]", "one a width"),
        ("plain", "widths = [32, 64, 128, 192]", "widths = [32, 64, 128]", "one a width"),
    ],
)
def test_values_that_do_not_fit_each_other_are_refused(tmp_path, recipe, changed, to, said):
    text = shipped(recipe).read_text()
    assert changed in text
    (tmp_path / "wrong.toml").write_text(text.replace(changed, to))
    with pytest.raises(UsageError, match=re.escape(said)):
        load_config(tmp_path / "wrong.toml")


def test_a_part_that_is_not_there_cannot_be_frozen(faces, tmp_path):
    config = small(faces)
    config = replace(config, optimizer=replace(config.optimizer, frozen=("stem", "hair")))
    with pytest.raises(UsageError, match="no part 'hair'; it has stem, encoder"):
        train(config, tmp_path / "run")


def test_a_head_alone_does_not_learn_from_parts(faces, tmp_path):
    config = small(faces, steps=2, whole_steps=0)
    network, body = replace(config.network, kernel_head=True), ("stem", "encoder", "down", "up", "decoder", "head")
    config = replace(config, network=network, optimizer=replace(config.optimizer, frozen=body))
    with pytest.raises(UsageError, match=r"must be \[112, 96\]"):
        train(config, tmp_path / "run")
    config = replace(config, run=replace(config.run, part_px=(112, 96)), loss=replace(config.loss, kernel=2.0))
    train(config, tmp_path / "run")
    learned = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["network"]
    torch.manual_seed(config.seed)
    begun = build_network(network).state_dict()
    assert {name.split(".")[0] for name, value in begun.items() if not torch.equal(value, learned[name])} == {"finder"}


def test_alpha_and_beta_are_set_in_stages():
    loss = load_config(shipped("paper")).loss
    seen = [(loss.at(step).tv, loss.at(step).facial) for step in (0, 99_999, 100_000, 189_999, 190_000, 10**6)]
    assert seen == [(0, 0)] * 2 + [(1e-3, 0)] * 2 + [(1e-3, 1e-3)] * 2


def test_a_stage_takes_effect(faces, tmp_path):
    config = small(faces, steps=4, whole_steps=0)
    staged = replace(config, loss=replace(config.loss, stages=(Stage(step=2, tv=10.0, facial=0.0),)))
    for name, each, steps in (("plain", config, 2), ("staged", staged, 2), ("plain", config, 4), ("staged", staged, 4)):
        train(replace(each, run=replace(each.run, steps=steps)), tmp_path / name)
        same = [torch.load(tmp_path / run / "ema.pt")["weights"]["head.bias"] for run in ("plain", name)]
        assert torch.equal(*same) == (name == "plain" or steps == 2)


def test_what_is_told_changes_what_is_learned_and_only_by_networks_that_find_the_motion(faces, tmp_path):
    fast = load_config(shipped("fast"))
    config = small(faces, steps=3, part_px=(112, 96))
    config = replace(config, network=fast.network, loss=replace(fast.loss, facial=0.0), told=fast.told)
    for name, share in (("told", 1.0), ("untold", 0.0)):
        train(replace(config, told=replace(fast.told, share=share)), tmp_path / name)
    told, untold = (torch.load(tmp_path / name / "ema.pt")["weights"] for name in ("told", "untold"))
    assert not torch.equal(told["wiener.log_r"], untold["wiener.log_r"])
    table = shipped("fast").read_text().split("[told]")[1].split("\n[")[0]
    (tmp_path / "plain.toml").write_text(shipped("plain").read_text() + "\n[told]" + table)
    with pytest.raises(UsageError, match=r"\[told\]"):
        load_config(tmp_path / "plain.toml")


def test_twenty_steps_have_the_loss_that_they_always_had(faces, tmp_path):
    """A change of data, network, loss or optimiser shows here first; set it anew when the change is meant."""
    config = small(faces, steps=20, whole_steps=5)
    train(config, tmp_path / "run")
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["loss"] == pytest.approx(GOLDEN, rel=1e-3)


def test_an_interrupted_run_is_saved_and_goes_on(unsmear, faces, tmp_path):
    import signal
    import subprocess
    import sys
    import time

    import msgspec

    (tmp_path / "tiny.toml").write_text(_toml(msgspec.to_builtins(small(faces, steps=100_000))))
    command = [sys.executable, "-m", "stream", "train", "tiny.toml", "-o", "run"]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    log = tmp_path / "run" / "log.jsonl"
    while time.monotonic() < deadline and not (log.exists() and log.read_text()):
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=30)[1]
    assert running.returncode == 130 and "the same command goes on" in said and "Traceback" not in said
    step = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"]
    assert step >= 100
    (tmp_path / "tiny.toml").write_text(_toml(msgspec.to_builtins(small(faces, steps=step + 2))))
    assert unsmear("train", "tiny.toml", "-o", "run").returncode == 0
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == step + 2


@pytest.mark.parametrize("head", [False, True])
def test_two_processes_train_as_one(faces, tmp_path, head):
    import subprocess
    import sys

    import msgspec

    config = small(faces, steps=5, whole_steps=2, batch=4)
    if head:  # which rests while only parts of crops are seen
        network = replace(config.network, kernel_head=True)
        config = replace(config, network=network, loss=replace(config.loss, kernel=2.0))
    (tmp_path / "tiny.toml").write_text(_toml(msgspec.to_builtins(config)))
    train(config, tmp_path / "one")
    # In a folder of their own: which of the two aligns the faces is theirs to settle.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "stream"]
    command = [*launch, "train", "tiny.toml", "-o", "both/two"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "both/two")]
    one, two = (next(row for row in map(json.loads, log) if "rate" in row) for log in logs)
    assert one["step"] == two["step"] == 5 and one["loss"] == pytest.approx(two["loss"], rel=1e-4)
    one, two = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("one", "both/two"))
    for name, weight in one["network"].items():
        assert torch.allclose(weight, two["network"][name], atol=2e-5), name
