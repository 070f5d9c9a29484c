"""What a search costs, against one that runs trial after trial as AutoFT's code does.

    python -m tests.perf.search [--trials 16] [--seeds 3] [--task cifar10] [--only trial tune jpeg]

- ``trial``: a warm trial against its arithmetic (the same steps and scoring on tensors that are
  there), against the papers' loop (a copied model, a new optimizer, a ``DataLoader`` that decodes
  by Pillow), and against the same with model and data loaded anew for each. All four give the same
  score, which is checked.
- ``tune``: a search on Ray Tune with two workers, with early stopping and without, against so many
  trials one after the other, rebuilt; and the scores that they find, on several seeds. What is
  slower than the second trial to end is the start; the rest is scaled to 100 trials.
- ``jpeg``: trials on JPEGs of 400 px with and without batches that are there already.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import optuna
import torch
from shiftbench.distributed.session import session
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.search.space import draw, sampler, space_of
from shiftbench.execution.search.study import Study
from shiftbench.execution.search.trial import Trials
from shiftbench.execution.setup import Setup
from shiftbench.execution.workspace import Workspace
from shiftbench.leaderboard.runfolder import SearchFolder
from shiftbench.methods.search import Values
from shiftbench.suite.plan import Plan, Run
from shiftbench.suite.suite import Suite

from tests.perf.gpu.world import CLASSES, Sizes
from tests.perf.gpu.world import draw as draw_photographs
from tests.perf.measurement import Measurement, alternating, lines
from tests.perf.trials import BATCH, SEED, STEPS, Loop

REPORTED = 100
AUTOFT = """
    method: autoft
    lr: 5e-4
    batch_size: 24
    search:
      {{n_trials: {trials}, inner_steps: 9, finalists: 0, seed: {seed}, scheduler: {scheduler}}}
"""
MINIATURE = "data: miniature\nbackbones: [miniature]\ntasks: [{task}]\n"
PHOTOGRAPHS = """
data: {root}
backbones: [miniature]
tasks:
  photographs:
    classes: {classes}
    templates: simple
    train: {{kind: image-folder, path: train}}
    id_val: {{holdout: 0.05}}
    id_test: {{source: {{kind: image-folder, path: test}}}}
    ood_val: {{source: {{kind: image-folder, path: test}}}}
resources: {{limits: {{decoded_bytes: {decoded}, shared_batches_bytes: {shared}}}}}
"""
PARTS = ("trial", "tune", "jpeg")


def measure(
    trials: int = 16, seeds: int = 3, task: str = "cifar10", parts: Sequence[str] = PARTS
) -> list[Measurement]:
    """All of the above; takes about four minutes on two cores."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        suite = MINIATURE.format(task=task)
        found: list[Measurement] = []
        rebuilt = None
        if "trial" in parts or "tune" in parts:
            of_trial, rebuilt = one_trial(plan_of(suite, root))
            found += of_trial
        if "tune" in parts:
            found += searches(suite, root, trials, seeds, rebuilt or 0.0)
        if "jpeg" in parts:
            found += photographs(root)
    return found


def plan_of(
    suite: str, root: Path, trials: int = REPORTED, seed: int = 0, scheduler: str = "asha"
) -> Plan:
    file = root / "suite.yaml"
    method = AUTOFT.format(trials=trials, seed=seed, scheduler=scheduler)
    file.write_text(f"{suite}methods:\n  autoft:{method}")
    return Plan.build(Suite.load(file))


def workspace(plan: Plan) -> Workspace:
    data = plan.suite.require_data()
    setup = Setup("perf", plan.runs, Path("perf"), data, plan.suite.resources, Remarks())
    return Workspace(setup, torch.device("cpu"))


def the_run(plan: Plan) -> Run:
    (run,) = plan.runs.values()
    return run


def point(trials: Trials, seed: int) -> Values:
    return {**draw(trials.search, seed), "lr": 1e-4}


def warm_trial(trials: Trials, values: Values, seed: int = SEED) -> float:
    trials.start(values, seed)
    return trials.advance(STEPS).score


def one_trial(plan: Plan, rounds: int = 5) -> tuple[list[Measurement], float]:
    """A warm trial against its arithmetic and the papers' loops, and seconds of a rebuilt one."""
    run = the_run(plan)
    warm, papers = Trials(workspace(plan), run), Loop(workspace(plan), run)
    values = point(warm, 0)
    batches, scored = list(papers.batches()), list(papers.scored())
    models = iter([papers.prepared(values) for _ in range(rounds + 1)])
    scores: dict[str, float] = {}

    def arithmetic() -> None:
        model, method = next(models)
        scores["arithmetic"] = papers.train_and_score(model, method, iter(batches), iter(scored))

    def of_papers() -> None:
        scores["papers"] = papers.trial(values)

    def rebuilt() -> None:
        scores["rebuilt"] = Loop(workspace(plan), run).trial(values)

    def ours() -> None:
        scores["ours"] = warm_trial(warm, values)

    times = alternating(
        {"arithmetic": arithmetic, "ours": ours, "papers": of_papers, "rebuilt": rebuilt}, rounds
    )
    warm.close()
    assert len(set(scores.values())) == 1, scores
    seconds = {name: spent.processor for name, spent in times.items()}
    note = f"processor time; score {scores['ours']:.3f} in all"

    what = f"a warm trial of AutoFT, {STEPS} steps of {BATCH}"

    def against(name: str, reference: str, goal: float | None = None) -> Measurement:
        faster = goal is None
        return Measurement(
            what, seconds["ours"], seconds[name], reference, goal, faster=faster, note=note
        )

    return [
        against("arithmetic", "its arithmetic", 1.05),
        against("papers", "copied model, DataLoader"),
        against("rebuilt", "model and data rebuilt"),
    ], times["rebuilt"].wall


