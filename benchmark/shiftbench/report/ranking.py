"""Rankings: what the leaderboard's rows say about methods, as pure functions of the table.

Lines compare like with like: a line holds runs that differ in nothing but their seed, a ranking
holds lines of one task, and a mean is only ever taken over the same evaluation sets.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shiftbench.core.plugins import BUILTIN
from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.leaderboard.schema import digest

ORACLE = "oracle"

Row = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: in [0, 1].
        sd: standard deviation over seeds (n - 1); ``None`` for one seed.
        low: lower end of the 95 % interval: Student's t over seeds, or with one seed the interval
            of the evaluation set; ``None`` where neither exists.
        high: upper end.
        seeds: how many were averaged.
        complete: whether all data were there, and the same for every seed.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    seeds: int
    complete: bool = True


@dataclass(frozen=True)
class Line:
    """One method of a ranking.

    Attributes:
        rank: from 1; ``None`` for what does not rank: ``oracle``, and a partial mean.
        label: what the suite calls it, with the settings that tell it from a namesake.
        method: registered name.
        selection: how its variant was chosen.
        variants: the chosen variants, one unless seeds chose differently.
        seeds: runs averaged.
        cells: headline metric by evaluation set.
        mean_ood: mean over all shifts of the task; ``None`` when one is missing or incomplete.
        missing: the shifts that are missing or incomplete.
        cost_seconds: mean device time to train it with its ancestors and to search for their
            settings, each counted once; ``None`` when an ancestor's is not known.
    """

    rank: int | None
    label: str
    method: str
    selection: str
    variants: tuple[str, ...]
    seeds: int
    cells: Mapping[str, Estimate]
    mean_ood: Estimate | None
    missing: tuple[str, ...]
    cost_seconds: float | None


@dataclass(frozen=True)
class Ranking:
    """The methods on one task with one backbone and number of shots, best mean OOD first.

    Attributes:
        task: its name.
        task_digest: stands for its full definition.
        data_kind: ``real`` or ``miniature/<version>``.
        backbone: its name.
        shots: training images per class; ``None`` for all.
        images: most images that a set was evaluated on; ``None`` for all.
        shifts: the task's shifts.
        metrics: headline metric of each evaluation set.
        lines: ranked ones, then partial ones, then oracles.
    """

    task: str
    task_digest: str
    data_kind: str
    backbone: str
    shots: int | None
    images: int | None
    shifts: tuple[str, ...]
    metrics: Mapping[str, str]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Overall:
    """A method over all tasks: means of the tasks' own means.

    Attributes:
        rank: from 1.
        label: what the suite calls it.
        selection: how its variants were chosen.
        id_test: mean over tasks.
        mean_ood: mean over tasks.
        low: lower end of the 95 % interval of ``mean_ood`` over seeds: Student's t with the degrees
            of freedom of Welch and Satterthwaite, tasks being independent; ``None`` for one seed.
        high: upper end.
        shifts: mean over seeds of every shift of every task.
        cost_seconds: sum over tasks; ``None`` when one is not known.
    """

    rank: int
    label: str
    selection: str
    id_test: float
    mean_ood: float
    low: float | None
    high: float | None
    shifts: Mapping[str, float]
    cost_seconds: float | None


@dataclass(frozen=True)
class OverallRanking:
    """The methods that rank in every one of several tasks.

    Attributes:
        data_kind: ``real`` or ``miniature/<version>``.
        backbone: its name.
        shots: training images per class; ``None`` for all.
        images: most images that a set was evaluated on; ``None`` for all.
        tasks: averaged over.
        lines: best first.
    """

    data_kind: str
    backbone: str
    shots: int | None
    images: int | None
    tasks: tuple[str, ...]
    lines: tuple[Overall, ...]


@dataclass(frozen=True)
class Failure:
    """A run that failed, and why."""

    run_id: str
    task: str
    backbone: str
    label: str
    shots: int | None
    seed: int
    error: str


def rankings(table: pa.Table) -> list[Ranking]:
    """Rank the methods of each task × backbone × shots.

    A task's shifts are those that any of its rows names. What no seed can change, such as zero-shot
    with all its parents, is one run that stands for all seeds, and is shown beside every number of
    shots.

    Args:
        table: rows of the leaderboard; all their ancestors should be among them for the costs.
    """
    done = table.filter(pc.equal(table["status"], "done"))
    runs = _Runs.of(done)
    headlines = _headlines(done)
    found = []
    by_setting = _grouped(headlines, lambda run_id: _setting_of(runs.rows[run_id]))
    for setting, run_ids in by_setting.items():
        task, task_digest, data_kind, backbone, images = setting
        of_task = [*chain.from_iterable(headlines[run_id] for run_id in run_ids)]
        shifts = tuple(dict.fromkeys(r["evaluation_set"] for r in of_task if r["role"] == "shift"))
        metrics = {row["evaluation_set"]: row["metric"] for row in of_task}
        constant, varying = _split(run_ids, lambda run_id: not runs.varies(run_id))
        by_shots = _grouped(varying, lambda run_id: runs.rows[run_id]["shots"]) or {None: []}
        for shots, of_shots in by_shots.items():
            found.append(
                Ranking(
                    task=task,
                    task_digest=task_digest,
                    data_kind=data_kind,
                    backbone=backbone,
                    shots=shots,
                    images=images,
                    shifts=shifts,
                    metrics=metrics,
                    lines=_lines(
                        {run_id: headlines[run_id] for run_id in (*constant, *of_shots)},
                        shifts,
                        runs,
                    ),
                )
            )
    return sorted(found, key=_place)


def overall(found: Sequence[Ranking]) -> list[OverallRanking]:
    """Rank over tasks the methods that rank in all of them, where there are several tasks."""
    results = []
    with_shifts = [ranking for ranking in found if ranking.shifts]
    groups = _grouped(with_shifts, lambda r: (r.data_kind, r.backbone, r.shots, r.images))
    for (data_kind, backbone, shots, images), of_tasks in groups.items():
        names = tuple(ranking.task for ranking in of_tasks)
        if len(names) < 2 or len(set(names)) < len(names):
            continue
        by_method: dict[tuple[str, str], list[Line]] = defaultdict(list)
        for ranking in of_tasks:
            for line in ranking.lines:
                if line.rank is not None and ID_TEST in line.cells:
                    by_method[line.label, line.selection].append(line)
        common = [
            _overall(label, selection, lines, of_tasks)
            for (label, selection), lines in by_method.items()
            if len(lines) == len(of_tasks)
        ]
        if common:
            common.sort(key=lambda line: (-line.mean_ood, -line.id_test, line.label))
            ranked = (replace(line, rank=place) for place, line in enumerate(common, start=1))
            results.append(OverallRanking(data_kind, backbone, shots, images, names, tuple(ranked)))
    return results


def failures(table: pa.Table) -> list[Failure]:
    """The runs that failed, in the table's order."""
    names = [field.name for field in fields(Failure)]
    failed = table.select(names).filter(pc.equal(table["status"], "failed"))
    return [Failure(**row) for row in failed.to_pylist()]


