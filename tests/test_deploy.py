"""The container files, where no container can be built: linted, read, and their commands run outside of one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live import Process, free_port, until

from stream.config import load_relay

yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")
DEPLOY = Path(__file__).parents[1] / "configs" / "deploy"
DOCKERFILES = [DEPLOY / "Dockerfile", DEPLOY / "Dockerfile.nvidia"]


def instruction(path: Path, name: str) -> str:
    """The last instruction of that name, on one line."""
    text = path.read_text().replace("\\\n", " ")
    return re.findall(rf"^{name}\s+(.*)$", text, re.MULTILINE)[-1]


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_has_no_lint(path):
    # DL3008: versions of Debian's packages are the base image's.
    done = subprocess.run(["hadolint", "--ignore", "DL3008", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_nobody_in_particular(path):
    assert instruction(path, "USER") == "10001" and json.loads(instruction(path, "ENTRYPOINT")) == ["unsmear"]


def test_the_command_and_the_health_check_of_the_image_work(tmp_path, clip):
    """As the container runs them, but for the paths and the port."""
    port, streams = free_port(), tmp_path / "streams.toml"
    streams.write_text(f'[streams.one]\nsource = "{clip("deployed.mp4")}"\nloop = true\n')
    places = {"/etc/unsmear/streams.toml": str(streams), "0.0.0.0:8080": f"0.0.0.0:{port}"}
    command = [places.get(part, part) for part in json.loads(instruction(DOCKERFILES[0], "CMD"))]
    check = re.search(r"CMD (\[.*\])", instruction(DOCKERFILES[0], "HEALTHCHECK"))
    healthy = [part.replace("8080", str(port)) for part in json.loads(check[1])]
    healthy[0] = sys.executable
    log = tmp_path / "log"
    with Process(
        sys.executable,
        "-m",
        "stream",
        *command,
        "--engine",
        "echo",
        log=log,
        env={**os.environ, "UNSMEAR_WEB_TOKEN": "t"},
    ):
        until(lambda: subprocess.run(healthy, capture_output=True).returncode == 0, 40)
        until(lambda: "running" in log.read_text())
    assert subprocess.run(healthy, capture_output=True).returncode != 0


def test_the_commands_of_compose_and_kubernetes_are_the_programs_own(tmp_path):
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    secret, deployment, service = documents
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    for command in (compose["services"]["unsmear"]["command"].split(), container["args"]):
        options = {part for part in command if part.startswith("-")}
        shown = subprocess.run([sys.executable, "-m", "stream", command[0], "--help"], capture_output=True, text=True)
        assert all(re.search(rf"(^|[\s,]){option}\b", shown.stdout) for option in options), options
    streams = tmp_path / "streams.toml"
    streams.write_text(secret["stringData"]["streams.toml"])
    assert set(load_relay(streams, {})) == {"door", "yard"}
    assert {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe", "startupProbe")} == {
        "/healthz",
        "/readyz",
    }
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
