"""Rankings of the methods of a task, from the leaderboard's rows.

Like is compared with like: a line of a ranking averages runs that differ in nothing but their seed
(two runs of one seed, which differ in the code that computed them, are on lines of their own),
a ranking is of one task, and a mean is only ever taken over the same evaluation sets. All that a
report says of methods follows from one pass over the rows: who was selected, and every variant.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeAlias, TypeVar

import numpy as np

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.leaderboard.schema import Row
from shiftbench.report.runs import NOT_RUN, Runs, provenance, settings
from shiftbench.report.scale import Scale, common_scale, scale_of
from shiftbench.report.scores import MEAN, Member, Scores, average

ORACLE, TRANSDUCTIVE = "oracle", "transductive"

T = TypeVar("T")
Configuration: TypeAlias = tuple[str, str, str | None]
"""Of the runs of a line: label, digest of their settings, and mark (see ``Runs.mark``)."""


@dataclass(frozen=True, kw_only=True)
class ScoredMethod:
    """A configuration of a method with the scores of its runs.

    Attributes:
        label: what the suite calls it, with the settings that tell it from a namesake.
        method: registered name.
        origin: the distribution and version that provide it; ``imported`` for what was not run,
            ``made elsewhere`` for weights that were not trained here.
        reference: whether it is the method that others are compared with, such as zero-shot.
        parents: registered names of the methods that it builds on directly.
        members: the runs that the scores are averaged over, each with its variant.
        shared: whether no seed can change it, so that its one run stands for every seed.
        held_out: part of the training set that its runs did not train on; ``None`` if not known.
        scores: by evaluation set, and the mean over shifts.
    """

    label: str
    method: str
    origin: str
    reference: bool
    parents: tuple[str, ...]
    members: tuple[Member, ...]
    shared: bool
    held_out: float | None
    scores: Scores

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the runs, in ascending order."""
        return tuple(sorted(member.seed for member in self.members))

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants: one, unless seeds chose differently."""
        return tuple(dict.fromkeys(member.variant for member in self.members))


@dataclass(frozen=True, kw_only=True)
class Variant(ScoredMethod):
    """One variant of a method, such as a point of an alpha curve; nobody need have chosen it."""

    variant: str


@dataclass(frozen=True, kw_only=True)
class RankedMethod(ScoredMethod):
    """One line of a ranking: a method with the variants that were selected.

    Attributes:
        rank: from 1, shared by equal scores; ``None`` for oracles and partial means.
        selection: how its variants were chosen.
        cost_seconds: mean device time to train it with its ancestors and to search for their
            settings, each counted once; ``None`` when an ancestor's is not known.
        provenance: what computed it, one text for each kind.
        results: names of the results that its runs are from, where several are read as one.
    """

    rank: int | None
    selection: str
    cost_seconds: float | None
    provenance: tuple[str, ...]
    results: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its label, with the selection where that is not ``fixed``; unique in the ranking."""
        return name_of(self.label, self.selection)


