"""What the page shows, as plain values: rankings with their ties, curves, searches, gaps."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report.curves import MEAN, Point, curves, setting_of, with_column
from shiftbench.report.findings import (
    BaseToNew,
    Movement,
    SearchLine,
    base_to_new,
    layer_of,
    leaks,
    movements,
    searches,
)
from shiftbench.report.html.recipes import Find, Recipe, recipes
from shiftbench.report.html.ties import Contestant, Ties, ties
from shiftbench.report.ranking import (
    Estimate,
    Failure,
    Line,
    OverallRanking,
    Ranking,
    failures,
    incomplete_data,
    of_runs,
    overall,
    rankings,
)
from shiftbench.report.references import Comparison, compare, golden_faults
from shiftbench.report.terminal import name
from shiftbench.report.tradeoffs import Tradeoff, applicable, shipped_baselines, tradeoffs

if TYPE_CHECKING:
    from shiftbench.evaluation.robustness import Baseline

Row = Mapping[str, Any]
REAL, IMAGENET = "real", "imagenet"
_MARK = "\x1f"  # in no name of a variant
GRID = 40  # points of a baseline


@dataclass(frozen=True)
class Cell:
    """A number of the table, with all that is known of it.

    Attributes:
        estimate: mean over seeds; ``None`` where there is none.
        interval: which kind its interval is of.
        n: images that it is over, such as ``10,000``; several where seeds had different ones.
        seeds: those averaged.
        remark: why it is not the whole truth; ``None`` when it is.
    """

    estimate: Estimate | None
    interval: str | None
    n: str
    seeds: tuple[int, ...]
    remark: str | None = None


@dataclass(frozen=True)
class BoardLine:
    """A line of a ranking.

    Attributes:
        line: what the ranking says.
        name: its label with its selection, unique in the ranking.
        letters: groups that it ties in; ``None`` when not known.
        cells: by evaluation set, and ``MEAN``.
        runs: ids of its runs, by seed.
        provenance: what computed it, one text for each kind.
    """

    line: Line
    name: str
    letters: str | None
    cells: Mapping[str, Cell]
    runs: tuple[str, ...]
    provenance: tuple[str, ...]

    def estimate(self, set_name: str) -> Estimate | None:
        """Its number on a set, if it has one."""
        return self.cells[set_name].estimate if set_name in self.cells else None


@dataclass(frozen=True)
class Board:
    """A ranking with all that belongs to it.

    Attributes:
        ranking: as the Markdown has it.
        lines: in its order.
        ties: which of its ranked lines tie.
        curves: points of every curve, in the order of alpha.
        axes: the set that gives the ID accuracy for the published cloud, for those shifts that it
            can be drawn for.
        tradeoffs: of its ranked lines, in their order.
    """

    ranking: Ranking
    lines: tuple[BoardLine, ...]
    ties: Ties
    curves: tuple[Point, ...]
    axes: Mapping[str, str]
    tradeoffs: tuple[Tradeoff, ...]


@dataclass(frozen=True)
class CloudPoint:
    """A published model on one shift, accuracies in (0, 1)."""

    shift: str
    model: str
    standard: bool
    id_accuracy: float
    ood_accuracy: float


@dataclass(frozen=True)
class BaselinePoint:
    """A point of the line that standard models lie on, with its 95 % band, in (0, 1)."""

    shift: str
    id_accuracy: float
    ood_accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Share:
    """How much of a mask is in a layer.

    Attributes:
        task: its name.
        backbone: its name.
        shots: training images per class; ``None`` for all.
        label: what the suite calls the method.
        layer: of ``findings.layer_of``.
        share: of all that was selected, mean over seeds.
        density: of the layer's own scalars, mean over seeds.
    """

    task: str
    backbone: str
    shots: int | None
    label: str
    layer: str
    share: float
    density: float


@dataclass(frozen=True)
class Trial:
    """A trial of a search.

    Attributes:
        study: ``search``, or ``finalists`` for those that repeat the best.
        number: from 0, in its study.
        state: ``complete``, ``stopped`` or ``failed``.
        score: at its last rung; ``None`` if it reached none.
        steps: optimizer steps that it trained.
        values: the settings that it tried.
        error: why it failed.
    """

    study: str
    number: int
    state: str
    score: float | None
    steps: int
    values: Mapping[str, Any]
    error: str


@dataclass(frozen=True)
class Rung:
    """A rung of a search: trials that reached it, and those that were stopped there."""

    steps: int
    reached: int
    stopped: int


@dataclass(frozen=True)
class SearchHistory:
    """A search with its trials.

    Attributes:
        line: what it found, and what it cost.
        trials: in their order; empty when the file is not there.
        rungs: by steps.
        note: why there are no trials.
    """

    line: SearchLine
    trials: tuple[Trial, ...]
    rungs: tuple[Rung, ...]
    note: str | None


@dataclass(frozen=True)
class RunLine:
    """A run, and how to do it again."""

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
    recipe: Recipe


@dataclass(frozen=True)
class Page:
    """All that the page shows.

    Attributes:
        title: of the page.
        boards: one for each ranking.
        overall: rankings over tasks.
        base_to_new: averages over tasks that are split by classes.
        movements: distances from the pretrained weights.
        shares: where masks are.
        searches: with their histories.
        cloud: published models; only where some ranking is of the real ImageNet.
        baselines: lines that standard models lie on.
        comparisons: with published values.
        golden_faults: zero-shot rows that are not as published.
        published_note: why there is no comparison; ``None`` when there is one.
        failures: runs that failed.
        incomplete: task, evaluation set, reason.
        leaks: task, test images that methods saw.
        runs: every run, and how to do it again.
        updated: when the last run finished, for people; ``None`` when none has.
    """

    title: str
    boards: tuple[Board, ...]
    overall: tuple[OverallRanking, ...]
    base_to_new: tuple[BaseToNew, ...]
    movements: tuple[Movement, ...]
    shares: tuple[Share, ...]
    searches: tuple[SearchHistory, ...]
    cloud: tuple[CloudPoint, ...]
    baselines: tuple[BaselinePoint, ...]
    comparisons: tuple[Comparison, ...]
    golden_faults: tuple[str, ...]
    published_note: str | None
    failures: tuple[Failure, ...]
    incomplete: tuple[tuple[str, str, str], ...]
    leaks: tuple[tuple[str, str], ...]
    runs: tuple[RunLine, ...]
    updated: str | None = field(default=None)


def page_data(
    table: pa.Table,
    results: Path | None,
    *,
    title: str = "Leaderboard",
    published: pa.Table | None = None,
    find: Find | None = None,
) -> Page:
    """Gather what the page shows.

    Args:
        table: rows of the leaderboard; all their ancestors should be among them.
        results: folder with the runs' predictions and the searches' trials; ``None`` without.
        title: of the page.
        published: of ``read_published``; ``None`` when there are none.
        find: the file of a suite by its name, as ``recipes`` takes it.
    """
    made = rankings(table)
    beta = {} if published is None else shipped_baselines(made, published)
    found = _boards(table, results, beta)
    cloud = _cloud(published) if published is not None and beta else ()
    made = [board.ranking for board in found]
    finished = table["finished"].unique().to_pylist()
    return Page(
        title=title,
        boards=tuple(found),
        overall=tuple(overall(made)),
        base_to_new=tuple(base_to_new(made)),
        movements=tuple(movements(table)),
        shares=tuple(shares(table)),
        searches=tuple(
            _history(line, results)
            for line in sorted(searches(table), key=lambda line: (line.task, line.label))
        ),
        cloud=cloud,
        baselines=tuple(p for shift, line in beta.items() for p in _curve(shift, line)),
        comparisons=() if published is None else tuple(compare(table, published)),
        golden_faults=() if published is None else tuple(golden_faults(table, published)),
        published_note=_published_note(table, published),
        failures=tuple(failures(table)),
        incomplete=tuple(incomplete_data(table)),
        leaks=tuple(leaks(table)),
        runs=_runs(table, {} if find is None else recipes(table, find)),
        updated=f"{max(finished):%Y-%m-%d %H:%M} UTC" if finished else None,
    )


def tagged(table: pa.Table) -> pa.Table:
    """The table with each variant's name followed by its run, so that rankings name both."""
    columns = table.select(["variant", "run_id"]).to_pylist()
    names = [
        None if row["variant"] is None else f"{row['variant']}{_MARK}{row['run_id']}"
        for row in columns
    ]
    return with_column(table, "variant", names)


