from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shiftbench.data.tasks.opening import open_task
from shiftbench.execution.amounts import Amount, Cost
from shiftbench.execution.begun import Begun
from shiftbench.execution.cost import Estimator, plan_state
from shiftbench.execution.measured import measured_speeds
from shiftbench.execution.sizes import Sizes
from shiftbench.execution.throughput import CPU, Rates, device_of
from shiftbench.leaderboard.runfolder import Fit, RunFolder, SearchFolder
from shiftbench.leaderboard.schema import done, failed
from shiftbench.leaderboard.store import write_run
from shiftbench.leaderboard.training_curve import STEP, TrainingCurve
from shiftbench.suite.file import Resources
from shiftbench.suite.json_schema import SCHEMA_FILE
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.leaderboard.records import info, results

SUITE = """\
backbones: [openai/ViT-B-16]
tasks:
  birds:
    classes: from-data
    train: {kind: parquet, path: birds.parquet, where: {place: garden}}
    id_val: {holdout: 0.25}
    id_test: {source: {kind: parquet, path: birds.parquet, where: {place: garden}}}
    shifts:
      forest: {source: {kind: parquet, path: birds.parquet, where: {place: forest}}}
methods:
  zero-shot: {}
  full: {epochs: 3, batch_size: 16}
  wise-ft: {alphas: [0, 0.5, 1]}
"""
GARDEN, FOREST = 80, 30
SUITES = SCHEMA_FILE.parent


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with 80 garden and 30 forest birds of two classes; the working directory."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"image": {"bytes": b"", "path": ""}, "label": ["crow", "wren"][i % 2], "place": place}
        for place, count in (("garden", GARDEN), ("forest", FOREST))
        for i in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "birds.parquet")
    return tmp_path


def build(*overrides: str) -> Plan:
    Path("x.yaml").write_text(SUITE)
    return Plan.build(Suite.load("x.yaml", overrides))


def costs(plan: Plan, root: Path | None, results: Path = Path("results")) -> dict[str, Cost]:
    found = plan_state(plan, results, None if root is None else str(root))
    return {line.label: line.cost for line in found.groups}


def finish(results_folder: Path, plan: Plan, label: str, seed: int = 0, **changes: object) -> None:
    """Record the run of a label as done."""
    run = next(r for r in plan.runs.values() if (r.label, r.seed) == (label, seed))
    record = info(
        run.id, task=run.task.name, backbone=run.backbone, method=run.method, label=label, **changes
    )
    write_run(results_folder, run.id, done(record, results({"id-test": 0.5, "forest": 0.4})))


def test_steps_and_images_follow_from_the_training_set(birds):
    found = costs(build(), birds)
    # 80 less a quarter held out: 60 images, 3 epochs in batches of 16 are ⌈11.25⌉ steps.
    assert (found["full"].steps, found["full"].images) == (Amount(12), Amount(192))
    assert (found["zero-shot"].steps, found["zero-shot"].images) == (Amount(), Amount())
    assert (found["wise-ft"].steps, found["wise-ft"].images) == (Amount(), Amount())


def test_a_batch_is_never_larger_than_the_training_set(birds):
    found = costs(build("methods.full.batch_size=500"), birds)["full"]
    assert (found.steps, found.images) == (Amount(3), Amount(180))


def test_budgets_cap_the_cost(birds):
    found = costs(build("budget.steps=5", "budget.evaluation_images=25"), birds)["full"]
    assert (found.steps, found.images) == (Amount(5), Amount(80))
    assert found.predictions == Amount(20 + 25 + 25)


@pytest.mark.parametrize(("shots", "images"), [(4, 8), (100, 60)])
def test_few_shots_are_of_every_class(birds, shots, images):
    found = costs(build(f"shots=[{shots}]", "methods.full.batch_size=1"), birds)["full"]
    assert found.steps == Amount(3 * images)
    validation = min(min(shots, 4) * 2, 20)
    assert found.predictions == Amount(validation + GARDEN + FOREST)


