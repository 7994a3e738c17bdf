"""What the compilers make of the shipped models: TensorRT's plan without a GPU, OpenVINO's on this processor."""

import sys

import numpy as np
import pytest

from engine import EngineError, Options, find_model, half_precision, open_engine
from engine.plan_cache import PlanCache

MODELS = sorted(p.stem for p in find_model("fast").parent.glob("*.onnx") if not p.stem.endswith(".fp16"))


@pytest.mark.parametrize("model", MODELS)
def test_tensorrt_for_rtx_compiles_a_model_without_a_gpu(model):
    trt = pytest.importorskip("tensorrt_rtx", reason="the tensorrt-rtx extra is not installed")
    from engine import tensorrt_plan

    path = find_model(model)
    built = tensorrt_plan.build(trt, half_precision(path), max_batch=32, capability="8.9")
    assert len(built.plan) > 1_000_000
    about, margin = built.about, tensorrt_plan.spec_of(path).margin
    assert about["batch"] == [1, 32]
    assert about["tensors"]["crops"] == f"UINT8 (-1, {112 + 2 * margin}, {96 + 2 * margin}, 3)"
    assert about["tensors"]["restored"] == "UINT8 (-1, 112, 96, 3)"
    assert about["layers"]["convolution HALF"] > 10 and "convolution FLOAT" not in about["layers"]
    if "kernels" in about["tensors"]:
        assert about["tensors"]["kernels"] == about["tensors"]["known"] == "FLOAT (-1, 33, 33)"
        assert about["layers"]["matrix product FLOAT"] == 20, "the Fourier products keep FP32"
        assert set(about["layers"]) == {"convolution HALF", "matrix product FLOAT", "matrix product HALF"}
    whole = tensorrt_plan.build(trt, path, max_batch=4, capability="8.9").about
    assert whole["batch"] == [1, 4] and "convolution FLOAT" in whole["layers"]


def test_the_papers_network_compiles_whole_in_half_precision():
    trt = pytest.importorskip("tensorrt_rtx", reason="the tensorrt-rtx extra is not installed")
    from engine import tensorrt_plan

    built = tensorrt_plan.build(trt, half_precision(find_model("paper")), capability="8.9")
    assert built.about["tensors"] == {"crops": "UINT8 (-1, 112, 96, 3)", "restored": "UINT8 (-1, 112, 96, 3)"}
    assert built.about["layers"] == {"convolution HALF": 2 + 6 * 7}
    assert tensorrt_plan.spec_of(find_model("paper")).macs == 1_845_120 * 112 * 96


def test_a_capability_that_the_compiler_does_not_know_is_named(tmp_path):
    trt = pytest.importorskip("tensorrt_rtx", reason="the tensorrt-rtx extra is not installed")
    from engine import tensorrt_plan

    with pytest.raises(EngineError, match=r"does not compile for 1\.0; it knows .*8\.9"):
        tensorrt_plan.build(trt, half_precision(find_model("fast")), capability="1.0")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"cannot read bad\.onnx"):
        tensorrt_plan.build(trt, tmp_path / "bad.onnx")
    with pytest.raises(EngineError, match="No such file"):
        tensorrt_plan.build(trt, tmp_path / "none.onnx")


def test_a_plan_depends_on_all_that_it_is_made_for(tmp_path):
    trt = pytest.importorskip("tensorrt_rtx", reason="the tensorrt-rtx extra is not installed")
    pytest.importorskip("cuda.bindings")
    from engine.cuda import Gpu
    from engine.tensorrt_gpu import plan_key

    gpu, path = Gpu(0, "NVIDIA H100", "9.0", 80 << 30, "13.0"), tmp_path / "model.onnx"
    path.write_bytes(b"one")
    key = plan_key(trt, "tensorrt-rtx", path, gpu, 32)
    assert key["version"] == trt.__version__ and key["gpu"] == "NVIDIA H100" and key["batch"] == "1 to 32"
    others = [
        plan_key(trt, "tensorrt", path, gpu, 32),
        plan_key(trt, "tensorrt-rtx", path, gpu._replace(name="NVIDIA L4", capability="8.9"), 32),
        plan_key(trt, "tensorrt-rtx", path, gpu._replace(driver="13.5"), 32),
        plan_key(trt, "tensorrt-rtx", path, gpu, 16),
    ]
    half_precision(path).write_bytes(b"half")
    others.append(plan_key(trt, "tensorrt-rtx", path, gpu, 32))
    path.write_bytes(b"two")
    others.append(plan_key(trt, "tensorrt-rtx", path, gpu, 32))
    assert all(other != key for other in others)


