"""What a search costs: with ASHA and without, and with warm processes and without.

    python -m tests.perf.search [--trials 100] [--task cifar10]

The same objectives' space is searched twice on Ray Tune, once with early stopping and once without.
Then some trials run in one process that keeps backbone, data and model, and as many in one that
loads them for each trial, as a search without warm workers would.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import torch
from shiftbench.distributed.session import session
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.search.study import Study
from shiftbench.execution.search.trial import Trials
from shiftbench.execution.setup import Setup
from shiftbench.execution.workspace import Workspace
from shiftbench.leaderboard.runfolder import Found, SearchFolder
from shiftbench.methods.search import Values
from shiftbench.suite.plan import Plan, Run
from shiftbench.suite.suite import Suite

SUITE = """
data: miniature
backbones: [miniature]
tasks: [{task}]
methods:
  asha: &autoft
    method: autoft
    lr: 5e-4
    batch_size: 24
    search: &search {{n_trials: {trials}, inner_steps: 9, finalists: 5, repeats: 2}}
  none: {{<<: *autoft, search: {{<<: *search, scheduler: none}}}}
"""
TRIALS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--task", default="cifar10")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "suite.yaml"
        file.write_text(SUITE.format(task=arguments.task, trials=arguments.trials))
        plan = Plan.build(Suite.load(file))
        early_stopping(plan, Path(folder))
        warm_processes(plan, Path(folder))


def early_stopping(plan: Plan, results: Path) -> None:
    """Search with ASHA and without; print what each did."""
    with session(None, plan.suite.resources):
        from shiftbench.distributed.tuning import run_trials

        def quietly(setup: Setup, run: Run, study: Study) -> None:
            run_trials(setup, run, study, lambda *_: None)

        from shiftbench.execution.search.search import search

        suite = plan.suite
        setup = Setup("perf", plan.runs, results, "miniature", suite.resources, Remarks())
        found: dict[str, tuple[Found, int, float]] = {}
        for run in plan.runs.values():
            started = time.monotonic()
            search(
                setup, run, lambda study, run=run: run_trials(setup, run, study, lambda *_: None)
            )
            seconds = time.monotonic() - started
            assert run.search is not None
            folder = SearchFolder.of(results, run.search.id)
            trials = pq.read_table(folder.trials).to_pylist()
            steps = sum(trial["steps"] for trial in trials if trial["study"] == "search")
            states = [trial["state"] for trial in trials if trial["study"] == "search"]
            found[run.label] = folder.read_found(), steps, seconds
            print(
                f"{run.label}: {len(states)} trials in {seconds:.0f} s "
                f"({60 * len(trials) / seconds:.0f} a minute with the finalists'), "
                f"{states.count('stopped')} stopped, {states.count('failed')} failed, "
                f"{steps} steps, final OOD validation {found[run.label][0].score:.3f}"
            )
    share = found["asha"][1] / found["none"][1]
    print(f"steps with early stopping / without: {share:.2f}")
    print(f"wall time with early stopping / without: {found['asha'][2] / found['none'][2]:.2f}")


def warm_processes(plan: Plan, results: Path) -> None:
    """Time trials in a process that keeps what they share, and in one that loads it for each."""
    run = next(iter(plan.runs.values()))
    warm = Trials(workspace(plan, results), run)

    def reused(values: Values) -> None:
        one_trial(warm, values)

    def rebuilt(values: Values) -> None:
        one_trial(Trials(workspace(plan, results), run), values)

    reused(point(run, 0))  # what it decodes and caches is not part of the comparison
    seconds: dict[str, float] = {"reused": 0.0, "rebuilt": 0.0}
    ways: dict[str, Callable[[Values], None]] = {"reused": reused, "rebuilt": rebuilt}
    for i in range(TRIALS):
        for name, way in ways.items():
            started = time.monotonic()
            way(point(run, i))
            seconds[name] += time.monotonic() - started
    for name, total in seconds.items():
        print(f"{name}: {60 * TRIALS / total:.0f} trials a minute in one process")
    print(f"trials a minute, reused / rebuilt: {seconds['rebuilt'] / seconds['reused']:.2f}")


def workspace(plan: Plan, results: Path) -> Workspace:
    setup = Setup("perf", plan.runs, results, "miniature", plan.suite.resources, Remarks())
    return Workspace(setup, torch.device("cpu"))


def one_trial(trials: Trials, values: Values) -> None:
    trials.start(values, seed=0)
    for steps in trials.search.config.milestones():
        trials.advance(steps)


def point(run: Run, seed: int) -> Values:
    from shiftbench.execution.search.space import draw

    search = run.create().search()
    assert search is not None
    return {**draw(search, seed), "lr": 1e-4}


if __name__ == "__main__":
    main()
