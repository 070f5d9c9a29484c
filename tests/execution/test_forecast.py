"""A suite on clusters of several sizes; calibrations, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.execution.calibrated import BackboneSpeed, Calibration, calibrations, folder, keep
from shiftbench.execution.cost import Estimator, plan_state
from shiftbench.execution.forecast import Cluster, Forecast, forecast
from shiftbench.execution.outlook import needs
from shiftbench.execution.throughput import CPU, Rates, Speeds, calibration_of, device_of
from shiftbench.models.arithmetic import tower_of
from shiftbench.suite.file import Resources
from shiftbench.suite.plan import Plan

from tests.execution.test_cost import birds, build  # noqa: F401  (a fixture)

H100 = device_of(Resources(), "H100")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Calibrations of the test's own."""
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def on(cluster: Cluster, birds: Path, *overrides: str, preemptions: float = 0.0) -> Forecast:  # noqa: F811
    plan = build(*overrides)
    estimator = plan_state(plan, birds / "results", str(birds), cluster.device).estimator
    return forecast(plan, {*plan.runs}, estimator, cluster, preemptions)


def estimator_of(plan: Plan, birds: Path) -> Estimator:  # noqa: F811
    return plan_state(plan, birds / "results", str(birds), CPU).estimator


def test_clusters_are_named_in_two_ways() -> None:
    assert Cluster.of("8xH100", None, None, None) == Cluster(1, 8, H100)
    assert Cluster.of("64xH100", None, None, None) == Cluster(8, 8, H100)
    assert Cluster.of(" 64 × h100", 16, None, None) == Cluster(16, 4, H100)
    assert Cluster.of(None, 8, 4, "H100") == Cluster(8, 4, H100)
    assert Cluster.of("16xcpu", None, None, None) == Cluster(1, 16, CPU)
    assert Cluster.of(None, None, None, "H100") is None
    for wrong, message in (
        (("H100", None, None, None), "such as 8xH100"),
        (("8xabacus", None, None, None), "--cluster abacus: not in the table"),
        (("9xH100", None, None, None), "9 do not divide over 2 nodes"),
        (("8xH100", None, 4, None), "leave out --gpus"),
        ((None, 8, None, None), "--nodes and --gpus say together"),
    ):
        with pytest.raises(InputError, match=message):
            Cluster.of(*wrong)


def test_a_suite_on_one_processor_takes_what_is_estimated_and_its_parts_on_several(
    birds: Path,  # noqa: F811
) -> None:
    found = on(Cluster(1, 1, CPU), birds)
    state = plan_state(build(), birds / "results", str(birds), CPU)
    jobs = 5 * 3 + 1 + 3  # predictions of five variants on three sets, a training, scores
    expected = state.cost.seconds.known + 0.05 * jobs
    assert found.asked.seconds == pytest.approx(expected)
    assert found.asked.busy == pytest.approx(1)
    assert found.sizes[2].seconds < found.asked.seconds
    assert found.helps is not None  # one training is most of the work
    assert found.sizes[2 * found.helps].seconds > 0.9 * found.sizes[found.helps].seconds


def test_trials_and_groups_take_the_slots_that_the_scheduler_gives(birds: Path) -> None:  # noqa: F811
    val = "{source: {kind: parquet, path: birds.parquet, where: {place: forest}}}"
    overrides = (
        "methods={tuned-full: {method: tuned, of: full, search: {n_trials: 8, finalists: 0}}}",
        f"tasks.birds.ood_val={val}",
    )
    alone, four = (on(Cluster(1, n, H100), birds, *overrides).asked for n in (1, 4))
    assert four.seconds < alone.seconds
    with pytest.raises(InputError, match="2 workers at once do not fit: there is room for 1"):
        on(Cluster(1, 1, H100), birds, "resources.workers=2")
    with pytest.raises(InputError, match="no worker fits on a node of 1 × H100"):
        on(Cluster(1, 1, H100), birds, "resources.gpus_per_worker=2")


def test_nodes_that_are_taken_away_cost_time(birds: Path) -> None:  # noqa: F811
    found = on(Cluster(2, 1, CPU), birds, "methods.full.epochs=3000", preemptions=2.0)
    assert found.preempted is not None and found.preempted.preempted > 0
    assert found.preempted.seconds > found.asked.seconds


