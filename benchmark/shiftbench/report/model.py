"""The report's model: everything that a report shows, built once and printed in many forms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.leaderboard.golden import golden_faults
from shiftbench.leaderboard.merging import Folders
from shiftbench.leaderboard.published.reading import read_published
from shiftbench.leaderboard.published.settings import read_stated
from shiftbench.leaderboard.schema import (
    REAL,
    FailedRun,
    Row,
    RunInfo,
    failures,
    rows,
)
from shiftbench.report.answer import Answer, answer, answer_over_tasks, eligible_variants
from shiftbench.report.cloud import (
    BaselinePoint,
    CloudPoint,
    applicable,
    axes,
    baseline_points,
    cloud,
    shipped_baselines,
)
from shiftbench.report.corruptions import Corruptions, corruptions
from shiftbench.report.curves import CurvePoint, curve_points
from shiftbench.report.forgetting import Forgetting, forgetting
from shiftbench.report.measures import Measures
from shiftbench.report.movements import LayerShare, Movement, layer_shares, movements
from shiftbench.report.over_tasks import BaseToNew, OverallRanking, base_to_new, overall
from shiftbench.report.predicted import Compared, compared
from shiftbench.report.ranking import Ranking, rank
from shiftbench.report.references import Comparison, compare
from shiftbench.report.regret import Rule, rules
from shiftbench.report.reproduce import UNKNOWN, Find, Reproduction, reproductions
from shiftbench.report.runs import Runs, imported_file, provenance
from shiftbench.report.searches import SearchReport, searches
from shiftbench.report.ties import Ties
from shiftbench.report.tradeoffs import Tradeoff, tradeoffs
from shiftbench.report.trainings import Trainings, trainings

if TYPE_CHECKING:
    from shiftbench.evaluation.robustness import Baseline


@dataclass(frozen=True)
class RankingReport:
    """A ranking with all that belongs to it.

    Attributes:
        ranking: methods with their scores.
        answer: which of them to take.
        ties: which of its ranked methods tie.
        curves: points of every curve, in the order of alpha.
        axes: the set that gives the ID accuracy for the published cloud, for those shifts that it
            can be drawn for.
        tradeoffs: of its ranked methods, in their order.
        measures: calibration and selective classification of its ranked methods.
        forgetting: its methods on other tasks' test sets.
        corruptions: its methods under corruptions.
        rules: every way to choose a method and a variant, with what it loses.
    """

    ranking: Ranking
    answer: Answer
    ties: Ties
    curves: tuple[CurvePoint, ...]
    axes: Mapping[str, str]
    tradeoffs: tuple[Tradeoff, ...]
    measures: Measures
    forgetting: Forgetting
    corruptions: Corruptions
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class OverallReport:
    """A ranking over tasks, and which of its methods to take."""

    ranking: OverallRanking
    answer: Answer


@dataclass(frozen=True)
class RunReport:
    """A run, what computed it, and how to do it again."""

    run_id: str
    status: str
    task: str
    backbone: str
    shots: int | None
    label: str
    seed: int
    suite: str
    finished: str
    provenance: str
    results: tuple[str, ...]
    reproduction: Reproduction


@dataclass(frozen=True)
class ImportedRun:
    """A run whose predictions were made elsewhere.

    Attributes:
        run_id: of the run.
        name: task, label and seed, for people.
        source: the file, for people.
        file: its name.
        sha256: its digest.
    """

    run_id: str
    name: str
    source: str
    file: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}: {self.source}"


@dataclass(frozen=True)
class Report:
    """All that a report shows.

    Attributes:
        title: of the whole.
        rankings: one for each task × backbone × shots.
        overall: rankings over tasks.
        base_to_new: averages over tasks that are split by classes.
        movements: distances from the pretrained weights.
        layer_shares: which layers masks are in.
        searches: with their trials.
        trainings: the curves of the runs that trained, where they were asked for.
        cloud: published models; only where some ranking is of the real ImageNet.
        baselines: lines that standard models lie on.
        comparisons: with published values.
        golden_faults: zero-shot rows that are not as published, or why they are not checked.
        published_note: why there is no comparison; ``None`` when there is one.
        trend_note: why published results give no baselines; ``None`` where they do, or none is
            needed.
        failures: runs that failed, one that has several labels under each.
        incomplete: task, evaluation set and what is missing from it.
        data_remarks: task, evaluation set and what else to know of its data or labels.
        imports: what was not computed here.
        leaks: task, test images that methods saw.
        runs: every run, and how to do it again.
        updated: when the last run finished, for people; ``None`` when none has.
        sources: names of the results that are read as one; none where there is only one.
    """

    title: str
    rankings: tuple[RankingReport, ...]
    overall: tuple[OverallReport, ...]
    base_to_new: tuple[BaseToNew, ...]
    movements: tuple[Movement, ...]
    layer_shares: tuple[LayerShare, ...]
    searches: tuple[SearchReport, ...]
    trainings: Trainings
    cloud: tuple[CloudPoint, ...]
    baselines: tuple[BaselinePoint, ...]
    comparisons: tuple[Comparison, ...]
    golden_faults: tuple[str, ...]
    published_note: str | None
    trend_note: str | None
    failures: tuple[FailedRun, ...]
    incomplete: tuple[tuple[str, str, str], ...]
    data_remarks: tuple[tuple[str, str, str], ...]
    imports: tuple[ImportedRun, ...]
    leaks: tuple[tuple[str, str], ...]
    runs: tuple[RunReport, ...]
    updated: str | None
    sources: tuple[str, ...] = ()


def build(
    table: pa.Table,
    results: Path | Folders | None = None,
    *,
    title: str = "Leaderboard",
    published: pa.Table | None = None,
    find: Find | None = None,
    curves: bool = False,
) -> Report:
    """Build the model of a report.

    Args:
        table: rows of the leaderboard; all their ancestors should be among them.
        results: folder with the runs' predictions and the searches' trials, or several; ``None``
            without.
        title: of the whole.
        published: of ``read_published``; by default the shipped results, where a run is of real
            data.
        find: the file of a suite by its name, for commands that do runs again; ``None`` leaves
            them out, since planning every suite takes a while.
        curves: whether to read the curves of trainings, which only the page shows; each is a file.
    """
    headline = rows(table.filter(table["primary"]))
    failed = failures(table)
    missing: str | None = None
    if published is None and any(row.data_kind == REAL for row in headline):
        published, missing = _shipped()
    folders = Folders.of(results)
    rankings = [_with_results(ranking, folders) for ranking in rank(headline)]
    baselines, trend_note = shipped_baselines(rankings, published)
    first: dict[str, Row] = {}
    for row in headline:
        first.setdefault(row.run_id, row)
    once = {run.run_id: run for run in reversed(failed)}
    everything: list[RunInfo] = [*first.values(), *reversed(once.values())]
    runs = Runs(first.values())
    of_rankings = tuple(
        _ranking_report(found, applicable(found.ranking, baselines), runs)
        for found in compared(rankings, folders)
    )
    answers = [(of.ranking, of.answer) for of in of_rankings]
    finished = max((run.finished for run in everything), default=None)
    return Report(
        title=title,
        rankings=of_rankings,
        overall=tuple(
            OverallReport(across, answer_over_tasks(across, answers, runs))
            for across in overall(rankings)
        ),
        base_to_new=tuple(base_to_new(rankings)),
        movements=tuple(movements(first.values())),
        layer_shares=tuple(layer_shares(first.values())),
        searches=tuple(searches(first.values(), folders)),
        trainings=trainings(everything, folders) if curves else Trainings(),
        cloud=cloud(published) if published is not None and baselines else (),
        baselines=tuple(p for shift, of in baselines.items() for p in baseline_points(shift, of)),
        comparisons=()
        if published is None
        else tuple(compare(rankings, published, runs, read_stated())),
        golden_faults=_golden_faults(headline, published, missing),
        published_note=_published_note(everything, missing),
        trend_note=trend_note,
        failures=tuple(failed),
        incomplete=incomplete_sets(headline),
        data_remarks=data_remarks(headline),
        imports=_imports(everything),
        leaks=tuple(sorted({(run.task, run.leakage) for run in everything if run.leakage})),
        runs=_run_reports(
            everything, {} if find is None else reproductions(everything, find), folders
        ),
        updated=None if finished is None else f"{finished:%Y-%m-%d %H:%M} UTC",
        sources=tuple(dict.fromkeys(chain.from_iterable(folders.origins.values()))),
    )


def incomplete_sets(headline: Iterable[Row]) -> tuple[tuple[str, str, str], ...]:
    """Task, evaluation set and what is missing from it, each once."""
    gaps = {
        (row.task, row.evaluation_set, row.incomplete_reason)
        for row in headline
        if row.incomplete_reason is not None
    }
    return tuple(sorted(gaps))


def data_remarks(headline: Iterable[Row]) -> tuple[tuple[str, str, str], ...]:
    """Task, evaluation set and a remark: files that were not read, labels that nobody checked."""
    of_files: set[tuple[str, str, str]] = set()
    of_labels: set[tuple[str, str, str]] = set()
    for row in headline:
        if row.data_remark is not None:
            of_files.add((row.task, row.evaluation_set, row.data_remark))
        if row.unchecked is not None:
            run = f"{row.label}, seed {row.seed} ({row.run_id})"
            of_labels.add((row.task, row.evaluation_set, f"{row.unchecked} of {run}"))
    return (*sorted(of_files), *sorted(of_labels))


def _shipped() -> tuple[pa.Table | None, str | None]:
    """The published results, or why they are not there."""
    try:
        return read_published(), None
    except InputError as error:
        return None, str(error)


def _golden_faults(
    headline: Sequence[Row], published: pa.Table | None, missing: str | None
) -> tuple[str, ...]:
    if missing is not None:
        return (f"not checked, and neither ρ nor comparisons are shown: {missing}",)
    return () if published is None else tuple(golden_faults(headline, published))


def _imports(runs: Iterable[RunInfo]) -> tuple[ImportedRun, ...]:
    """Imported runs, by name."""
    found = []
    for run in runs:
        if (named := imported_file(run)) is not None:
            name = f"{run.task} · {run.label}, seed {run.seed}"
            found.append(ImportedRun(run.run_id, name, provenance(run), *named))
    return tuple(sorted(found, key=str))


def _with_results(ranking: Ranking, folders: Folders) -> Ranking:
    """The ranking with the names of the results that its methods' runs are from."""
    if not folders.origins:
        return ranking
    methods = (
        replace(
            method,
            results=tuple(
                dict.fromkeys(
                    chain.from_iterable(folders.origins[m.run_id] for m in method.members)
                )
            ),
        )
        for method in ranking.methods
    )
    return replace(ranking, methods=tuple(methods))


