"""The Python API: run a suite, read its leaderboard, load the models that it made.

Everything here has a verb of the command line beside it; both call the same functions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shiftbench.core.errors import InputError
from shiftbench.core.locations import is_remote
from shiftbench.core.mirror import address, opened, shown
from shiftbench.core.words import nearest
from shiftbench.leaderboard import store
from shiftbench.leaderboard.merging import Folders, Merged, merge, names_of
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

if TYPE_CHECKING:
    import pyarrow as pa

    from shiftbench.execution.executor import Executor
    from shiftbench.execution.finetuned import FineTuned
    from shiftbench.leaderboard.schema import FailedRun, Row
    from shiftbench.report.model import Report
    from shiftbench.report.ranking import Ranking
    from shiftbench.report.ties import Ties

ExecutorName = Literal["auto", "in-process", "ray"]
SMALL = 12  # runs of a suite that "auto" does in this process


def run(
    suite: Suite | str | Path,
    results: str | Path = "results",
    executor: ExecutorName = "auto",
    *,
    address: str | None = None,
    allow_incomplete: bool = False,
) -> Leaderboard:
    """Fine-tune, evaluate and score: do what is left of a suite, as ``shiftbench run`` does.

    What was done before is not done again, so the same call goes on after an interruption.

    Args:
        suite: its file, its name, such as ``"quickstart"``, or what ``Suite.load`` returned, which
            takes overrides and the place of the data.
        results: folder of the results, or its URL in an object store; on a cluster, a folder on
            storage that all nodes see.
        executor: ``"in-process"`` does one job after the other here, without Ray, so that a
            debugger and a notebook see all of it; ``"ray"`` uses the machine's or a cluster's
            cores and GPUs; ``"auto"`` is in this process for at most 12 runs with one worker and
            no search, and otherwise on Ray.
        address: of a Ray cluster to join; by default a cluster on this machine.
        allow_incomplete: go on with data sets that lack files, and say so in every row.

    Returns:
        The leaderboard of the suite's runs. Runs that failed are in its ``failures()``.

    Raises:
        InputError: something cannot work, found before anything was computed.
    """
    from rich.console import Console

    from shiftbench.execution.launch import launch

    loaded = suite if isinstance(suite, Suite) else Suite.load(suite)
    name = _fitting(loaded, address) if executor == "auto" else executor
    chosen = executor_of(name, address)
    outcome = launch(loaded, opened(results), chosen, Console(), allow_incomplete=allow_incomplete)
    return Leaderboard(results, outcome.plan)


def load_model(results: str | Path, run: str, variant: str | None = None) -> FineTuned:
    """A fine-tuned open_clip model with its classifier: see ``Leaderboard.load_model``."""
    return Leaderboard(results).load_model(run, variant)


class Leaderboard:
    """The results of runs: rows, rankings, reports, predictions and models.

    It holds no rows itself: each call reads what is there by then.

    Args:
        results: folder of the results, or its URI in an object store; or several, which are read as
            one (``leaderboard.merging`` says what becomes of a run that several have).
        suite: as given to ``run``, or its plan: only its runs, under the labels that it gives them;
            ``None`` for all runs.

    Raises:
        InputError: there are no such results, or something is wrong with the suite.
    """

    def __init__(
        self,
        results: str | Path | Sequence[str | Path] = "results",
        suite: Plan | Suite | str | Path | None = None,
    ) -> None:
        several = [results] if isinstance(results, str | Path) else results
        folders = [opened(one) if is_remote(str(one)) else Path(one) for one in several]
        names = names_of([address(folder) for folder in folders])
        for folder in folders:
            if not folder.is_dir():
                raise InputError(f"{shown(folder)}: there are no results")
        self.sources = dict(zip(names, folders, strict=True))
        loaded = Suite.load(suite) if isinstance(suite, str | Path) else suite
        self.plan = Plan.build(loaded) if isinstance(loaded, Suite) else loaded

    @property
    def title(self) -> str:
        """Such as ``Leaderboard: quickstart``."""
        return f"Leaderboard: {self.plan.suite.name}" if self.plan else "Leaderboard"

    @property
    def results(self) -> Path:
        """Where the results are; of several, the first."""
        return next(iter(self.sources.values()))

    @property
    def folder(self) -> Path | None:
        """The folder of the results; ``None`` for several results."""
        return self.results if len(self.sources) == 1 else None

    def rows(self, task: str | None = None) -> pa.Table:
        """All rows: one for each run × variant × selection × evaluation set × metric.

        Where a suite has several labels for one run, its rows are there under each of them.

        Every field of the table's schema has a description and a unit in its metadata. The table is
        Arrow's: ``.to_pandas()`` (where pandas is installed), ``.to_pylist()``, or DuckDB and
        Polars on it as it is.

        Args:
            task: only of this task.

        Raises:
            InputError: no run is of that task.
        """
        table = self.merged().table
        return table if task is None else of_tasks(table, [task])

    def merged(self, *, compact: bool = True) -> Merged:
        """All rows of all results, and where the files of their runs are.

        Args:
            compact: copy the rows into one file where there are many new ones; without it nothing
                is written.

        Raises:
            InputError: the rows of some results cannot be read.
        """
        tables = {name: (where, self._read(where, compact)) for name, where in self.sources.items()}
        if len(tables) > 1:
            return merge(tables)
        ((where, table),) = tables.values()
        return Merged(table, Folders.of(where))

    def records(self, task: str | None = None) -> list[Row]:
        """The rows of runs that are done as typed objects, their settings parsed."""
        from shiftbench.leaderboard.schema import rows

        return rows(self.rows(task))

    def failures(self, task: str | None = None) -> list[FailedRun]:
        """The runs that failed, with the reasons."""
        from shiftbench.leaderboard.schema import failures

        return failures(self.rows(task))

    def rankings(self, task: str | None = None) -> list[Ranking]:
        """A ranking of the methods for each task × backbone × number of shots."""
        from shiftbench.report.ranking import rank

        return rank(row for row in self.records(task) if row.primary)

    def ranking(
        self, task: str | None = None, backbone: str | None = None, shots: int | None = None
    ) -> Ranking:
        """The ranking of the methods of one task, best mean over its shifts first.

        Args:
            task: may be left out where there is only one; likewise the others.
            backbone: its name.
            shots: training images per class.

        Raises:
            InputError: there is no such ranking, or there are several.
        """
        found = [
            ranking
            for ranking in self.rankings(task)
            if backbone in (None, ranking.backbone) and shots in (None, ranking.shots)
        ]
        if len(found) != 1:
            there = found or self.rankings(task)
            names = ", ".join(
                f"{of.task} · {of.backbone}" + ("" if of.shots is None else f" · {of.shots} shots")
                for of in there
            )
            problem = "several rankings are meant" if found else "there is no such ranking"
            raise InputError(
                f"{problem}; name task, backbone and shots of one of: {names or 'none'}"
            )
        return found[0]

    def ties(
        self, task: str | None = None, backbone: str | None = None, shots: int | None = None
    ) -> Ties:
        """Which methods of a ranking cannot be told apart, by paired tests on the predictions.

        Args:
            task: as for ``ranking``.
            backbone: as for ``ranking``.
            shots: as for ``ranking``.

        Returns:
            Letters by the names of the ranked methods; those that share one tie.

        Raises:
            InputError: there is no such ranking, or there are several.
        """
        from shiftbench.report.predicted import compared

        (found,) = compared([self.ranking(task, backbone, shots)], self.merged().folders)
        return found.ties

    def report(
        self,
        task: str | None = None,
        *,
        markdown: str | Path | None = None,
        html: str | Path | None = None,
    ) -> Report:
        """All that a report shows, and the files that are asked for.

        Args:
            task: only of this task.
            markdown: file to write.
            html: page with charts to write, which opens in any browser without a network.
        """
        from shiftbench.report.model import build
        from shiftbench.suite.finding import find_named

        merged = self.merged()
        table = of_tasks(merged.table, [] if task is None else [task])
        # Only the page shows how to do runs again, and planning every suite takes a while.
        finder = find_named if html is not None else None
        report = build(
            table, merged.folders, title=self.title, find=finder, curves=html is not None
        )
        if markdown is not None:
            from shiftbench.report.markdown import write_markdown

            write_markdown(Path(markdown), report)
        if html is not None:
            from shiftbench.report.html.page import write_html

            write_html(Path(html), report)
        return report

    def predictions(self, run: str) -> pa.Table:
        """The predictions of a run's variants on all evaluation sets, a row for each example.

        Args:
            run: its id, the beginning of it, or method, method/task or method/task/seed.

        Raises:
            InputError: no such run is done, or its predictions are not there.
        """
        from shiftbench.evaluation import predictions

        merged = self.merged()
        run_id = _run_id(merged, run)
        folder = merged.folders.run(run_id)
        if folder is None or not folder.predictions.is_file():
            where = f"run {run_id}" if folder is None else str(folder.predictions)
            raise InputError(f"{where}: there are no predictions")
        return predictions.read(folder.predictions)

    def load_model(self, run: str, variant: str | None = None) -> FineTuned:
        """A fine-tuned open_clip model with its classifier, on the CPU in eval mode.

        Weights that a run does not keep, such as a point of WiSE-FT's curve, are made of its
        parents'. Backbone and data must be where they were when the run was done.

        Args:
            run: its id, the beginning of it, or method, method/task or method/task/seed.
            variant: such as ``"alpha=0.5"``; by default the one that stands for the method.

        Raises:
            InputError: no such run is done, it has no such variant, it combines the outputs of
                several models, or its weights are not there.
        """
        from shiftbench.execution.finetuned import load

        if self.folder is None:
            names = ", ".join(self.sources)
            raise InputError(f"{names}: weights are read from one folder of results only")
        return load(self.folder, _run_id(self.merged(), run), variant)

    def _read(self, results: Path, compact: bool) -> pa.Table:
        """The rows of one of the results.

        Raises:
            InputError: they cannot be read, or their store does not answer.
        """
        labels = None
        opened(store.folder(results))
        if self.plan is not None:
            labels = {run_id: run.labels for run_id, run in self.plan.runs.items()}
        if compact:  # first: what was just copied is read from one file
            store.keep_compact(results)
        return store.relabel(store.read(results, labels), labels)


def _run_id(merged: Merged, text: str) -> str:
    """The run that is meant by its id, the beginning of it, or its name."""
    from shiftbench.leaderboard.verify import select

    (run_id,) = select(merged.table, [text])
    return run_id


def of_tasks(table: pa.Table, tasks: Sequence[str]) -> pa.Table:
    """The rows of some tasks; all if none is named.

    Raises:
        InputError: no run is of a task so called.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    known = set(table["task"].unique().to_pylist())
    for name in tasks:
        if name not in known:
            raise InputError(f'no run of a task "{name}"{nearest(name, known)}')
    return table.filter(pc.is_in(table["task"], pa.array(tasks))) if tasks else table


def executor_of(name: Literal["in-process", "ray"], address: str | None = None) -> Executor:
    """The executor that does the jobs of a launch.

    Args:
        name: ``"in-process"`` or ``"ray"``.
        address: of a Ray cluster to join.

    Raises:
        InputError: an address for work in this process.
    """
    if name == "ray":
        from shiftbench.distributed.executor import RayExecutor

        return RayExecutor(address)
    from shiftbench.execution.in_process import InProcess

    if address is not None:
        raise InputError("the address is of a Ray cluster: it goes with the executor ray")
    return InProcess()


def _fitting(suite: Suite, address: str | None) -> Literal["in-process", "ray"]:
    """The executor that ``"auto"`` means for a suite."""
    on_cluster = address is not None or "RAY_ADDRESS" in os.environ
    plan = Plan.build(suite)
    runs = plan.runs
    shared = any(plan.resources_of(run).workers > 1 for run in runs.values())
    if on_cluster or suite.resources.workers > 1 or shared:
        return "ray"
    searched = any(run.searched_by_training for run in runs.values())
    return "ray" if searched or len(runs) > SMALL else "in-process"
