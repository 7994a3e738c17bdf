"""`unsmear restore`: files in, files out, and what is said of them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream.errors import Interrupted, OutputError, UsageError, explain

if TYPE_CHECKING:
    from stream.pipeline import Job

# Suffixes whose containers hold what is written by default; for any other input the output is Matroska.
WRITABLE = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".flv", ".wmv", ".mxf", ".mpg", ".3gp"),
    *(".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"),
}


FACES = ("choose", "ignore")  # options of the table [faces]


class Time(click.ParamType["Fraction"]):
    """Seconds, or [hh:]mm:ss[.fraction], as an exact Fraction."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """See `click.ParamType.convert`."""
        try:
            total = Fraction(0)
            for part in str(value).split(":"):
                number = Fraction(part)
                if number < 0:
                    raise ValueError
                total = total * 60 + number
            return total
        except (ValueError, ZeroDivisionError):
            self.fail(f"'{value}' is no time; give seconds (12.5) or hh:mm:ss", param, ctx)


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A file, or a folder for several inputs. [default: <stem>_restored<suffix> beside the input]",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--from", "begin", type=Time(), help="Start here: seconds or hh:mm:ss.")
@click.option("--to", "end", type=Time(), help="Stop here.")
@click.option("--strength", type=float, help="How much of the restoring is pasted, 0..1. [default: 1]")
@click.option("--compare", is_flag=True, help="Write input and result side by side.")
@click.option("--faces", "choose", help="all, largest, or numbers of tracks with commas between. [default: all]")
@click.option("--ignore", multiple=True, metavar="X,Y,W,H", help="Leave faces in this part alone, in px; repeatable.")
@click.option("--debug", is_flag=True, help="Draw what is seen: faces, points, motion, strength.")
@click.option(
    "--engine", help="auto, tensorrt, tensorrt-rtx, openvino, onnxruntime, torch; echo: a dry run. [default: auto]"
)
@click.option("--model", help="A shipped model's name, or an .onnx file. [default: fast]")
@click.option("--device", type=click.IntRange(0), help="Which GPU. [default: 0]")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file laid over the defaults.")
@click.option("--encoder", help="libx264, libx265, libsvtav1, ffv1, ... [default: the source's codec or H.264]")
@click.option("--crf", type=float, help="Quality of the encoder, lower is better. [default: 18]")
@click.option("--preset", help="Speed of the encoder: ultrafast ... veryslow. [default: faster]")
@click.option("--report", type=click.Path(path_type=Path), help="Write what was done as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
@click.option("-v", "--verbose", is_flag=True, help="Tell more; show tracebacks.")
def restore(
    inputs: tuple[Path, ...],
    output: Path | None,
    overwrite: bool,
    begin: Fraction | None,
    end: Fraction | None,
    compare: bool,
    debug: bool,
    config: Path | None,
    report: Path | None,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Restore the faces in video files and still images.

    \b
    Examples:
      unsmear restore clip.mp4                      writes clip_restored.mp4
      unsmear restore clip.mp4 -o out.mp4 --compare --from 0:10 --to 0:20
      unsmear restore *.mp4 -o restored/            a folder for several inputs
      unsmear restore photo.jpg
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    if verbose:
        for package in ("stream", "engine"):
            logging.getLogger(package).setLevel(logging.DEBUG)
    from engine import Options, open_shared
    from stream.config import load_settings
    from stream.faces.finder import open_finder
    from stream.pipeline import restore_file

    settings = load_settings(config, as_tables(options))
    if begin is not None and end is not None and end <= begin:
        raise UsageError("--to must lie after --from")
    jobs = plan(inputs, output, begin=begin, end=end, compare=compare, debug=debug, overwrite=overwrite, quiet=quiet)
    if report is not None:
        check_report(report, jobs, overwrite)
    reports: list[dict[str, Any]] = []
    run = settings.restore
    with open_shared(run.engine, run.model, run.batch, Options(run.threads, run.device, run.max_batch)) as shared:
        finder = open_finder(settings.faces.finder, settings.faces.finder_model)
        try:
            with shared.seat() as engine:
                run_jobs(jobs, lambda job: restore_file(job, settings, finder, engine), reports)
        finally:
            finder.close()
            if report is not None:
                write_report(report, reports)


def as_tables(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Options that were given, as the tables of the configuration have them."""
    tables: dict[str, dict[str, Any]] = {"restore": {}, "encoder": {}, "faces": {}}
    for key, value in options.items():
        if value is not None and value != ():
            table = "encoder" if key in ("encoder", "crf", "preset") else "faces" if key in FACES else "restore"
            tables[table]["name" if key == "encoder" else key] = value
    return tables


