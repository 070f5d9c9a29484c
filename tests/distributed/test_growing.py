"""A training that began on a part of a cluster goes on with more workers once they are there."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Thread

import pytest
import ray
import shiftbench
from ray.cluster_utils import Cluster as Nodes
from shiftbench import Leaderboard
from shiftbench.distributed import cluster, growth

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods: {full: {epochs: 4, batch_size: 8, warmup_steps: 0}}
budget: {evaluation_images: 20}
resources: {workers: 2, min_workers: 1, limits: {save_every_s: 1}}
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_a_training_grows_with_its_cluster(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "_AFTER_S", 1.0)
    monkeypatch.setattr(growth, "_SAVES_S", 0.1)
    monkeypatch.setattr(cluster, "_GROWS_S", 1.0)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    suite, results = tmp_path / "suite.yaml", tmp_path / "results"
    suite.write_text(SUITE)
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes.add_node(num_cpus=1)
    boards: list[Leaderboard] = []

    def train() -> None:
        boards.append(shiftbench.run(suite, results, "ray", address=nodes.address))

    try:
        thread = Thread(target=train, daemon=True)
        thread.start()
        while thread.is_alive() and not [*results.glob("runs/*/state.safetensors")]:
            time.sleep(0.05)
        nodes.add_node(num_cpus=1)
        thread.join(240)
    finally:
        ray.shutdown()
        nodes.shutdown()
    (board,) = boards
    assert not board.failures()
    rows = board.records()
    assert {(row.world_size, row.status) for row in rows} == {(2, "done")}
    (fit,) = results.glob("runs/*/fit.json")
    assert '"world_size": 2' in fit.read_text()
