"""The commands of training and evaluation, which need the training extra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stream.errors import InputError, UsageError


@click.command()
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
      unsmear train configs/plain.toml
      unsmear train configs/fast.toml --weights training/checkpoints/fast.pt
      torchrun --nproc-per-node 8 -m stream train configs/paper.toml
    """
    require_torch()
    from training.config import load_config
    from training.train import train as run_training

    loaded = load_config(config)
    run_training(loaded, output or Path("runs") / loaded.name, weights)


@click.command()
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


@click.command()
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .onnx file.")
@click.option("--torch", "with_torch", is_flag=True, help="Write NAME.pt2 as well, for the engine torch.")
def export(weights: Path, output: Path, with_torch: bool) -> None:
    """Turn averaged weights (ema.pt) into ONNX models that every engine runs: NAME.onnx and NAME.fp16.onnx.

    \b
    Example:
      unsmear export runs/fast/ema.pt -o fast.onnx
    """
    require_torch()
    from training.export import export as run_export

    run_export(weights, output, with_torch)


@click.command()
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
@click.option(
    "--count",
    type=click.IntRange(1),
    default=600,
    show_default=True,
    help="Pictures, the first; all where --pairs are verified.",
)
@click.option("--pairs", type=click.Path(path_type=Path), help="The pictures of these pairs (fold, a, b, same).")
@click.option("--folds", default="3,4,5", show_default=True, help="The folds of --pairs.")
@click.option(
    "--verifier",
    type=click.Path(path_type=Path),
    help="A face recogniser (.onnx, or .param for ncnn): verifies the pairs.",
)
@click.option("--paired", type=click.Path(path_type=Path), help="A folder of real NAME_blurred.png, NAME_sharp.png.")
@click.option("--real", type=click.Path(path_type=Path), help="A folder of smeared faces, for SHEET-real.png.")
@click.option("--classical", is_flag=True, help="Unsharp masking, and deconvolution with the true kernel, beside ours.")
@click.option("--against", multiple=True, metavar="NAME=CMD", help="Another program: 'NAME=cmd {input} {output}'.")
@click.option("--ceiling", type=click.Path(path_type=Path), help="An ema.pt that undoes motion, told the true one.")
@click.option("--fill-margin", is_flag=True, help="A row more: borders repeated for real surroundings.")
@click.option(
    "--video", "videos", multiple=True, type=click.Path(path_type=Path), help="Sharp clips in place of faces."
)
@click.option(
    "--find", "face_px", type=click.FloatRange(20, 300), help="How well faces of that width are found in 1920x1080."
)
@click.option("--half", type=click.Path(path_type=Path), metavar="WEIGHTS", help="What float16 costs an ema.pt.")
@click.option("--smear", "kinds", multiple=True, default=("shake", "head", "average", "untouched"), show_default=True)
@click.option("--frames", type=click.IntRange(3), default=120, show_default=True, help="Of each clip, its first.")
@click.option("--json", "as_json", type=click.Path(path_type=Path), help="Write the numbers as JSON as well.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Write a picture: blurry, restored, sharp.")
def evaluate(
    models: tuple[str, ...],
    folds: str,
    videos: tuple[Path, ...],
    face_px: float | None,
    half: Path | None,
    kinds: tuple[str, ...],
    frames: int,
    as_json: Path | None,
    sheet: Path | None,
    **setting: Any,
) -> None:
    """Restored beside blurry faces, for every benchmark kernel and for no blur, as Markdown tables; or clips.

    \b
    Examples:
      unsmear evaluate --model fast --faces ../shared/data/lfw_pairs --sheet sheet.png
      unsmear evaluate --pairs ../shared/data/lfw_pairs/pairs.csv --folds 1,2 --count 60
      unsmear evaluate --pairs ../shared/data/lfw_pairs/pairs.csv --verifier verify.param
      unsmear evaluate --video clip.mp4 --smear shake --frames 60
      unsmear evaluate --find 50 --count 60
      unsmear evaluate --half training/checkpoints/fast.pt --count 60
    """
    require_torch()
    if (videos or face_px is not None) and len(models) + len(setting["engines"]) > 2:
        raise UsageError("--video and --find measure one --model with one --engine")
    if videos:
        evaluate_videos(videos, kinds, frames, models[0], setting["engines"][0], setting["verifier"], as_json)
        return
    if face_px is not None:
        evaluate_finding(face_px, models[0], setting, as_json)
        return
    if half is not None:
        from training import halved

        rows = halved.compare(half, setting["faces"], setting["kernels"], setting["count"])
        click.echo(halved.markdown(rows))
        write_rows([row._asdict() for row in rows], as_json)
        return
    if setting["real"] is not None and sheet is None:
        raise UsageError("--real has pictures alone to show: give a --sheet as well")
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


def evaluate_videos(
    videos: tuple[Path, ...],
    kinds: tuple[str, ...],
    frames: int,
    model: str,
    engine: str,
    verifier: Path | None,
    as_json: Path | None,
) -> None:
    """Each clip, smeared in each way: found, followed, restored, measured."""
    from dataclasses import asdict
    from itertools import product

    from training.clips import KINDS
    from training.recogniser import open_recogniser
    from training.video import evaluate_clip, markdown

    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise UsageError(f"--smear knows {', '.join(KINDS)}, not '{unknown[0]}'")
    recogniser = open_recogniser(verifier) if verifier is not None else None
    rows = []
    for clip, kind in product(videos, kinds):
        try:
            rows.append(evaluate_clip(clip, kind, frames, model, engine, recogniser))
        except InputError as error:
            click.echo(f"left out: {error}", err=True)
    click.echo(markdown(rows))
    write_rows([asdict(row) for row in rows], as_json)


def evaluate_finding(face_px: float, model: str, setting: dict[str, Any], as_json: Path | None) -> None:
    """How many faces are found under each kernel, and how far their points are off."""
    from contextlib import closing
    from dataclasses import asdict

    from engine import open_engine
    from stream.faces.finder import open_finder
    from training.finding import find_in_frames, markdown
    from training.protocol import load_kernels

    kernels = {"sharp": None, **load_kernels(setting["kernels"])}
    with closing(open_finder("mediapipe")) as finder, open_engine(setting["engines"][0], model) as engine:
        rows = find_in_frames(setting["faces"], kernels, setting["count"], face_px, finder, engine)
    click.echo(markdown(rows, face_px))
    write_rows({kernel: asdict(row) for kernel, row in rows.items()}, as_json)


def write_rows(rows: Any, path: Path | None) -> None:
    """The same numbers as JSON, where they are wanted."""
    import json

    if path is not None:
        path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def require_torch() -> None:
    """Training is an extra.

    Raises:
        UsageError: torch is not installed.
    """
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise UsageError("this command needs the training extra; in a checkout: pip install '.[training]'")
