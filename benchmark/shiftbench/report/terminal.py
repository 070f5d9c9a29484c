"""Rankings for people: tables in a terminal, and Markdown. All values are in percent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from shiftbench.core.files import written_atomically
from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report.curves import setting_of
from shiftbench.report.findings import base_to_new, leaks, movements, searches
from shiftbench.report.ranking import (
    Estimate,
    Failure,
    Line,
    Overall,
    OverallRanking,
    Ranking,
    failures,
    incomplete_data,
    overall,
    rankings,
)
from shiftbench.report.references import golden_faults

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from shiftbench.report.html.data import Board
    from shiftbench.report.tradeoffs import Tradeoff

SHORT = {
    "imagenet-v2": "V2",
    "imagenet-r": "R",
    "imagenet-sketch": "Sketch",
    "objectnet": "ObjNet",
    "imagenet-a": "A",
    "cifar10.1": "10.1",
    "cifar10.2": "10.2",
    "iwildcam-ood": "iWildCam",
    "fmow-ood": "FMoW",
}
SHOWN_SHIFTS = 6  # more do not fit beside each other in a terminal
MARK = "*"  # of a value from incomplete data
NONE = "–"
NOTE = (
    "Percent, headline metric of each set, mean over seeds ± standard deviation. OOD: mean over "
    "all shifts, which ranks. Cost: device time to train and to search, parents included. "
    f"{MARK} incomplete data or seeds. ood-val: settings found on OOD validation data. "
    "Oracle: chosen on the shifts themselves, so it never ranks."
)


def print_report(console: Console, table: pa.Table, boards: Sequence[Board] = ()) -> None:
    """Print the rankings of each task, the one over all tasks, and the runs that failed.

    Args:
        console: where to print.
        table: rows of the leaderboard.
        boards: what else is known of the rankings: which methods tie.
    """
    from rich.markup import escape

    found = rankings(table)
    known = {setting_of(board.ranking): board for board in boards}
    for ranking in found:
        print_ranking(console, ranking, known.get(setting_of(ranking)))
    for across in overall(found):
        print_overall(console, across)
    if found:
        console.print(f"[dim]{escape(NOTE)}[/dim]\n")
    for fault in golden_faults(table):
        console.print(f"[red]golden row[/red] {escape(fault)}", soft_wrap=True)
    for task, reason in leaks(table):
        where = escape(f"{task}: {reason}")
        console.print(f"[yellow]leakage[/yellow] {where}", soft_wrap=True)
    for task, evaluation_set, reason in incomplete_data(table):
        where = escape(f"{task} · {evaluation_set}: {reason}")
        console.print(f"[yellow]incomplete{MARK}[/yellow] {where}", soft_wrap=True)
    failed = failures(table)
    for failure in failed:
        console.print(f"[red]failed[/red] {escape(_failure(failure))}", soft_wrap=True)
    if not found and not failed:
        console.print("No run has finished yet.")


def print_ranking(console: Console, ranking: Ranking, board: Board | None = None) -> None:
    """Print a ranking as a table that fits 100 columns; with a board also which methods tie."""
    from rich.markup import escape

    shifts = _columns(ranking)
    shown = shifts[:SHOWN_SHIFTS]
    letters = _letters(board)
    table = _table()
    tied = ["tied"] if letters else []
    sets = ["ID", *(SHORT.get(s, s) for s in shown)]
    for header in ("#", *tied, "method", "seeds", *sets, "OOD", "cost"):
        is_text = header in ("method", "tied")
        table.add_column(
            escape(header), justify="left" if is_text else "right", no_wrap=header != "method"
        )
    for line in ranking.lines:
        cells = [
            "" if line.rank is None else str(line.rank),
            *([letters.get(name(line)) or NONE] if letters else []),
            name(line),
            str(line.seeds),
            _percent(line.cells.get(ID_TEST), line.seeds, spread=True),
            *(_percent(line.cells.get(shift), line.seeds) for shift in shown),
            _mean_ood(line),
            duration(line.cost_seconds),
        ]
        table.add_row(*map(escape, cells), style="dim" if line.rank is None else None)
    console.print(f"[bold]{escape(title(ranking))}[/bold]")
    console.print(table)
    if len(shifts) > len(shown):
        console.print(f"[dim]{len(shifts) - len(shown)} more shifts are in the Markdown.[/dim]")
    if board is not None and letters:
        console.print(f"[dim]{escape(board.ties.note)}[/dim]")
    console.print(f"[dim]{escape(_metrics(ranking))}[/dim]\n")


def print_overall(console: Console, ranking: OverallRanking) -> None:
    """Print the ranking over tasks."""
    from rich.markup import escape

    table = _table()
    for header in ("#", "method", "ID", "OOD", "cost"):
        table.add_column(header, justify="left" if header == "method" else "right")
    for line in _overall_rows(ranking):
        table.add_row(*map(escape, line))
    console.print(f"[bold]{escape(overall_title(ranking))}[/bold]")
    console.print(table)
    console.print(f"[dim]{escape(_tasks(ranking))}[/dim]\n")


def to_markdown(table: pa.Table, heading: str = "Leaderboard", boards: Sequence[Board] = ()) -> str:
    """The same as Markdown, with all shifts and the intervals of the means.

    Args:
        table: rows of the leaderboard.
        heading: of the whole.
        boards: what else is known of the rankings: which methods tie, and their trade-offs.
    """
    found = rankings(table)
    known = {setting_of(board.ranking): board for board in boards}
    parts = [f"# {_text(heading)}", NOTE.replace(MARK, f"\\{MARK}")]
    for ranking in found:
        shifts = _columns(ranking)
        header = ["#", "method", "selection", "seeds", "ID"]
        header += [*(SHORT.get(shift, shift) for shift in shifts), "OOD", "95 % of OOD", "cost"]
        rows = [_markdown_row(line, shifts) for line in ranking.lines]
        parts += [f"## {_text(title(ranking))}", _text(_metrics(ranking))]
        board = known.get(setting_of(ranking))
        if board is not None:
            header.insert(1, "tied")
            letters = _letters(board)
            for row, line in zip(rows, ranking.lines, strict=True):
                row.insert(1, letters.get(name(line)) or NONE)
            parts += [_text(board.ties.note)]
        parts += [_markdown_table(header, rows, left={"method", "selection", "tied"})]
        if board is not None and board.tradeoffs:
            parts += [TRADEOFFS, _tradeoffs_table(board.tradeoffs)]
    for across in overall(found):
        parts += [f"## {_text(overall_title(across))}", _text(_tasks(across))]
        columns = list(across.lines[0].shifts)
        names = [SHORT.get(shift, shift) for shift in columns]
        header = ["#", "method", "ID", *names, "OOD", "95 % of OOD", "cost"]
        rows = [
            [place, method, id_test]
            + [f"{100 * line.shifts[shift]:.1f}" for shift in columns]
            + [ood, _interval(line), cost]
            for line, (place, method, id_test, ood, cost) in zip(
                across.lines, _overall_rows(across), strict=True
            )
        ]
        parts += [_markdown_table(header, rows, left={"method"})]
    parts += _findings(table, found)
    if faults := golden_faults(table):
        parts += ["## Golden rows", "\n".join(f"- {_text(fault)}" for fault in faults)]
    incomplete = [f"- {_text(' · '.join(gap))}" for gap in incomplete_data(table)]
    if incomplete:
        parts += ["## Incomplete data", "\n".join(incomplete)]
    failed = failures(table)
    if failed:
        parts += ["## Failed runs", "\n".join(f"- {_text(_failure(f))}" for f in failed)]
    if not found and not failed:
        parts.append("No run has finished yet.")
    return "\n\n".join(parts) + "\n"


def _findings(table: pa.Table, found: Sequence[Ranking]) -> list[str]:
    """Base-to-new averages, searches, distances and leaks, as far as there are any."""
    parts: list[str] = []
    if splits := base_to_new(found):
        header = ["backbone", "shots", "method", "base", "new", "harmonic mean"]
        rows = [
            [
                split.backbone,
                _shots(split.shots),
                split.label if split.selection == "fixed" else f"{split.label} · {split.selection}",
                *(f"{100 * value:.1f}" for value in (split.base, split.new, split.harmonic_mean)),
            ]
            for split in splits
        ]
        text = "Averages over the tasks that are split by classes, and their harmonic mean."
        parts += ["## Base to new classes", text]
        parts += [_markdown_table(header, rows, left={"backbone", "method"})]
    if lines := searches(table):
        header = ["task", "backbone", "shots", "method", "tried", "steps", "cost", "found"]
        rows = [
            [
                line.task,
                line.backbone,
                _shots(line.shots),
                line.label,
                str(line.n_trials),
                f"{line.steps:,}",
                duration(line.seconds),
                ", ".join(f"{key} {_short(value)}" for key, value in line.values.items()),
            ]
            for line in lines
        ]
        text = "Settings that were found on OOD validation data; the cost is in that of their runs."
        parts += ["## Searches", text]
        parts += [_markdown_table(header, rows, left={"task", "backbone", "method", "found"})]
    if moved := movements(table):
        header = ["task", "backbone", "shots", "method", "‖θ - θ0‖", "trained", "most of it in"]
        rows = [
            [
                line.task,
                line.backbone,
                _shots(line.shots),
                line.label,
                f"{line.distance:.3g}",
                NONE if line.selected is None else f"{line.selected:,} of {line.candidates:,}",
                ", ".join(f"{layer} {100 * share:.0f} %" for layer, share in line.layers) or NONE,
            ]
            for line in moved
        ]
        text = (
            "Distance from the pretrained weights, and for masks the layers that have most of it."
        )
        parts += ["## How far the weights went", text]
        parts += [_markdown_table(header, rows, left={"task", "backbone", "method"})]
    if seen := leaks(table):
        parts += ["## Test images that methods saw"]
        parts += ["\n".join(f"- {_text(' · '.join(leak))}" for leak in seen)]
    return parts


def write_markdown(
    path: Path, table: pa.Table, heading: str = "Leaderboard", boards: Sequence[Board] = ()
) -> None:
    """Write ``to_markdown`` so that the file appears whole or not at all."""
    with written_atomically(path) as temporary:
        temporary.write_text(to_markdown(table, heading, boards), encoding="utf-8")


def tradeoff_cells(tradeoff: Tradeoff, shifts: Sequence[str]) -> list[str]:
    """A line of the table of trade-offs, after its method's name.

    Args:
        tradeoff: of the line.
        shifts: that effective robustness is shown for.
    """
    area = NONE if tradeoff.area is None else f"{1e4 * tradeoff.area:.1f}"
    per_hour = tradeoff.gain_per_hour
    return [
        ", ".join(tradeoff.frontier) or NONE,
        area,
        NONE if tradeoff.gain is None else _points(tradeoff.gain),
        NONE if per_hour is None else f"{100 * per_hour:+,.0f}",
        *(_points(tradeoff.rho[shift]) if shift in tradeoff.rho else NONE for shift in shifts),
    ]


def tradeoff_header(found: Sequence[Tradeoff]) -> tuple[list[str], list[str]]:
    """The header of the table of trade-offs, and the shifts that have effective robustness."""
    shifts = list(dict.fromkeys(shift for tradeoff in found for shift in tradeoff.rho))
    header = ["method", "on the frontier", "area", "gain", "gain per hour"]
    return header + [f"ρ {SHORT.get(shift, shift)}" for shift in shifts], shifts


def _letters(board: Board | None) -> dict[str, str]:
    """The groups that each line of a ranking ties in, by name; empty when they are not known."""
    lines = () if board is None else board.lines
    return {line.name: line.letters for line in lines if line.letters is not None}


def _tradeoffs_table(found: Sequence[Tradeoff]) -> str:
    header, shifts = tradeoff_header(found)
    rows = [[name(tradeoff.line), *tradeoff_cells(tradeoff, shifts)] for tradeoff in found]
    return _markdown_table(header, rows, left={"method", "on the frontier"})


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def title(ranking: Ranking) -> str:
    """What a ranking is of."""
    return f"{ranking.task} · {_setting(ranking)}"


def overall_title(ranking: OverallRanking) -> str:
    """What a ranking over tasks is of."""
    return f"mean over {len(ranking.tasks)} tasks · {_setting(ranking)}"


def name(line: Line | Overall) -> str:
    """A method, with its selection where that is not the configured variant."""
    return line.label if line.selection == "fixed" else f"{line.label} · {line.selection}"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds is None:
        return NONE
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _setting(ranking: Ranking | OverallRanking) -> str:
    shots = "all training data" if ranking.shots is None else f"{ranking.shots} shots"
    data_kind = "" if ranking.data_kind == "real" else f" · {ranking.data_kind} data"
    images = "" if ranking.images is None else f" · at most {ranking.images} images a set"
    return f"{ranking.backbone} · {shots}{data_kind}{images}"


def _shots(shots: int | None) -> str:
    return "all" if shots is None else str(shots)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _columns(ranking: Ranking) -> tuple[str, ...]:
    """The shifts to show: a single one is the mean already."""
    return ranking.shifts if len(ranking.shifts) > 1 else ()


def _metrics(ranking: Ranking) -> str:
    by_metric: dict[str, list[str]] = {}
    for evaluation_set in (ID_TEST, *ranking.shifts):
        if evaluation_set in ranking.metrics:
            by_metric.setdefault(ranking.metrics[evaluation_set], []).append(evaluation_set)
    return "; ".join(f"{metric}: {', '.join(sets)}" for metric, sets in by_metric.items())


def _tasks(ranking: OverallRanking) -> str:
    tasks = ", ".join(ranking.tasks)
    return f"Methods that rank in all of {tasks}; each task's own metrics count alike."


def _percent(estimate: Estimate | None, seeds: int, *, spread: bool = False) -> str:
    if estimate is None:
        return NONE
    sd = f" ±{100 * estimate.sd:.1f}" if spread and estimate.sd is not None else ""
    partial = not estimate.complete or estimate.seeds < seeds
    return f"{100 * estimate.mean:.1f}{sd}{MARK if partial else ''}"


def _mean_ood(line: Line) -> str:
    if line.missing:
        return "partial"
    return _percent(line.mean_ood, line.seeds, spread=True)


def _interval(estimate: Estimate | Overall | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return NONE
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def _failure(failure: Failure) -> str:
    shots = "" if failure.shots is None else f" · {failure.shots} shots"
    run = f"{failure.task} · {failure.backbone} · {failure.label}{shots} · seed {failure.seed}"
    return f"{run} ({failure.run_id}): {failure.error}"


def _overall_rows(ranking: OverallRanking) -> list[list[str]]:
    return [
        [
            str(line.rank),
            name(line),
            f"{100 * line.id_test:.1f}",
            f"{100 * line.mean_ood:.1f}",
            duration(line.cost_seconds),
        ]
        for line in ranking.lines
    ]


def _table() -> Table:
    from rich.table import Table

    return Table(box=None, collapse_padding=True, pad_edge=False)


def _markdown_row(line: Line, shifts: Sequence[str]) -> list[str]:
    return [
        "" if line.rank is None else str(line.rank),
        line.label,
        " ".join([line.selection, *filter(None, line.variants)]),
        str(line.seeds),
        *(
            _percent(line.cells.get(set_name), line.seeds, spread=True)
            for set_name in (ID_TEST, *shifts)
        ),
        _mean_ood(line),
        _interval(line.mean_ood),
        duration(line.cost_seconds),
    ]


TRADEOFFS = (
    "Frontier: no other method's selected variant or point of a curve has both a higher ID "
    "accuracy and a higher mean OOD (numbers are alphas). Area: what the method's curve dominates "
    "beyond zero-shot, in points². Gain: mean OOD over zero-shot in points, and per hour of device "
    "time, searches included. ρ: effective robustness in points, accuracy above that of standard "
    "ImageNet models of the same ID accuracy (arXiv 2007.00644)."
)


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: set[str]) -> str:
    rule = [":--" if column in left else "--:" for column in header]
    cells = [[_text(cell) for cell in row] for row in (header, *rows)]
    lines = [cells[0], rule, *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """Text that Markdown shows as it is, also inside a table, on one line."""
    escaped = "".join(f"\\{c}" if c in "\\`*_|[]~" else c for c in text)
    return " ".join(escaped.replace("&", "&amp;").replace("<", "&lt;").split())
