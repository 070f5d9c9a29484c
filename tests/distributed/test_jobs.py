"""Jobs on a real cluster of this machine, with token authentication on."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from shiftbench.leaderboard.store import read

from tests.distributed.loopback import RAY, Cluster, cluster

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

ROOT = Path(__file__).parents[2]
SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  full: {lr: 1e+30, epochs: 1, batch_size: 48, warmup_steps: 0, max_grad_norm: null}
budget: {steps: 3, evaluation_images: 40}
"""
ENDLESS = (
    *("methods.full.epochs=100000", "budget.steps=null", "methods.full.lr=1e-4", "shots=[2]"),
    *("methods.full.batch_size=8", "methods.zero-shot=null"),
)
COMMIT = "0123456789abcdef"
END_S = 120


@pytest.fixture(scope="module")
def head(world: Path) -> Iterator[Cluster]:
    with cluster() as started:
        yield started


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("suite") / "small.yaml"
    file.write_text(SUITE)
    return file


def shiftbench(head: Cluster, *words: object, **variables: str) -> subprocess.Popen[str]:
    """The command on this machine, which may use the cluster."""
    return subprocess.Popen(
        [sys.executable, "-m", "shiftbench", *map(str, words)],
        env=head.environment | {"SHIFTBENCH_GIT_SHA": COMMIT, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def job_of(output: str) -> str:
    found = re.search(r"submitted (\S+)", output)
    assert found, output
    return found[1]


def test_jobs_end_as_their_runs_do(head: Cluster, suite: Path, tmp_path: Path) -> None:
    """All at once, as most of a job's time is its start: one fails in part, one is bad input."""
    results = tmp_path / "results"
    common = ("submit", suite, "--address", head.dashboard, "--follow")
    failing = shiftbench(head, *common, "--results", results)
    nowhere = shiftbench(head, *common, "--results", tmp_path / "b", "--data", "/nowhere")
    by_hand = subprocess.Popen(
        [RAY, "job", "submit", "--working-dir", ROOT / "benchmark", "--", "python", "-m",
         "shiftbench", "list", "suites"],
        env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    printed = failing.communicate()[0]
    assert failing.returncode == 1, printed
    assert "the loss or its gradient is not finite" in printed
    rows = read(results).to_pylist()
    assert {(row["label"], row["status"]) for row in rows} == {
        ("zero-shot", "done"),
        ("full", "failed"),
    }
    assert {row["git_sha"] for row in rows} == {COMMIT}
    printed = nowhere.communicate()[0]
    assert nowhere.returncode == 2, printed
    assert '"/nowhere" is not a folder' in printed
    printed = by_hand.communicate()[0]
    assert by_hand.returncode == 0, printed
    assert "nine-shifts" in printed

    again = shiftbench(head, *common, "--results", results, "--set", "methods.full=null")
    printed = again.communicate()[0]
    assert again.returncode == 0, printed
    assert "1 runs: 1 done, 0 to do" in printed


def test_a_job_that_is_stopped_and_a_command_that_is(
    head: Cluster, suite: Path, tmp_path: Path
) -> None:
    """A submitted job ends within its grace, a driver on this machine by SIGTERM in seconds."""
    mark = uuid.uuid4().hex
    settings = [word for setting in ENDLESS for word in ("--set", setting)]
    job = shiftbench(
        head, "submit", suite, "--address", head.dashboard, "--results", tmp_path / "a",
        "--follow", *settings, SHIFTBENCH_TEST=mark,
    )  # fmt: skip
    driver = shiftbench(
        head, "run", suite, "--address", head.address, "--results", tmp_path / "b", *settings,
        SHIFTBENCH_TEST=mark,
    )  # fmt: skip
    assert job.stdout is not None
    name = job_of(job.stdout.readline())
    wait_for(tmp_path / "a", job)
    wait_for(tmp_path / "b", driver)
    begun = time.monotonic()
    driver.send_signal(signal.SIGTERM)
    subprocess.run(
        [RAY, "job", "stop", "--no-wait", name],
        env=head.environment,
        check=True,
        capture_output=True,
    )
    assert driver.wait(END_S) == 143, driver.communicate()[0]
    assert time.monotonic() - begun < 15  # 5 where the machine does nothing else
    printed = job.communicate(timeout=END_S)[0]
    assert job.returncode == 143, printed
    end = time.monotonic() + END_S
    while (left := marked(mark)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not left  # workers of both are gone; the settings had reached them


def test_another_token_is_refused_in_one_line(head: Cluster, suite: Path, tmp_path: Path) -> None:
    words = ("submit", suite, "--address", head.dashboard, "--results", tmp_path)
    refused = shiftbench(head, *words, RAY_AUTH_TOKEN="0" * 64)
    printed = refused.communicate()[0]
    assert refused.returncode == 2
    assert f"error: --address {head.dashboard}: the cluster does not accept this token" in printed


def wait_for(results: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a training has saved its state."""
    end = time.monotonic() + END_S
    while not list(results.glob("runs/*/state.safetensors")):
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(process.communicate()[0])
        time.sleep(0.1)


def marked(mark: str) -> list[str]:
    """The processes of this machine that were started with a variable of this value."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
        except OSError:  # it has ended
            continue
    return found
