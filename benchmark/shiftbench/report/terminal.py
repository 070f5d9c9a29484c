"""A report as tables in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report.answer import Answer
from shiftbench.report.answer_words import change_text, loss_text, recipe_text
from shiftbench.report.measures import ECE
from shiftbench.report.model import RankingReport, Report
from shiftbench.report.over_tasks import OverallRanking
from shiftbench.report.ranking import RankedMethod, Ranking
from shiftbench.report.scale import NONE
from shiftbench.report.scores import MEAN
from shiftbench.report.trade import trade_of, trade_over_tasks
from shiftbench.report.words import (
    MARK,
    NOTE,
    OTHERS,
    RESULTS,
    duration,
    failure_text,
    metrics_of,
    partial_text,
    several_shifts,
    short,
    tasks_of,
    title_of,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN_SHIFTS = 6  # more do not fit beside each other in a terminal
ENOUGH_FOR_MORE = 100  # characters
MOST_LETTERS = 12  # of the groups that a method ties in
CALIBRATION = (
    "ECE: expected calibration error in percent, ID and mean over shifts; other measures are in "
    "the Markdown."
)


def print_report(console: Console, report: Report) -> None:
    """Print the ranking of each task, the one over all tasks, and what went wrong."""
    from rich.markup import escape

    for of_ranking in report.rankings:
        print_ranking(console, of_ranking)
    for across in report.overall:
        print_overall(console, across.ranking)
        of = report.rankings[0].ranking.methods
        reference = next((method.name for method in of if method.reference), None)
        _print_trade(console, trade_over_tasks(across.ranking, reference))
        print_answer(console, across.answer)
    if report.rankings:
        console.print(f"[dim]{escape(NOTE)}[/dim]\n")
    for fault in report.golden_faults:
        console.print(f"[red]golden row[/red] {escape(fault)}", soft_wrap=True)
    if report.trend_note:
        console.print(f"[yellow]no ρ[/yellow] {escape(report.trend_note)}", soft_wrap=True)
    for imported in report.imports:
        console.print(f"[yellow]not from here[/yellow] {escape(str(imported))}", soft_wrap=True)
    for task, reason in report.leaks:
        where = escape(f"{task}: {reason}")
        console.print(f"[yellow]leakage[/yellow] {where}", soft_wrap=True)
    for task, evaluation_set, reason in report.incomplete:
        where = escape(f"{task} · {evaluation_set}: {reason}")
        console.print(f"[yellow]incomplete{MARK}[/yellow] {where}", soft_wrap=True)
    for task, evaluation_set, remark in report.data_remarks:
        where = escape(f"{task} · {evaluation_set}: {remark}")
        console.print(f"[yellow]remark[/yellow] {where}", soft_wrap=True)
    for failure in report.failures:
        console.print(f"[red]failed[/red] {escape(failure_text(failure))}", soft_wrap=True)
    if not report.rankings and not report.failures:
        console.print("No run has finished yet.")


def print_ranking(console: Console, of_ranking: RankingReport) -> None:
    """Print a ranking, and which methods tie, as a table that fits 100 columns."""
    from rich.markup import escape

    ranking, letters = of_ranking.ranking, of_ranking.ties.letters
    shifts = several_shifts(ranking)
    shown = shifts[:SHOWN_SHIFTS]
    table = _table()
    tied = ["tied"] if letters else []
    origin = [RESULTS] if any(method.results for method in ranking.methods) else []
    roomy = console.width >= ENOUGH_FOR_MORE
    gaps = ["ECE"] if roomy and of_ranking.measures else []
    others = [OTHERS] if roomy and of_ranking.forgetting else []
    first = ("#", *tied, "method", *origin, "seeds", "ID")
    for header in (*first, *map(short, shown), "OOD", *gaps, *others, "cost"):
        is_text = header in ("method", "tied", RESULTS)
        table.add_column(
            escape(header),
            justify="left" if is_text else "right",
            no_wrap=header not in ("method", RESULTS),
            overflow="fold",
        )
    for method in ranking.methods:
        cells = [
            "" if method.rank is None else str(method.rank),
            *([_cut(letters.get(method.name, NONE))] if letters else []),
            method.name,
            *([", ".join(method.results)] if origin else []),
            str(len(method.seeds)),
            score_text(ranking, method, ID_TEST, spread=True),
            *(score_text(ranking, method, shift) for shift in shown),
            score_text(ranking, method, MEAN, spread=True),
            *([_calibration(of_ranking, method)] if gaps else []),
            *([of_ranking.forgetting.change_text(method.name)] if others else []),
            duration(method.cost_seconds),
        ]
        table.add_row(*map(escape, cells), style="dim" if method.rank is None else None)
    console.print(f"[bold]{escape(title_of(ranking))}[/bold]")
    console.print(table)
    _print_trade(console, trade_of(ranking))
    print_answer(console, of_ranking.answer)
    if len(shifts) > len(shown):
        console.print(f"[dim]{len(shifts) - len(shown)} more shifts are in the Markdown.[/dim]")
    if gaps:
        console.print(f"[dim]{escape(CALIBRATION)}[/dim]")
    if others:
        tasks = ", ".join(of_ranking.forgetting.tasks)
        console.print(f"[dim]{OTHERS}: mean score on {escape(tasks)} against zero-shot's.[/dim]")
    if letters:
        console.print(f"[dim]{escape(of_ranking.ties.note)}[/dim]")
    console.print(f"[dim]{escape(metrics_of(ranking))}[/dim]\n")


def print_overall(console: Console, ranking: OverallRanking) -> None:
    """Print the ranking over tasks."""
    from rich.markup import escape

    table = _table()
    for header in ("#", "method", "ID", "OOD", "cost"):
        table.add_column(header, justify="left" if header == "method" else "right")
    for method in ranking.methods:
        numbers = map(ranking.scale.text, (method.id_test.mean, method.mean_ood.mean))
        cells = (str(method.rank), method.name, *numbers, duration(method.cost_seconds))
        table.add_row(*map(escape, cells))
    console.print(f"[bold]{escape(title_of(ranking))}[/bold]")
    console.print(table)
    console.print(f"[dim]{escape(tasks_of(ranking))}[/dim]\n")


def _print_trade(console: Console, text: str | None) -> None:
    if text is not None:
        console.print(text, markup=False)


def print_answer(console: Console, answer: Answer) -> None:
    """Print which recipe to take, in a sentence."""
    from rich.markup import escape

    recipe, scale = answer.recipe, answer.scale
    if recipe is None:
        console.print(f"[dim]No recommendation: {escape(answer.reason)}.[/dim]")
        return
    text = f"{recipe_text(recipe)}: ID {scale.text(recipe.id_test.mean)}, "
    text += f"OOD {scale.text(recipe.mean_ood.mean)}"
    if answer.gain is not None and answer.most_lost is not None:
        text += f", against zero-shot {change_text(answer.gain, scale)}"
        text += f", on its worst shift {loss_text(answer.most_lost, scale)}"
    text += f", {duration(recipe.cost_seconds)}"
    console.print(f"[bold green]Recommended[/bold green] {escape(text)}")


def score_text(
    ranking: Ranking, method: RankedMethod, set_name: str, *, spread: bool = False
) -> str:
    """A score such as ``81.5 ±0.7``, with a mark where data or seeds are missing.

    Args:
        ranking: that the method is in.
        method: whose score it is.
        set_name: an evaluation set, or ``MEAN``.
        spread: with the standard deviation over seeds.
    """
    estimate = method.scores.get(set_name)
    if estimate is None:
        return partial_text(method, set_name)
    scale = ranking.scale_on(set_name)
    sd = f" ±{scale.text(estimate.sd)}" if spread and estimate.sd is not None else ""
    return f"{scale.text(estimate.mean)}{sd}{'' if estimate.remark is None else MARK}"


def _calibration(of_ranking: RankingReport, method: RankedMethod) -> str:
    """``5.0→16.9``: the calibration error in distribution, and under shift."""
    found = of_ranking.measures
    known = method.name in found.estimates and method.rank is not None
    return "→".join(found.text(method.name, s, ECE) for s in found.main_sets) if known else NONE


def _cut(letters: str) -> str:
    """Letters of groups, of many only the first."""
    return letters if len(letters) <= MOST_LETTERS else f"{letters[: MOST_LETTERS - 1]}…"


def _table() -> Table:
    from rich.table import Table

    return Table(box=None, collapse_padding=True, pad_edge=False)