def untagged(line: Line) -> tuple[Line, list[tuple[str, str]]]:
    """A line of a tagged table as it would be otherwise, with the run and variant of each seed."""
    pairs = [variant.split(_MARK) for variant in line.variants]
    plain = replace(line, variants=tuple(dict.fromkeys(variant for variant, _ in pairs)))
    return plain, [(run_id, variant) for variant, run_id in pairs]


def shares(table: pa.Table) -> list[Share]:
    """Where the mask of every method that has one is, in the order of the network's layers."""
    groups: dict[tuple[Any, ...], list[dict[str, tuple[float, float]]]] = defaultdict(list)
    for row in of_runs(table.filter(pc.equal(table["status"], "done"))).to_pylist():
        details = json.loads(row["details"])
        if not details.get("share"):
            continue
        layers: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for tensor, (selected, size) in details["share"].items():
            layers[layer_of(tensor)][0] += selected
            layers[layer_of(tensor)][1] += size
        key = (row["task"], row["backbone"], row["shots"], row["label"])
        total = details["selected"]
        groups[key].append({layer: (s / total, s / size) for layer, (s, size) in layers.items()})
    found = []
    for (task, backbone, shots, label), runs in groups.items():
        for layer in sorted({layer for run in runs for layer in run}, key=layer_order):
            share, density = _mean_pair([run.get(layer, (0.0, 0.0)) for run in runs])
            found.append(Share(task, backbone, shots, label, layer, share, density))
    return found


