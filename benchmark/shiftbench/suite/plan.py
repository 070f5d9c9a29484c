"""From a suite to its runs: a DAG, with an identity for each. No torch, no ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from shiftbench.core.errors import InputError, Problems
from shiftbench.data.sources.registry import plugin_origins as source_origins
from shiftbench.data.tasks.definition import Holdout
from shiftbench.evaluation.metrics.registry import plugin_origins as metric_origins
from shiftbench.methods.base import Parent, TrainedMethod
from shiftbench.methods.config import file_digests
from shiftbench.methods.registry import METHODS, plugin_origin
from shiftbench.models.backbones import backbone_identity
from shiftbench.suite.identity import JsonText, identity, json_text, run_id
from shiftbench.suite.task_metrics import metrics_named

if TYPE_CHECKING:
    from shiftbench.data.tasks.definition import EvaluationSet, Task
    from shiftbench.methods.base import Method
    from shiftbench.methods.config import MethodConfig
    from shiftbench.suite.file import Budget, Resources
    from shiftbench.suite.suite import Suite


@dataclass(frozen=True)
class SearchRun:
    """The search that a run's settings come from; runs that differ in their seed may share one.

    Attributes:
        id: 16 hex digits, of everything that can change what the search finds.
        seed: of the few-shot draw and of the parents that its trials use.
        ood_val: the set that scores its trials; ``None`` where settings are drawn without trials.
    """

    id: str
    seed: int
    ood_val: EvaluationSet | None


@dataclass(frozen=True)
class Run:
    """Task × backbone × method × shots × seed: the unit that is planned, trained and recorded.

    Attributes:
        id: 16 hex digits; see ``identity``.
        task: what to train and evaluate on.
        data_kind: which data the registered tasks stand for, ``real`` or ``miniature/<version>``.
        backbone: its name.
        method: registered name.
        label: of this configuration of the method in the suite, the first where it has several.
        also_called: its other labels there: names only, as equal settings are one run.
        config: the method's settings.
        parents: ids of the runs that this one builds on, in the order of the method's parents.
        seed: 0 where no seed can change the outcome.
        shots: training images per class; ``None`` for all, or where they cannot matter.
        budget: upper limits; those that cannot matter are ``None``.
        search: where its settings come from; ``None`` where they are given.
        whole: true if it, or a run that it builds on, trains on the whole training set, the part
            that is held out for ID validation included.
        files: the SHA-256 of every file that its settings name, by the name of the setting.
        elsewhere: true if its weights, or those of a run that it builds on, were trained elsewhere.
    """

    id: str
    task: Task
    data_kind: str
    backbone: str
    method: str
    label: str
    config: MethodConfig
    parents: tuple[tuple[Parent, str], ...]
    seed: int
    shots: int | None
    budget: Budget
    search: SearchRun | None = None
    whole: bool = False
    files: tuple[tuple[str, str], ...] = ()
    elsewhere: bool = False
    also_called: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels that the suite has for it."""
        return (self.label, *self.also_called)

    @property
    def held_out(self) -> float | None:
        """Part of the training set that it does not train on.

        ``None`` if it trains nothing, or that is not known.
        """
        if self.create().reference or self.elsewhere:
            return None
        id_val = self.task.id_val
        return id_val.holdout if isinstance(id_val, Holdout) and not self.whole else 0.0

    @property
    def searched(self) -> bool:
        """True if its settings are found on OOD validation data."""
        return self.search is not None and self.search.ood_val is not None

    @property
    def searched_by_training(self) -> bool:
        """True if its settings are found by trials that train; of derived methods they merge."""
        return self.searched and isinstance(self.create(), TrainedMethod)

    def create(self) -> Method[MethodConfig]:
        """The method with this run's settings."""
        return METHODS.load(self.method)(self.config)


