"""The order of the stages: source, find, restore, paste, sink, each in a lane of its own."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from engine import Engine, EngineError
from stream.config import RestoreSettings
from stream.errors import InputError, Interrupted
from stream.faces.finder import Finder
from stream.find import FaceFinding
from stream.frame import Frame, Mended
from stream.fuse import Fusion
from stream.lanes import Lanes
from stream.media.sink import FileSink
from stream.media.source import FileSource
from stream.paste import paste
from stream.progress import Progress, real_time
from stream.repeats import put_back, set_aside
from stream.restore import FAILED, Restoration
from stream.signals import uninterrupted
from stream.stats import Stats


@dataclass(frozen=True, slots=True)
class Job:
    """One file to restore."""

    source: Path
    output: Path
    begin: Fraction | None = None  # seconds
    end: Fraction | None = None
    compare: bool = False
    debug: bool = False
    overwrite: bool = False
    quiet: bool = False


def restore_file(job: Job, settings: RestoreSettings, finder: Finder, engine: Engine) -> dict[str, Any]:
    """Restore one file and tell what was done, as the report has it.

    Raises:
        InputError: it cannot be read, or only in part (what could be read is in the output).
        OutputError: the output cannot be written.
        EngineError: the engine failed; the output is whole, with some faces as they were.
        Interrupted: Ctrl-C; what was written is closed and plays.
    """
    stats = Stats()
    faces, run = settings.faces, settings.restore
    with FileSource(job.source, job.begin, job.end) as source:
        progress = Progress(source.info, stats, job.quiet)
        with FileSink(job.output, source.info, settings.encoder, job.overwrite) as sink:
            try:
                with Lanes() as lanes:
                    finding = FaceFinding.for_engine(finder, faces, engine, stats)
                    frames = lanes.run("read", set_aside(source, stats))
                    found = lanes.run("find", finding.run(frames))
                    mended = lanes.run("restore", Restoration(engine, run, stats).run(found))
                    whole = put_back(Fusion(run, engine, stats).run(mended))
                    pasted = lanes.run("paste", paste(whole, job.compare, stats, job.debug))
                    for item in pasted:
                        with stats.timed("write"):
                            sink.write(item)
                        if isinstance(item, Frame):
                            progress.frame()
            except KeyboardInterrupt:
                if sink.frames == 0:
                    raise
                with uninterrupted():
                    kept = sink.commit(partial=True)
                raise Interrupted(f"interrupted; the first {sink.frames} frames are in {kept}") from None
            finally:
                progress.close()
            with uninterrupted():
                output = sink.commit()
        if source.damage is not None:
            raise InputError(
                f"{job.source} is damaged: {source.damage}; the {sink.frames} frames that could be read are in {output}"
            )
        if stats.engine_fault is not None:
            count = stats.passed_over[FAILED]
            raise EngineError(f"{count} faces in {output} are as they were, the rest is restored: {stats.engine_fault}")
        seconds = progress.seconds
        return {
            "input": str(job.source),
            "output": str(output),
            "frames": sink.frames,
            "seconds": round(seconds, 3),
            "frames_per_second": round(sink.frames / seconds, 2),
            "real_time": real_time(sink.frames, source.info, seconds),
            **stats.told(),
            "model": engine.spec.name,
            "model_version": engine.spec.version,
            "engine": engine.about,
            "notes": [*source.notes, *sink.notes],
        }


def list_faces(
    source: Path, settings: RestoreSettings, finder: Finder, engine: Engine
) -> Generator[dict[str, Any], None, None]:
    """What is found in each frame of a file: tracks, points, motion, and how much of a change would be pasted.

    Raises:
        InputError: it cannot be read, or only in part.
        EngineError: the engine failed.
    """
    stats = Stats()
    with FileSource(source) as opened, Lanes() as lanes:
        finding = FaceFinding.for_engine(finder, settings.faces, engine, stats)
        found = lanes.run("find", finding.run(set_aside(opened, stats)))
        for item in put_back(Restoration(engine, settings.restore, stats).run(found)):
            if isinstance(item, Mended):
                stats.count(item)
                frame = item.frame
                yield {
                    "frame": frame.index,
                    "time_s": round(float(frame.pts * frame.time_base), 6),
                    "faces": [patch.told() for patch in item.patches],
                }
        if stats.engine_fault is not None:
            raise EngineError(f"{stats.passed_over[FAILED]} faces are not listed: {stats.engine_fault}")
        if opened.damage is not None:
            raise InputError(f"{source} is damaged: {opened.damage}; the frames that could be read are listed")
