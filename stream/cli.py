"""The command: parse, build, run, exit code. Heavy imports stand inside the commands, so that `--help` is quick."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from engine import EngineError
from stream import signals
from stream.errors import Interrupted, OutputError, UnsmearError, UsageError

if TYPE_CHECKING:
    from stream.pipeline import Job

ENGINE_EXIT_CODE = 6
# Suffixes whose containers hold what is written by default; for any other input the output is Matroska.
WRITABLE = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".flv", ".wmv", ".mxf", ".mpg", ".3gp"),
    *(".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"),
}


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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="unsmear", prog_name="unsmear")
def cli() -> None:
    """Restore faces that motion has smeared, in video files and pictures.

    A restored face is a plausible guess, never evidence of identity.
    """


@cli.command()
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
@click.option("--engine", help="What runs the network: onnxruntime, or echo for a dry run.")
@click.option("--model", help="A shipped model's name, or an .onnx file. [default: fast]")
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
    from engine import open_engine
    from stream.config import load_settings
    from stream.faces.finder import open_finder
    from stream.pipeline import restore_file

    settings = load_settings(config, as_tables(options))
    if begin is not None and end is not None and end <= begin:
        raise UsageError("--to must lie after --from")
    jobs = plan(inputs, output, begin=begin, end=end, compare=compare, overwrite=overwrite, quiet=quiet)
    if report is not None:
        check_report(report, jobs, overwrite)
    reports: list[dict[str, Any]] = []
    with open_engine(settings.restore.engine, settings.restore.model, settings.restore.threads) as engine:
        finder = open_finder(settings.faces.finder)
        try:
            run_jobs(jobs, lambda job: restore_file(job, settings, finder, engine), reports)
        finally:
            finder.close()
            if report is not None:
                write_report(report, reports)


def as_tables(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Options that were given, as the tables of the configuration have them."""
    tables: dict[str, dict[str, Any]] = {"restore": {}, "encoder": {}}
    for key, value in options.items():
        if value is not None:
            table = "encoder" if key in ("encoder", "crf", "preset") else "restore"
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
    click.echo(
        f"{done['output']}: {done['frames']} frames in {done['seconds']:.1f} s ({done['frames_per_second']:.1f} "
        f"frames/s{speed}), {done['faces_restored']} faces restored in {done['frames_with_faces']} frames"
        + (f", left alone: {left}" if left else ""),
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


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The run's folder; a run that lies there goes on. [default: runs/<name of the config>]",
)
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Start from the averaged weights (ema.pt) of another run."
)
def train(config: Path, output: Path | None, weights: Path | None) -> None:
    """Train a network as a config says; Ctrl-C saves, and the same command goes on.

    \b
    Examples:
      unsmear train configs/fast.toml
      unsmear train configs/fast.toml --weights training/checkpoints/plain.pt
      torchrun --nproc-per-node 8 -m stream train configs/paper.toml
    """
    require_torch()
    from training.config import load_config
    from training.train import train as run_training

    loaded = load_config(config)
    run_training(loaded, output or Path("runs") / loaded.name, weights)


