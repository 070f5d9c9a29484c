"""The page's charts as files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection
from pathlib import Path

from shiftbench.core.files import file_name, written_atomically
from shiftbench.report.html.charts.drawn import all_figures
from shiftbench.report.model import Report

SCALE = 2.0  # pixels of the PNG to each of the SVG


def write_figures(folder: Path, report: Report) -> list[Path]:
    """Write every chart as SVG and PNG.

    Args:
        folder: made when it is not there; files of other names in it stay.
        report: whose charts.

    Returns:
        The files.
    """
    import vl_convert

    files: list[Path] = []
    for figure in all_figures(report):
        spec = figure.spec(with_data=True)
        spec["title"] = {"text": figure.title, "anchor": "start"}
        spec["background"] = "white"
        stem = _unused(file_name(_slug(figure.title)), {file.stem for file in files})
        svg = str(vl_convert.vegalite_to_svg(spec))
        for file, content in (
            (folder / f"{stem}.svg", svg.encode("utf-8")),
            (folder / f"{stem}.png", bytes(vl_convert.svg_to_png(svg, scale=SCALE))),
        ):
            with written_atomically(file) as temporary:
                temporary.write_bytes(content)
            files.append(file)
    return files


def _slug(text: str) -> str:
    """A name for a file: lower case, with hyphens for all that is neither letter nor digit."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _unused(stem: str, taken: Collection[str]) -> str:
    """The stem, with a number where it is taken."""
    numbered = (f"{stem}-{number}" for number in itertools.count(2))
    return next(
        name for name in (stem, *itertools.islice(numbered, len(taken) + 1)) if name not in taken
    )
