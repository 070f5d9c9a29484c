"""A report as Markdown, with all shifts and the intervals of the means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from shiftbench.core.files import written_atomically
from shiftbench.data.tasks.definition import ID_TEST, OUTLIERS
from shiftbench.report import corruptions, detection, forgetting, measures, regret
from shiftbench.report.answer import RULE
from shiftbench.report.answer_words import (
    ANSWER_HEADER,
    answer_cells,
    answers,
    change_text,
    reasons,
    with_interval,
)
from shiftbench.report.forgetting import Forgetting
from shiftbench.report.model import RankingReport, Report
from shiftbench.report.movements import Movement
from shiftbench.report.over_tasks import BaseToNew, OverallRanking
from shiftbench.report.ranking import RankedMethod
from shiftbench.report.scale import ACCURACY, NONE
from shiftbench.report.scores import MEAN
from shiftbench.report.searches import SearchReport
from shiftbench.report.terminal import score_text
from shiftbench.report.tradeoffs import Tradeoff
from shiftbench.report.words import (
    MARK,
    NOTE,
    OTHERS,
    RESULTS,
    TRADEOFFS,
    duration,
    failure_text,
    metrics_of,
    several_shifts,
    short,
    shots_text,
    tasks_of,
    title_of,
    tradeoff_cells,
    tradeoff_header,
)


def to_markdown(report: Report) -> str:
    """The whole report, except the charts."""
    parts = [f"# {escaped(report.title)}", NOTE.replace(MARK, f"\\{MARK}")]
    if report.rankings:
        parts += _answers(report)
    for of_ranking in report.rankings:
        parts += _ranking(of_ranking)
    for across in report.overall:
        parts += _overall(across.ranking)
    if report.base_to_new:
        parts += _base_to_new(report.base_to_new)
    if report.searches:
        parts += _searches(report.searches)
    if report.movements:
        parts += _movements(report.movements)
    if report.imports:
        parts += ["## Not from here", _list(map(str, report.imports))]
    if report.leaks:
        parts += ["## Test images that methods saw", _list(map(" · ".join, report.leaks))]
    if report.golden_faults:
        parts += ["## Golden rows", _list(report.golden_faults)]
    if report.trend_note:
        parts += ["## Effective robustness", f"No ρ: {escaped(report.trend_note)}."]
    if report.incomplete:
        parts += ["## Incomplete data", _list(map(" · ".join, report.incomplete))]
    if report.data_remarks:
        parts += ["## Remarks on data and labels", _list(map(" · ".join, report.data_remarks))]
    if report.failures:
        parts += ["## Failed runs", _list(map(failure_text, report.failures))]
    if not report.rankings and not report.failures:
        parts.append("No run has finished yet.")
    return "\n\n".join(parts) + "\n"


def write_markdown(path: Path, report: Report) -> None:
    """Write ``to_markdown`` so that the file appears whole or not at all."""
    with written_atomically(path) as temporary:
        temporary.write_text(to_markdown(report), encoding="utf-8")


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, also inside a table, on one line."""
    plain = "".join(f"\\{c}" if c in "\\`*_|[]~" else c for c in text)
    return " ".join(plain.replace("&", "&amp;").replace("<", "&lt;").split())


def _answers(report: Report) -> list[str]:
    found = answers(report)
    rows = [[title, *answer_cells(answer)] for title, answer in found]
    why = [f"{title}: {' '.join(reasons(answer))}" for title, answer in found]
    table = table_of(["", *ANSWER_HEADER], rows, left={"", "recipe"})
    return ["## Which recipe", RULE, table, _list(why)]


