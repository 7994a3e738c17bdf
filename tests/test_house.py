"""The laws of the house, asserted over the syntax trees: who may import whom, and what stands where."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import engine
import stream

PACKAGES = Path(stream.__file__).parents[1]
VENDORS = {
    "onnxruntime": "engine/onnxruntime_cpu.py",
    "openvino": "engine/openvino_cpu.py",
    "cuda": "engine/cuda.py",
    "mediapipe": "stream/faces/mediapipe_finder.py",
    "av": "stream/media/",
}


def files(*packages):
    return [p for package in packages for p in sorted((PACKAGES / package).rglob("*.py")) if p.name != "fetch.py"]


def imports(path, top_only=False):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", files("engine", "stream"), ids=lambda p: str(p.relative_to(PACKAGES)))
def test_imports_go_one_way(path):
    place = str(path.relative_to(PACKAGES))
    for name in imports(path):
        top = name.split(".")[0]
        assert top != "torch" or place == "engine/torch_any.py", "only training imports torch, and who asks for it"
        if place.startswith("engine/"):
            assert top not in ("stream", "training", "av", "cv2", "mediapipe"), f"{place} imports {name}"
        if place.startswith("stream/"):
            assert not name.startswith("engine."), f"{place} goes past engine's public face"
            assert top != "training" or place == "stream/commands/research.py"
        if top in VENDORS and place != VENDORS[top]:
            assert place.startswith("stream/media/") and top == "av", f"{place} imports {name}"
        if top in ("threading", "queue"):
            assert place in ("stream/lanes.py", "engine/batching.py"), f"{place}: threads and queues live in lanes"
    heavy = {"av", "cv2", "mediapipe", "onnxruntime", "openvino", "torch"} & {
        n.split(".")[0] for n in imports(path, top_only=True)
    }
    assert heavy <= ({"av"} if place.startswith("stream/media/") else set()), f"{place} imports {heavy} at its top"


def test_opencv_warps_and_nothing_else():
    for path in files("engine", "stream", "training"):
        text = path.read_text(encoding="utf-8")
        assert not any(word in text for word in ("cvtColor", "imread", "imwrite", "VideoCapture", "VideoWriter")), path


def test_the_run_time_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['tensorrt'] = None\n"
        "import stream.pipeline, stream.faces.mediapipe_finder, engine.onnxruntime_cpu, engine.echo, stream.cli\n"
        "import engine; engine.open_engine('onnxruntime', 'fast').close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_loads_nothing_heavy_to_say_its_version():
    code = (
        "import sys, stream.cli; print([m for m in ('numpy', 'av', 'cv2', 'mediapipe', 'msgspec') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_public_functions_are_documented_and_typed():
    for path in files("engine", "stream", "training"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name != "forward":
                inner = any(
                    isinstance(p, ast.FunctionDef) and node in ast.walk(p) and p is not node
                    for p in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                )
                assert ast.get_docstring(node) or inner or _nested(path, node), f"{path}:{node.lineno} {node.name}"
                assert node.returns is not None, f"{path}:{node.lineno} {node.name} does not say what it returns"


def _nested(path, wanted):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    outer = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    return any(
        n.lineno == wanted.lineno for o in outer for n in ast.walk(o) if isinstance(n, ast.FunctionDef) and n is not o
    )


def test_public_names_of_the_engine_package_exist():
    assert all(hasattr(engine, name) for name in engine.__all__)


def test_models_and_configs_are_inside_the_package():
    assert (PACKAGES / "configs" / "restore.toml").is_file()
    for name in ("face_landmarker.task", "face_detection_full_range.tflite", "README.md"):
        assert (PACKAGES / "stream" / "faces" / "models" / name).is_file()
    assert (PACKAGES / "engine" / "weights" / "fast.onnx").is_file()
    assert "never evidence of identity" in (PACKAGES / "engine" / "weights" / "fast.md").read_text()