def rungs(trials: Iterable[Mapping[str, Any]]) -> list[Rung]:
    """How many trials of a search reached each rung, and how many were stopped there.

    Args:
        trials: rows of the table of trials.
    """
    reached: dict[int, int] = defaultdict(int)
    stopped: dict[int, int] = defaultdict(int)
    for trial in trials:
        steps = [rung["steps"] for rung in trial["rungs"]]
        for step in steps:
            reached[step] += 1
        if trial["state"] == "stopped" and steps:
            stopped[steps[-1]] += 1
    return [Rung(step, reached[step], stopped[step]) for step in sorted(reached)]


def _boards(table: pa.Table, results: Path | None, beta: Mapping[str, Baseline]) -> list[Board]:
    rows = table.to_pylist()
    by_run: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_run[row["run_id"]].append(row)
    of_curves = curves(table)
    found = []
    for made in rankings(tagged(table)):
        pairs = [untagged(line) for line in made.lines]
        ranking = replace(made, lines=tuple(line for line, _ in pairs))
        metrics = {s: ranking.metrics[s] for s in ranking.shifts or (ID_TEST,)}
        ranked = [
            Contestant(name(line), _by_seed(runs, by_run))
            for line, runs in pairs
            if line.rank is not None
        ]
        tied = ties(ranked, metrics, results)
        lines = tuple(_board_line(line, runs, by_run, tied, ranking) for line, runs in pairs)
        points = of_curves.get(setting_of(ranking), ())
        found.append(
            Board(
                ranking=ranking,
                lines=lines,
                ties=tied,
                curves=tuple(points),
                axes=_axes(ranking, lines),
                tradeoffs=tuple(tradeoffs(ranking, points, applicable(ranking, beta))),
            )
        )
    return found