@cli.command()
@click.argument("raw", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A new folder.")
def align(raw: Path, output: Path) -> None:
    """Make a training folder of the faces in any folder of pictures.

    \b
    Example:
      unsmear align photographs/ -o faces/          then set faces = "faces" in a config
    """
    require_torch()
    from training.collect import collect

    counts = collect(raw, output)
    kept = counts.pop("kept", 0)
    why = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    click.echo(f"{output}: {kept} faces" + (f"; skipped (see skipped.csv): {why}" if why else ""), err=True)


@cli.command()
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .onnx file.")
def export(weights: Path, output: Path) -> None:
    """Turn averaged weights (ema.pt) into an ONNX model that every engine runs.

    \b
    Example:
      unsmear export runs/fast/ema.pt -o fast.onnx
    """
    require_torch()
    from training.export import export as run_export

    run_export(weights, output)


@cli.command()
@click.option(
    "--model", "models", multiple=True, default=("fast",), help="A shipped model or an .onnx file; repeatable."
)
@click.option("--engine", "engines", multiple=True, default=("onnxruntime",), show_default=True, help="Repeatable.")
@click.option(
    "--faces",
    type=click.Path(path_type=Path),
    default=Path("../shared/data/lfw_pairs"),
    show_default=True,
    help="A folder with images/ and landmarks.csv.",
)
@click.option(
    "--kernels",
    type=click.Path(path_type=Path),
    default=Path("../shared/data/kernels/levin.npz"),
    show_default=True,
    help="An .npz of the kernels c1 to c8 and linear, each (33, 33) with sum 1.",
)
@click.option("--count", type=click.IntRange(1), default=600, show_default=True, help="Pictures, the folder's first.")
@click.option("--pairs", type=click.Path(path_type=Path), help="Verify on these pairs (fold, a, b, same).")
@click.option("--folds", default="3,4,5", show_default=True, help="The folds of --pairs.")
@click.option("--verifier", type=click.Path(path_type=Path), help="A face recogniser: .onnx, or .param for ncnn.")
@click.option("--paired", type=click.Path(path_type=Path), help="A folder of real NAME_blurred.png, NAME_sharp.png.")
@click.option("--real", type=click.Path(path_type=Path), help="A folder of smeared faces, for SHEET-real.png.")
@click.option("--classical", is_flag=True, help="Unsharp masking, and deconvolution with the true kernel, beside ours.")
@click.option("--against", multiple=True, metavar="NAME=CMD", help="Another program: 'NAME=cmd {input} {output}'.")
@click.option("--ceiling", type=click.Path(path_type=Path), help="An ema.pt that finds the motion, told the true one.")
@click.option("--fill-margin", is_flag=True, help="A row more: borders repeated for real surroundings.")
@click.option("--json", "as_json", type=click.Path(path_type=Path), help="Write the numbers as JSON as well.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Write a picture: blurry, restored, sharp.")
def evaluate(
    models: tuple[str, ...],
    folds: str,
    as_json: Path | None,
    sheet: Path | None,
    **setting: Any,
) -> None:
    """Restored beside blurry faces, for every benchmark kernel and for no blur, as Markdown tables.

    \b
    Examples:
      unsmear evaluate --model fast --faces ../shared/data/lfw_pairs --sheet sheet.png
      unsmear evaluate --pairs ../shared/data/lfw_pairs/pairs.csv --verifier verify.param
    """
    require_torch()
    from training import report
    from training.evaluate import Setting
    from training.evaluate import evaluate as run_evaluation

    try:
        numbers = frozenset(int(fold) for fold in folds.split(","))
    except ValueError as error:
        raise UsageError(f"--folds wants numbers with commas between them, not '{folds}'") from error
    result = run_evaluation(Setting(models=models, folds=numbers, **setting))
    click.echo(report.markdown(result))
    if as_json is not None:
        report.write_json(result, as_json)
    if sheet is not None:
        report.write_sheet(result, sheet)
        if result.real:
            report.write_real_sheet(result, sheet.with_stem(f"{sheet.stem}-real"))


def require_torch() -> None:
    """Training is an extra.

    Raises:
        UsageError: torch is not installed.
    """
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise UsageError("this command needs the training extra; in a checkout: pip install '.[training]'")


def main() -> NoReturn:
    """Run the command and leave with an exit code; a fault is one line, with -v a traceback."""
    signals.install()
    code = 0
    try:
        code = cli.main(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("unsmear: interrupted", err=True)
        code = Interrupted.exit_code
    except Exception as error:
        code, text = explain(error)
        click.echo(f"unsmear: {text}", err=True)
        if code == 1 and {"-v", "--verbose"} & set(sys.argv):
            traceback.print_exc()
    sys.exit(code)


def explain(error: Exception) -> tuple[int, str]:
    """Exit code and line of a fault."""
    if isinstance(error, UnsmearError):
        return error.exit_code, str(error)
    if isinstance(error, EngineError):
        return ENGINE_EXIT_CODE, str(error)
    return 1, f"internal error: {type(error).__name__}: {error}; please report it, with what -v shows"
