"""Runs that are looked at: one under a debugger, or all of a suite for a few steps each. No ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from shiftbench.core.errors import InputError
from shiftbench.core.files import remove
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.launch import launch
from shiftbench.execution.rerun import only
from shiftbench.leaderboard import store
from shiftbench.methods.search import SearchConfig
from shiftbench.suite.naming import Called, meant
from shiftbench.suite.plan import Plan

if TYPE_CHECKING:
    from rich.console import Console

    from shiftbench.methods.base import Method
    from shiftbench.methods.config import MethodConfig
    from shiftbench.suite.plan import Run
    from shiftbench.suite.suite import Suite

STEPS, IMAGES, TRIALS = 3, 16, 2
"""Of a fast run: optimizer steps, images of every evaluation set, trials of a search."""
PREFIX = "fast-dev-run-"


def run_of(plan: Plan, text: str) -> str:
    """The id of the run of a plan that a text means, by its id or as method/task/seed.

    Raises:
        InputError: it means none of them, or several.
    """
    called = [
        Called(run.id, label, run.task.name, run.seed)
        for run in plan.runs.values()
        for label in run.labels
    ]
    return meant(text, called)


def debug(
    suite: Suite,
    run_id: str,
    results: Path,
    console: Console,
    *,
    allow_incomplete: bool = False,
    decode: bool = True,
) -> None:
    """Do one run in this process, after those that it builds on and that are not done.

    Whatever goes wrong is raised where it happens, and nothing is recorded of it: rows and weights
    that are there stay, and so does the state that a training goes on from. A run that ends well
    is recorded as always.

    Args:
        suite: that the run is of.
        run_id: of the run.
        results: the results folder.
        console: should be no terminal to rich, whose bars would draw over a debugger.
        allow_incomplete: go on with data sets that lack files.
        decode: of ``launch``.

    Raises:
        InputError: it is done, or something cannot work, found before anything was computed.
    """
    if store.statuses(results, [run_id]).get(run_id) == "done":
        raise InputError(
            f"run {run_id} is done already: shiftbench remove {run_id} --yes, or --results with "
            "another folder, has it done again"
        )
    one = only(suite, run_id)
    resources = one.resources.model_copy(update={"workers": 1, "data_workers": 0, "compile": "off"})
    launch(
        replace(one, resources=resources, own_resources={}),
        results,
        InProcess(raising=True),
        console,
        allow_incomplete=allow_incomplete,
        decode=decode,
    )


def fast(suite: Suite) -> Suite:
    """The suite with a few steps and images for each run, which are other runs by their ids.

    Every method keeps its settings but two: searches try little, and no training images are shrunk
    and stored. Batches stay as large as they are, so that what does not fit the memory shows.
    """
    budget = suite.budget.model_copy(
        update={
            "steps": min(suite.budget.steps or STEPS, STEPS),
            "evaluation_images": min(suite.budget.evaluation_images or IMAGES, IMAGES),
        }
    )
    methods = {task: _quick(of_task) for task, of_task in suite.methods.items()}
    return replace(suite, budget=budget, methods=methods, loggers=())


def _quick(methods: Mapping[str, Method[MethodConfig]]) -> dict[str, Method[MethodConfig]]:
    """Methods that take little before they train; those that differ still do."""
    found: dict[str, Method[MethodConfig]] = {}
    for label, method in methods.items():
        others = {**methods, **found}.items()
        taken = [of.config for name, of in others if name != label and of.name == method.name]
        configs = (_quick_config(method.config, TRIALS + more) for more in range(len(methods)))
        config = next((config for config in configs if config not in taken), method.config)
        found[label] = type(method)(config)
    return found


def _quick_config(config: MethodConfig, trials: int) -> MethodConfig:
    """Settings with so many trials of each search, and without a store."""
    changes: dict[str, object] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, SearchConfig) and value.n_trials > trials:
            few = {"n_trials": trials, "inner_steps": STEPS, "finalists": min(1, value.finalists)}
            changes[name] = value.model_copy(update=few)
        if name == "store" and value is not None:
            changes[name] = None
    return config.model_copy(update=changes) if changes else config


@contextmanager
def thrown_away(beside: Path | None = None) -> Iterator[Path]:
    """A results folder for the block, which is kept only if a run failed in it.

    Args:
        beside: where to make it, for a cluster whose nodes see that folder; by default where this
            machine has temporary files.
    """
    if beside is not None:
        beside.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix=PREFIX, dir=beside))
    keep = False
    try:
        yield folder
        keep = "failed" in store.statuses(folder).values()
    finally:
        if not keep:
            remove(folder)


def same_place(run: Run, plan: Plan) -> str:
    """The id of the run of a plan that is what a run is in another plan of the same grid."""

    def place(of: Run) -> tuple[object, ...]:
        return of.task.name, of.backbone, of.label, of.shots, of.seed

    (found,) = (other.id for other in plan.runs.values() if place(other) == place(run))
    return found
