"""``shiftbench backbone``: fetch, check and list pretrained models."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="backbone",
    help="Fetch, check and list pretrained models.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME...",
        help="As in a suite: openai/ViT-B-16, hf-hub:org/name, a folder, ./epoch_3.pt/ViT-B-16.",
    ),
]

_FETCH_EPILOG = """[bold]Examples[/bold]

Before a suite runs where there is no network:

  shiftbench backbone fetch openai/ViT-B-16 openai/ViT-L-14

Any model of the Hugging Face Hub, of open_clip or a CLIP or SigLIP of transformers:

  shiftbench backbone fetch hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K

Weights are kept in the Hugging Face cache (HF_HOME), and downloaded once.
"""

_CHECK_EPILOG = """[bold]Examples[/bold]

  shiftbench backbone check miniature

A checkpoint of open_clip's training, whose architecture nothing beside it says:

  shiftbench backbone check ./logs/run/checkpoints/epoch_3.pt/ViT-B-32
"""

_LIST_EPILOG = """[bold]Examples[/bold]

Everything that open_clip has:

  shiftbench backbone list

By a part of the name:

  shiftbench backbone list ViT-B-16
"""


@app.command(epilog=_FETCH_EPILOG)
def fetch(names: Names) -> None:
    """Download models once, and check that they work."""
    from shiftbench.models.backbones import fetch_backbone

    for name in names:
        typer.echo(f"fetching {name}", err=True)
        fetch_backbone(name)
    _examine(names)


@app.command(epilog=_CHECK_EPILOG)
def check(names: Names) -> None:
    """Check architecture, activation, preprocessing and tokenizer, and use each model once."""
    from shiftbench.models.backbones import check_backbone

    for name in names:
        check_backbone(name)
    _examine(names)


def _examine(names: list[str]) -> None:
    from shiftbench.models.examination import examine

    for name in names:
        typer.echo(name)
        for what, text in examine(name).lines().items():
            typer.echo(f"  {what}: {text}")


@app.command("list", epilog=_LIST_EPILOG)
def list_(
    pattern: Annotated[
        str | None, typer.Argument(metavar="[PART]", help="Only names that have this part.")
    ] = None,
) -> None:
    """List pretrained models by the names that suites use, and which are on this machine."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from shiftbench.models import hub
    from shiftbench.models.published import sources_in_table
    from shiftbench.models.registry import BACKBONES

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "here", "from"):
        table.add_column(column, overflow="fold")
    rows = [(name, True, entry.origin) for name, entry in BACKBONES.entries().items()]
    rows += [
        (f"{tag}/{model}", hub.cached(source) is not None, str(source))
        for (tag, model), source in sources_in_table().items()
    ]
    for name, here, origin in rows:
        if pattern is None or pattern.lower() in name.lower():
            table.add_row(escape(name), "yes" if here else "", escape(origin))
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(
        "Also hf-hub:org/name, folders of open_clip or transformers, and files of weights.",
        style="dim",
        highlight=False,
    )
