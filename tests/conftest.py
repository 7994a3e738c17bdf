"""Real tiny media made from a public-domain photograph, and the installed command run as a user runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from zoo import FACE, Clip, make_clip

SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure(config):
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    # Compiled models of the tests do not go into the user's own cache.
    os.environ["UNSMEAR_CACHE"] = tempfile.mkdtemp(prefix="unsmear-plans-")


def pytest_unconfigure(config):
    shutil.rmtree(os.environ["UNSMEAR_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the research data sets are not here")
    return SHARED


@pytest.fixture(autouse=True)
def no_thread_outlives_a_test():
    before = set(threading.enumerate())
    yield
    left = [t.name for t in threading.enumerate() if t not in before and t.name.startswith(("lane-", "prefetch"))]
    assert not left, f"threads left alive: {left}"


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """RGB (512, 512, 3); one face, about 110 px wide, around (225, 120)."""
    return data.astronaut()


@pytest.fixture(scope="session")
def clip(tmp_path_factory, photograph):
    """`clip(name, **fields of Clip)` makes a clip once a session."""
    folder = tmp_path_factory.mktemp("media")

    def make(name: str, **fields) -> Path:
        path = folder / name
        return path if path.exists() else make_clip(path, photograph, Clip(**fields))

    return make


@pytest.fixture
def unsmear(tmp_path):
    """Run the installed command in an empty folder: (exit code, stderr)."""

    def run(*arguments: object, **more) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stream", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, **more)

    return run


@pytest.fixture(scope="session")
def astronaut_face():
    """The public-domain photograph's face, aligned with 32 px of surroundings: (176, 160, 3)."""
    from stream.faces.align import similarity, warp

    return warp(data.astronaut(), similarity(FACE), 32)
