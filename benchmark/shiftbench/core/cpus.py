"""How many processors this process really has."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
DEVICES = Path("/dev")


def available_cpus(cgroup: Path = CGROUP) -> int:
    """Processors that this process may use: its affinity, within its container's quota.

    Args:
        cgroup: where the control group's files are (version 2, or version 1's ``cpu`` folder).
    """
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(affine or 1, _quota(cgroup)))


def loader_processes(gpus: float, devices: Path = DEVICES) -> int:
    """How many processes decode images for a worker that computes on ``gpus`` GPUs.

    All processors, divided over the machine's GPUs, without the one that the worker itself needs.
    A worker that computes on the processors has none to spare: 0, it decodes by itself.
    """
    if not gpus:
        return 0
    there = sum(1 for path in devices.glob("nvidia*") if path.name[6:].isdigit())
    return max(1, int(available_cpus() * gpus / max(there, 1)) - 1)


def _quota(cgroup: Path) -> int:
    """Processors that the control group may use at a time; a large number where it may use all."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except OSError:
        try:
            limit = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return 2**31
    unlimited = limit == "max" or int(limit) <= 0
    return 2**31 if unlimited else math.ceil(int(limit) / int(period))