def _ranking_report(found: Compared, baseline: Mapping[str, Baseline], runs: Runs) -> RankingReport:
    ranking = found.ranking
    points = curve_points(ranking)
    answered = answer(ranking, found.ties, runs)
    recipe = None if answered.recipe is None else answered.recipe.name
    return RankingReport(
        ranking=ranking,
        answer=answered,
        ties=found.ties,
        curves=points,
        axes=axes(ranking),
        tradeoffs=tuple(tradeoffs(ranking, points, baseline)),
        measures=found.measures,
        forgetting=forgetting(ranking, runs),
        corruptions=corruptions(ranking),
        rules=tuple(rules(ranking, eligible_variants(ranking, runs), recipe)),
    )


def _published_note(runs: Sequence[RunInfo], missing: str | None) -> str | None:
    if not any(run.data_kind == REAL for run in runs):
        return "Published values are of real data, and no run here is."
    return missing


def _run_reports(
    runs: Iterable[RunInfo], known: Mapping[str, Reproduction], folders: Folders
) -> tuple[RunReport, ...]:
    def place(run: RunInfo) -> tuple[object, ...]:
        return run.task, run.backbone, run.shots is None, run.shots or 0, run.label, run.seed

    return tuple(
        RunReport(
            run_id=run.run_id,
            status="failed" if isinstance(run, FailedRun) else "done",
            task=run.task,
            backbone=run.backbone,
            shots=run.shots,
            label=run.label,
            seed=run.seed,
            suite=run.suite,
            finished=f"{run.finished:%Y-%m-%d %H:%M}",
            provenance=provenance(run),
            results=folders.origins.get(run.run_id, ()),
            reproduction=known.get(run.run_id, UNKNOWN),
        )
        for run in sorted(runs, key=place)
    )
