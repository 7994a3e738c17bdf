"""`unsmear build`, `bench engine` and `doctor`, as a user runs them."""

import json
import os

import pytest

from engine import ENGINES, shipped_models


def test_build_compiles_what_auto_takes_and_says_what_it_passed_over(unsmear, tmp_path):
    env = os.environ | {"UNSMEAR_CACHE": str(tmp_path / "plans")}
    done = unsmear("build", env=env)
    assert done.returncode == 0, done.stderr
    assert "passed over tensorrt: " in done.stderr and "fast" in done.stdout
    if "openvino" in done.stdout:
        assert "parity" in done.stdout and len(list((tmp_path / "plans").glob("*.plan"))) == 1
        assert "compiling" not in unsmear("build", env=env).stderr


def test_build_of_an_engine_that_is_not_there_is_exit_code_6(unsmear):
    for name in ("tensorrt", "tensorrt-rtx"):
        done = unsmear("build", "--engine", name)
        if done.returncode:
            assert done.returncode == 6 and done.stderr.count("\n") == 1, done.stderr
    done = unsmear("build", "--engine", "tensorrrt")
    assert done.returncode == 6 and "did you mean 'tensorrt'" in done.stderr


def test_bench_measures_every_engine_that_runs_here_and_names_the_rest(unsmear):
    done = unsmear("bench", "engine", "--all", "--json", "--batch", "1", "--batch", "3", "--seconds", "0.01")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    measured = {(row["engine"], row["model"], row["batch"]) for row in answer["rows"]}
    assert measured >= {("onnxruntime", model, batch) for model in shipped_models() for batch in (1, 3)}
    assert {name for name, _, _ in measured} | set(answer["left_out"]) == set(ENGINES) - {"echo"}
    for row in answer["rows"]:
        assert 0 < row["ms_p50"] <= row["ms_p95"] and row["gmacs_per_s"] > 0
    assert answer["matrix_gmacs_per_s"]["CPU"] > 0


def test_bench_prints_a_table(unsmear):
    done = unsmear("bench", "engine", "--engine", "onnxruntime", "--batch", "2", "--seconds", "0.01")
    assert done.returncode == 0 and "| onnxruntime | float32 | CPU | fast | 2 |" in done.stdout


def test_the_doctor_finds_what_is_here(unsmear):
    done = unsmear("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"program", "engines", "GPUs", "models", "faces", "encoders", "cache"}
    assert found["engines"]["onnxruntime"].endswith("float32")
    assert not found["faces"]["mediapipe"].startswith("-")
    assert "libx264" in found["encoders"]["there"] and "margin" in found["models"]["fast"]
    page = unsmear("doctor")
    assert page.returncode == 0 and "onnxruntime" in page.stdout


@pytest.mark.parametrize("command", [("bench", "engine"), ("doctor",), ("build",)])
def test_help_has_examples(unsmear, command):
    done = unsmear(*command, "--help")
    assert done.returncode == 0 and "unsmear " + " ".join(command) in done.stdout
