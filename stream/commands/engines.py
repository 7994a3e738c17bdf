"""The commands about engines: compile a model ahead of time, measure, and tell what this machine has."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from engine import ENGINES, EngineError


@click.command()
@click.option("--model", default="fast", show_default=True, help="A shipped model's name, or an .onnx file.")
@click.option("--engine", default="auto", show_default=True, help="tensorrt, tensorrt-rtx, openvino; auto: the best.")
@click.option("--device", type=click.IntRange(0), default=0, show_default=True, help="Which GPU.")
@click.option(
    "--max-batch", type=click.IntRange(1, 256), default=32, show_default=True, help="Crops at once, on a GPU."
)
def build(model: str, engine: str, device: int, max_batch: int) -> None:
    """Compile a model for this machine ahead of time, so that the first restore does not.

    \b
    Examples:
      unsmear build
      unsmear build --engine tensorrt --model paper
    """
    from engine import Options, open_engine

    with open_engine(engine, model, Options(device=device, max_batch=max_batch)) as opened:
        told = ", ".join(f"{key} {value}" for key, value in opened.about.items() if key != "passed_over")
        for reason in opened.about.get("passed_over", []):
            click.echo(f"passed over {reason}", err=True)
        click.echo(f"{opened.spec.name} {opened.spec.version}: {told}")


@click.group()
def bench() -> None:
    """Measure on this machine."""


@bench.command("engine")
@click.option("--engine", "engines", multiple=True, help="Repeatable. [default: what `auto` takes]")
@click.option("--model", "models", multiple=True, default=("fast",), show_default=True, help="Repeatable.")
@click.option("--all", "everything", is_flag=True, help="Every engine that runs here, every shipped model.")
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1), help="Repeatable. [default: 1 to 64]")
@click.option("--threads", type=click.IntRange(0), default=0, help="Of a CPU engine. [default: half of the cores]")
@click.option("--device", type=click.IntRange(0), default=0, show_default=True, help="Which GPU.")
@click.option("--seconds", type=float, default=2.0, show_default=True, help="For each row.")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a table.")
def bench_engine(
    engines: tuple[str, ...],
    models: tuple[str, ...],
    everything: bool,
    batches: tuple[int, ...],
    threads: int,
    device: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Milliseconds a face, by engine, model and size of batch.

    \b
    Examples:
      unsmear bench engine
      unsmear bench engine --engine openvino --engine onnxruntime --batch 1 --batch 8
      unsmear bench engine --all --json
    """
    from engine import Options, shipped_models
    from engine import bench as benchmark

    names = engines or (tuple(n for n in ENGINES if n != "echo") if everything else ("auto",))
    rows: list[benchmark.Row] = []
    left_out: dict[str, str] = {}
    for model in shipped_models() if everything else models:
        for name in names:
            try:
                for row in benchmark.bench(
                    name, model, Options(threads, device), batches or benchmark.BATCHES, seconds
                ):
                    rows.append(row)
                    if not as_json:
                        click.echo(f"{row.engine} {row.model} batch {row.batch}: {row.ms_p50} ms a face", err=True)
            except EngineError as error:
                if not everything:
                    raise
                left_out[name] = str(error)
    rates = {place: benchmark.matrix_rate(place) for place in sorted({row.device for row in rows})}
    if as_json:
        answer = {"rows": [row._asdict() for row in rows], "matrix_gmacs_per_s": rates, "left_out": left_out}
        click.echo(json.dumps(answer, indent=2))
        return
    click.echo(benchmark.table(rows))
    for place, rate in rates.items():
        click.echo(f"\nlarge matrix products on {place}: {rate or 'not measured'} GMAC/s")
    for name, why in left_out.items():
        click.echo(f"{name} left out: {why}")


@bench.command("live")
@click.argument("clip", type=click.Path(path_type=Path))
@click.option("--seconds", type=click.FloatRange(1), default=20.0, show_default=True, help="To measure, each way.")
@click.option("--engine", default="auto", show_default=True, help="As of relay; echo restores nothing.")
@click.option("--model", default="fast", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a table.")
def bench_live(clip: Path, seconds: float, engine: str, model: str, as_json: bool) -> None:
    """How late a live picture is, end to end, by a time code burnt into it.

    The clip is encoded, published by RTSP over the loopback, relayed, published and decoded again; and the same
    without the relay.

    \b
    Example:
      unsmear bench live clip.mp4
    """
    from engine import open_shared
    from stream.live import bench as benchmark

    with open_shared(engine, model, 8, patience_s=0.01) as shared:
        delays, told = benchmark.bench_live(clip, seconds, shared.seat)
    added = delays[1].p50 - delays[0].p50
    if as_json:
        click.echo(json.dumps({"delays_ms": [d._asdict() for d in delays], "added_p50_ms": added, **told}, indent=2))
        return
    click.echo("| | frames | p50 ms | p95 ms | p99 ms |\n|---|---|---|---|---|")
    for delay in delays:
        click.echo(f"| {delay.way} | {delay.frames} | {delay.p50} | {delay.p95} | {delay.p99} |")
    frames = added / float(str(told["frame_time_ms"]))
    click.echo(
        f"\nadded: {added:.0f} ms in the median, {frames:.2f} frame times; "
        + ", ".join(
            f"{value} {key.replace('_', ' ')}" for key, value in told.items() if key.startswith(("frames_", "faces_"))
        )
    )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a page.")
def doctor(as_json: bool) -> None:
    """Tell what was found on this machine, and what to install.

    \b
    Example:
      unsmear doctor
    """
    from stream.doctor import examine

    found = examine()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for section, lines in found.items():
        click.echo(click.style(section, bold=sys.stdout.isatty()))
        for name, text in lines.items():
            click.echo(f"  {name:<16} {text}")
