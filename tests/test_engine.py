"""The contract of every engine, and what the shipped model does to real faces."""

import numpy as np
import pytest

from engine import EngineError, EngineUnknown, find_model, open_engine
from engine.echo import EchoEngine
from stream.faces.align import similarity, warp
from zoo import FACE


@pytest.fixture(scope="module", params=["onnxruntime", "openvino", "echo"])
def engine(request, tmp_path_factory):
    if request.param == "openvino":
        pytest.importorskip("openvino", reason="the openvino extra is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNSMEAR_CACHE", str(tmp_path_factory.mktemp("plans")))
        with open_engine(request.param, "fast") as opened:
            yield opened


def crops(count, shape):
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_crops_comes_back_in_order_each_for_itself(engine, count):
    given = crops(count, engine.spec.input_shape)
    together = engine.run(given).crops
    assert together.shape == (count, 112, 96, 3) and together.dtype == np.uint8
    alone = np.concatenate([engine.run(crop[None]).crops for crop in given])
    assert np.abs(together.astype(int) - alone).max() <= 1


def test_the_input_is_left_as_it_was(engine):
    given = crops(2, engine.spec.input_shape)
    kept = given.copy()
    engine.run(given)
    assert np.array_equal(given, kept)


def test_a_margin_is_cut_off():
    given = crops(2, (144, 128, 3))
    assert np.array_equal(EchoEngine(16).run(given).crops, given[:, 16:-16, 16:-16])


def test_unknown_engines_and_models_name_the_nearest(tmp_path):
    with pytest.raises(EngineUnknown, match="did you mean 'onnxruntime'"):
        open_engine("onxruntime", "fast")
    with pytest.raises(EngineUnknown, match="shipped: fast"):
        find_model("slow")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError, match="cannot load"):
        open_engine("onnxruntime", str(tmp_path / "bad.onnx"))


def test_a_wrong_shape_is_an_engine_error():
    with open_engine("onnxruntime", "fast") as opened, pytest.raises(EngineError, match="ONNX Runtime failed"):
        opened.run(crops(1, (100, 96, 3)))


def psnr(a, b):
    return 10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean())


def test_the_shipped_model_sharpens_a_blurred_face_and_leaves_a_sharp_one(photograph):
    import cv2

    sharp = warp(photograph, similarity(FACE), 40)
    truth = sharp[40:-40, 40:-40]
    line, diagonal = np.full((1, 13), 1 / 13, np.float32), np.eye(11, dtype=np.float32) / 11
    with open_engine("onnxruntime", "fast") as opened:
        rim = 40 - opened.spec.margin

        def restored(picture):
            return opened.run(np.ascontiguousarray(picture[rim:-rim, rim:-rim])[None]).crops[0]

        for kernel in (line, line.T, diagonal):
            blurry = cv2.filter2D(sharp, -1, kernel)
            assert psnr(restored(blurry), truth) > psnr(blurry[40:-40, 40:-40], truth) + 3
        assert psnr(restored(sharp), truth) > 38


def test_the_shipped_model_says_which_way_a_face_moved(photograph):
    import cv2

    sharp = warp(photograph, similarity(FACE), 40)
    spread = {}
    with open_engine("onnxruntime", "fast") as opened:
        rim = 40 - opened.spec.margin
        for name, kernel in (("across", np.full((1, 15), 1 / 15)), ("down", np.full((15, 1), 1 / 15))):
            blurry = cv2.filter2D(sharp, -1, kernel)[rim:-rim, rim:-rim]
            found = opened.run(np.ascontiguousarray(blurry)[None]).kernels[0]
            assert found.shape == (33, 33) and found.sum() == pytest.approx(1, abs=1e-3)
            y, x = np.indices((33, 33)) - 16
            spread[name] = np.sqrt([(found * x * x).sum(), (found * y * y).sum()])
    true = np.sqrt((15**2 - 1) / 12)  # the standard deviation of 15 px in a row
    assert spread["across"][0] == pytest.approx(true, rel=0.35) and spread["across"][1] < spread["across"][0] / 2
    assert spread["down"][1] == pytest.approx(true, rel=0.35) and spread["down"][0] < spread["down"][1] / 2