def incomplete_data(table: pa.Table) -> list[tuple[str, str, str]]:
    """Task, evaluation set and what is missing from it, each once."""
    names = ["task", "evaluation_set", "incomplete_reason"]
    gaps = table.select(names).filter(table["incomplete_reason"].is_valid())
    return sorted({tuple(row.values()) for row in gaps.to_pylist()})


def of_runs(table: pa.Table) -> pa.Table:
    """One row of each run, for what all its rows share, in the table's order."""
    ids = table["run_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(ids, return_index=True)
    return table.take(np.sort(first))


_SCORED = [
    *("run_id", "variant", "selection", "evaluation_set", "role", "metric"),
    *("value", "low", "high", "n", "complete", "data_fingerprint"),
]


def _headlines(done: pa.Table) -> dict[str, list[Row]]:
    """The results in headline metrics by run, in the order in which runs finished."""
    table = done.select([*_SCORED, "finished"]).filter(done["primary"])
    finished = table["finished"].cast(pa.int64()).to_numpy()
    table = table.select(_SCORED).take(np.argsort(finished, kind="stable"))
    columns = [_values(table[name]) for name in _SCORED]
    rows = (dict(zip(_SCORED, row, strict=True)) for row in zip(*columns, strict=True))
    return _grouped(rows, lambda row: row["run_id"])


def _values(column: pa.ChunkedArray) -> list[Any]:
    """What ``to_pylist`` returns, but each text is made once: a tenth of the time."""
    if not pa.types.is_string(column.type):
        return column.to_numpy().tolist() if not column.null_count else column.to_pylist()  # type: ignore[no-any-return]
    encoded = column.combine_chunks().dictionary_encode()
    texts = [*encoded.dictionary.to_pylist(), None]
    return [texts[index] for index in encoded.indices.fill_null(len(texts) - 1).to_pylist()]


@dataclass(frozen=True)
class _Runs:
    """The runs of a table by id: a row of each."""

    rows: Mapping[str, Row]

    @classmethod
    def of(cls, table: pa.Table) -> _Runs:
        rows = of_runs(table).to_pylist()
        return cls({row["run_id"]: row for row in rows})

    def parents(self, run_id: str) -> list[str]:
        return [parent["run_id"] for parent in self.rows[run_id]["parents"]]

    def varies(self, run_id: str) -> bool:
        """Whether the seed can change a run: it or an ancestor uses it."""
        if run_id not in self.rows:
            return True
        return self.rows[run_id]["seeded"] or any(map(self.varies, self.parents(run_id)))

    def recipe(self, run_id: str) -> str:
        """Stands for all that makes a run but its seed; an unknown run stands for itself.

        Like a run's identity, it does not depend on what suites call the run and its parents.
        """
        if run_id not in self.rows:
            return run_id
        row = self.rows[run_id]
        names = ("task_digest", "data_kind", "backbone", "shots", "method")
        recipe = {name: row[name] for name in names}
        recipe |= {name: _settings(row[name]) for name in ("config", "budget")}
        recipe["origin"] = None if row["origin"].startswith(f"{BUILTIN} ") else row["origin"]
        recipe["parents"] = [self.recipe(parent) for parent in self.parents(run_id)]
        return digest(recipe)

    def family(self, run_id: str) -> set[str]:
        """A run and all its ancestors."""
        known = self.parents(run_id) if run_id in self.rows else []
        return {run_id}.union(*(self.family(parent) for parent in known))

    def cost(self, run_id: str) -> float | None:
        """Device seconds to train a run and its ancestors, and of each of their searches once."""
        total = 0.0
        searches: dict[str, float] = {}
        for member in self.family(run_id):
            row = self.rows.get(member)
            if row is None or row["train_seconds"] is None:
                return None
            total += row["train_seconds"] * (row["world_size"] or 1)
            if row["search_id"] is not None:
                searches[row["search_id"]] = row["search_seconds"] or 0.0
        return total + sum(searches.values())


def _setting_of(row: Row) -> tuple[str, str, str, str, int | None]:
    images = _settings(row["budget"]).get("evaluation_images")
    return row["task"], row["task_digest"], row["data_kind"], row["backbone"], images


@lru_cache(maxsize=1024)
def _settings(text: str) -> Mapping[str, Any]:
    """A column of JSON, without the labels of parents: they are names only."""
    settings: dict[str, Any] = json.loads(text)
    return {key: value for key, value in settings.items() if key not in ("parent", "parents")}


def _place(ranking: Ranking) -> tuple[str | float, ...]:
    shots, images = (
        math.inf if limit is None else limit for limit in (ranking.shots, ranking.images)
    )
    setting = (ranking.data_kind, ranking.task, ranking.task_digest, ranking.backbone)
    return *setting, shots, images


def _lines(
    by_run: Mapping[str, list[Row]], shifts: tuple[str, ...], runs: _Runs
) -> tuple[Line, ...]:
    """All lines of a ranking: selections that were made, and an oracle of what has variants."""
    by_recipe: dict[tuple[str, str], dict[int, list[Row]]] = defaultdict(dict)
    for run_id, of_run in by_run.items():  # the run that finished last stands for its seed
        run = runs.rows[run_id]
        by_recipe[run["label"], runs.recipe(run_id)][run["seed"]] = of_run
    members = {recipe: [*chain(*seeds.values())] for recipe, seeds in by_recipe.items()}
    labels = _labels({recipe: runs.rows[m[0]["run_id"]] for recipe, m in members.items()})
    lines = []
    for recipe, of_recipe in members.items():
        made = [row for row in of_recipe if row["selection"] not in (None, ORACLE)]
        for selection, chosen in _grouped(made, lambda row: row["selection"]).items():
            lines.append(_line(labels[recipe], selection, chosen, shifts, runs))
        best = _oracle(of_recipe, shifts)
        if best:
            lines.append(_line(labels[recipe], ORACLE, best, shifts, runs))
    return _ranked(lines)


def _line(
    label: str, selection: str, rows: list[Row], shifts: tuple[str, ...], runs: _Runs
) -> Line:
    by_run = _grouped(rows, lambda row: row["run_id"])
    by_set = _grouped(rows, lambda row: row["evaluation_set"])
    cells = {name: _estimate(of_set) for name, of_set in by_set.items()}
    missing = tuple(
        name
        for name in shifts
        if name not in cells or cells[name].seeds < len(by_run) or not cells[name].complete
    )
    means = [
        float(np.mean([row["value"] for row in of_run if row["role"] == "shift"]))
        for of_run in by_run.values()
        if shifts and not missing
    ]
    costs = [runs.cost(run_id) for run_id in by_run]
    return Line(
        rank=None,
        label=label,
        method=runs.rows[rows[0]["run_id"]]["method"],
        selection=selection,
        variants=tuple(dict.fromkeys(row["variant"] for row in rows)),
        seeds=len(by_run),
        cells=cells,
        mean_ood=_over_seeds(means) if means else None,
        missing=missing,
        cost_seconds=None if None in costs else float(np.mean([c for c in costs if c is not None])),
    )


def _oracle(rows: list[Row], shifts: tuple[str, ...]) -> list[Row]:
    """Of each run with several variants, the rows of the one with the best mean over all shifts."""
    best: list[Row] = []
    for of_run in _grouped(rows, lambda row: row["run_id"]).values():
        # A variant that was selected in several ways has equal rows; any of them will do.
        unique = {(row["variant"], row["evaluation_set"]): row for row in of_run}
        variants = _grouped(unique.values(), lambda row: row["variant"])
        means = {}
        for variant, of_variant in variants.items():
            values = [row["value"] for row in of_variant if row["role"] == "shift"]
            if values and len(values) == len(shifts):
                means[variant] = float(np.mean(values))
        if len(variants) > 1 and means:
            best += variants[max(means, key=means.__getitem__)]
    return best


def _ranked(lines: list[Line]) -> tuple[Line, ...]:
    """Ranked by mean OOD, or by ID where the task has no shift; the others below, by ID."""

    def by_id(line: Line) -> float:
        return line.cells[ID_TEST].mean if ID_TEST in line.cells else -math.inf

    def key(line: Line) -> tuple[float, float, str, str]:
        ood = by_id(line) if line.mean_ood is None else line.mean_ood.mean
        return -ood, -by_id(line), line.label, line.selection

    oracles = sorted((line for line in lines if line.selection == ORACLE), key=key)
    others = sorted((line for line in lines if line.selection != ORACLE), key=key)
    whole, partial = _split(others, lambda line: not line.missing and _has_headline(line))
    ranked = [replace(line, rank=place) for place, line in enumerate(whole, start=1)]
    return (*ranked, *partial, *oracles)


def _has_headline(line: Line) -> bool:
    if line.mean_ood is not None:
        return True
    id_test = line.cells.get(ID_TEST)
    return id_test is not None and id_test.complete and id_test.seeds == line.seeds


def _estimate(rows: list[Row]) -> Estimate:
    """Mean over the runs of one evaluation set."""
    data = {(row["n"], row["data_fingerprint"]) for row in rows}
    complete = all(row["complete"] for row in rows) and len(data) == 1
    estimate = _over_seeds([row["value"] for row in rows])
    if len(rows) == 1:
        estimate = replace(estimate, low=rows[0]["low"], high=rows[0]["high"])
    return replace(estimate, complete=complete)


def _over_seeds(values: Sequence[float]) -> Estimate:
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, None, None, None, len(values))
    from shiftbench.evaluation.intervals import student_t

    low, high = student_t(values)
    return Estimate(mean, float(np.std(values, ddof=1)), float(low), float(high), len(values))


