"""The command: parse, run, exit code. Its parts stand in `stream.commands`."""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn

import click

from stream import signals
from stream.commands import engines, research
from stream.commands.faces import faces
from stream.commands.relay import camera, relay
from stream.commands.restore import restore
from stream.errors import Interrupted, explain


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="unsmear", prog_name="unsmear")
def cli() -> None:
    """Restore faces that motion has smeared, in video files and pictures.

    A restored face is a plausible guess, never evidence of identity.
    """


for command in (
    restore,
    relay,
    camera,
    faces,
    engines.build,
    engines.bench,
    engines.doctor,
    research.train,
    research.align,
    research.export,
    research.evaluate,
):
    cli.add_command(command)


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
