"""An evaluation as a Markdown table, as JSON, and as a picture sheet."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.evaluate import SHARP, SSIM_PICTURES, Evaluation, Row
from training.methods import BLURRY
from training.protocol import EIGHT, KERNELS

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
    lines += ["", f"SSIM, mean over {min(result.pictures, SSIM_PICTURES)} pictures", "", *_head()]
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
    finding = {name: row for name, row in result.rows.items() if row.motion}
    if finding:
        lines += ["", "Error of the kernel found, squared differences after a 3x3 mean, times 1000", "", *_head()]
        lines += [_line(_title(n, r), [f"{1000 * r.motion[c]:.1f}" for c in COLUMNS]) for n, r in finding.items()]
    if blurry.paired_db:
        lines += ["", f"Real motion, {result.paired} pairs, PSNR in dB: {blurry.paired_db[0]:.2f} blurred"]
        for name, row in result.rows.items():
            if row.paired_db and name != BLURRY:
                lines.append(
                    f"- {_title(name, row)}: {row.paired_db[1]:.2f}, {row.paired_worse} of {result.paired} lost"
                )
                if row.pasted_db:
                    lines.append(f"- the same, as it is pasted: {row.pasted_db:.2f}, {row.pasted_worse} lost")
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
    """Two faces: a column a kernel, a row a method, the sharp one last; above them the kernels, the true one first."""
    from PIL import Image

    columns, names = (*KERNELS, SHARP), [*result.rows, SHARP]
    rows = []
    for face in range(min(2, result.pictures)):
        rows += [np.hstack([_drawn(result.kernels[k][n], face) for k in columns]) for n in result.kernels[SHARP]]
        rows += [np.hstack([result.sheet[k][n][face] for k in columns]) for n in names]
    Image.fromarray(np.vstack(rows)).save(path)


def _drawn(kernels: NDArray[np.float32], face: int) -> NDArray[np.uint8]:
    """A kernel as a grey picture (66, 96, 3), its brightest pixel white; the true one is the same for all faces."""
    kernel = kernels[min(face, len(kernels) - 1)]
    grey = np.rint(255 * (kernel / kernel.max()) ** 0.5).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    return np.repeat(np.pad(grey, ((0, 0), (15, 15)))[..., None], 3, 2)


def write_real_sheet(result: Evaluation, path: Path) -> None:
    """The faces that a camera smeared: a row a method, at most twelve faces beside each other."""
    from PIL import Image

    faces = len(next(iter(result.real.values())))
    blocks = [[pictures[i : i + 12] for pictures in result.real.values()] for i in range(0, faces, 12)]
    width = min(faces, 12) * 96
    rows = [np.hstack(list(pictures)) for block in blocks for pictures in block]
    Image.fromarray(np.vstack([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0))) for r in rows])).save(path)


def _title(name: str, row: Row) -> str:
    return f"{name} (margin {row.margin} px)" if row.margin else name


def _head(*more: str) -> list[str]:
    columns = [*COLUMNS, *more]
    return [_line("", columns), "|---|" + "---|" * len(columns)]


def _line(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"