def test_every_variant_is_predicted_on_every_set(birds):
    found = costs(build(), birds)
    once = 20 + GARDEN + FOREST
    assert found["full"].predictions == found["zero-shot"].predictions == Amount(once)
    assert found["wise-ft"].predictions == Amount(3 * once)


@pytest.mark.parametrize("shots", [None, 3])
@pytest.mark.parametrize("task", ["imagenet", "cifar10", "iwildcam", "fmow"])
def test_the_miniature_world_has_as_many_images_as_planned(world, task, shots):
    suite = Suite.load(SUITES / "miniature.yaml")
    opened = open_task(suite.tasks[task], str(world), shots, seed=0)
    sizes = Sizes(str(world))
    # Held-out parts and rare classes are rounded, so that a plan is right up to a few images.
    tolerance = len(opened.classes)
    planned = sizes.training(suite.tasks[task], shots)
    assert planned is not None
    assert abs(planned - len(opened.train)) <= tolerance * (shots or 1)
    run = next(r for r in Plan.build(suite).runs.values() if r.task.name == task)
    predicted = sum(
        len(images) for name, (_, images) in opened.evaluation.items() if name != "ood-val"
    )
    if shots is None:
        assert (
            abs(sum(size or 0 for size in sizes.evaluated(run).values()) - predicted) <= tolerance
        )


def test_documented_sizes_need_no_data():
    sizes = Sizes(None)
    imagenet = Suite.load(SUITES / "nine-shifts.yaml").tasks["imagenet"]
    assert sizes.training(imagenet, None) == 1_281_167 - round(0.02 * 1_281_167)
    assert sizes.training(imagenet, 16) == 16_000


def test_what_cannot_be_known_is_a_lower_bound(birds):
    for found in (costs(build(), None), costs(build(), birds / "nowhere")):
        full = found["full"]
        assert (full.steps, full.images) == (Amount(1, False), Amount(0, False))
        assert full.seconds == Amount(0, False) and full.disk.known > 0
    assert Amount(1) + Amount(2, False) == Amount(3, False)
    assert Amount.of(None, 4) == Amount(4, False) and Amount.of(5, 4) == Amount(5)
    both = Cost(Amount(1), Amount(2)) + Cost(Amount(1, False), Amount(3))
    assert (both.steps, both.images) == (Amount(2, False), Amount(5))


def test_sets_whose_size_is_known_count_where_others_are_not(birds):
    plan = build("tasks.birds.shifts.ten={source: {kind: cifar10.1}}")
    assert costs(plan, None)["zero-shot"].predictions == Amount(2000, False)


def test_nothing_is_done_where_nothing_has_run(birds):
    found = plan_state(build("seeds=[0, 1]"), birds / "results", str(birds))
    assert [(line.label, line.done, line.left) for line in found.groups] == [
        ("zero-shot", 0, 1),
        ("full", 0, 2),
        ("wise-ft", 0, 2),
    ]
    assert found.cost.steps == Amount(24)
    assert found.cost.seconds.whole and found.cost.seconds.known > 0
    assert found.cost.estimated == pytest.approx(found.cost.seconds.known)


def test_what_is_done_costs_nothing_and_tells_how_long_the_rest_takes(birds):
    plan = build("seeds=[0, 1, 2]")
    finish(birds / "results", plan, "full", train_images=192, train_seconds=6.0, world_size=2)
    finish(birds / "results", plan, "zero-shot", seeded=False)
    finish(birds / "results", plan, "wise-ft")
    found = {line.label: line for line in plan_state(plan, birds / "results", str(birds)).groups}
    assert [found[label].done for label in ("zero-shot", "full", "wise-ft")] == [1, 1, 1]
    assert found["zero-shot"].cost == Cost()
    # Two runs of 192 images at 192 / (6 s · 2 workers) on one worker, and 2 · 130 predictions at
    # 100 images in 2 s.
    assert found["full"].left == 2
    assert found["full"].cost.seconds.known == pytest.approx(2 * 12 + 2 * 130 / 50)
    assert found["wise-ft"].cost.seconds.known == pytest.approx(2 * 390 / 50)
    assert found["full"].cost.estimated == found["wise-ft"].cost.estimated == 0