def test_without_a_gpu_tensorrt_says_so_in_one_line():
    pytest.importorskip("tensorrt_rtx", reason="the tensorrt-rtx extra is not installed")
    from engine.cuda import gpus

    try:
        gpus()
    except EngineError:
        with pytest.raises(EngineError, match="no NVIDIA GPU") as caught:
            open_engine("tensorrt-rtx", "fast")
        assert "\n" not in str(caught.value)
    else:
        pytest.skip("there is a GPU")


@pytest.mark.gpu
@pytest.mark.parametrize("model", MODELS)
def test_a_gpu_computes_what_the_cpu_does(model, tmp_path):
    pytest.importorskip("cuda.bindings", reason="no TensorRT extra is installed")
    from engine.cuda import gpus
    from engine.parity import BOUNDS, fixed_crops, measure
    from engine.tensorrt_gpu import TensorRtEngine

    flavour = next((f for f, m in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")) if _has(m)), None)
    try:
        gpus()
    except EngineError as error:
        pytest.skip(str(error))
    if flavour is None:
        pytest.skip("no TensorRT is installed")
    for _ in range(2):  # compiled, then from the cache
        with TensorRtEngine(find_model(model), flavour, cache=PlanCache(tmp_path / "plans")) as engine:
            assert engine.about["precision"] == "float16"
            assert measure(engine, find_model(model)).passes(BOUNDS["float16"])
            many = np.tile(fixed_crops(engine.spec), (12, 1, 1, 1))[:91]  # three slots' worth, the last one part full
            together = engine.run(many).crops
            assert np.abs(together[:8].astype(int) - together[80:88]).max() <= 1


def _has(module):
    from importlib.util import find_spec

    return find_spec(module) is not None


def openvino_engine(tmp_path, model="fast"):
    pytest.importorskip("openvino", reason="the openvino extra is not installed")
    from engine.openvino_cpu import OpenVinoEngine

    return OpenVinoEngine(find_model(model), cache=PlanCache(tmp_path / "plans"))


def test_openvino_compiles_once_and_passes_the_gate(tmp_path, caplog):
    from engine.parity import BOUNDS, measure

    with openvino_engine(tmp_path) as engine:
        first = engine.about
        assert measure(engine, find_model("fast")).passes(BOUNDS[first["precision"]])
    with openvino_engine(tmp_path) as engine:
        assert engine.about == first
        assert measure(engine, find_model("fast")).passes(BOUNDS[first["precision"]])
    assert caplog.text.count("this happens once") == 1


def test_openvino_keeps_the_fourier_products_in_full_precision(tmp_path):
    with openvino_engine(tmp_path) as engine:
        if engine.about["precision"] != "bfloat16":
            pytest.skip("this processor does not multiply bfloat16")
        layers = {}
        for op in engine._compiled.get_runtime_model().get_ordered_ops():
            info = op.get_rt_info()
            layers.setdefault(info["layerType"].astype(str), set()).add(info["runtimePrecision"].astype(str))
    assert layers["MatMul"] == {"f32"} and layers["Convolution"] == {"bf16"}


def test_an_engine_that_is_not_installed_names_its_extra(monkeypatch):
    for name, module in (("openvino", "openvino"), ("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(EngineError, match=rf"pip install 'unsmear\[{name}\]'"):
            open_engine(name, "fast")


def test_auto_takes_the_first_that_runs_and_says_what_it_passed_over(monkeypatch):
    for module in ("openvino", "tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    with open_engine("auto", "fast") as engine:
        assert engine.about["engine"] == "onnxruntime"
        assert [line.split(":")[0] for line in engine.about["passed_over"]] == ["tensorrt", "tensorrt-rtx", "openvino"]
    with pytest.raises(EngineError, match="does not exist"):
        open_engine("auto", "missing.onnx")


def test_torch_runs_what_it_exported(tmp_path):
    pytest.importorskip("torch", reason="the training extra is not installed")
    from pathlib import Path

    from engine.parity import BOUNDS, measure
    from training.export import export

    checkpoint = Path(__file__).parents[1] / "training" / "checkpoints" / "plain.pt"
    with pytest.raises(EngineError, match="--torch"):
        open_engine("torch", str(tmp_path / "plain.onnx"))
    export(checkpoint, tmp_path / "plain.onnx", with_torch=True)
    assert half_precision(tmp_path / "plain.onnx").is_file()
    with open_engine("torch", str(tmp_path / "plain.onnx"), Options(threads=1)) as engine:
        assert measure(engine, tmp_path / "plain.onnx").passes(BOUNDS["float32"])