def _board_line(
    line: Line,
    runs: Sequence[tuple[str, str]],
    by_run: Mapping[str, Sequence[Row]],
    tied: Ties,
    ranking: Ranking,
) -> BoardLine:
    chosen: dict[str, dict[str, Row]] = defaultdict(dict)  # by set and run, as seeds are averaged
    for run_id, variant in runs:
        for row in by_run[run_id]:
            if row["variant"] == variant and row["primary"]:
                chosen[row["evaluation_set"]][run_id] = row
    cells = {
        set_name: _cell(line.cells.get(set_name), [*of_set.values()], line.seeds)
        for set_name, of_set in chosen.items()
    }
    if ranking.shifts:
        kind = None if line.mean_ood is None or line.seeds < 2 else "Student's t over seeds"
        missing = ", ".join(line.missing)
        remark = f"missing or incomplete: {missing}" if missing else None
        cells[MEAN] = Cell(line.mean_ood, kind, "", _seeds(runs, by_run), remark)
    unique = name(line)
    of_line = [by_run[run_id][0] for run_id, _ in runs]
    return BoardLine(
        line=line,
        name=unique,
        letters=tied.letters.get(unique) if line.rank is not None else None,
        cells=cells,
        runs=tuple(run_id for run_id, _ in runs),
        provenance=tuple(dict.fromkeys(map(_provenance, of_line))),
    )


def _cell(estimate: Estimate | None, rows: Sequence[Row], seeds: int) -> Cell:
    kinds = {row["interval"] for row in rows}
    kind = "Student's t over seeds" if len(rows) > 1 else next(iter(kinds))
    counts = sorted({row["n"] for row in rows if row["n"] is not None})
    reasons = sorted({row["incomplete_reason"] for row in rows if row["incomplete_reason"]})
    if estimate is not None and estimate.seeds < seeds:
        reasons.append(f"only {estimate.seeds} of {seeds} seeds")
    if estimate is not None and not estimate.complete and not reasons:
        reasons.append("seeds were evaluated on different data")
    return Cell(
        estimate=estimate,
        interval=kind,
        n=" or ".join(f"{n:,}" for n in counts),
        seeds=tuple(sorted(row["seed"] for row in rows)),
        remark="; ".join(reasons) or None,
    )


def _by_seed(
    runs: Sequence[tuple[str, str]], by_run: Mapping[str, Sequence[Row]]
) -> dict[int | None, tuple[str, str]]:
    """The runs of a line by seed; one that no seed can change stands for all."""
    if not any(_varies(run_id, by_run) for run_id, _ in runs):
        return {None: runs[0]}
    return {by_run[run_id][0]["seed"]: (run_id, variant) for run_id, variant in runs}


def _varies(run_id: str, by_run: Mapping[str, Sequence[Row]]) -> bool:
    if run_id not in by_run:
        return True
    row = by_run[run_id][0]
    return row["seeded"] or any(_varies(p["run_id"], by_run) for p in row["parents"])


def _seeds(runs: Sequence[tuple[str, str]], by_run: Mapping[str, Sequence[Row]]) -> tuple[int, ...]:
    return tuple(sorted(by_run[run_id][0]["seed"] for run_id, _ in runs))


def _axes(ranking: Ranking, lines: Sequence[BoardLine]) -> dict[str, str]:
    """For shifts of the real ImageNet, the set on which ours have the baseline's ID accuracy."""
    from shiftbench.evaluation.robustness import AXES

    if ranking.data_kind != REAL or ranking.task != IMAGENET:
        return {}
    known = {set_name for line in lines for set_name in line.cells}
    return {
        shift: axis
        for shift, axis in AXES.items()
        if shift in ranking.shifts and axis in known and ranking.metrics[shift] == "accuracy"
    }


def _cloud(published: pa.Table) -> tuple[CloudPoint, ...]:
    """The testbed's models on each shift."""
    from shiftbench.evaluation.robustness import AXES, COLLECTION, standard_models

    standard = standard_models(published)
    models: dict[str, dict[str, float]] = defaultdict(dict)
    columns = ["collection", "metric", "backbone", "evaluation_set", "value"]
    for row in published.select(columns).to_pylist():
        if row["collection"] == COLLECTION and row["metric"] == "accuracy":
            models[row["backbone"]][row["evaluation_set"]] = row["value"]
    return tuple(
        CloudPoint(shift, model, model in standard, cells[axis], cells[shift])
        for shift, axis in AXES.items()
        for model, cells in models.items()
        if 0 < cells.get(axis, 0) < 1 and 0 < cells.get(shift, 0) < 1
    )