def _ranking(of_ranking: RankingReport) -> list[str]:
    ranking, ties = of_ranking.ranking, of_ranking.ties
    shifts = several_shifts(ranking)
    origin = any(method.results for method in ranking.methods)
    header = ["#", "tied", "method", *([RESULTS] if origin else []), "selection", "seeds", "ID"]
    gaps = of_ranking.measures.main_sets
    header += [*map(short, shifts), "OOD", "95 % of OOD"]
    header += [*(f"ECE {short(name)}" for name in gaps)]
    header += [*([OTHERS] if of_ranking.forgetting else []), "cost"]
    rows = [_row(of_ranking, method, shifts, gaps, origin=origin) for method in ranking.methods]
    parts = [f"## {escaped(title_of(ranking))}", escaped(metrics_of(ranking)), escaped(ties.note)]
    parts += [table_of(header, rows, left={"method", "selection", "tied", RESULTS})]
    if of_ranking.tradeoffs:
        parts += [TRADEOFFS, _tradeoffs(of_ranking.tradeoffs)]
    if of_ranking.measures:
        parts += [measures.NOTE, _measures(of_ranking)]
    if sets := of_ranking.measures.outliers:
        parts += [detection.NOTE, _detection(of_ranking, sets)]
    if of_ranking.rules:
        parts += [regret.NOTE, _rules(of_ranking.rules)]
    if found := of_ranking.corruptions:
        rows = [[name, *corruptions.cells(found, name)] for name in found.methods]
        parts += [
            found.note,
            table_of(["method", *corruptions.header(found)], rows, left={"method"}),
        ]
    if of_ranking.forgetting:
        parts += [forgetting.NOTE, _forgetting(of_ranking.forgetting)]
    return parts


def _row(
    of_ranking: RankingReport,
    method: RankedMethod,
    shifts: Sequence[str],
    gaps: Sequence[str],
    *,
    origin: bool,
) -> list[str]:
    ranking, mean = of_ranking.ranking, method.scores.get(MEAN)
    interval = "" if mean is None else ranking.scale_on(MEAN).interval(mean.low, mean.high)
    return [
        "" if method.rank is None else str(method.rank),
        of_ranking.ties.letters.get(method.name, NONE),
        method.label,
        *([", ".join(method.results)] if origin else []),
        " ".join([method.selection, *filter(None, method.variants)]),
        str(len(method.seeds)),
        *(score_text(ranking, method, name, spread=True) for name in (ID_TEST, *shifts, MEAN)),
        interval or NONE,
        *(of_ranking.measures.text(method.name, name, measures.ECE) for name in gaps),
        *([others.change_text(method.name)] if (others := of_ranking.forgetting) else []),
        duration(method.cost_seconds),
    ]


def _measures(of_ranking: RankingReport) -> str:
    found = of_ranking.measures
    header = ["method", *measures.header(found.main_sets)]
    rows = [
        [method.name, *measures.cells(found, method.name, found.main_sets)]
        for method in of_ranking.ranking.methods
        if method.name in found.estimates
    ]
    return table_of(header, rows, left={"method"})


def _detection(of_ranking: RankingReport, sets: Sequence[str]) -> str:
    rows = [
        [
            method,
            name.removeprefix(OUTLIERS),
            *(
                ACCURACY.text(None if one is None else one.mean)
                for one in (of_sets.get(name, {}).get(text) for text in detection.HEADINGS)
            ),
        ]
        for name in sets
        for method, of_sets in of_ranking.measures.estimates.items()
    ]
    header = ["method", "against", *detection.HEADINGS.values()]
    return table_of(header, rows, left={"method", "against"})


def _rules(found: Sequence[regret.Rule]) -> str:
    header = ["rule", "takes", "OOD", "worst shift", "regret"]
    rows = [
        [
            rule.name,
            rule.takes,
            NONE if rule.mean_ood is None else with_interval(rule.mean_ood, ACCURACY),
            NONE
            if rule.worst is None
            else f"{short(rule.worst[0])} {with_interval(rule.worst[1], ACCURACY)}",
            change_text(rule.regret, ACCURACY),
        ]
        for rule in found
    ]
    return table_of(header, rows, left={"rule", "takes"})


