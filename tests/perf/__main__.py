"""Measure what has a script here, and write the part of ``docs/performance.md`` that is on CPUs.

    python -m tests.perf [--only SECTION …] [--small] [--list]

Every section runs in a process of its own, one after the other, with one thread. What it finds is
kept in ``docs/performance.json`` with the machine, so ``--only`` leaves the other sections as they
are; the tables and the figure are made of that file. ``--small`` tries all scripts at sizes of
seconds and writes to ``build/perf`` instead: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.perf.report import write

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Section:
    """A script and what it is called with.

    Attributes:
        title: of its table.
        module: the script, which has the function.
        function: returns ``Measurement``\\ s, or ``Curve``\\ s.
        small: arguments that make it take seconds.
    """

    title: str
    module: str
    function: str = "measure"
    small: Mapping[str, Any] = field(default_factory=dict)


SECTIONS = {
    "training": Section("Training", "tests.perf.training", small={"rounds": 1}),
    "decoding": Section(
        "Decoding, for each core", "tests.perf.store", small={"images": 12, "rounds": 1}
    ),
    "passes": Section(
        "Evaluation of 11 interpolated models",
        "tests.perf.evaluation",
        small={"rounds": 1, "images": 10, "only": "miniature"},
    ),
    "trials": Section(
        "Searches", "tests.perf.search", small={"trials": 2, "seeds": 1, "parts": ("trial",)}
    ),
    "probes": Section("Searched linear probes", "tests.perf.probes", small={"trials": 2}),
    "saft": Section("SAFT", "tests.perf.saft", small={"model": "miniature", "steps": 1}),
    "fixed": Section(
        "Fixed costs",
        "tests.perf.fixed",
        small={"repeats": 1, "runs": 64, "files": 100, "methods": 5},
    ),
    "growth": Section(
        "How cost grows",
        "tests.perf.growth",
        "curves",
        small={"names": ("time against images", "memory against images")},
    ),
}


def main() -> None:
    """Measure, keep and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=tuple(SECTIONS))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--list", action="store_true", help="say what there is, measure nothing")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.list:
        for name, section in SECTIONS.items():
            print(f"{name:10} {section.title} ({section.module})")
    elif given.section:
        given.out.write_text(json.dumps(measured(given.section, given.small)))
    else:
        everything(given.only, ROOT / ("build/perf" if given.small else "docs"), given.small)


def measured(name: str, small: bool) -> list[dict[str, Any]]:
    """What a section measures, in this process."""
    section = SECTIONS[name]
    function = getattr(importlib.import_module(section.module), section.function)
    return [asdict(found) for found in function(**(section.small if small else {}))]


def everything(names: list[str], folder: Path, small: bool) -> None:
    """Measure some sections, and write after each; one that fails leaves the others alone."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "performance.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    failed = []
    for name in names:
        if importlib.util.find_spec(SECTIONS[name].module) is None:
            print(f"{name}: there is no {SECTIONS[name].module}")
            continue
        print(f"{name} …", flush=True)
        found = in_a_process(name, small)
        if found is None:
            failed.append(name)
            continue
        results[name] = found
        print(f"{name} took {found['took']:.0f} s, up to {found['peak'] / 1e9:.1f} GB", flush=True)
        kept.write_text(json.dumps(results, indent=1) + "\n")
        titles = {key: section.title for key, section in SECTIONS.items()}
        write(results, titles, folder, ROOT / "docs" / "performance.md")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def in_a_process(name: str, small: bool) -> dict[str, Any] | None:
    """A section's outcome, with what measuring it took; ``None`` if it failed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    load, started = processors_at_work(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, "-m", "tests.perf", "--section", name, "--out", str(out)]
        process = subprocess.Popen(command + ["--small"] * small, cwd=ROOT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            return None
        rows = json.loads(out.read_text())
    return {
        "rows": rows,
        "took": time.monotonic() - started,
        "processor": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * 1024,
        "load": load,
        "machine": machine(),
        "measured": datetime.now(UTC).date().isoformat(),
    }


def processors_at_work(seconds: float = 2) -> float:
    """Number of processors that other work keeps busy, before a section begins."""

    def busy() -> int:
        user, nice, system = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:4]
        return int(user) + int(nice) + int(system)

    before = busy()
    time.sleep(seconds)
    return (busy() - before) / os.sysconf("SC_CLK_TCK") / seconds


def machine() -> dict[str, Any]:
    """The processors and the versions of what computes."""
    import torch

    from tests.perf.gpu.machine import facts

    return {key: value for key, value in facts(torch.device("cpu")).items() if value is not None}


if __name__ == "__main__":
    main()