def test_what_is_done_or_calibrated_counts_and_the_table_last(birds: Path) -> None:  # noqa: F811
    plan = build()
    full = next(run for run in plan.runs.values() if run.label == "full")
    before = estimator_of(plan, birds).stages(full)[0]
    assert before.estimated == before.seconds.known > 0
    speed = BackboneSpeed(training={"fp32": 64.0}, prediction={"fp32": 128.0}, batch={"fp32": 8})
    kept = keep(_calibration("Intel Xeon", **{"openai/ViT-B-16": speed}))
    found = estimator_of(plan, birds)
    training, _ = found.stages(full)
    assert (training.seconds.known, training.estimated) == (192 / 64, 0)
    assert training.calibrated == training.seconds.known
    assert found.rates.prediction(full).images == 128  # type: ignore[union-attr]
    (said, _, _) = needs(plan, plan_state(plan, birds / "results", str(birds)), birds, _machine())
    assert said == "Times: from a calibration of Intel Xeon, 2030-01-01."
    assert calibration_of(H100) is None
    # Another backbone is told by its arithmetic; a row says more than a calibration.
    keep(_calibration("Intel Xeon", miniature=BackboneSpeed()))
    again = calibration_of(CPU)
    assert again is not None and {*again.backbones} == {"openai/ViT-B-16", "miniature"}
    base, large = tower_of("openai/ViT-B-16"), tower_of("openai/ViT-L-14")
    assert base is not None and large is not None
    told = again.images("openai/ViT-L-14", "training", "fp32")
    assert told == pytest.approx(64 * base.flops / large.flops)
    assert again.images("hf-hub:nobody/has-this", "training", "fp32") is None
    assert again.images("openai/ViT-B-16", "training", "bf16") is None
    rows = Speeds(training={("openai/ViT-B-16", "images", "fp32"): 5.0})
    rate = Rates(rows, CPU, calibration=again).training(full, full.create())  # type: ignore[arg-type]
    assert rate is not None and (rate.images, rate.source) == (5.0, "rows")
    kept.write_text("{}")
    with pytest.raises(InputError, match="is no calibration"):
        calibrations()


def _calibration(device: str, **backbones: BackboneSpeed) -> Calibration:
    return Calibration(
        device=device, kind="cpu", measured="2030-01-01", versions={}, backbones=backbones
    )


def _machine() -> object:
    from shiftbench.execution.outlook import Machine

    return Machine(1, 2**34, 2**34)


def test_calibrate_measures_and_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    assert main(["calibrate", "--backbone", "miniature", "--seconds", "1", "--cpu"]) == 0
    shown = capsys.readouterr().out
    assert "miniature" in shown and "Kept in" in shown
    (file,) = folder().glob("*.json")
    speed = json.loads(file.read_text())["backbones"]["miniature"]
    assert 0 < speed["training"]["fp32"] < speed["prediction"]["fp32"]
    assert torch.get_num_threads() == threads
    assert main(["calibrate", "--backbone", "nonsense"]) == 2
    assert main(["calibrate", "--set", "seeds=[0]"]) == 2


def test_plan_shows_a_cluster(birds: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    build()
    words = ["plan", "x.yaml", "--data", str(birds), "--set", "backbones=[miniature]"]
    priced = ["--spot-price", "2.5", "--preemptions-per-hour", "0.1"]
    assert main([*words, "--cluster", "8xH100", *priced]) == 0
    shown = capsys.readouterr().out
    assert "8 × H100 (1 node)" in shown and "hardly help" in shown and "?" not in shown
    for word in ("GPU-hours", "cost", "busy", "8, preempted", "GPU memory:", "Disk:", "not calib"):
        assert word in shown
    assert main([*words, "--nodes", "2", "--gpus", "4", "--device", "A100"]) == 0
    assert "8 × A100 (2 nodes)" in capsys.readouterr().out
    assert main([*words, "--cluster", "2xcpu"]) == 0
    assert "processor-hours" in capsys.readouterr().out
    assert main([*words, "--spot-price", "2"]) == 2
    assert "add --cluster" in capsys.readouterr().err


def test_gpu_memory_is_told_by_the_images_that_are_held(birds: Path) -> None:  # noqa: F811
    def said(*overrides: str, device: str = "H100") -> str:
        plan = build("methods={full: {batch_size: 512, precision: bf16}}", *overrides)
        state = plan_state(plan, birds / "results", str(birds), device_of(Resources(), device))
        return needs(plan, state, birds, _machine())[1]  # type: ignore[arg-type]

    assert "512 images of a step about 30.7 GiB of the 74.5 GiB of a GPU." in said()
    assert said().endswith("Saving a state takes 1.0 GiB of a node's own memory.")
    assert "so about" in said(device="T4") and "are held at a time" in said(device="T4")
    assert "128 images of a step about 8.6 GiB" in said("resources.workers=4")
    assert "or 3.1 GiB with 32 at a time" in said("resources.micro_batch=32")
