"""`unsmear faces`: what is found in a clip, as JSON lines."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--engine", help="See `unsmear restore --help`.")
@click.option("--model", help="A shipped model's name, or an .onnx file. [default: fast]")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file laid over the defaults.")
def faces(source: Path, config: Path | None, **options: Any) -> None:
    """List the faces that would be restored in every frame, with their tracks and motion; nothing is written.

    Boxes, points (eyes, nose, mouth corners) and lengths are in px of the frame as it is coded, before any rotation;
    directions in degrees, counter-clockwise from its rows. Tracks are numbered anew in every run and after every cut.

    \b
    Examples:
      unsmear faces clip.mp4 > faces.jsonl
      unsmear faces clip.mp4 | jq 'select(.faces != []) | .time_s'
    """
    from engine import Options, open_shared
    from stream.commands.restore import as_tables
    from stream.config import load_settings
    from stream.faces.finder import open_finder
    from stream.pipeline import list_faces

    settings = load_settings(config, as_tables(options))
    run = settings.restore
    options_of_engine = Options(run.threads, run.device, run.max_batch)
    finder = open_finder(settings.faces.finder, settings.faces.finder_model)
    try:
        with (
            open_shared(run.engine, run.model, run.batch, options_of_engine) as shared,
            shared.seat() as engine,
            closing(list_faces(source, settings, finder, engine)) as lines,
            suppress(BrokenPipeError),  # a reader that has seen enough, as `head` does, ends it
        ):
            for line in lines:
                click.echo(json.dumps(line))
    finally:
        finder.close()