def test_more_workers_take_less_time(birds):
    plan = build("seeds=[0, 1]")
    finish(birds / "results", plan, "full", train_images=192, train_seconds=12.0)
    one = costs(plan, birds)["full"].seconds
    four = costs(build("seeds=[0, 1]", "resources.workers=4"), birds)["full"].seconds
    assert one.known - four.known == pytest.approx(12 - 12 / 4)


def test_a_failed_run_is_to_do_again_and_says_why(birds):
    plan = build()
    run = next(r for r in plan.runs.values() if r.label == "full")
    write_run(birds / "results", run.id, failed(info(run.id), "the loss\nis not finite"))
    found = plan_state(plan, birds / "results", str(birds))
    assert (found.count("done"), found.count("failed"), found.count("left")) == (0, 1, 2)
    assert [(f.run.id, f.reason) for f in found.failures] == [(run.id, "the loss is not finite")]
    assert found.cost.steps == Amount(12)


def test_workers_of_an_own_size_count_as_several_or_as_a_part(birds):
    """What they are as fast as together, and what is paid for."""
    own = "methods.full.resources={cpus_per_worker: 2, workers: 6}"
    plan = build("resources.cpus_per_worker=4", own)
    estimator = plan_state(plan, Path("results"), str(birds)).estimator
    counted = {run.label: estimator.workers(run) for run in plan.runs.values()}
    assert counted.pop("full") == 3
    assert {*counted.values()} == {1}


def test_half_done_runs_cost_what_is_left_of_them(birds):
    plan = build("methods.full.epochs=4")  # ⌈4 · 60 / 16⌉ = 15 steps, saved every 4
    run = next(r for r in plan.runs.values() if r.label == "full")
    folder = RunFolder.of(birds / "results", run.id)
    folder.path.mkdir(parents=True)
    folder.progress.write_text('{"step": 6, "steps": 15, "batch_size": 16}')
    found = costs(plan, birds)["full"]
    assert (found.steps, found.images) == (Amount(9), Amount(9 * 16))
    # Interrupted, it goes on from the last state, amid an epoch, or from the start without one.
    os.utime(folder.progress, (0, 0))
    assert costs(plan, birds)["full"].steps == Amount(15)
    folder.state.touch()
    TrainingCurve({STEP: [1, 2, 3, 4, 5]}).write(folder.metrics)
    assert costs(plan, birds)["full"].steps == Amount(10)
    folder.write_fit(Fit([], {}, 0, 1.0, 0.0, 1, 1, "2030-01-01T00:00:00+00:00", 15, None, {}))
    found = costs(plan, birds)["full"]
    assert (found.steps, found.images) == (Amount(), Amount())
    assert found.predictions == Amount(20 + GARDEN + FOREST)
    part = folder.part("", "forest")
    part.parent.mkdir(parents=True)
    part.touch()
    assert costs(plan, birds)["full"].predictions == Amount(20 + GARDEN)


def test_a_begun_search_costs_the_trials_that_have_not_ended(birds):
    import optuna
    from shiftbench.execution.search.study import open_journal

    val = "{source: {kind: parquet, path: birds.parquet, where: {place: forest}}}"
    method = "{method: tuned, of: full, search: {n_trials: 8}}"
    plan = build(f"methods={{tuned-full: {method}}}", f"tasks.birds.ood_val={val}")
    run = next(r for r in plan.runs.values() if r.search is not None)
    assert run.search is not None
    journal = SearchFolder.of(birds / "results", run.search.id).journal
    study = optuna.create_study(storage=open_journal(journal, 60), study_name="search")
    before = plan_state(plan, birds / "results", str(birds)).cost.steps.known
    for end in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED):
        study.tell(study.ask(), 0.5 if end.name == "COMPLETE" else None, end)
    study.ask()  # goes on
    with journal.open("a") as file:
        file.write('{"op_co')
    assert Begun(birds / "results").trials(run.search.id) == 2
    each = run.create().search().config.inner_steps  # type: ignore[union-attr]
    after = plan_state(plan, birds / "results", str(birds)).cost.steps.known
    assert before - after == 2 * each
    (journal.parent / "found.json").write_text("{}")
    assert Begun(birds / "results").trials(run.search.id) is None