def _forgetting(found: Forgetting) -> str:
    text = ACCURACY.text
    header = ["method", "classes named by", *found.tasks, "mean", "change"]
    rows = [
        [
            of.name,
            of.named_by or NONE,
            *(text(of.scores[task].mean) for task in found.tasks),
            text(of.mean.mean),
            change_text(of.change, ACCURACY),
        ]
        for of in found.methods.values()
    ]
    return table_of(header, rows, left={"method", "classes named by"})


def _tradeoffs(found: Sequence[Tradeoff]) -> str:
    header, shifts = tradeoff_header(found)
    rows = [[tradeoff.method.name, *tradeoff_cells(tradeoff, shifts)] for tradeoff in found]
    return table_of(header, rows, left={"method", "on the frontier"})


def _overall(ranking: OverallRanking) -> list[str]:
    text = ranking.scale.text
    shifts = list(ranking.methods[0].shifts)
    header = ["#", "method", "ID", *map(short, shifts), "OOD", "95 % of OOD", "cost"]
    rows = [
        [
            str(method.rank),
            method.name,
            text(method.id_test.mean),
            *(text(method.shifts[shift].mean) for shift in shifts),
            text(method.mean_ood.mean),
            ranking.scale.interval(method.mean_ood.low, method.mean_ood.high) or NONE,
            duration(method.cost_seconds),
        ]
        for method in ranking.methods
    ]
    return [
        f"## {escaped(title_of(ranking))}",
        escaped(tasks_of(ranking)),
        table_of(header, rows, left={"method"}),
    ]


def _base_to_new(found: Sequence[BaseToNew]) -> list[str]:
    header = ["backbone", "shots", "method", "base", "new", "harmonic mean"]
    rows = [
        [
            split.backbone,
            shots_text(split.shots),
            split.name,
            *(
                with_interval(estimate, ACCURACY)
                for estimate in (split.base, split.new, split.harmonic_mean)
            ),
        ]
        for split in found
    ]
    text = "Averages over the tasks that are split by classes, and their harmonic mean."
    return ["## Base to new classes", text, table_of(header, rows, left={"backbone", "method"})]


def _searches(found: Sequence[SearchReport]) -> list[str]:
    header = ["task", "backbone", "shots", "method", "tried", "steps", "cost", "found"]
    rows = [
        [
            search.task,
            search.backbone,
            shots_text(search.shots),
            search.label,
            str(search.n_trials),
            f"{search.steps:,}",
            duration(search.seconds),
            ", ".join(f"{name} {_setting(value)}" for name, value in search.values.items()),
        ]
        for search in found
    ]
    text = "Settings that were found on OOD validation data; the cost is in that of their runs."
    left = {"task", "backbone", "method", "found"}
    return ["## Searches", text, table_of(header, rows, left)]


def _movements(found: Sequence[Movement]) -> list[str]:
    header = ["task", "backbone", "shots", "method", "‖θ - θ0‖", "trained", "most of it in"]
    rows = [
        [
            moved.task,
            moved.backbone,
            shots_text(moved.shots),
            moved.label,
            f"{moved.distance:.3g}",
            NONE if moved.selected is None else f"{moved.selected:,} of {moved.candidates:,}",
            ", ".join(f"{layer} {100 * share:.0f} %" for layer, share in moved.layers) or NONE,
        ]
        for moved in found
    ]
    text = "Distance from the pretrained weights, and for masks the layers that have most of it."
    left = {"task", "backbone", "method"}
    return ["## How far the weights went", text, table_of(header, rows, left)]


def _setting(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)


def table_of(header: Sequence[str], rows: Iterable[Sequence[str]], left: set[str]) -> str:
    """A table, its numbers to the right; ``left`` are the headings of columns of text."""
    rule = [":--" if column in left else "--:" for column in header]
    cells = [[escaped(cell) for cell in row] for row in (header, *rows)]
    lines = [cells[0], rule, *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
