"""Three ordinary situations in which a scheduler could wait for ever, on real nodes of Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest
import ray
from ray.cluster_utils import Cluster as Nodes
from rich.console import Console
from shiftbench.distributed import pool
from shiftbench.distributed.cluster import slots
from shiftbench.distributed.dispatch import Dispatcher
from shiftbench.distributed.place import Home, home
from shiftbench.execution.display import Display
from shiftbench.execution.jobs import Job
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.execution.sharing import Sharing
from shiftbench.execution.work import Work
from shiftbench.leaderboard.leases import Leases
from shiftbench.suite.file import Resources
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods: {zero-shot: {}, wise-ft: {}, full: {}}
resources: {cpus_per_worker: 0.7, limits: {job_retries: 0}}
"""


class Worker:
    """A worker whose jobs only take time, and say that they were done."""

    def __init__(self, setup: Setup, progress: object) -> None:
        self._results = setup.results

    def home(self) -> Home:
        return home()

    def predict(self, run_id: str, variant: str, evaluation_set: str) -> None:
        time.sleep(0.1)
        with (self._results / evaluation_set).open("a") as file:
            file.write("done\n")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head without CPUs, one node of 2 and one of 1, where three workers of 0.7 fit."""
    cluster = Nodes(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=2)
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


class HangingOnce(Worker):
    """A worker that hangs at the first job of all."""

    def predict(self, run_id: str, variant: str, evaluation_set: str) -> None:
        if evaluation_set == "set-0" and not (self._results / "hung").exists():
            (self._results / "hung").touch()
            self._hang()
        super().predict(run_id, variant, evaluation_set)

    def _hang(self) -> None:
        time.sleep(3600)


def make_work(folder: Path, jobs: int, leases: Leases, *overrides: str) -> Work:
    folder.mkdir(exist_ok=True)
    file = folder / "suite.yaml"
    file.write_text(SUITE)
    plan = Plan.build(Suite.load(file, overrides))
    run_ids = list(plan.runs)
    graph: dict[Job, set[Job]] = {
        Job("predict", run_ids[i % len(run_ids)], "", f"set-{i}"): set() for i in range(jobs)
    }
    setup = Setup("s", plan.runs, folder, "miniature", plan.suite.resources, Remarks())
    display = Display(Console(quiet=True), plan.runs, list(graph))
    sharing = Sharing(leases, folder, plan.runs, graph, {}, lambda job: None)
    return Work(setup, graph, plan.runs, display, sharing)


@pytest.fixture
def work_in(tmp_path: Path) -> Iterator[Callable[..., Work]]:
    """Makes work of so many jobs, in a results folder so called."""
    with ExitStack() as stack:

        def make(name: str, jobs: int, *overrides: str) -> Work:
            leases = stack.enter_context(Leases.of(tmp_path / name))
            return make_work(tmp_path / name, jobs, leases, *overrides)

        yield make


def finish(*works: Work) -> None:
    """Dispatch at once; none may still be at work after four minutes."""
    threads = [Thread(target=Dispatcher(work).run, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=240)
        assert not thread.is_alive(), "jobs wait for ever"


def done(folder: Path) -> list[int]:
    """How many times each job was done."""
    return [len(file.read_text().split()) for file in folder.glob("set-*")]


def test_workers_are_counted_by_node() -> None:
    def fit(nodes: list[dict[str, float]], of: Resources, memory: float = 2**40) -> int:
        return slots([node | {"memory": memory} for node in nodes], of)

    of = Resources(cpus_per_worker=0.7)
    assert fit([{"CPU": 2.0}, {"CPU": 1.0}], of) == 3  # not 3 / 0.7 = 4
    assert fit([{"CPU": 60.0}, {"CPU": 60.0}], Resources(cpus_per_worker=8)) == 14  # not 15
    assert fit([{"CPU": 0.3}] * 3, Resources(cpus_per_worker=0.1)) == 9
    gpu = Resources(gpus_per_worker=0.5)
    assert fit([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 4.0}, {"CPU": 8.0}], gpu) == 3
    assert fit([], of) == 0
    large = Resources(memory_per_worker=6 * 2**30)
    assert fit([{"CPU": 64.0}, {"CPU": 64.0}], large, memory=40 * 2**30) == 12


@pytest.mark.slow
@pytest.mark.cluster
def test_nodes_of_odd_sizes_come_and_go(
    nodes: Nodes,
    tmp_path: Path,
    work_in: Callable[..., Work],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "WarmWorker", Worker)
    finish(work_in("whole", 20))
    assert done(tmp_path / "whole") == [1] * 20

    work = work_in("node-dies", 80)
    thread = Thread(target=Dispatcher(work).run, daemon=True)
    thread.start()
    while len(done(tmp_path / "node-dies")) < 10:
        time.sleep(0.05)
    larger = max(nodes.worker_nodes, key=lambda node: node.get_resource_and_label_spec().num_cpus)
    nodes.remove_node(larger, allow_graceful=False)
    while len(done(tmp_path / "node-dies")) < 30:
        time.sleep(0.05)
    nodes.add_node(num_cpus=2)
    thread.join(timeout=240)
    assert not thread.is_alive(), "jobs wait for ever"
    # A node that went away uses up no retry, of which there are none here.
    assert work.failures == {}
    assert len(done(tmp_path / "node-dies")) == 80


@pytest.mark.slow
@pytest.mark.cluster
def test_two_drivers_share_a_cluster(
    nodes: Nodes,
    tmp_path: Path,
    work_in: Callable[..., Work],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "WarmWorker", Worker)
    one, other = work_in("one", 20), work_in("other", 20)
    finish(one, other)
    assert one.failures == other.failures == {}
    assert done(tmp_path / "one") == done(tmp_path / "other") == [1] * 20


@pytest.mark.slow
@pytest.mark.cluster
def test_a_job_that_hangs_is_stopped_and_done_by_another_worker(
    nodes: Nodes,
    tmp_path: Path,
    work_in: Callable[..., Work],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "WarmWorker", HangingOnce)
    limits = ("resources.limits.job_retries=1", "resources.limits.stall_s=10")
    work = work_in("hangs", 20, *limits)
    finish(work)
    assert work.failures == {}
    assert done(tmp_path / "hangs") == [1] * 20
    (error,) = (tmp_path / "hangs").glob("runs/*/error.txt")
    text = error.read_text()
    assert "no progress for" in text and "in _hang" in text