def test_failed_runs_and_unknown_methods_measure_nothing():
    tables = [
        failed(info("a"), "broken"),
        done(info("b", method="of-another-package"), results({"id-test": 0.5})),
    ]
    assert not measured_speeds(pa.concat_tables(tables), CPU).training


def test_speed_is_of_the_backbone_and_of_what_trains():
    table = pa.concat_tables(
        [
            done(info("a", train_images=100, train_seconds=1.0), results({"id-test": 0.5})),
            done(info("b", train_images=100, train_seconds=3.0), results({"id-test": 0.5})),
            done(
                info("c", method="linear-probe", train_images=100, train_seconds=0.1),
                results({"id-test": 0.5}),
            ),
        ]
    )
    speeds = measured_speeds(table, CPU)
    assert speeds.training == {
        ("miniature", "images", "fp32"): pytest.approx(50),
        ("miniature", "features", "fp32"): pytest.approx(1000),
    }
    assert speeds.prediction == {
        ("miniature", "full", "fp32"): pytest.approx(50),
        ("miniature", "linear-probe", "fp32"): pytest.approx(50),
    }


def test_speed_in_one_precision_tells_nothing_of_another(birds):
    quick = {"config": {"precision": "bf16"}, "budget": {"evaluation_precision": "bf16"}}
    record = info("a", train_images=100, train_seconds=1.0, **quick)
    speeds = measured_speeds(done(record, results({"id-test": 0.5})), CPU)
    assert speeds.training == {("miniature", "images", "bf16"): 100}
    assert speeds.prediction == {("miniature", "full", "bf16"): 50}
    plan = build("seeds=[0, 1]")
    measured = {"train_images": 192, "train_seconds": 6.0, "config": {"precision": "bf16"}}
    finish(birds / "results", plan, "full", **measured)
    state = plan_state(plan, birds / "results", str(birds))
    (full,) = (group for group in state.groups if group.label == "full")
    assert 0 < full.cost.estimated < full.cost.seconds.known  # evaluations were measured


def test_only_what_ran_on_such_a_device_tells_its_speed():
    on = {
        "xeon": ("Intel Xeon", 1.0),
        "h100": ("NVIDIA H100 80GB HBM3", 100.0),
        "a40": ("NVIDIA A40", 30.0),  # which the table of devices does not have
    }
    table = pa.concat_tables(
        [
            done(
                info(
                    name,
                    device=device,
                    hardware={"cpu": "Intel Xeon", "gpus": ["NVIDIA A40"] * 4},
                    train_images=int(speed),
                    train_seconds=1.0,
                ),
                results({"id-test": 0.5}),
            )
            for name, (device, speed) in on.items()
        ]
    )
    key = ("miniature", "images", "fp32")
    assert measured_speeds(table, CPU).training == {key: 1}
    assert measured_speeds(table, device_of(Resources(), "H100")).training == {key: 100}
    assert not measured_speeds(table, device_of(Resources(), "A100")).training


def test_a_variant_that_was_selected_twice_was_predicted_once():
    twice = results({"id-test": 0.5}) + results({"id-test": 0.5}, selection="id-val")
    speeds = measured_speeds(done(info(), twice), CPU).prediction
    assert speeds == {("miniature", "full", "fp32"): 50}
    run = next(iter(build_anywhere().runs.values()))
    rates = Rates(measured_speeds(done(info(), twice), CPU), CPU)
    _, evaluation = Estimator(Sizes(None), rates, Begun(Path("nowhere")), lambda run: 1).stages(run)
    assert evaluation.predictions.whole
    assert evaluation.estimated == evaluation.seconds.known > 0  # another backbone was measured


def build_anywhere() -> Plan:
    return Plan.build(Suite.load(SUITES / "nine-shifts.yaml"))
