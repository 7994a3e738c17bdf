"""`unsmear faces`: what is found in a clip, as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--engine", help="See `unsmear restore --help`.")
@click.option("--model", help="A shipped model's name, or an .onnx file. [default: fast]")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file laid over the defaults.")
def faces(source: Path, config: Path | None, **options: Any) -> None:
    """List the faces of every frame, with their tracks and the motion that smeared them; nothing is written.

    \b
    Examples:
      unsmear faces clip.mp4 > faces.jsonl
      unsmear faces clip.mp4 | jq 'select(.faces != []) | .time_s'
    """
    from engine import Options, open_engine
    from stream.commands.restore import as_tables
    from stream.config import load_settings
    from stream.faces.finder import open_finder
    from stream.pipeline import list_faces

    settings = load_settings(config, as_tables(options))
    run = settings.restore
    finder = open_finder(settings.faces.finder, settings.faces.finder_model)
    try:
        with open_engine(run.engine, run.model, Options(run.threads, run.device)) as engine:
            for line in list_faces(source, settings, finder, engine):
                click.echo(json.dumps(line))
    finally:
        finder.close()
