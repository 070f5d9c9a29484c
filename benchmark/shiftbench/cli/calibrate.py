"""``shiftbench calibrate``: how fast this machine is, for the times that plan and run tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shiftbench.cli.common import Overrides, load_suite

if TYPE_CHECKING:
    from rich.console import Console

    from shiftbench.execution.calibrating import Measured

EPILOG = """[bold]Examples[/bold]

Usual backbones, within a minute:

  shiftbench calibrate

Those of a suite:

  shiftbench calibrate nine-shifts

One that nothing was said of, in ten seconds:

  shiftbench calibrate --backbone laion2b_s32b_b82k/ViT-L-14 --seconds 10
"""
USUAL = ("miniature", "openai/ViT-B-32", "openai/ViT-B-16")
"""Others are told from the nearest of these, by their arithmetic."""


def calibrate(
    suite: Annotated[
        str | None,
        typer.Argument(metavar="[SUITE]", help="Suite whose backbones are measured."),
    ] = None,
    overrides: Overrides = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option("--backbone", metavar="NAME", help="May be given several times."),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1.0, help="Time for all of them together, about.")
    ] = 50.0,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Measure the processor, on a machine with GPUs.")
    ] = False,
) -> None:
    """Measure images and steps a second on this machine, for the times of plan and run.

    Nothing is downloaded: speeds are of random weights, without decoding. They are kept in the
    cache, and take the place of published throughputs; what finished runs took counts more.
    """
    import torch
    from rich.console import Console

    from shiftbench.cli.common import check_suite_options
    from shiftbench.core.provenance import device_name
    from shiftbench.execution.calibrated import keep
    from shiftbench.execution.calibrating import calibrate as measure

    check_suite_options(suite, overrides, None)
    named = [] if suite is None else list(load_suite(suite, overrides, None).backbones)
    names = list(dict.fromkeys([*named, *(backbone or [])])) or [*USUAL]
    device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
    console = Console(highlight=False, soft_wrap=True)
    unit = "one core of " if device.type == "cpu" else ""
    console.print(f"[dim]{unit}{device_name(device)}[/dim]")
    head = ("backbone", "", "trained", "steps", "predicted")
    console.print(
        f"[bold]{head[0]:32} {head[1]:4} {head[2]:>12} {head[3]:>18} {head[4]:>12}[/bold]"
    )
    kept = keep(measure(names, device, seconds, lambda line: _show(console, line)))
    console.print(f"[dim]Kept in {kept}, for plan and run.[/dim]")


def _show(console: Console, line: Measured) -> None:
    from rich.markup import escape

    console.print(
        f"{escape(line.backbone):32} {line.precision:4} {_number(line.training):>8} "
        f"{_number(line.prediction):>10}   {_number(line.steps)} of {line.batch} images"
    )


def _number(value: float) -> str:
    """Three digits of a number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
