"""Memory of a machine and of a container."""

from __future__ import annotations

from pathlib import Path

from shiftbench.core.memory import available_memory

GIB = 2**30


def test_the_container_s_limit_counts_without_cached_files(tmp_path: Path) -> None:
    meminfo, group = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text(f"MemTotal: 999 kB\nMemAvailable:  {8 * 2**20} kB\n")
    assert available_memory(group, meminfo) == 8 * GIB
    group.mkdir()
    for name, text in (
        ("memory.max", f"{4 * GIB}"),
        ("memory.current", f"{3 * GIB}"),
        ("memory.stat", f"anon {GIB}\ninactive_file {2 * GIB}\n"),
    ):
        (group / name).write_text(text + "\n")
    assert available_memory(group, meminfo) == 3 * GIB
    (group / "memory.max").write_text("max\n")
    assert available_memory(group, meminfo) == 8 * GIB
    old = tmp_path / "v1" / "memory"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text(f"{2 * GIB}\n")
    (old / "memory.usage_in_bytes").write_text(f"{2 * GIB}\n")
    (old / "memory.stat").write_text("inactive_file 0\n")
    assert available_memory(old.parent, meminfo) == 0


def test_this_machine_has_memory() -> None:
    assert available_memory() > 0
