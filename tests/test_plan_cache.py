"""Compiled models on the disk: found again, built anew when they must be, and never trusted blindly."""

import json
import stat
import subprocess
import sys
import time

import numpy as np
import pytest

from engine import EngineError, ModelSpec, Restored
from engine.echo import EchoEngine
from engine.parity import BOUNDS, CROPS, Bound, Difference, fixed_crops
from engine.plan_cache import Built, PlanCache, digest

pytest.importorskip("filelock", reason="no extra with compiled engines is installed")
KEY = {"onnx": "aa", "flavour": "tensorrt", "version": "10.13.0", "gpu": "NVIDIA H100", "capability": "9.0"}


@pytest.fixture
def cache(tmp_path):
    return PlanCache(tmp_path / "plans")


class Builds:
    """A build that counts itself."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return Built(b"plan %d" % self.count, {"parity": {"mean": 0.1, "largest": 1}})


@pytest.fixture
def build():
    return Builds()


def test_a_plan_is_built_once_and_its_sidecar_can_be_read(cache, build, caplog):
    assert cache.get("fast tensorrt/H100", KEY, build) == cache.get("fast tensorrt/H100", dict(KEY), build)
    assert build.count == 1 and caplog.text.count("this happens once") == 1
    assert {p.name for p in cache.folder.iterdir()} == {f"fast_tensorrt_H100.{s}" for s in ("plan", "json", "lock")}
    sidecar = json.loads((cache.folder / "fast_tensorrt_H100.json").read_text())
    assert sidecar["key"] == KEY and sidecar["sha256"] == digest(b"plan 1")
    assert sidecar["about"]["parity"]["largest"] == 1


@pytest.mark.parametrize("part", [*KEY, "flags"])
def test_each_part_of_the_key_makes_a_plan_outdated_and_is_named(cache, build, part, caplog):
    cache.get("fast", KEY, build)
    assert cache.get("fast", {**KEY, part: "other"}, build).plan == b"plan 2"
    assert f"{part} {KEY.get(part, 'unknown')} -> other" in caplog.text
    assert cache.get("fast", {**KEY, part: "other"}, build).plan == b"plan 2", "and it is kept"


def spoil_plan(path):
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def cut_plan(path):
    path.write_bytes(b"")


def no_plan(path):
    path.unlink()


def no_sidecar(path):
    path.with_suffix(".json").unlink()


def spoil_sidecar(path):
    path.with_suffix(".json").write_text('{"key": {')


def other_sidecar(path):
    path.with_suffix(".json").write_text("[1, 2]")


@pytest.mark.parametrize("fault", [spoil_plan, cut_plan, no_plan, no_sidecar, spoil_sidecar, other_sidecar])
def test_a_damaged_plan_is_built_anew(cache, build, fault):
    cache.get("fast", KEY, build)
    fault(cache.folder / "fast.plan")
    assert cache.get("fast", KEY, build).plan == b"plan 2" == cache.get("fast", KEY, build).plan


def test_a_build_that_fails_leaves_what_was_there(cache, build):
    cache.get("fast", KEY, build)

    def broken():
        raise EngineError("out of memory")

    with pytest.raises(EngineError, match="out of memory"):
        cache.get("fast", {**KEY, "version": "11"}, broken)
    assert cache.get("fast", KEY, build).plan == b"plan 1"


def test_a_full_disk_is_an_engine_error_and_leaves_no_scraps(cache):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(EngineError, match="cannot keep the plan"):
            cache.get("fast", KEY, lambda: Built(bytes(100_000), {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {p.name for p in cache.folder.iterdir()} <= {"fast.lock"}


def test_the_folder_is_closed_to_others_and_an_open_one_is_refused(tmp_path):
    folder = PlanCache(tmp_path / "new" / "plans").folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    with pytest.raises(EngineError, match="others may write"):
        PlanCache(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot make the cache folder"):
        PlanCache(tmp_path / "file" / "plans")


def test_the_folder_is_the_users_or_the_one_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("UNSMEAR_CACHE", str(tmp_path / "here"))
    assert PlanCache().folder == tmp_path / "here"
    monkeypatch.delenv("UNSMEAR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert PlanCache().folder == tmp_path / "xdg" / "unsmear" / "plans"


BUILDER = """
import sys, time
from pathlib import Path
from engine.plan_cache import Built, PlanCache
def build():
    with open("builds", "a") as file:
        file.write("x")
    time.sleep(1)
    return Built(b"slow plan", {})
assert PlanCache(Path("plans")).get("fast", {"onnx": "aa"}, build).plan == b"slow plan"
"""


def test_two_processes_build_one_plan(tmp_path):
    both = [subprocess.Popen([sys.executable, "-c", BUILDER], cwd=tmp_path) for _ in range(2)]
    assert [process.wait(30) for process in both] == [0, 0]
    assert (tmp_path / "builds").read_text() == "x"


def test_a_builder_that_was_killed_locks_nobody_out(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", BUILDER], cwd=tmp_path)
    while not (tmp_path / "builds").exists():
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    subprocess.run([sys.executable, "-c", BUILDER], cwd=tmp_path, check=True, timeout=30)
    assert (tmp_path / "builds").read_text() == "xx"
    assert {path.name for path in (tmp_path / "plans").iterdir()} == {"fast.plan", "fast.json", "fast.lock"}


def test_the_gate_has_bounds_that_are_met_or_not():
    bound = Bound(1.0, 3, 0.02)
    assert Difference(1.0, 3, 0.02).passes(bound)
    nan = float("nan")
    for off in (Difference(1.01, 3, 0), Difference(0, 4, 0), Difference(0, 0, 0.021), Difference(0, 0, nan)):
        assert not off.passes(bound)
    assert BOUNDS["float16"] == bound


def test_the_gates_crops_are_always_the_same_and_like_pictures():
    spec = EchoEngine(16).spec
    given = fixed_crops(spec)
    assert given.shape == (CROPS, 144, 128, 3) and np.array_equal(given, fixed_crops(spec))
    steps = np.abs(np.diff(given.astype(float), axis=2)).mean((1, 2, 3))
    assert steps[-1] < steps[0] / 2, "the last is smeared along its rows"
    assert given.std() > 30


class Off(EchoEngine):
    """Wrong by two steps in every pixel, or not a number."""

    def __init__(self, spec, finite=True):
        self.spec, self.about = spec, {}
        self.finite = finite
        from engine import open_engine

        self.right = open_engine("onnxruntime", "fast")

    def run(self, crops, known=None):
        restored, kernels = self.right.run(crops, known)
        kernels = kernels.copy()
        if not self.finite:
            kernels[0, 4, 5] = np.inf
        return Restored(np.where(restored < 254, restored + 2, restored - 2).astype(np.uint8), kernels)


def test_the_gate_measures_what_an_engine_does():
    from engine import find_model
    from engine.parity import measure

    spec = ModelSpec("fast", 16, kernels=True, known=True)
    found = measure(Off(spec), find_model("fast"))
    assert found[:2] == (2.0, 2) and found.kernel < 1e-6 and not found.passes(BOUNDS["float16"])
    off = measure(Off(spec, finite=False), find_model("fast"))
    assert not off.passes(Bound(9, 9, 9)), "an infinite kernel"