@dataclass(frozen=True)
class Plan:
    """The runs of a suite by id, parents before children."""

    suite: Suite
    runs: Mapping[str, Run]

    @classmethod
    def build(cls, suite: Suite) -> Plan:
        """Every run of the suite's grid, once: runs that cannot differ are the same run.

        Parents of seeds that the suite does not ask for are among them.

        Raises:
            InputError: a backbone is unknown, or a method cannot have what it needs.
        """
        runs: dict[str, Run] = {}
        problems = Problems()
        for (name, task), position in product(suite.tasks.items(), range(len(suite.backbones))):
            with problems:
                first = _Cell(suite, task, position)
                for shots, seed in product(suite.shots, suite.seeds):
                    cell = first.of(shots, seed)
                    for label in suite.methods[name]:
                        with problems:
                            cell.add(label, runs)
        problems.check()
        return cls(suite, {run_id: cls._called(suite, run) for run_id, run in runs.items()})

    @staticmethod
    def _called(suite: Suite, run: Run) -> Run:
        """The run with its labels in the order of the suite, whoever asked for it first."""
        if not run.also_called:
            return run
        first, *others = (label for label in suite.methods[run.task.name] if label in run.labels)
        return replace(run, label=first, also_called=tuple(others))

    def resources_of(self, run: Run) -> Resources:
        """The hardware for a run's training."""
        return self.suite.resources_of(run.task.name, run.label)

    def groups(self) -> Iterator[tuple[tuple[str, str, str], list[Run]]]:
        """Runs by task, backbone and label, in the plan's order; each under all of its labels."""
        groups: dict[tuple[str, str, str], list[Run]] = {}
        for run in self.runs.values():
            for label in run.labels:
                groups.setdefault((run.task.name, run.backbone, label), []).append(run)
        yield from groups.items()


