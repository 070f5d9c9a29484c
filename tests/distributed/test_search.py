"""The search on real Ray Tune: killed in the middle, gone on with, some of its trials failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import optuna
import pyarrow.parquet as pq
import pytest
from optuna.trial import TrialState
from shiftbench.distributed.tuning import asha
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.execution.search.record import TRIALS
from shiftbench.leaderboard.runfolder import SearchFolder
from shiftbench.leaderboard.store import read
from shiftbench.methods.search import SearchConfig

from tests.execution.search.test_finalists import trial
from tests.test_end_to_end import command, shiftbench

pytestmark = pytest.mark.slow

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  tuned:
    method: tuned
    of: full
    settings: {epochs: 1, batch_size: 24, warmup_steps: 0, max_grad_norm: null}
    space:
      lr: {kind: choice, values: [1e-4, 1e-3, 1e+30]}
      weight_decay: {kind: uniform, low: 0, high: 1}
    search:
      {n_trials: 8, inner_steps: 9, rungs: 2, sampler: random, finalists: 2, repeats: 2}
seeds: [0, 1]
budget: {steps: 2, evaluation_images: 40}
"""


@pytest.mark.cluster
def test_a_killed_search_goes_on_and_keeps_what_was_done(tmp_path: Path, world: Path) -> None:
    suite, results = tmp_path / "suite.yaml", tmp_path / "results"
    suite.write_text(SUITE)
    driver = subprocess.Popen(
        command("run", suite, "--results", results),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    before: dict[int, dict[str, object]] = {}
    while len(before) < 3:
        assert driver.poll() is None, "the search ended before it could be killed"
        assert time.monotonic() < deadline, "no trial ever ended"
        before = ended(results)
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    before = ended(results)
    assert len(before) < 8

    again = shiftbench("run", suite, "--results", results)
    assert again.returncode == 0, again.stdout + again.stderr
    (folder,) = (results / "searches").iterdir()  # two seeds, one search
    table = pq.read_table(folder / "trials.parquet")
    assert table.schema.equals(TRIALS)
    rows = [row for row in table.to_pylist() if row["study"] == "search"]
    assert len(rows) == 8
    kept = {row["number"]: json.loads(row["values"]) for row in rows if row["number"] in before}
    assert kept == before
    states = {row["state"] for row in rows}
    assert states <= {"complete", "stopped", "failed"}
    for row in rows:
        diverged = json.loads(row["values"])["lr"] == 1e30
        assert (row["state"] == "failed") == diverged
        assert ("not finite" in row["error"]) == diverged
        assert [rung["steps"] for rung in row["rungs"]] == ([3, 9][: len(row["rungs"])])
    finals = [row for row in table.to_pylist() if row["study"] == "finalists"]
    assert len(finals) == 4
    assert {row["seed"] for row in finals} == {1000, 1001}

    board = read(results).to_pylist()
    assert {row["seed"] for row in board} == {0, 1}
    assert {row["selection"] for row in board} == {"ood-val"}
    for row in board:
        assert row["search_trials"] == 8
        assert row["search_steps"] == sum(trial["steps"] for trial in table.to_pylist())
        assert row["search_seconds"] > 0
        assert json.loads(row["searched"])["lr"] < 1e30
    assert "method: full" in SearchFolder(folder).exported.read_text()


@pytest.mark.cluster
def test_a_trial_whose_process_is_killed_is_done_again(tmp_path: Path, world: Path) -> None:
    suite, results = tmp_path / "suite.yaml", tmp_path / "results"
    small = SUITE.replace("n_trials: 8", "n_trials: 4").replace("finalists: 2", "finalists: 0")
    suite.write_text(small.replace(", 1e+30", "").replace("seeds: [0, 1]", "seeds: [0]"))
    driver = subprocess.Popen(
        command("run", suite, "--results", results, "--set", "resources.max_trials=1"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not (ended(results) and (found := trial_processes(os.environ["SHIFTBENCH_CACHE"]))):
        assert driver.poll() is None, "the search ended before a trial could be killed"
        assert time.monotonic() < deadline, "no trial ever ended"
        time.sleep(0.02)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output
    (folder,) = (results / "searches").iterdir()
    rows = pq.read_table(folder / "trials.parquet").to_pylist()
    (died,) = (row for row in rows if row["state"] == "died")
    others = [row for row in rows if row["state"] != "died"]
    assert (died["score"], died["error"]) == (None, "its process or node died") or died["rungs"]
    assert len(others) == 4 and all(row["score"] > 0 for row in others)
    assert died["values"] in [row["values"] for row in others]


def trial_processes(cache: str) -> list[int]:
    """Processes of trials that use a cache: those of the test that it is of."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_trial = (folder / "cmdline").read_bytes().startswith(b"ray::ResourceTrainable")
            mine = (
                is_trial
                and f"SHIFTBENCH_CACHE={cache}\0".encode() in (folder / "environ").read_bytes()
            )
        except OSError:
            continue
        if mine:
            found.append(int(folder.name))
    return found


def ended(results: Path) -> dict[int, dict[str, object]]:
    """Values of the trials of a search that the journal knows to have ended, by number."""
    journals = list(results.glob("searches/*/journal.log"))
    if not journals:
        return {}
    backend = optuna.storages.journal.JournalFileBackend(str(journals[0]))
    storage = optuna.storages.JournalStorage(backend)
    try:
        study = optuna.load_study(study_name="search", storage=storage)
    except KeyError:  # it has just been made
        return {}
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return {t.number: t.params for t in study.get_trials(deepcopy=False) if t.state in states}


def test_asha_gets_its_rungs_back_from_the_journal() -> None:
    config = SearchConfig(inner_steps=9, rungs=3, reduction_factor=3)
    done = [trial(0.1, 0.6, {1: 0.3, 3: 0.5, 9: 0.6}), trial(0.2, 0.2, {1: 0.2}, pruned=True)]

    def rungs(text: str) -> dict[int, list[float]]:
        scheduler = asha(config, done, metric(text))
        return {m: sorted(r.values()) for m, r in scheduler._brackets[0]._rungs}

    assert rungs("accuracy") == {1: [0.2, 0.3], 3: [0.5], 9: [0.6]}
    # Of a loss, Tune keeps negatives, as it does when a trial reports to a scheduler of mode "min".
    assert rungs("nll") == {1: [-0.3, -0.2], 3: [-0.5], 9: [-0.6]}
