"""How much memory this process may still use."""

from __future__ import annotations

import os
from pathlib import Path

from shiftbench.core.cpus import CGROUP

MEMINFO = Path("/proc/meminfo")


def available_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """Bytes that are free or could be freed, within the container's limit.

    Args:
        cgroup: where the control group's files are (version 2, or version 1's ``memory`` folder).
        meminfo: what the kernel says of the machine; without it, all memory counts as free.
    """
    return max(0, min(_of_machine(meminfo), _of_group(cgroup)))


def _of_machine(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    sizes = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(sizes["MemAvailable"].split()[0]) * 1024


def _of_group(cgroup: Path) -> int:
    """What is left of the group's limit; a large number without one. Cached files can be freed."""
    names = (
        (cgroup, "memory.max", "memory.current"),
        (cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    )
    for folder, limit, usage in names:
        try:
            most, used = ((folder / name).read_text().strip() for name in (limit, usage))
            stats = (folder / "memory.stat").read_text().splitlines()
        except OSError:
            continue
        if most == "max":
            break
        cached = sum(int(line.split()[1]) for line in stats if line.startswith("inactive_file "))
        return int(most) - int(used) + cached
    return 2**63
