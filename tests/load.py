"""How many streams one relay carries on this machine: a table, by the number of streams.

    python tests/load.py --clip clip.mp4 --streams 1 2 4 8 --seconds 30

A real RTSP server serves the clip; every stream takes it from there with a decoder of its own, and sends a transport
stream by UDP. What the server itself needs runs on the same machine.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path

from live import Relayed, Server, feed, free_port, until
from soak import usage

COUNTERS = ("frames_in_total", "frames_out_total", "frames_passed_on_total", "frames_dropped_total")


def counted(relay: Relayed) -> dict[str, float]:
    """What a relay has counted so far, all streams together."""
    text, at = relay.get("/metrics"), time.monotonic()

    def total(name: str, label: str = "") -> float:
        lines = re.findall(rf"^unsmear_{name}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
        return sum(float(value) for labels, value in lines if label in labels)

    counts = {name: total(name) for name in (*COUNTERS, "faces_restored_total")}
    counts |= {part: total(f"latency_seconds_{part}", 'stage="total"') for part in ("sum", "count")}
    fields = Path(f"/proc/{relay.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return {**counts, "cpu": (int(fields[11]) + int(fields[12])) / 100, "at": at}


def load(clip: Path, streams: int, seconds: float, engine: str) -> str:
    """One line of the table."""
    import socket

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Server(folder) as camera, feed(clip, camera.feed):
            tables = [
                f'[streams.s{i}]\nsource = "{camera.url("cam")}"\n'
                f'sink = "udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"\n'
                for i in range(streams)
            ]
            config = folder / "streams.toml"
            config.write_text(f'[restore]\nengine = "{engine}"\n' + "".join(tables))
            with Relayed(folder, "--config", config) as relay:
                until(lambda: all(relay.told(f"s{i}").get("frames_out", 0) > 60 for i in range(streams)), 120)
                time.sleep(5)
                began = counted(relay)
                time.sleep(seconds)
                ended = counted(relay)
                memory = usage(relay.process.pid)["rss_mb"]
                code = relay.stop()
                assert code == 0 and "Traceback" not in relay.text(), relay.text()
    many = {key: ended[key] - began[key] for key in began}
    sent, passed, dropped = (many[key] for key in COUNTERS[1:])
    return (
        f"| {streams} | {many['frames_in_total'] / many['at'] / streams:.1f} | {sent / many['at'] / streams:.1f} "
        f"| {100 * passed / max(sent, 1):.0f} % | {100 * dropped / max(many['frames_in_total'], 1):.1f} % "
        f"| {many['faces_restored_total'] / many['at']:.0f} | {1000 * many['sum'] / max(many['count'], 1):.0f} "
        f"| {100 * many['cpu'] / many['at']:.0f} % | {memory:.0f} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--engine", default="auto")
    given = parser.parse_args()
    print("| streams | frames in a second, each | sent, each | of them not restored | dropped", end=" ")
    print("| faces a second, all | delay, ms | CPU, without senders | memory without senders, MB |\n|" + "---|" * 9)
    for streams in given.streams:
        print(load(given.clip, streams, given.seconds, given.engine), flush=True)