def run_jobs(jobs: list[Job], run: Callable[[Job], dict[str, Any]], reports: list[dict[str, Any]]) -> None:
    """Run every job and add what it did to `reports`; of several, one that fails does not stop the rest.

    Raises:
        Exit: some failed; the code is that of the first.
    """
    failures: list[int] = []
    for job in jobs:
        try:
            reports.append(run(job))
        except Exception as error:
            code, text = explain(error)
            reports.append({"input": str(job.source), "error": text, "exit_code": code})
            if len(jobs) == 1 or isinstance(error, Interrupted):
                raise
            failures.append(code)
            click.echo(f"unsmear: {text}", err=True)
            continue
        if not job.quiet:
            summarise(reports[-1])
    if failures:
        click.echo(f"unsmear: {len(failures)} of {len(jobs)} inputs failed", err=True)
        raise click.exceptions.Exit(failures[0])


def plan(inputs: tuple[Path, ...], output: Path | None, **how: Any) -> list[Job]:
    """Which input goes to which output.

    Raises:
        UsageError: several inputs and one file, or two inputs with one output.
    """
    from stream.pipeline import Job

    folder = output is not None and (output.is_dir() or len(inputs) > 1 or str(output).endswith("/"))
    if folder and output is not None:
        if output.exists() and not output.is_dir():
            raise UsageError(f"several inputs need a folder, and {output} is a file")
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {output}: {error.strerror}") from error
    jobs = []
    for source in inputs:
        suffix = source.suffix if source.suffix.lower() in WRITABLE else ".mkv"
        beside = source.with_name(f"{source.stem}_restored{suffix}")
        jobs.append(Job(source, beside if output is None else output / beside.name if folder else output, **how))
    twice = {job.output for job in jobs if sum(other.output == job.output for other in jobs) > 1}
    if twice:
        raise UsageError(f"two inputs would be written to {min(twice)}")
    own = {job.source.resolve() for job in jobs} & {job.output.resolve() for job in jobs}
    if own:
        raise UsageError(f"{min(own).name} is an input and would be written over; leave it out, or give another output")
    return jobs


def summarise(done: dict[str, Any]) -> None:
    """One file's result, in a few lines on stderr."""
    for note in done["notes"]:
        click.echo(f"note: {note}", err=True)
    left = ", ".join(f"{count} {why}" for why, count in done["passed_over"].items())
    speed = f", {done['real_time']:.2f}x real time" if done["real_time"] else ""
    about = done["engine"]
    runs_on = " ".join(str(about[key]) for key in ("engine", "precision", "device") if key in about)
    click.echo(
        f"{done['output']}: {done['frames']} frames in {done['seconds']:.1f} s ({done['frames_per_second']:.1f} "
        f"frames/s{speed}), {done['faces']} faces in {done['frames_with_faces']} frames, "
        f"{done['faces_restored']} of them restored" + (f", left alone: {left}" if left else "") + f" [{runs_on}]",
        err=True,
    )


def check_report(path: Path, jobs: list[Job], overwrite: bool) -> None:
    """Before any work: the report may be written, and is nothing of the user's.

    Raises:
        OutputError: it exists, or its folder cannot be written.
        UsageError: it is one of the inputs or outputs.
    """
    if path.resolve() in {p.resolve() for job in jobs for p in (job.source, job.output)}:
        raise UsageError(f"the report {path} is an input or output as well")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; --overwrite replaces it")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"cannot write the report {path}: no such folder, or no permission")


def write_report(path: Path, reports: list[dict[str, Any]]) -> None:
    """All files' results as JSON; a report that cannot be written is told, and the run's own result stands."""
    try:
        path.write_text(
            json.dumps({"version": version("unsmear"), "files": reports}, indent=2) + "\n", encoding="utf-8"
        )
    except OSError as error:
        click.echo(f"unsmear: cannot write the report {path}: {error.strerror}", err=True)
