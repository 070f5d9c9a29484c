"""Processors as a container sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
from shiftbench.core import cpus
from shiftbench.core.cpus import available_cpus, loader_processes


@pytest.fixture
def many(monkeypatch):
    monkeypatch.setattr(cpus.os, "sched_getaffinity", lambda _: set(range(64)))


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", 64), ("400000 100000", 4), ("50000 100000", 1)]
)
def test_a_quota_of_the_container_counts(tmp_path: Path, many, limit, expected):
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert available_cpus(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 64), ("250000", 3)])
def test_a_quota_of_control_groups_version_1(tmp_path: Path, many, quota, expected):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert available_cpus(tmp_path) == expected


def test_affinity_counts_where_there_is_no_quota(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(cpus.os, "sched_getaffinity", lambda _: {3, 5})
    assert available_cpus(tmp_path) == 2


@pytest.mark.parametrize(
    ("gpus_there", "gpus", "expected"), [(8, 1, 7), (8, 0.5, 3), (1, 1, 63), (0, 1, 63), (8, 0, 0)]
)
def test_processors_are_divided_over_the_machines_gpus(
    tmp_path: Path, many, monkeypatch, gpus_there, gpus, expected
):
    monkeypatch.setattr(cpus, "available_cpus", lambda: 64)
    for number in range(gpus_there):
        (tmp_path / f"nvidia{number}").touch()
    (tmp_path / "nvidiactl").touch()
    (tmp_path / "nvidia-uvm").touch()
    assert loader_processes(gpus, tmp_path) == expected
