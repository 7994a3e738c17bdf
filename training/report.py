"""An evaluation as a Markdown table, as JSON, and as a picture sheet."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from training.evaluate import BLURRY, EIGHT, KERNELS, SHARP, Evaluation, Row

COLUMNS = (*EIGHT, "mean", "linear", SHARP)


def markdown(result: Evaluation) -> str:
    """PSNR with each row's gain over the blurry one; SSIM, verification and identity where they were measured."""
    blurry = result.rows[BLURRY]
    lines = [f"PSNR in dB, mean over {result.pictures} pictures", "", *_head()]
    for name, row in result.rows.items():
        cells = ["as it is" if row.psnr_db[c] >= 99 else f"{row.psnr_db[c]:.2f}" for c in COLUMNS]
        lines.append(_line(_title(name, row), cells))
        if name != BLURRY:
            gains = ["" if c == SHARP else f"{row.psnr_db[c] - blurry.psnr_db[c]:+.2f}" for c in COLUMNS]
            lines.append(_line("gain", gains))
    lines += ["", "SSIM", "", *_head()]
    lines += [_line(_title(n, r), [f"{r.ssim[c]:.3f}" for c in COLUMNS]) for n, r in result.rows.items()]
    if blurry.accuracy:
        lines += ["", f"Verification accuracy in %, {result.pairs} pairs", "", *_head("won back")]
        for name, row in result.rows.items():
            cells = [f"{100 * row.accuracy[c]:.2f}" for c in COLUMNS]
            lines.append(
                _line(_title(name, row), [*cells, "" if name == BLURRY else f"{100 * won_back(row, blurry):.1f}"])
            )
    if blurry.distance:
        lines += ["", "Identity distance, 1 - cosine to the sharp picture", "", *_head()]
        lines += [_line(_title(n, r), [f"{r.distance[c]:.3f}" for c in COLUMNS]) for n, r in result.rows.items()]
    if blurry.paired_db:
        lines += ["", f"Real motion, {result.paired} pairs, PSNR in dB: {blurry.paired_db[0]:.2f} blurred"]
        for name, row in result.rows.items():
            if row.paired_db and name != BLURRY:
                lines.append(
                    f"- {_title(name, row)}: {row.paired_db[1]:.2f}, {row.paired_worse} of {result.paired} lost"
                )
    lines += [
        "",
        "Milliseconds a face: " + ", ".join(f"{n} {r.ms_a_face:.1f}" for n, r in result.rows.items() if n != BLURRY),
    ]
    return "\n".join(lines)


def won_back(row: Row, blurry: Row) -> float:
    """The share of the accuracy that blur cost which a method wins back, mean over the eight kernels."""
    lost = blurry.accuracy[SHARP] - blurry.accuracy["mean"]
    return (row.accuracy["mean"] - blurry.accuracy["mean"]) / lost if lost > 0 else 0.0


def write_json(result: Evaluation, path: Path) -> None:
    """Every figure."""
    rows = {name: asdict(row) for name, row in result.rows.items()}
    path.write_text(json.dumps({"pictures": result.pictures, "pairs": result.pairs, "rows": rows}, indent=2) + "\n")


def write_sheet(result: Evaluation, path: Path) -> None:
    """Two faces: a column a kernel, a row a method, the sharp one last."""
    from PIL import Image

    names = [*result.rows, SHARP]
    rows = [np.hstack([result.sheet[k][n][face] for k in (*KERNELS, SHARP)]) for face in (0, 1) for n in names]
    Image.fromarray(np.vstack(rows)).save(path)


def _title(name: str, row: Row) -> str:
    return f"{name} (margin {row.margin} px)" if row.margin else name


def _head(*more: str) -> list[str]:
    columns = [*COLUMNS, *more]
    return [_line("", columns), "|---|" + "---|" * len(columns)]


def _line(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"
