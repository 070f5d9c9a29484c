"""Rankings for spreadsheets and papers: CSV of every number, and LaTeX tables with booktabs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from shiftbench.core.files import written_atomically
from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report.corruptions import shown_shifts
from shiftbench.report.model import ImportedRun, RankingReport, Report
from shiftbench.report.ranking import RankedMethod, Ranking
from shiftbench.report.scale import NONE
from shiftbench.report.scores import MEAN
from shiftbench.report.words import (
    duration,
    metrics_of,
    missing_text,
    partial_text,
    short,
    title_of,
)

HEADER = (
    *("data_kind", "task", "task_digest", "backbone", "shots", "evaluation_images"),
    *("rank", "tied", "method", "label", "origin", "selection", "variants"),
    *("evaluation_set", "shifts", "metric"),
    *("value", "sd", "low", "high", "interval", "n", "seeds", "seed_list", "complete", "remark"),
    *("cost_seconds", "runs", "imported_files", "imported_sha256", "results"),
)
"""Columns of the CSV. Accuracies are in [0, 1]; an empty cell is not known, or means all.

``shifts`` are those that a mean is over, ``n`` is the least where seeds had different numbers of
images (the remark says so), ``seeds`` a count, and ``origin`` what provides the method. The files
that imported runs are from, and their digests, are in the order of the runs. ``results`` are those
that the runs are from, where several are read as one.
"""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "–": "--",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def to_csv(report: Report) -> str:
    """A row for each method of a ranking and evaluation set, and for the mean over shifts.

    Those of headline scores come first, then those of other measures; of a mean over shifts the
    first kind says ``mean``, and the others the metric that the mean is of.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    imports = {imported.run_id: imported for imported in report.imports}
    for of_ranking in report.rankings:
        for method in of_ranking.ranking.methods:
            writer.writerows(_csv_rows(of_ranking, method, imports))
    return text.getvalue()


def to_latex(report: Report) -> str:
    """A table for each ranking, the best of each column that ranks in bold.

    Comments above them name the files of imported predictions.
    """
    parts = ["% Needs \\usepackage{booktabs}."]
    parts += [f"% {' '.join(str(imported).split())}" for imported in report.imports]
    for number, of_ranking in enumerate(report.rankings, start=1):
        parts.append(_latex_table(of_ranking, f"tab:shiftbench-{number}"))
    return "\n\n".join(parts) + "\n"


def escape_latex(text: str) -> str:
    """Text that LaTeX typesets as it is, on one line."""
    return "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    with written_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _csv_rows(
    of_ranking: RankingReport, method: RankedMethod, imports: Mapping[str, ImportedRun]
) -> list[list[object]]:
    ranking, scores = of_ranking.ranking, method.scores
    run_ids = [member.run_id for member in method.members]
    imported = [imports[run_id] for run_id in run_ids if run_id in imports]
    rows: list[list[object]] = []
    headline = (*scores.by_set, *([MEAN] if ranking.shifts else []))
    each = [(s, ranking.metrics.get(s, "mean"), scores.get(s)) for s in headline]
    measured = of_ranking.measures.estimates.get(method.name, {})
    each += [(s, text, estimate) for s, of in measured.items() for text, estimate in of.items()]
    for set_name, metric, estimate in each:
        numbers: list[object] = [None] * 4
        interval, n, seeds, remark = None, None, method.seeds, missing_text(scores.missing)
        if estimate is not None:
            numbers = [estimate.mean, estimate.sd, estimate.low, estimate.high]
            interval, seeds, remark = estimate.interval, estimate.seeds, estimate.remark
            n = min(estimate.n, default=None)
        rows.append(
            [
                *(ranking.data_kind, ranking.task, ranking.task_digest, ranking.backbone),
                *(ranking.shots, ranking.images),
                *(method.rank, of_ranking.ties.letters.get(method.name)),
                *(method.method, method.label, method.origin, method.selection),
                *(" ".join(filter(None, method.variants)), set_name),
                " ".join(ranking.shifts) if set_name == MEAN else None,
                *(metric, *numbers),
                *(interval, n, len(seeds), " ".join(map(str, seeds))),
                *(str(remark is None).lower(), remark),
                *(method.cost_seconds, " ".join(run_ids)),
                *(
                    "; ".join(run.file for run in imported),
                    " ".join(run.sha256 for run in imported),
                    "; ".join(method.results),
                ),
            ]
        )
    return rows


def _latex_table(of_ranking: RankingReport, label: str) -> str:
    ranking = of_ranking.ranking
    several = len(ranking.shifts) > 1
    sets = [s for s in (ID_TEST,) if s in ranking.metrics]
    sets += [*shown_shifts(ranking), MEAN] if several else [MEAN] * len(ranking.shifts)
    heads = [short(s) if several or s != MEAN else short(ranking.shifts[0]) for s in sets]
    header = ["", "method", *heads, "tied", "cost"]
    best = {s: _best(ranking, s) for s in sets}
    body = [
        [
            "" if method.rank is None else str(method.rank),
            escape_latex(method.name),
            *(_latex_cell(ranking, method, set_name, best[set_name]) for set_name in sets),
            escape_latex(of_ranking.ties.letters.get(method.name, NONE)),
            escape_latex(duration(method.cost_seconds)),
        ]
        for method in ranking.methods
    ]
    rows = [" & ".join(row) + r" \\" for row in body]
    headings_row = " & ".join(map(escape_latex, header)) + r" \\"
    unit = ", percent" if ranking.scale_on(MEAN).percent else ""
    caption = (
        f"{title_of(ranking)}. {metrics_of(ranking)}{unit}. Mean over seeds ± standard deviation; "
        "methods that share a letter tie. * incomplete data or seeds."
    )
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{rl{'r' * len(sets)}lr}}",
            r"\toprule",
            headings_row,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _latex_cell(ranking: Ranking, method: RankedMethod, set_name: str, best: float | None) -> str:
    estimate, scale = method.scores.get(set_name), ranking.scale_on(set_name)
    if estimate is None:
        return escape_latex(partial_text(method, set_name))
    text = scale.text(estimate.mean)
    if method.rank is not None and estimate.mean == best:
        text = rf"\textbf{{{text}}}"
    if estimate.sd is not None:
        text += rf" {{\scriptsize $\pm$ {scale.text(estimate.sd)}}}"
    return text + ("*" if estimate.remark else "")


def _best(ranking: Ranking, set_name: str) -> float | None:
    """The best value of a column among methods that rank."""
    estimates = (m.scores.get(set_name) for m in ranking.methods if m.rank is not None)
    values = [estimate.mean for estimate in estimates if estimate is not None]
    return max(values, key=ranking.scale_on(set_name).gain, default=None)
