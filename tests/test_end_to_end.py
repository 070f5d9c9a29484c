"""The command itself, with real Ray, on the miniature world."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import failures
from shiftbench.leaderboard.store import read
from shiftbench.testing.scaffold import new_part

pytestmark = pytest.mark.slow

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  linear-probe: &short {lr: 1e-2, epochs: 1, batch_size: 96, warmup_steps: 2}
  full: {<<: *short, lr: 5e-4}
  broken: {<<: *short, method: full, lr: 1e+30, max_grad_norm: null, warmup_steps: 0}
  smooth: {<<: *short, gamma: 3}
  wise-ft: &curve {alphas: [0, 0.5, 1]}
  wise-ft-lp: {<<: *curve, method: wise-ft, parent: linear-probe}
  wise-ft-broken: {<<: *curve, method: wise-ft, parent: broken}
budget: {steps: 6, evaluation_images: 60}
"""
RUNS = 8
RESULT = ["run_id", "variant", "selection", "evaluation_set", "metric"]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Iterator[Path]:
    """A small suite, one of whose methods is a plugin as ``shiftbench new`` writes it."""
    folder = tmp_path_factory.mktemp("suite")
    file = folder / "small.yaml"
    file.write_text(SUITE)
    new_part("method", "smooth", folder / "shiftbench-smooth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "shiftbench-smooth"), prepend=os.pathsep)
        patch.setenv("SHIFTBENCH_PLUGINS", "smooth=shiftbench_smooth.smooth:Smooth")
        yield file


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "shiftbench", *map(str, arguments)]


def shiftbench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


WITHOUT = """
import sys
from shiftbench.cli import main

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split():
            raise ImportError(f"{name} is forbidden here")

sys.meta_path.insert(0, Forbidden())
sys.exit(main(sys.argv[2:]))
"""