@dataclass(frozen=True, kw_only=True)
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
        metrics: headline metric of each evaluation set that some method was scored on.
        scale: of what ranks; ``None`` where the shifts' metrics have none in common.
        methods: ranked ones, then partial ones, then oracles.
        variants: every variant of every method, whoever chose it.
    """

    task: str
    task_digest: str
    data_kind: str
    backbone: str
    shots: int | None
    images: int | None
    shifts: tuple[str, ...]
    metrics: Mapping[str, str]
    scale: Scale | None
    methods: tuple[RankedMethod, ...]
    variants: tuple[Variant, ...]

    @property
    def by(self) -> tuple[str, ...]:
        """The evaluation sets whose mean ranks: all shifts, or the ID test set without any."""
        return self.shifts or (ID_TEST,)

    def scale_on(self, set_name: str) -> Scale:
        """The scale of scores on an evaluation set, or of ``MEAN``."""
        if set_name in self.metrics:
            return scale_of(self.metrics[set_name])
        return self.scale or Scale(percent=False, higher_is_better=None)


def rank(rows: Iterable[Row]) -> list[Ranking]:
    """Rank the methods of each task × backbone × shots.

    A task's shifts are those of its definition, as rows have recorded it, or else those that rows
    name. What no seed can change, such as zero-shot with all its parents, is one run that stands
    for all seeds, and is shown beside every number of shots.

    Args:
        rows: of the leaderboard; all their ancestors should be among them for the costs.
    """
    headline = sorted((row for row in rows if row.primary), key=lambda row: row.finished)
    runs = Runs(headline)
    by_run = grouped(headline, lambda row: row.run_id)
    found = []
    by_setting = grouped(by_run, lambda run_id: _setting_of(runs.by_id[run_id]))
    for (task, task_digest, data_kind, backbone, images), run_ids in by_setting.items():
        of_task = [*chain.from_iterable(by_run[run_id] for run_id in run_ids)]
        shifts = _shifts(of_task)
        metrics = {row.evaluation_set: row.metric for row in of_task}
        scale = common_scale(metrics[name] for name in shifts or (ID_TEST,) if name in metrics)
        if scale is not None and scale.higher_is_better is None:
            scale = None
        constant, varying = _split(run_ids, lambda run_id: not runs.varies(run_id))
        by_shots = grouped(varying, lambda run_id: runs.by_id[run_id].shots) or {None: []}
        for shots, of_shots in by_shots.items():
            chosen = [row for run_id in (*constant, *of_shots) for row in by_run[run_id]]
            methods, variants = _Scorer(chosen, runs, shifts, scale).methods_and_variants()
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
                    scale=scale,
                    methods=methods,
                    variants=variants,
                )
            )
    return sorted(found, key=_place)


def name_of(label: str, selection: str) -> str:
    """The label, with the selection where that is not ``fixed``, the configured variant."""
    return label if selection == "fixed" else f"{label} · {selection}"


class _Scorer:
    """The methods and variants of one ranking."""

    def __init__(
        self, rows: Sequence[Row], runs: Runs, shifts: tuple[str, ...], scale: Scale | None
    ) -> None:
        self.runs, self.shifts, self.scale = runs, shifts, scale
        self.rows: dict[Member, dict[str, Row]] = defaultdict(dict)
        # A variant that was selected in several ways has equal rows; any of them will do.
        for row in rows:
            self.rows[_member(row)].setdefault(row.evaluation_set, row)
        self.by_configuration: dict[Configuration, list[Row]] = grouped(rows, self._configuration)
        self.scores: dict[tuple[Member, ...], Scores] = {}

    def methods_and_variants(self) -> tuple[tuple[RankedMethod, ...], tuple[Variant, ...]]:
        """All methods: selections that were made, and an oracle of what has variants."""
        firsts = {key: rows[0] for key, rows in self.by_configuration.items()}
        labels = {key: _marked(label, firsts[key]) for key, label in _labels(firsts).items()}
        methods, variants = [], []
        for key, rows in self.by_configuration.items():
            made = [row for row in rows if row.selection not in (None, ORACLE)]
            chosen = [
                (str(selection), _members(of_selection))
                for selection, of_selection in grouped(made, lambda row: row.selection).items()
            ]
            if best := self._oracle(_members(rows)):
                chosen.append((ORACLE, best))
            for selection, members in chosen:
                methods.append(self._ranked_method(labels[key], selection, members))
            for variant, members in grouped(_members(rows), lambda m: m.variant).items():
                variants.append(Variant(variant=variant, **self._scored(labels[key], members)))
        ranked, others = self._in_order(variants, lambda variant: variant.variant)
        return self._ranked(methods), (*ranked, *others)

    def _configuration(self, row: Row) -> Configuration:
        return row.label, self.runs.configuration(row.run_id), self.runs.mark(row.run_id)

    def _ranked_method(self, label: str, selection: str, members: Sequence[Member]) -> RankedMethod:
        costs = [self.runs.cost_seconds(member.run_id) for member in members]
        known = [cost for cost in costs if cost is not None]
        made_by = (provenance(self.runs.by_id[member.run_id]) for member in members)
        return RankedMethod(
            rank=None,
            selection=selection,
            cost_seconds=float(np.mean(known)) if len(known) == len(costs) else None,
            provenance=tuple(dict.fromkeys(made_by)),
            **self._scored(label, members),
        )

    def _scored(self, label: str, members: Sequence[Member]) -> dict[str, Any]:
        """The fields of a ``ScoredMethod`` for these members."""
        key = tuple(members)
        if key not in self.scores:
            averaged = self.shifts if self.scale is not None else ()
            of_members = {member: self.rows[member] for member in members}
            self.scores[key] = average(of_members, self.shifts, averaged)
        run = self.runs.by_id[members[0].run_id]
        return {
            "label": label,
            "method": run.method,
            "origin": run.origin,
            "reference": run.reference,
            "parents": self.runs.parent_methods(run.run_id),
            "members": key,
            "shared": not any(self.runs.varies(member.run_id) for member in members),
            "held_out": run.held_out,
            "scores": self.scores[key],
        }

    def _oracle(self, members: Sequence[Member]) -> list[Member]:
        """Of each run with several variants, the one with the best mean over all shifts."""
        best: list[Member] = []
        for of_run in grouped(members, lambda member: member.run_id).values():
            means = {}
            for member in of_run:
                rows = self.rows[member]
                values = [row.value for row in rows.values() if row.role == "shift"]
                if self.scale is not None and values and len(values) == len(self.shifts):
                    means[member] = self.scale.gain(float(np.mean(values)))
            if len(of_run) > 1 and means:
                best.append(max(means, key=means.__getitem__))
        return best

    def _ranked(self, methods: Sequence[RankedMethod]) -> tuple[RankedMethod, ...]:
        """Ranked by mean OOD, or by ID where the task has no shift; the others below, by ID."""
        oracles, others = _split(methods, lambda method: method.selection == ORACLE)
        whole, partial = self._in_order(others, lambda method: method.selection)
        places = shared_ranks([self._headline(method.scores) for method in whole])
        ranked = [replace(method, rank=place) for place, method in zip(places, whole, strict=True)]
        last = chain(*self._in_order(oracles, lambda method: method.selection))
        return (*ranked, *partial, *last)

    def _in_order(self, methods: Iterable[M], name: Callable[[M], str]) -> tuple[list[M], list[M]]:
        """Those that have the score that ranks, best first, and the others."""

        def key(method: M) -> tuple[float, float, str, str]:
            mean, by_id = self._headline(method.scores), self._gain(method.scores, ID_TEST)
            return -mean, -by_id, method.label, name(method)

        return _split(sorted(methods, key=key), self._has_headline)

    def _headline(self, scores: Scores) -> float:
        """What ranks: the mean over shifts, or in its absence the ID score; more is better."""
        return self._gain(scores, ID_TEST if scores.mean_ood is None else MEAN)

    def _gain(self, scores: Scores, set_name: str) -> float:
        estimate = scores.get(set_name)
        if estimate is None:
            return -math.inf
        return estimate.mean if self.scale is None else self.scale.gain(estimate.mean)

    def _has_headline(self, method: ScoredMethod) -> bool:
        scores = method.scores
        if scores.mean_ood is not None:
            return True
        id_test = scores.by_set.get(ID_TEST)
        whole = id_test is not None and id_test.remark is None
        return self.scale is not None and not self.shifts and whole


M = TypeVar("M", bound=ScoredMethod)


def shared_ranks(values: Sequence[float]) -> list[int]:
    """Ranks from 1 of descending values: equal ones (but for last digits) share one: 1, 1, 3."""
    ranks: list[int] = []
    for place, value in enumerate(values):
        equal = place > 0 and math.isclose(value, values[place - 1], rel_tol=1e-12, abs_tol=1e-12)
        ranks.append(ranks[-1] if equal else place + 1)
    return ranks


def _shifts(rows: Sequence[Row]) -> tuple[str, ...]:
    """The shifts of the task that rows are of, in the order of its definition."""
    recorded = dict.fromkeys(chain.from_iterable(row.shifts or () for row in rows))
    named = dict.fromkeys(row.evaluation_set for row in rows if row.role == "shift")
    return (*recorded, *(name for name in named if name not in recorded))


def _setting_of(row: Row) -> tuple[str, str, str, str, int | None]:
    images = row.budget.get("evaluation_images")
    return row.task, row.task_digest, row.data_kind, row.backbone, images


def _place(ranking: Ranking) -> tuple[str | float, ...]:
    shots, images = (
        math.inf if limit is None else limit for limit in (ranking.shots, ranking.images)
    )
    setting = (ranking.data_kind, ranking.task, ranking.task_digest, ranking.backbone)
    return *setting, shots, images


def _member(row: Row) -> Member:
    return Member(row.run_id, row.variant, row.seed)


def _members(rows: Iterable[Row]) -> list[Member]:
    return list(dict.fromkeys(map(_member, rows)))


def _marked(label: str, row: Row) -> str:
    marks = [row.origin] * (row.origin in NOT_RUN) + [TRANSDUCTIVE] * bool(row.transductive)
    return f"{label} ({', '.join(marks)})" if marks else label


def _labels(configurations: Mapping[Configuration, Row]) -> dict[Configuration, str]:
    """A name for each configuration: its label, and what tells it from others so called."""
    names = {}
    for label, group in grouped(configurations.items(), lambda item: item[0][0]).items():
        values = {key: settings(row.config) | settings(row.budget) for key, row in group}
        first = next(iter(values.values()))
        differing = sorted(
            {
                name
                for each in values.values()
                for name in each.keys() | first.keys()
                if each.get(name) != first.get(name)
            }
        )
        suffixes = {
            key: [
                *(f"{name}={json.dumps(each.get(name))}" for name in differing),
                *([] if key[2] is None else [key[2]]),
            ]
            for key, each in values.items()
        }
        alike = len(set(map(tuple, suffixes.values()))) < len(suffixes)
        for key, suffix in suffixes.items():
            extra = ", ".join([*suffix, *([f"#{key[1][:4]}"] if alike else [])])
            names[key] = label if len(group) == 1 else f"{label} ({extra})"
    return names


def grouped(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    """Items by key, both in the order of first appearance."""
    groups: dict[Any, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def _split(items: Iterable[T], condition: Callable[[T], bool]) -> tuple[list[T], list[T]]:
    """The items that meet a condition, and the others."""
    groups = grouped(items, condition)
    return groups.get(True, []), groups.get(False, [])
