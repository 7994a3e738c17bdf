"""A soak of the relay: an outage every minute, and what must not grow does not.

    python tests/soak.py --minutes 30 --clip clip.mp4

Two real RTSP servers; the source's is killed once a minute, for 3 to 12 s, the sink's every fifth minute. Told at the
end, as JSON: how soon the picture was back, memory, threads and descriptors over time, whether pts rose, and whether
every frame is accounted for.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from live import Relayed, Server, feed, until


def usage(pid: int) -> dict[str, float]:
    """Of one process: resident MB, those of them that no file backs, threads, open descriptors."""
    status = Path(f"/proc/{pid}/status").read_text()
    number = {key: int(value) for key, value in re.findall(r"(VmRSS|RssAnon|Threads):\s+(\d+)", status)}
    return {
        "rss_mb": number["VmRSS"] / 1024,
        "anonymous_mb": number["RssAnon"] / 1024,
        "threads": number["Threads"],
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208
    }


def slope(values: list[float]) -> tuple[float, float]:
    """Of the last half, per sample, and its standard error."""
    half = np.array(values[len(values) // 2 :])
    x = np.arange(len(half)) - (len(half) - 1) / 2
    fitted = (x * half).sum() / (x**2).sum()
    rest = half - half.mean() - fitted * x
    return float(fitted), float(np.sqrt((rest**2).sum() / max(len(half) - 2, 1) / (x**2).sum()))


def soak(clip: Path, minutes: float, engine: str) -> dict[str, object]:
    """Run it; see above."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    chance, back_s, seen, ends, anew = random.Random(7), [], [], [], []
    heavy = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", 25, "-c:a", "copy")
    with (
        Server(folder) as camera,
        Server(folder) as out,
        feed(clip, camera.feed, *heavy),
        Relayed(folder, camera.url("cam"), "-o", out.url("out"), "--engine", engine) as relay,
        # What the sink's server takes, to the end.
        open(folder / "taken.csv", "w") as taken,  # noqa: PTH123
    ):
        reader = subprocess.Popen(
            [sys.executable, __file__, "--watch", str(out.feed + 1)], stdout=taken, stderr=subprocess.DEVNULL
        )
        until(lambda: relay.told().get("frames_out", 0) > 30, 60)
        began = time.monotonic()
        for minute in range(int(minutes)):
            time.sleep(max(began + 60 * minute + chance.uniform(20, 30) - time.monotonic(), 0))
            if minute % 5 == 4:
                out.kill()
                time.sleep(chance.uniform(2, 6))
                out.start()
                anew.append(time.time())
            camera.kill()
            until(lambda: relay.told()["state"] == "reconnecting")
            time.sleep(chance.uniform(3, 12))
            sent = relay.told()["frames_out"]
            camera.start()
            returned = time.monotonic()
            until(lambda sent=sent: relay.told()["frames_out"] > sent, 60)
            back_s.append(time.monotonic() - returned)
            while time.monotonic() < began + 60 * (minute + 1):
                seen.append(usage(relay.process.pid))
                time.sleep(2)
            ends.append(round(seen[-1]["anonymous_mb"], 1))
            print(f"minute {minute + 1}: back in {back_s[-1]:.2f} s, {seen[-1]}", file=sys.stderr, flush=True)
        told = relay.told()
        code = relay.stop()
        reader.send_signal(signal.SIGKILL)
        reader.wait()
        log = relay.text()
    lines = (folder / "taken.csv").read_text().splitlines()[:-1]  # the last may be cut off
    when, pts = np.array([line.split() for line in lines], float).T
    counts = [int(n) for n in re.findall(r"frames (\d+) in, (\d+) out, \d+ passed on, (\d+) dropped", log)[-1]]
    steps = np.diff(pts)
    back_at = when[1:][steps < 0]
    return {
        "minutes": minutes,
        "exit_code": code,
        "tracebacks": log.count("Traceback"),
        "outages": len(back_s),
        "back_s": {"median": float(np.median(back_s)), "worst": max(back_s), "over_2_s": sum(b > 2 for b in back_s)},
        "last_half": {
            key: dict(zip(("slope_a_sample", "standard_error"), slope([s[key] for s in seen]), strict=True))
            | {"first": seen[0][key], "last": seen[-1][key], "most": max(s[key] for s in seen)}
            for key in seen[0]
        },
        "anonymous_mb_by_minute": ends,
        "pts_seen": len(pts),
        "pts_steps_back": len(back_at),
        # A server that was started anew counts from 0, and corrects its idea of the sender's clock for some seconds.
        "of_them_within_10_s_of_a_new_server": sum(any(0 <= at - new <= 10 for new in anew) for at in back_at),
        "new_servers": len(anew),
        "longest_gap_s": float(steps.max()),
        "frames": dict(zip(("in", "out", "dropped"), counts, strict=True)),
        "unaccounted": counts[0] - counts[1] - counts[2],
        "passed_on": told["frames_passed_on"],
        "bridged": told["frames_bridged"],
        "latency_ms": told["latency_ms"],
    }


def watch(port: int) -> None:
    """Print when each packet of a transport stream came and its pts, in seconds; open it again where it pauses."""
    while True:
        try:
            with av.open(f"udp://127.0.0.1:{port}", timeout=(30, 5)) as source:
                for packet in source.demux(video=0):
                    if packet.pts is not None:
                        print(time.time(), float(packet.pts * packet.time_base), flush=True)
        except (av.error.FFmpegError, OSError):
            continue


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--watch", type=int)
    given = parser.parse_args()
    if given.watch:
        watch(given.watch)
    else:
        print(json.dumps(soak(given.clip, given.minutes, given.engine), indent=2))
