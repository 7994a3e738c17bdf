"""Real servers, feeds and relays as processes of their own, for the tests of live use and for the soak."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

SYSTEM_PYTHON = "/usr/bin/python3"


def missing() -> str | None:
    """What of the real parts is not installed here."""
    if shutil.which("ffmpeg") is None:
        return "ffmpeg is not installed"
    probe = [SYSTEM_PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"]
    if not Path(SYSTEM_PYTHON).exists() or subprocess.run(probe, capture_output=True).returncode:
        return "GStreamer's RTSP server is not installed"
    return None


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port that nobody uses."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: Callable[[], Any], timeout_s: float = 40.0, every_s: float = 0.05) -> Any:
    """Wait for something to become true and return it."""
    end = time.monotonic() + timeout_s
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"did not come true within {timeout_s} s")
        time.sleep(every_s)


class Process:
    """A process that is gone with its scope."""

    def __init__(self, *command: object, log: Path | None = None, **more: Any) -> None:
        self.log = log
        out = subprocess.DEVNULL if log is None else log.open("ab")
        self.process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=out, **more)
        if log is not None:
            out.close()  # type: ignore[union-attr]

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log is not None else ""

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Server:
    """GStreamer's RTSP server, which may be killed and started again. See rtsp_server.py for its places."""

    def __init__(self, folder: Path, login: str = "") -> None:
        self.port, self.feed = free_port(), free_port(socket.SOCK_DGRAM) // 4 * 4
        self._login, self._log = login, folder / f"server-{self.port}.log"
        self.start()

    def start(self) -> None:
        script = Path(__file__).with_name("rtsp_server.py")
        known = len(self._log.read_bytes()) if self._log.exists() else 0
        login = [self._login] if self._login else []
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self._process = Process(SYSTEM_PYTHON, script, self.port, self.feed, *login, log=self._log, env=env)
        until(lambda: b"ready" in self._log.read_bytes()[known:])

    def kill(self) -> None:
        self._process.kill()

    def signal(self, number: int) -> None:
        self._process.signal(number)

    def url(self, place: str, login: str = "") -> str:
        return f"rtsp://{login + '@' if login else ''}127.0.0.1:{self.port}/{place}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def feed(clip: Path, port: int, *options: object, log: Path | None = None, before: tuple[object, ...] = ()) -> Process:
    """Send a clip over and over, as fast as it plays, as a transport stream over UDP; ffmpeg does."""
    target = f"udp://127.0.0.1:{port}?pkt_size=1316"
    how = options or ("-c", "copy")
    return Process(
        *("ffmpeg", "-v", "error", *(before or ("-re",)), "-stream_loop", -1, "-i", clip, *how, "-f", "mpegts", target),
        log=log,
    )


class Relayed(Process):
    """`unsmear relay` with a page, as a process of its own."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.web = free_port()
        log = folder / f"relay-{self.web}.log"
        super().__init__(
            *(sys.executable, "-m", "stream", "relay", *arguments, "--web", f"127.0.0.1:{self.web}"), log=log
        )

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web}{path}", timeout=5) as reply:
            return reply.read().decode()

    def told(self, name: str = "stream") -> dict[str, Any]:
        """Its state; empty while it does not answer."""
        try:
            return json.loads(self.get("/state.json")).get(name, {})
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return {}

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series with these labels; 0 while it does not answer."""
        total = 0.0
        try:
            text = self.get("/metrics")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return total
        for line in text.splitlines():
            found = re.match(rf"{name}(?:\{{(.*)\}})? (\S+)$", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                total += float(found[2])
        return total

    def heeds_hangups(self) -> bool:
        """Whether SIGHUP would not end it."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return bool(int(re.findall(r"SigCgt:\s+(\w+)", status)[0], 16) & 1)

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout_s)
