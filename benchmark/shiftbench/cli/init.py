"""``shiftbench init``: a suite for data of one's own, every key explained."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from shiftbench.suite.starting import Answers

EPILOG = """[bold]Examples[/bold]

Questions, and a suite of the answers:

  shiftbench init

A folder of images (with a folder for each class, or train and test with such folders), two shifts:

  shiftbench init birds.yaml --images pictures --shift drawings=drawings --shift night=night.parquet

A data set of the Hugging Face Hub, and two methods:

  shiftbench init beans.yaml --hub AI-Lab-Makerere/beans --methods zero-shot,full
"""
FILE = Path("suite.yaml")


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Suite to write.")] = FILE,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Training images: a folder with a folder for each class; or with the folders "
            "train and test."
        ),
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="Training images: a Parquet file, or a folder of them.")
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="Training images: download this data set."),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(help="Test images; by default those beside, or a fifth of the others."),
    ] = None,
    shift: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="A shift. May be given several times."),
    ] = None,
    ood_val: Annotated[
        Path | None, typer.Option("--ood-val", help="Images for methods that search.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="File that names the classes: .txt, .json or .yaml.")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(help="Labels of nine-shifts, or names: list methods. Separated by commas."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Pretrained model; by default openai/ViT-B-16.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Explain limits too that hardly anybody changes.")
    ] = False,
) -> None:
    """Write a suite for data of your own, with every key explained. Nothing is overwritten."""
    from dataclasses import replace

    from shiftbench.core.errors import InputError
    from shiftbench.suite.starting import Answers

    if file.exists():
        raise InputError(f"{file}: is there already, and is not overwritten")
    given = [place for place in (images, parquet, hub) if place is not None]
    if len(given) > 1:
        raise InputError("--images, --parquet and --hub all say where the training images are: one")
    if given:
        train = images or parquet or _downloaded(str(hub), file.parent)
        answers = Answers(file, train, test, _shifts(shift or ()))
    elif sys.stdin.isatty():
        answers = _asked(file)
    else:
        raise InputError("say where the training images are: --images, --parquet or --hub")
    chosen = tuple(label.strip() for text in methods or () for label in text.split(","))
    answers = replace(
        answers,
        ood_val=ood_val,
        classes=classes,
        everything=everything,
        methods=chosen or answers.methods,
        backbone=backbone or answers.backbone,
    )
    _write(answers)
    typer.echo(f"{file} is written. What it asks for: shiftbench plan {file}")


def _shifts(texts: list[str] | tuple[()]) -> dict[str, Path]:
    from shiftbench.core.errors import InputError

    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise InputError(f"--shift {text}: is not of the form NAME=PATH")
        if name in found:
            raise InputError(f'--shift {text}: the shift "{name}" is named twice')
        found[name] = Path(path)
    return found


def _downloaded(name: str, folder: Path) -> Path:
    from shiftbench.data.downloads.hub import fetch_dataset

    typer.echo(f"downloading {name}", err=True)
    return fetch_dataset(name, folder / name.replace("/", "--"))


def _asked(file: Path) -> Answers:
    """What a person at a terminal answers."""
    from shiftbench.suite.starting import USUAL, Answers

    def path(question: str) -> Path | None:
        text = typer.prompt(question, default="", show_default=False).strip()
        return Path(text).expanduser() if text else None

    train = typer.prompt("Training images (a folder, a Parquet file, or org/name of the Hub)")
    place = Path(train).expanduser()
    looks_remote = not place.exists() and train.count("/") == 1 and train[0].isalnum()
    found = _downloaded(train, file.parent) if looks_remote else place
    test = path("Test images (empty: those beside, or a fifth of the others)")
    shifts: list[str] = []
    while text := typer.prompt(
        "A shift, NAME=PATH (empty: no more)", default="", show_default=False
    ):
        shifts.append(text)
    methods = typer.prompt("Methods, separated by commas", default=",".join(USUAL))
    backbone = typer.prompt("Backbone", default=Answers.backbone)
    labels = [label.strip() for label in methods.split(",") if label.strip()]
    return Answers(file, found, test, _shifts(shifts), methods=labels, backbone=backbone)


def _write(answers: Answers) -> None:
    """Write the suite once it can be planned.

    Raises:
        InputError: it cannot, or the file has come to be there.
    """
    from shiftbench.core.errors import InputError
    from shiftbench.suite.plan import Plan
    from shiftbench.suite.starting import suite_text
    from shiftbench.suite.suite import Suite

    file = answers.file
    text = suite_text(answers)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.stem}.{os.getpid()}.tmp.yaml")
    try:
        draft.write_text(text, encoding="utf-8")
        Plan.build(Suite.load(draft))
        os.link(draft, file)  # unlike a rename, it replaces nothing
    except InputError as error:
        raise InputError(*(line.replace(str(draft), str(file)) for line in error.lines)) from error
    except FileExistsError:
        raise InputError(f"{file}: is there already, and is not overwritten") from None
    finally:
        draft.unlink(missing_ok=True)
