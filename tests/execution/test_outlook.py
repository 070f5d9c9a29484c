"""What is left of a plan, for people; and what it is estimated from."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from safetensors import safe_open
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.execution.amounts import Amount
from shiftbench.execution.cost import plan_state
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.jobs import Job
from shiftbench.execution.outlook import Machine, amount, eta_seconds, outlook
from shiftbench.execution.remaining import Remaining
from shiftbench.execution.throughput import CPU, GPUS, Rate, Rates, Speeds, device_of, gpu_models
from shiftbench.models.arithmetic import tower_of
from shiftbench.models.names import meaning
from shiftbench.suite.file import Resources
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.execution.test_cost import SUITES, birds, build, finish  # noqa: F401  (a fixture)

PROFILE = {  # open_clip's docs/model_profile.csv: 10⁹ operations and 10⁶ weights of the image tower
    "ViT-B-32": (8.82, 87.85),
    "ViT-B-16": (35.13, 86.19),
    "ViT-L-14": (162.03, 303.97),
    "ViT-L-14-336": (381.92, 304.29),
    "ViT-H-14": (334.59, 632.08),
    "RN50": (12.22, 38.32),
}


@pytest.mark.parametrize("model", PROFILE)
def test_arithmetic_and_weights_are_those_that_open_clip_publishes(model):
    tower = tower_of(f"openai/{model}")
    assert tower is not None
    flops, weights = PROFILE[model]
    assert tower.flops == pytest.approx(flops * 1e9, rel=2e-3)
    assert tower.parameters == pytest.approx(weights * 1e6, rel=2e-3)
    assert tower_of(f"openai/{model}-quickgelu") == tower


def test_the_weights_of_the_shipped_backbone_are_counted():
    tower = tower_of("miniature")
    assert tower is not None
    (file,) = Path(meaning("miniature").path).glob("*.safetensors")  # type: ignore[union-attr]
    with safe_open(file, "np") as weights:
        names = [name for name in weights.keys() if name.startswith("visual.")]  # noqa: SIM118
        counted = sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    assert tower.parameters == pytest.approx(counted, rel=5e-3)
    assert tower_of("hf-hub:nobody/has-this") is None and tower_of("nonsense") is None


def test_devices_are_found_by_the_names_that_drivers_give(tmp_path):
    gpus, cpus = Resources(gpus_per_worker=1), Resources()
    named = {"NVIDIA H100 80GB HBM3": "H100", "NVIDIA A100-SXM4-40GB": "A100", "NVIDIA L4": "L4"}
    named |= {"NVIDIA GeForce RTX 4090": "RTX 4090", "NVIDIA A10G": "A10G", "Tesla T4": "T4"}
    for model, expected in named.items():
        file = tmp_path / model / "0000:00" / "information"
        file.parent.mkdir(parents=True)
        file.write_text(f"Model: \t\t {model}\nIRQ:   \t\t 24\n")
        assert gpu_models(file.parent.parent) == [model]
        assert device_of(gpus, driver=file.parent.parent).name == expected
        assert device_of(cpus, model).name == expected
    assert device_of(gpus, driver=tmp_path / "none").name == "A100"
    other = tmp_path / "other" / "0" / "information"
    other.parent.mkdir(parents=True)
    other.write_text("Model: Abacus 9000\n")
    unlisted = device_of(gpus, driver=other.parent.parent)
    assert (unlisted.name, "like A100" in unlisted.source) == ("Abacus 9000", True)
    assert unlisted.is_kind_of("Abacus 9000") and not unlisted.is_kind_of("NVIDIA A100-SXM4-40GB")
    assert device_of(cpus).name == "processor"
    with pytest.raises(InputError, match="--device abacus: not in the table"):
        device_of(gpus, "abacus")
    assert all(gpu.training <= gpu.prediction * 1.01 and gpu.source for gpu in GPUS)


def test_published_throughputs_come_out_again():
    run = next(
        run
        for run in Plan.build(Suite.load(SUITES / "nine-shifts.yaml")).runs.values()
        if run.label == "full" and run.backbone == "openai/ViT-B-16"
    )
    for device, predicted in (("RTX 3090", 1572), ("RTX 4090", 2843), ("RTX 5090", 3929)):
        rate = Rates(Speeds(), device_of(Resources(), device)).prediction(run)
        assert rate is not None and rate.source == "published"
        assert rate.images == pytest.approx(predicted, rel=0.02)
    trained = Rates(Speeds(), device_of(Resources(), "RTX 3090")).training(run, run.create())
    assert trained is not None and trained.images == pytest.approx(393, rel=0.02)
    speeds = Speeds(prediction={(run.backbone, "full", run.budget.evaluation_precision): 7.0})
    rate = Rates(speeds, CPU).prediction(run)
    assert rate == Rate(7, "rows")


def test_lines_tell_time_cost_memory_and_disk(birds: Path) -> None:  # noqa: F811
    plan = build()
    state = plan_state(plan, birds / "results", str(birds))
    machine = Machine(workers=2, memory=4 * 2**30, disk=2 * 2**30)
    lines = outlook(plan, state, Path("results"), machine=machine, now=lambda: datetime(2030, 1, 1))
    time, cost, calibration, memory, disk = lines
    assert "2 workers at once, until 00:" in time and cost.endswith("processor-hours of workers.")
    assert "not calibrated" in calibration and "i7_12700h" in calibration
    assert "1.3 GiB" in memory and "4.0 GiB are free" in memory  # 16 bytes of 86.2 million weights
    saved = "1.0 GiB for the state of each training under way"  # 12 bytes of each weight
    assert (
        disk
        == f"Disk: 328.8 MiB of weights and predictions, and {saved}; 2.0 GiB are free in results."
    )
    tight = outlook(plan, state, Path("results"), machine=replace(machine, disk=2**30))
    assert tight[4].endswith("1.0 GiB are free in results, which is not enough.")
    assert "?" not in "".join(lines)
    nowhere = Machine(workers=0, memory=1, disk=1)
    unknown = outlook(plan, plan_state(plan, birds / "results", None), birds, machine=nowhere)
    assert unknown[0].startswith("Time: at least 0 s, one run after the other; to be divided")
    assert "not enough" in unknown[4]
    for label in ("zero-shot", "full", "wise-ft"):
        finish(birds / "results", plan, label, peak_memory_bytes=3 * 2**30)
    done = plan_state(plan, birds / "results", str(birds))
    assert outlook(plan, done, birds) == ["Nothing is left to do."]
    assert done.peak_memory == 3 * 2**30


def test_workers_at_once_take_less_time_but_not_less_than_the_longest_run(birds: Path) -> None:  # noqa: F811
    state = plan_state(build("seeds=[0, 1, 2]"), birds / "results", str(birds))
    alone = state.cost.worker_seconds.known
    assert eta_seconds(state, 1) == Amount(alone)
    assert eta_seconds(state, 2).known == pytest.approx(alone / 2)
    assert eta_seconds(state, 1000).known == state.longest > 0
    assert amount(Amount(1200, False)) == "at least 1,200" and amount(Amount(3)) == "3"


def test_plan_prints_all_that_and_never_a_question_mark(birds: Path, capsys) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    build()
    ten = "tasks.birds.shifts.ten={source: {kind: cifar10.1}}"  # whose size is documented
    tiny = ["--set", "backbones=[miniature]", "--set", ten]
    assert main(["plan", "x.yaml", *tiny, "--device", "H100"]) == 0
    shown = capsys.readouterr().out
    assert "≥ 1" in shown and "?" not in shown and "at least" in shown and "H100" in shown
    for word in ("Time:", "Cost:", "GPU-hours", "GPU memory:", "Disk:", "not calibrated"):
        assert word in shown
    assert main(["plan", "x.yaml", "--device", "abacus"]) == 2


def test_what_is_left_is_told_at_the_speed_so_far():
    fit, predict, score = Job("fit", "a"), Job("predict", "a", "", "id-test"), Job("score", "a")
    other = Job("fit", "b")
    left = Remaining({fit: 60.0, predict: 30.0, score: 10.0, other: 100.0})
    assert left.seconds(5.0) is None
    left.steps({"a": (30, 60)})
    assert left.seconds(15.0) == pytest.approx(15 * 170 / 30)
    left.steps({"b": (1, 10)})  # nothing new is heard of the other
    assert left.seconds(15.0) == pytest.approx(15 * 160 / 40)
    left.steps({"b": (0, 10)})
    left.done(fit)
    assert left.seconds(30.0) == pytest.approx(30 * 140 / 60)
    left.failed("b")
    assert left.seconds(30.0) == pytest.approx(30 * 40 / 60)
    left.done(predict)
    left.done(score)
    assert left.seconds(50.0) == 0


def test_executors_say_how_many_workers_are_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from shiftbench.distributed.executor import RayExecutor

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert InProcess().most == 1 and RayExecutor().most is None
    assert RayExecutor("10.0.0.1:6379").most == 0
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert RayExecutor().most == 0


def test_what_is_paid_for_is_all_that_a_worker_holds(birds: Path) -> None:  # noqa: F811
    def hours(*overrides: str) -> str:
        plan = build(*overrides)
        state = plan_state(plan, birds / "results", str(birds))
        return outlook(plan, state, Path("results"), machine=Machine(1, 1, 1))[1]

    alone = hours()
    assert hours("resources.cpus_per_worker=4") == alone  # a quarter of the time, on four
    finish(birds / "results", build(), "full", train_images=192, train_seconds=36_000.0)
    finish(birds / "results", build(), "zero-shot")
    finish(birds / "results", build(), "wise-ft")
    other = "methods.full.lr=1e-3"  # the same at another rate is left to do
    assert hours(other).startswith("Cost: 10.00 processor-hours")
    assert hours(other, "resources.cpus_per_worker=4").startswith("Cost: 40.01 processor-hours")