def searches(suite: str, root: Path, trials: int, seeds: int, rebuilt: float) -> list[Measurement]:
    """Searches on Ray Tune, and what as many trials one after the other find."""
    sequential = [in_sequence(plan_of(suite, root, trials, seed)) for seed in range(seeds)]
    with session(None, plan_of(suite, root).suite.resources):
        asha = [on_tune(plan_of(suite, root, trials, s), root / f"a{s}") for s in range(seeds)]
        whole = on_tune(plan_of(suite, root, trials, 0, "none"), root / "none")
    note = (
        f"wall time, two workers, of {REPORTED} trials from {trials}; OOD validation "
        f"{fmean(f.score for f in asha):.3f}, one after the other {fmean(sequential):.3f}, "
        f"means of {seeds} seeds; {asha[0].line}"
    )
    steps = fmean(f.steps for f in asha) / whole.steps
    scaled = fmean(f.scaled for f in asha)
    reference = f"{REPORTED} trials one after the other, rebuilt"
    whole_time = REPORTED * rebuilt
    return [
        Measurement(
            "a search with ASHA", scaled, whole_time, reference, 1.8, faster=True, note=note
        ),
        Measurement("a search without", whole.scaled, whole_time, reference, faster=True),
        Measurement(
            "with ASHA",
            scaled,
            whole.scaled,
            "without",
            faster=True,
            note=f"{steps:.2f} of the steps",
        ),
    ]


def in_sequence(plan: Plan) -> float:
    """The score that trials find one after the other, by the same sampler."""
    run = the_run(plan)
    trials = Trials(workspace(plan), run)
    config = trials.search.config
    study = optuna.create_study(sampler=sampler(config, config.seed), direction="maximize")
    for _ in range(config.n_trials):
        trial = study.ask(space_of(trials.search))
        study.tell(trial, warm_trial(trials, trial.params, trial.params["seed"]))
    trials.close()
    return float(study.best_value)


@dataclass(frozen=True)
class OnTune:
    """A search on Tune: what it found, its steps, seconds scaled to more trials, and its line."""

    score: float
    steps: int
    scaled: float
    line: str


def on_tune(plan: Plan, results: Path) -> OnTune:
    from shiftbench.distributed.tuning import Slots, run_trials
    from shiftbench.execution.search.record import account
    from shiftbench.execution.search.search import search

    run, ends = the_run(plan), []
    setup = Setup(
        "perf", plan.runs, results, plan.suite.require_data(), plan.suite.resources, Remarks()
    )

    def run_them(study: Study) -> None:
        both = Slots(granted=lambda: 2)
        run_trials(setup, run, study, both, lambda *_: ends.append(time.monotonic()))

    begun = time.monotonic()
    search(setup, run, run_them)
    seconds = time.monotonic() - begun
    assert run.search is not None
    found = SearchFolder.of(results, run.search.id).read_found()
    each = (ends[-1] - ends[1]) / (len(ends) - 2)
    return OnTune(
        found.score or 0.0, found.steps, seconds + each * (REPORTED - len(ends)), account(found)
    )


def photographs(root: Path, rounds: int = 5) -> list[Measurement]:
    """Trials on JPEGs: with shared batches, decoded once and resized each time, and decoded."""
    folder = root / "photographs"
    draw_photographs(folder, Sizes(files=100, training=300, test=100))
    classes = [f"c{i}" for i in range(CLASSES)]

    def made(decoded: int, shared: int) -> Callable[[], None]:
        text = PHOTOGRAPHS.format(root=folder, classes=classes, decoded=decoded, shared=shared)
        plan = plan_of(text, root)
        trials = Trials(workspace(plan), the_run(plan))
        return lambda: scores.append(warm_trial(trials, point(trials, 0)))

    def of_papers() -> None:
        plan = plan_of(PHOTOGRAPHS.format(root=folder, classes=classes, decoded=0, shared=0), root)
        values = point(Trials(workspace(plan), the_run(plan)), 0)
        scores.append(Loop(workspace(plan), the_run(plan)).trial(values))

    scores: list[float] = []
    ways = {
        "shared": made(0, 2**30),
        "resized": made(2**31, 0),
        "decoded": made(0, 0),
        "papers": of_papers,
    }
    times = alternating(ways, rounds)
    assert len(set(scores)) == 1, scores
    seconds = {name: spent.processor for name, spent in times.items()}
    what = "a trial on JPEGs of 400 px, batches shared"
    return [
        Measurement(what, seconds["shared"], seconds[name], against, goal, faster=True)
        for name, against, goal in [
            ("papers", "model and data rebuilt", None),
            ("decoded", "decoded each time", 1.5),
            ("resized", "resized each time", None),
        ]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--task", default="cifar10")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    print("\n".join(lines(measure(given.trials, given.seeds, given.task, given.only))))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
