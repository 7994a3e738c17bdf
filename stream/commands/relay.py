"""`unsmear relay` and `unsmear camera`: live in, live out."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream.config import EngineSettings, RelaySettings
    from stream.live.fleet import Fleet

TICK_S = 0.1  # between two looks at the streams' clocks
TELL_EVERY_S = 10.0
TABLES = {"choose": "faces", "ignore": "faces", "engine": "restore", "model": "restore", "strength": "restore"}


def shared_options(command: Any) -> Any:
    """Options that both commands have."""
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="Tell more; show tracebacks."),
        click.option("--log-json", is_flag=True, help="Log one JSON object a line."),
        click.option("--web-token", envvar="UNSMEAR_WEB_TOKEN", help="Wanted by the page where others can reach it."),
        click.option("--config", type=click.Path(path_type=Path), help="A TOML file laid over the defaults."),
        click.option("--ignore", multiple=True, metavar="X,Y,W,H", help="Leave faces in this part alone; repeatable."),
        click.option("--faces", "choose", help="all, largest, or numbers of tracks. [default: all]"),
        click.option("--strength", type=float, help="How much of the restoring is pasted, 0..1. [default: 1]"),
        click.option("--model", help="A shipped model's name, or an .onnx file. [default: fast]"),
        click.option("--engine", help="auto, tensorrt, ..., echo: restores nothing. [default: auto]"),
        click.option("--strict", is_flag=True, default=None, help="End when restoring fails, with exit code 6."),
        click.option("--max-retries", type=int, help="Attempts to connect until giving up. [default: endless]"),
        click.option("--max-latency-ms", type=float, help="A frame older than this passes unrestored. [default: 250]"),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("source", required=False)
@click.option("-o", "--output", "sink", help="rtsp://, rtmp://, srt://, segments (.ts, .mkv, .mp4), virtual:..., none.")
@click.option("--web", metavar="HOST:PORT", help="Serve the page, metrics and health here.")
@click.option("--loop", is_flag=True, default=None, help="Begin a file again at its end.")
@click.option("--transport", type=click.Choice(["tcp", "udp"]), help="Of RTSP. [default: tcp]")
@shared_options
def relay(source: str | None, **options: Any) -> None:
    """Relay a camera or stream with its faces restored; it heals by itself.

    \b
    Examples:
      unsmear relay rtsp://user:password@camera/stream -o rtsp://server/restored
      unsmear relay rtsp://camera/stream --web 127.0.0.1:8080   watch it in a browser
      unsmear relay clip.mp4 --loop -o rtmp://server/live/key
      unsmear relay --config streams.toml                       many streams, one engine; SIGHUP reads it again
    """
    run(source, **options)


@click.command()
@click.argument("number", default="0")
@click.option("-o", "--output", "sink", help="As of relay. [default: none]")
@click.option("--web", metavar="HOST:PORT", default="127.0.0.1:8080", show_default=True, help="Where to watch it.")
@shared_options
def camera(number: str, **options: Any) -> None:
    """Restore the picture of a camera of this machine, and watch it in a browser.

    \b
    Examples:
      unsmear camera            the first one, at http://127.0.0.1:8080
      unsmear camera 1 -o virtual:/dev/video9
    """
    run(f"camera:{number}", **options)


def run(
    source: str | None,
    web: str | None,
    web_token: str | None,
    config: Path | None,
    log_json: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Relay until all is over, or a signal ends it."""
    set_logging(log_json, verbose)
    from stream.config import load_relay
    from stream.live.heap import bound_arenas

    bound_arenas()

    tables: dict[str, dict[str, Any]] = {"relay": {}, "restore": {}, "faces": {}}
    options["source"] = source
    for key, value in options.items():
        if value is not None and value != ():
            tables[TABLES.get(key, "relay")][key] = value

    def load() -> dict[str, RelaySettings]:
        return load_relay(config, tables)

    asked: list[int] = []  # to read it again
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda number, frame: asked.append(number))
    streams = load()
    from engine import Options, open_shared
    from stream.faces.finder import open_finder
    from stream.live.fleet import Fleet
    from stream.live.metrics import Metrics

    settings = next(iter(streams.values())).restore
    with open_shared(
        settings.engine,
        settings.model,
        settings.batch,
        Options(settings.threads, settings.device, settings.max_batch),
        patience_s=0.01,
        retry_s=60.0,
        limit_s=1.0,
    ) as engine:
        logging.getLogger("stream.live").info("engine: %s", engine.about.get("engine"))
        fleet = Fleet(engine.seat, lambda s: open_finder(s.faces.finder, s.faces.finder_model), Metrics())
        page = None
        try:
            if web is not None:
                from stream.live.page import Page

                page = Page(web, web_token, fleet)
            fleet.apply(streams)
            watch(fleet, load, settings, asked)
        finally:
            fleet.stop()
            if page is not None:
                page.close()
    if fleet.fault is not None:
        raise fleet.fault


def watch(fleet: Fleet, load: Callable[[], dict[str, RelaySettings]], engine: EngineSettings, asked: list[int]) -> None:
    """Until no stream is left, or Ctrl-C or SIGTERM; SIGHUP reads the configuration again."""
    from stream.errors import UsageError
    from stream.live.heap import give_back

    log = logging.getLogger("stream.live")
    told = time.monotonic()
    try:
        while fleet.watch():
            time.sleep(TICK_S)
            if asked:
                asked.clear()
                try:
                    streams = load()
                    fleet.apply(streams)
                    log.info("the configuration was read again")
                    if any(each.restore.of_the_engine != engine.of_the_engine for each in streams.values()):
                        log.warning("the engine and its model stay as they are until the relay is started anew")
                except UsageError as error:
                    log.error("the configuration is kept as it was: %s", error)
            if time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                give_back()
                for line in fleet.lines():
                    log.info("%s", line)
    except KeyboardInterrupt:
        log.info("stopping")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        fields = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def set_logging(as_json: bool, verbose: bool) -> None:
    """Lines on stderr."""
    # A descriptor of its own: while MediaPipe loads, the usual one is closed to its chatter.
    handler = logging.StreamHandler(os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1))
    handler.setFormatter(
        _JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for package in ("stream", "engine"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)