def _curve(shift: str, line: Baseline) -> list[BaselinePoint]:
    """The line where it was fitted and some way on, with its band."""
    from scipy.special import expit, logit

    from shiftbench.evaluation.robustness import band

    ends = logit(min(line.ids)), logit(min(0.97, max(line.ids) + 0.08))
    at = expit(np.linspace(*ends, GRID))
    low, high = band(line, at)
    columns = (at, line(at), low, high)
    return [BaselinePoint(shift, *map(float, point)) for point in zip(*columns, strict=True)]


def _history(line: SearchLine, results: Path | None) -> SearchHistory:
    import pyarrow.parquet as pq

    from shiftbench.leaderboard.runfolder import SearchFolder

    if results is None:
        return SearchHistory(line, (), (), "There is no results folder.")
    file = SearchFolder.of(results, line.search_id).trials
    names = ["study", "number", "state", "values", "score", "rungs", "steps", "error"]
    try:
        rows = pq.read_table(file, columns=names, partitioning=None).to_pylist()
    except (OSError, pa.ArrowException):
        where = f"searches/{line.search_id}/{file.name}"
        return SearchHistory(line, (), (), f"Its trials ({where}) are not there.")
    trials = tuple(
        Trial(
            study=row["study"],
            number=row["number"],
            state=row["state"],
            score=row["score"],
            steps=row["steps"],
            values=json.loads(row["values"]),
            error=row["error"],
        )
        for row in rows
    )
    searched = (row for row in rows if row["study"] == "search")
    return SearchHistory(line, trials, tuple(rungs(searched)), None)


def _runs(table: pa.Table, known: Mapping[str, Recipe]) -> tuple[RunLine, ...]:
    unknown = Recipe(None, "not looked for")
    order = ["task", "backbone", "shots", "label", "seed"]
    rows = {row["run_id"]: row for row in of_runs(table).to_pylist()}
    by_name = sorted(rows.items(), key=lambda item: [_last_if_none(item[1][c]) for c in order])
    shared = ("run_id", "status", "task", "backbone", "shots", "label", "seed", "suite")
    return tuple(
        RunLine(
            **{name: row[name] for name in shared},
            finished=f"{row['finished']:%Y-%m-%d %H:%M}",
            provenance=_provenance(row),
            recipe=known.get(run_id, unknown),
        )
        for run_id, row in by_name
    )


def _last_if_none(value: Any) -> tuple[bool, Any]:
    return value is None, value


def _provenance(row: Row) -> str:
    """What computed a run, for people."""
    commit = f"git {row['git_sha'][:7]}" if row["git_sha"] else "no git commit"
    dirty = " with changes" if row["git_dirty"] else ""
    device = row["device"] or "unknown device"
    world_size = f" × {row['world_size']}" if (row["world_size"] or 1) > 1 else ""
    return f"shiftbench {row['shiftbench_version']}, {commit}{dirty}, {device}{world_size}"


def _published_note(table: pa.Table, published: pa.Table | None) -> str | None:
    if REAL not in table["data_kind"].to_pylist():
        return "Published values are of real data, and no run here is."
    return "The published results are not there." if published is None else None


def _mean_pair(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    first, second = np.mean(np.array(pairs, dtype=np.float64), axis=0)
    return float(first), float(second)


def layer_order(layer: str) -> tuple[str, int, int, str]:
    """Tower by tower: what comes before the blocks, the blocks, what comes after."""
    tower, _, rest = layer.partition(" ")
    if rest.startswith("block "):
        return tower, 1, int(rest.removeprefix("block ")), rest
    after = rest in ("ln_post", "ln_final", "proj", "text_projection")
    return tower, 2 if after else 0, 0, rest