def without(packages: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command where some packages cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, packages, *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def values(results: Path) -> dict[tuple[object, ...], tuple[float, int]]:
    """What was measured, by what it was measured on; every row must be there once."""
    table = read(results)
    table = table.filter(pc.equal(table["status"], "done"))
    rows = table.select([*RESULT, "value", "n"]).to_pylist()
    found = {tuple(row[name] for name in RESULT): (row["value"], row["n"]) for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.fixture(scope="module")
def undisturbed(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run that nothing interrupted."""
    results = tmp_path_factory.mktemp("undisturbed")
    done = shiftbench("run", suite, "--results", results)
    assert done.returncode == 1, done.stderr  # one of the methods is meant to fail
    assert "wise-ft" in done.stdout
    return results


def test_what_fails_is_recorded_and_the_rest_goes_on(undisturbed: Path) -> None:
    table = read(undisturbed)
    status = dict(zip(table["label"].to_pylist(), table["status"].to_pylist(), strict=True))
    failed = {label for label, state in status.items() if state == "failed"}
    assert failed == {"broken", "wise-ft-broken"}
    assert len(status) == RUNS
    origins = dict(zip(table["label"].to_pylist(), table["origin"].to_pylist(), strict=True))
    assert origins["smooth"].startswith("SHIFTBENCH_PLUGINS ")
    assert origins["full"].startswith("shiftbench ")
    broken, dependent = sorted(failures(table), key=lambda run: run.label)
    assert "not finite" in broken.error and "\n" not in broken.error
    assert "which failed" in dependent.error
    assert broken.error_file == dependent.error_file == f"runs/{broken.run_id}/error.txt"
    text = (undisturbed / broken.error_file).read_text()
    assert "doing.py" in text and "training.py" in text  # the worker's own traceback
    assert "\x1b" not in text
    assert broken.error in text.splitlines()[-1]


def test_wise_ft_ends_are_its_parents(undisturbed: Path) -> None:
    table = read(undisturbed).to_pylist()

    def shift(label: str, variant: str) -> dict[str, float]:
        return {
            row["evaluation_set"]: row["value"]
            for row in table
            if row["label"] == label and row["variant"] == variant and row["selection"] != "id-val"
        }

    assert shift("wise-ft", "alpha=0.0") == shift("zero-shot", "")
    assert shift("wise-ft", "alpha=1.0") == shift("full", "")
    assert shift("wise-ft-lp", "alpha=1.0") == shift("linear-probe", "")


def test_predictions_give_the_recorded_values(undisturbed: Path) -> None:
    for row in read(undisturbed).to_pylist():
        if row["status"] != "done" or row["metric"] != "accuracy":
            continue
        kept = pq.read_table(RunFolder.of(undisturbed, row["run_id"]).predictions)
        kept = kept.filter(pc.equal(kept["variant"], row["variant"]))
        kept = kept.filter(pc.equal(kept["set"], row["evaluation_set"]))
        assert len(kept) == row["n"] == 60
        assert pc.mean(pc.equal(kept["label"], kept["prediction"])).as_py() == row["value"]


def test_running_again_does_only_what_failed(undisturbed: Path, suite: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("weights.safetensors")}
    again = without(
        "torch ray", "run", suite, "--results", undisturbed,
        "--set", "methods.broken=null", "--set", "methods.wise-ft-broken=null",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert f"{RUNS - 2} done, 0 to do" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_killed_run_goes_on_to_the_same_table(
    undisturbed: Path, suite: Path, tmp_path: Path
) -> None:
    driver = subprocess.Popen(
        command("run", suite, "--results", tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not list(tmp_path.rglob("parts/*/*.arrow")):
        assert driver.poll() is None
        assert time.monotonic() < deadline, "nothing was ever predicted"
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 20
    while workers := processes_of(driver.pid):
        assert time.monotonic() < deadline, f"{workers} outlive the driver"
        time.sleep(0.05)
    assert len(read(tmp_path).to_pylist()) < len(read(undisturbed).to_pylist())
    again = shiftbench("run", suite, "--results", tmp_path)
    assert again.returncode == 1, again.stderr
    assert values(tmp_path) == values(undisturbed)
    assert not list(tmp_path.rglob("*.tmp"))


def processes_of(group: int) -> list[int]:
    """Ids of the processes of a process group that run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, of_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if of_group == str(group) and state != "Z":
            found.append(int(folder.name))
    return found


def test_one_process_without_ray_gives_the_same_rows(
    undisturbed: Path, suite: Path, tmp_path: Path
) -> None:
    alone = without("ray", "run", suite, "--results", tmp_path, "--executor", "in-process")
    assert alone.returncode == 1, alone.stderr  # one of the methods is meant to fail
    assert "Traceback" not in alone.stderr, alone.stderr
    names = [*RESULT, "label", "status", "error", "value", "low", "high", "n", "data_fingerprint"]
    order = [(name, "ascending") for name in RESULT]
    tables = [read(results).select(names).sort_by(order) for results in (undisturbed, tmp_path)]
    assert tables[0].to_pylist() == tables[1].to_pylist()
    for run_id in set(tables[0].filter(pc.equal(tables[0]["label"], "full"))["run_id"].to_pylist()):
        fits = [RunFolder.of(results, run_id).read_fit() for results in (undisturbed, tmp_path)]
        assert fits[0].losses == fits[1].losses
        assert fits[0].distance == fits[1].distance


@pytest.mark.cluster
@pytest.mark.parametrize("workers", [2])
def test_workers_agree(workers: int, undisturbed: Path, suite: Path, tmp_path: Path) -> None:
    """Zero-shot and linear-probe results are identical; losses agree to a relative 1e-4."""
    done = shiftbench(
        "run", suite, "--results", tmp_path,
        "--set", f"resources.workers={workers}", "--set", "resources.cpus_per_worker=0.9",
        "--set", "methods.full.resources.sharding=fsdp2",
        "--set", "methods.wise-ft-broken=null",
        "--set", "methods.smooth=null", "--set", "methods.wise-ft=null",
        "--set", "methods.wise-ft-lp=null",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr  # one of the methods is meant to fail
    alone, together = read(undisturbed), read(tmp_path)
    (broken,) = failures(together)
    assert "not finite" in broken.error
    assert broken.error_file is not None
    assert "training.py" in (tmp_path / broken.error_file).read_text()
    for label in ("zero-shot", "linear-probe"):
        assert rows_of(alone, label) == rows_of(together, label)
    (run_id,) = set(together.filter(pc.equal(together["label"], "full"))["run_id"].to_pylist())
    fits = [RunFolder.of(results, run_id).read_fit() for results in (undisturbed, tmp_path)]
    assert [fit.world_size for fit in fits] == [1, workers]
    assert fits[1].details["sharding"] == "fsdp2"
    assert fits[1].losses == pytest.approx(fits[0].losses, rel=1e-4)


def rows_of(table: pa.Table, label: str) -> list[dict[str, object]]:
    rows = table.filter(pc.equal(table["label"], label)).select([*RESULT, "value", "low", "high"])
    return rows.sort_by([(name, "ascending") for name in RESULT]).to_pylist()
