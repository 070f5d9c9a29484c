"""``shiftbench predict``: classify images with an exported model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """[bold]Examples[/bold]

With the folder that shiftbench export-model made:

  shiftbench predict ./my-clip cat.jpg dog.png

All images of a folder, three classes each, as a table for a spreadsheet:

  shiftbench predict ./my-clip ./photos --top 3 > classes.tsv
"""
IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def predict(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of an exported model.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES...", help="Image files, or folders of them.")
    ],
    top: Annotated[int, typer.Option("--top", min=1, help="Classes to show of each image.")] = 1,
) -> None:
    """Classify images: a line for each with file, class and probability, with tabs between."""
    from shiftbench.core.errors import InputError
    from shiftbench.models.exported import classify, load_exported

    files = [file for place in images for file in _files(place)]
    if not files:
        raise InputError(f"{images[0]}: no images in this folder")
    for file, classes in classify(load_exported(folder), files, top):
        for name, probability in classes:
            typer.echo(f"{file}\t{name}\t{probability:.4f}")


def _files(place: Path) -> list[Path]:
    """A file, or the images in a folder."""
    if not place.is_dir():
        return [place]
    return sorted(file for file in place.rglob("*") if file.suffix.lower() in IMAGES)