class _Cell:
    """One task, backbone, number of shots and seed, and the runs of its methods.

    Args:
        suite: that asks for them.
        task: of the cell. Only a search looks at its OOD validation data.
        position: of the backbone in the suite.
    """

    def __init__(self, suite: Suite, task: Task, position: int) -> None:
        self._suite = suite
        self._task = task.recorded()
        self._ood_val = task.ood_val
        held = task.id_val
        self._withheld_from = held.withheld_from if isinstance(held, Holdout) else "all"
        self._backbone = suite.backbones[position]
        self._shots: int | None = None
        self._seed = 0
        self._shared: dict[tuple[str, bool, bool], dict[str, Any]] = {}
        self._files: dict[str, Mapping[str, str]] = {}
        try:
            self._backbone_identity = backbone_identity(self._backbone)
        except InputError as error:
            raise suite.error(str(error), "backbones", position) from error

    def add(self, label: str, runs: dict[str, Run]) -> str:
        """Put the run of the method called ``label`` into ``runs``, after its parents; its id."""
        suite, task = self._suite, self._task
        method = suite.methods[task.name][label]
        parents = tuple(
            (parent, self.of(self._shots, self._seed_of(parent)).add(parent.label, runs))
            for parent in method.parents()
        )
        elsewhere = method.elsewhere or any(runs[run_id].elsewhere for _, run_id in parents)
        whole = self._whole(label, method, parents, runs)
        run = self._run(label, method, parents, whole, elsewhere)
        known = runs.setdefault(run.id, run)
        if label not in known.labels:
            runs[run.id] = replace(known, also_called=(*known.also_called, label))
        return run.id

    def of(self, shots: int | None, seed: int) -> _Cell:
        """The same cell of other shots, training images per class, and another seed."""
        cell = copy(self)
        cell._shots, cell._seed = shots, seed
        return cell

    def _seed_of(self, parent: Parent) -> int:
        return self._seed if parent.seed is None else parent.seed

    def _run(
        self,
        label: str,
        method: Method[MethodConfig],
        parents: tuple[tuple[Parent, str], ...],
        whole: bool,
        elsewhere: bool,
    ) -> Run:
        suite, task = self._suite, self._task
        seed = self._seed if self._varies(label) else 0
        shots = self._shots if self._draws(label) else None
        budget = suite.budget
        if not isinstance(method, TrainedMethod):
            budget = budget.model_copy(update={"steps": None})
        search = self._search(label, method, parents, whole)
        found = search.id if search else None
        spec = self._spec(label, method, parents, seed, shots, budget, found, whole=whole)
        return Run(
            id=run_id(spec),
            task=task,
            data_kind=suite.data_kind,
            backbone=self._backbone,
            method=method.name,
            label=label,
            config=method.config,
            parents=parents,
            seed=seed,
            shots=shots,
            budget=budget,
            search=search,
            whole=whole,
            files=tuple(self._digests(label, method).items()),
            elsewhere=elsewhere,
        )

    def _whole(
        self,
        label: str,
        method: Method[MethodConfig],
        parents: tuple[tuple[Parent, str], ...],
        runs: Mapping[str, Run],
    ) -> bool:
        """True if a run, or one that it builds on, trains on what is held out for ID validation.

        Raises:
            InputError: it selects on images that a run which it builds on trains on.
        """
        seen = next((parent.label for parent, run_id in parents if runs[run_id].whole), None)
        if method.selects() and seen is not None:
            raise self._suite.error(
                f'selects on ID validation images that its parent "{seen}" trains on; leave it '
                'out for this task, or have "id_val" withheld_from: all',
                *("methods", label),
            )
        own = isinstance(method, TrainedMethod) and not method.selects()
        return seen is not None or (own and self._withheld_from == "selecting")

    def _spec(
        self,
        label: str,
        method: Method[MethodConfig],
        parents: tuple[tuple[Parent, str], ...],
        seed: int,
        shots: int | None,
        budget: Budget,
        search: str | None = None,
        *,
        whole: bool,
    ) -> dict[str, Any]:
        """The identity of a run."""
        shared = self._shared_spec(label, method, budget, whole=whole)
        return {**shared, **_own(parents, seed, shots), "search": search}

    def _digests(self, label: str, method: Method[MethodConfig]) -> Mapping[str, str]:
        """Digests of the files that a method's settings name, which are read once."""
        if label not in self._files:
            self._files[label] = file_digests(method.config)
        return self._files[label]

    def _shared_spec(
        self,
        label: str,
        method: Method[MethodConfig],
        budget: Budget,
        seen: EvaluationSet | None = None,
        *,
        whole: bool,
        of_search: bool = False,
    ) -> dict[str, Any]:
        """What the identities of all seeds have in common, as text that is made once.

        A search alone has seen OOD validation data.
        """
        key = label, whole, of_search
        if key not in self._shared:
            spec = identity(
                task=self._task,
                data_kind=self._suite.data_kind,
                backbone=self._backbone_identity,
                method=method.name,
                plugin=plugin_origin(method),
                config=method.config,
                parents=(),
                seed=0,
                shots=None,
                budget=budget,
                sources=source_origins(self._task.without_also(), seen),
                metrics=metric_origins(metrics_named(self._task, seen)),
                whole=whole,
                files=None if of_search else self._digests(label, method),
                revision=method.revision,
            )
            if of_search:
                spec |= {"kind": "search", "ood_val": seen and seen.model_dump(mode="json")}
            self._shared[key] = {name: JsonText(json_text(value)) for name, value in spec.items()}
        return self._shared[key]

    def _search(
        self,
        label: str,
        method: Method[MethodConfig],
        parents: tuple[tuple[Parent, str], ...],
        whole: bool,
    ) -> SearchRun | None:
        """The search of a method, one for all seeds unless its trials depend on the seed."""
        search = method.search()
        if search is None:
            return None
        ood_val = self._ood_val if search.config.n_trials else None
        if search.config.n_trials and ood_val is None:
            raise self._suite.error(
                f'searches on OOD validation data, but task {self._task.name} has no "ood_val"',
                "methods",
                label,
            )
        own = search.config.per_seed or self._shots is not None or bool(parents)
        seed, shots = self._seed if own else 0, self._shots
        if not isinstance(method, TrainedMethod):  # what its runs share, their searches do
            seed = seed if self._varies(label) else 0
            shots = shots if self._draws(label) else None
        budget = self._suite.budget.model_copy(update={"steps": None})
        shared = self._shared_spec(label, method, budget, ood_val, whole=whole, of_search=True)
        return SearchRun(run_id({**shared, **_own(parents, seed, shots)}), seed, ood_val)

    def _varies(self, label: str) -> bool:
        """True if the cell's seed can change the outcome of a method.

        It can where the method, or an ancestor that is of this cell's seed, uses it.
        """
        method = self._suite.methods[self._task.name][label]
        return method.seeded or any(
            parent.seed is None and self._varies(parent.label) for parent in method.parents()
        )

    def _draws(self, label: str) -> bool:
        """True if the few-shot draw can change the outcome: the method or an ancestor uses it."""
        method = self._suite.methods[self._task.name][label]
        return method.seeded or any(self._draws(parent.label) for parent in method.parents())


def _own(parents: tuple[tuple[Parent, str], ...], seed: int, shots: int | None) -> dict[str, Any]:
    """What tells the identities of one method's runs and searches from each other."""
    return {"parents": [run_id for _, run_id in parents], "seed": seed, "shots": shots}


def evaluation_metrics(task: Task) -> dict[str, str]:
    """The headline metric of every set that a run is evaluated on, by the set's name."""
    metrics: dict[str, str] = {"id-val": task.id_test.metric}
    return metrics | {name: item.metric for name, item in task.evaluation_sets().items()}
