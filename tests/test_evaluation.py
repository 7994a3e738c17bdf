"""The measuring stick itself, measured."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the training extra is not installed")

from engine import EngineError
from engine.parity import BOUNDS
from stream.errors import InputError, UsageError
from training import against, classical
from training.evaluate import Setting, evaluate, mean_psnr, mean_ssim
from training.halved import compare
from training.protocol import cut, load_pictures
from training.recogniser import open_recogniser, unit
from training.report import markdown, write_real_sheet
from training.verification import Pairs, accuracy, best_threshold, read_pairs


def made_pairs(rng, noise):
    """300 people, two pictures each: pairs of the same and of different ones, in five folds."""
    people = rng.normal(size=(300, 32))
    first, second = (unit((people + noise * rng.normal(size=people.shape)).astype(np.float32)) for _ in range(2))
    index = np.arange(300)
    same = index % 2 == 0
    other = np.where(same, index, (index + 7) % 300)
    pairs = Pairs(tuple(map(str, index)), index, other, same, index % 5)
    return first, second, pairs


def test_the_best_threshold_parts_what_can_be_parted():
    assert best_threshold(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True])) == pytest.approx(0.5)
    assert 0.1 < best_threshold(np.array([0.9, 0.1, 0.6, 0.3]), np.array([True, False, False, False])) < 0.9


def test_accuracy_is_whole_for_clear_faces_half_for_noise_and_between_for_blurred_ones():
    rng = np.random.default_rng(0)
    clear, hazy, noise = (accuracy(*made_pairs(rng, level)) for level in (0.1, 1.5, 100.0))
    assert clear > 0.99
    assert abs(noise - 0.5) < 0.1
    assert noise < hazy < clear


def test_a_fold_is_judged_by_the_threshold_of_the_others():
    pairs = Pairs(
        ("a",), np.zeros(4, int), np.zeros(4, int), np.array([True, False, True, False]), np.array([1, 1, 2, 2])
    )

    sharp = np.ones((1, 1), np.float32)
    # Fold 1 is parted at 0.5, fold 2 at 0.05: each is wrong by the other's threshold.
    values = np.array([[0.9], [0.4], [0.1], [0.0]], np.float32)
    spread = Pairs(("a",) * 4, np.zeros(4, int), np.arange(4), pairs.same, pairs.fold)
    assert accuracy(np.repeat(sharp, 4, 0), values, spread) == 0.5


@pytest.mark.parametrize("method", ["Wiener, true kernel", "Richardson-Lucy, true kernel"])
def test_classical_methods_gain_with_the_true_kernel(method, photograph):
    from scipy.ndimage import convolve

    kernel = np.zeros((33, 33), np.float32)
    kernel[16, 12:21] = 1 / 9
    sharp = photograph[40:200, 150:294]
    blurry = np.dstack([convolve(sharp[..., c].astype(float), kernel, mode="nearest") for c in range(3)])
    given, truth = cut(np.rint(blurry).astype(np.uint8)[None], 0), cut(sharp[None], 0)
    restored = classical.METHODS[method](given, kernel)
    assert mean_psnr(restored, truth) > mean_psnr(given, truth) + 0.1
    assert mean_ssim(restored, truth) > mean_ssim(given, truth)
    assert np.array_equal(classical.METHODS[method](given, None), given)


def test_bad_pairs_are_told(tmp_path, shared):
    with pytest.raises(InputError, match="cannot read"):
        read_pairs(tmp_path / "none.csv", frozenset({1}))
    (tmp_path / "a.csv").write_text("fold,left,right\n1,a,b\n")
    with pytest.raises(InputError, match="columns"):
        read_pairs(tmp_path / "a.csv", frozenset({1}))
    with pytest.raises(InputError, match="needs pairs of two of the folds"):
        read_pairs(shared / "lfw_pairs" / "pairs.csv", frozenset({3, 77}))
    with pytest.raises(InputError, match="no recogniser"):
        open_recogniser(Path("none.onnx"))


@pytest.mark.parametrize("name", ["phi_mobilefacenet.onnx", "verify_mobilefacenet.param"])
def test_both_recognisers_know_sharp_faces_apart(name, shared):
    if name.endswith(".param"):
        pytest.importorskip("ncnn")
    pairs = read_pairs(shared / "lfw_pairs" / "pairs.csv", frozenset({1, 2}))
    few = slice(0, None, 6)
    pairs = Pairs(pairs.names, pairs.sharp[few], pairs.other[few], pairs.same[few], pairs.fold[few])
    used = sorted({*pairs.sharp, *pairs.other})
    place = {old: new for new, old in enumerate(used)}
    pictures = load_pictures(shared / "lfw_pairs", None, tuple(pairs.names[i] for i in used))
    found = open_recogniser(shared / "recognisers" / name).embed(cut(pictures, 0))
    moved = [np.array([place[i] for i in side]) for side in (pairs.sharp, pairs.other)]
    assert accuracy(found, found, Pairs(pairs.names, *moved, pairs.same, pairs.fold)) > 0.98


@pytest.mark.parametrize(("name", "count", "most_db"), [("fast", 4, 0.02), ("paper_modern", 1, 0.05)])
def test_half_precision_costs_nothing_that_can_be_seen(name, count, most_db, shared):
    """Within the bounds of the gate that a compiled model must pass (`engine.parity.BOUNDS`)."""
    weights = Path(__file__).parents[1] / "training" / "checkpoints" / f"{name}.pt"
    rows = compare(weights, shared / "lfw_pairs", shared / "kernels" / "levin.npz", count)
    assert len(rows) == 10
    for row in rows:
        assert row.mean <= BOUNDS["float16"].mean and row.largest <= BOUNDS["float16"].largest, row
        assert row.lost_db < most_db, row


def test_what_half_precision_costs_and_what_is_found_is_told_as_json_too(unsmear, shared, tmp_path):
    common = ("--faces", shared / "lfw_pairs", "--kernels", shared / "kernels" / "levin.npz", "--count", "1")
    weights = Path(__file__).parents[1] / "training" / "checkpoints" / "plain.pt"
    for wanted in (("--half", weights), ("--find", "100")):
        done = unsmear("evaluate", *wanted, *common, "--json", "rows.json")
        assert done.returncode == 0, done.stderr
        rows = json.loads((tmp_path / "rows.json").read_text())
        assert len(rows) == 10
    assert rows["sharp"]["faces"] == rows["sharp"]["found"] == 1
    refused = unsmear("evaluate", "--find", "100", "--model", "fast", "--model", "plain")
    assert refused.returncode == 2 and "one --model" in refused.stderr
    refused = unsmear("evaluate", "--real", shared / "blurred" / "real", *common)
    assert refused.returncode == 2 and "--sheet" in refused.stderr


def test_an_evaluation_has_a_row_for_every_method(shared, tmp_path):
    setting = Setting(
        models=("fast",),
        faces=shared / "lfw_pairs",
        kernels=shared / "kernels" / "levin.npz",
        count=4,
        verifier=shared / "recognisers" / "phi_mobilefacenet.onnx",
        paired=shared / "blurred" / "paired",
        real=shared / "blurred" / "real",
        classical=True,
        fill_margin=True,
    )
    result = evaluate(setting)
    assert set(result.rows) == {"blurry", "fast", "fast, border repeated", *classical.METHODS}
    real, filled = (result.rows[name].psnr_db for name in ("fast", "fast, border repeated"))
    assert filled["mean"] < real["mean"] and filled["mean"] > result.rows["blurry"].psnr_db["mean"] + 1
    assert result.rows["blurry"].psnr_db["sharp"] == 99.0
    assert result.rows["blurry"].distance["sharp"] == pytest.approx(0, abs=1e-5)
    assert result.rows["fast"].distance["sharp"] < result.rows["blurry"].distance["c4"]
    assert set(result.real) == {"blurry", "fast", "fast, border repeated", "unsharp"}, "others would need the truth"
    assert len(result.real["fast"]) == len(result.real["blurry"]) >= 12
    assert np.abs(result.real["fast"].astype(int) - result.real["blurry"]).mean() > 0.5
    write_real_sheet(result, tmp_path / "real.png")
    assert (tmp_path / "real.png").stat().st_size > 50_000
    text = markdown(result)
    before, after = result.rows["fast"].paired_db
    assert result.paired == 115 and before == pytest.approx(31.7, abs=0.1) and abs(after - before) < 2
    pasted = result.rows["fast"]
    assert pasted.pasted_db > before + 0.2 and pasted.pasted_worse < 30 < pasted.paired_worse
    assert next(iter(result.rows)) == "blurry"
    assert "Identity distance" in text and "| fast (margin 16 px) |" in text and "as it is" in text


def test_another_program_has_its_row_and_its_faults_are_told(shared, tmp_path):
    import sys

    script = tmp_path / "other.py"
    script.write_text("import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)")
    setting = Setting(
        models=(),
        faces=shared / "lfw_pairs",
        kernels=shared / "kernels" / "levin.npz",
        count=4,
        against=(f"copy={sys.executable} {script} {{input}} {{output}}",),
    )
    rows = evaluate(setting).rows
    assert rows["copy"].psnr_db == rows["blurry"].psnr_db
    script.write_text("print('out of luck'); raise SystemExit(3)")
    with pytest.raises(EngineError, match="copy failed with code 3: out of luck"):
        evaluate(setting)
    script.write_text("")
    with pytest.raises(EngineError, match="did not write a readable 00000"):
        evaluate(setting)
    with pytest.raises(UsageError, match="--against wants NAME"):
        against.parse("copy=cp {input}")
    with pytest.raises(UsageError, match="cannot run"):
        against.program(*against.parse("x=/no/such {input} {output}"))(np.zeros((1, 112, 96, 3), np.uint8), None)


def test_a_network_that_finds_the_motion_shows_its_ceiling(shared, tmp_path):
    torch = pytest.importorskip("torch")
    from msgspec.structs import replace

    from stream.settings import shipped
    from training.checkpoint import save, start
    from training.config import load_config

    config = load_config(shipped("fast"))
    small = replace(config.network, widths=(8, 8), blocks=(1, 1), up_blocks=(1,))
    small = replace(small, repair_widths=(8, 8), repair_blocks=(1, 1), repair_up_blocks=(1,))
    config = replace(config, network=replace(small, kind="aware", margin=16))
    save(tmp_path, start(config, tmp_path, None, torch.device("cpu")), config)
    folders = {"faces": shared / "lfw_pairs", "kernels": shared / "kernels" / "levin.npz", "count": 4}
    rows = evaluate(Setting(models=(), ceiling=tmp_path / "ema.pt", **folders)).rows
    told = rows["told the true kernel"]
    assert told.margin == 16
    assert told.psnr_db["mean"] == pytest.approx(rows["blurry"].psnr_db["mean"], abs=0.1), (
        "untrained, nothing is repaired"
    )