def _overall(
    label: str, selection: str, lines: Sequence[Line], of_tasks: Sequence[Ranking]
) -> Overall:
    oods = [line.mean_ood or line.cells[ID_TEST] for line in lines]
    costs = [line.cost_seconds for line in lines]
    low, high = _interval_of_mean(oods)
    names = [shift for ranking in of_tasks for shift in ranking.shifts]
    cells = {
        shift if names.count(shift) == 1 else f"{ranking.task} {shift}": line.cells[shift].mean
        for ranking, line in zip(of_tasks, lines, strict=True)
        for shift in ranking.shifts
    }
    return Overall(
        rank=0,
        label=label,
        selection=selection,
        id_test=float(np.mean([line.cells[ID_TEST].mean for line in lines])),
        mean_ood=float(np.mean([ood.mean for ood in oods])),
        low=low,
        high=high,
        shifts=cells,
        cost_seconds=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def _interval_of_mean(estimates: Sequence[Estimate]) -> tuple[float | None, float | None]:
    """95 % interval over seeds of the mean of independent estimates; none without two seeds."""
    variances = [(e.sd**2 / e.seeds, e.seeds - 1) for e in estimates if e.sd is not None]
    total = sum(variance for variance, _ in variances)
    if not variances:
        return None, None
    mean = float(np.mean([e.mean for e in estimates]))
    if total == 0:
        return mean, mean
    from scipy.special import stdtrit

    freedom = total**2 / sum(variance**2 / n for variance, n in variances)
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(total) / len(estimates)
    return mean - half, mean + half


def _labels(recipes: Mapping[tuple[str, str], Row]) -> dict[tuple[str, str], str]:
    """What to call each label and recipe: the label, and what tells it from others so called."""
    names = {}
    for label, group in _grouped(recipes.items(), lambda item: item[0][0]).items():
        settings = {
            key: {**_settings(row["config"]), **_settings(row["budget"])} for key, row in group
        }
        first = next(iter(settings.values()))
        differing = sorted(
            {
                name
                for each in settings.values()
                for name in each.keys() | first.keys()
                if each.get(name) != first.get(name)
            }
        )
        suffixes = {
            key: [f"{name}={json.dumps(each.get(name))}" for name in differing]
            for key, each in settings.items()
        }
        alike = len(set(map(tuple, suffixes.values()))) < len(suffixes)
        for key, suffix in suffixes.items():
            extra = ", ".join([*suffix, *([f"#{key[1][:4]}"] if alike else [])])
            names[key] = label if len(group) == 1 else f"{label} ({extra})"
    return names


def _grouped(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    """Items by key, both in the order of first appearance."""
    groups: dict[Any, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def _split(items: Iterable[T], condition: Callable[[T], bool]) -> tuple[list[T], list[T]]:
    """The items that meet a condition, and the others."""
    groups = _grouped(items, condition)
    return groups.get(True, []), groups.get(False, [])
