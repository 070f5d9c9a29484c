"""What is paid that is not arithmetic: ``python -m tests.perf.fixed [--only PART …]``.

Starting, checking, planning, reading and reporting. Each command runs in a process of its own, as
a user would give it; beside its wall time is the processor time of all its processes, which other
work on the machine changes less. The reference of a start is a bare ``import torch``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from shiftbench.evaluation import predictions
from shiftbench.evaluation.examples import of_logits
from shiftbench.leaderboard.files import COPY
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import done
from shiftbench.leaderboard.store import MANY, folder, keep_compact, write_run

from tests.leaderboard.records import info
from tests.leaderboard.records import results as results_of
from tests.perf import leaderboard
from tests.perf.measurement import Measurement, lines
from tests.perf.processes import Used, used_by

TORCH = [sys.executable, "-c", "import torch"]


def shiftbench(*arguments: object) -> list[str]:
    """The command line of a verb."""
    return [sys.executable, "-m", "shiftbench", *map(str, arguments)]


def median_of(command: Sequence[str], repeats: int, **environment: str) -> Used:
    """The run of a command with the median wall time; the first is not counted."""
    each = [used_by(command, os.environ | environment) for _ in range(repeats + 1)][1:]
    return Used(
        statistics.median(used.wall for used in each),
        statistics.median(used.processor for used in each),
    )


def measurement(what: str, used: Used, goal: float | None, note: str = "") -> Measurement:
    """A command's wall time, its processor time in the note."""
    notes = [f"processor time {used.processor:.2f} s", *([note] if note else [])]
    return Measurement(what, used.wall, goal=goal, note="; ".join(notes))


def start(place: Path, repeats: int) -> Iterator[Measurement]:
    """``--help``, and what it is measured against."""
    torch = median_of(TORCH, repeats)
    yield measurement("a bare `import torch`, for comparison", torch, None)
    yield measurement("`--help`", median_of(shiftbench("--help"), repeats), 0.2)


def quickstart(place: Path, repeats: int) -> Iterator[Measurement]:
    """The quickstart from an empty cache, its first row, and the same command again."""
    results, cache = place / "quickstart", {"SHIFTBENCH_CACHE": str(place / "cache")}
    command = shiftbench("run", "quickstart", "--results", results)
    begun = time.perf_counter()
    with ThreadPoolExecutor(1) as thread:
        whole = thread.submit(used_by, command, os.environ | cache)
        while not whole.done() and not any(folder(results).glob("*.parquet")):
            time.sleep(0.02)
        first = time.perf_counter() - begun
        used = whole.result()
    yield measurement("quickstart from an empty cache, 36 runs", used, 50)
    yield Measurement("its first row", first, goal=10)
    again = median_of(command, repeats, **cache)
    yield measurement("the same command again, nothing to do", again, 1.5)


def planning(place: Path, repeats: int, runs: int = 8000) -> Iterator[Measurement]:
    """``plan`` and ``status`` of a suite with many seeds."""
    file = place / "many.yaml"
    seeds = ", ".join(map(str, range(-(-runs // 32))))
    file.write_text(f"extends: quickstart.yaml\nseeds: [{seeds}]\n")
    for verb in ("plan", "status"):
        used = median_of(
            shiftbench(verb, file, "--results", place / "none"),
            repeats,
            SHIFTBENCH_CACHE=str(place / "cache"),
        )
        yield measurement(f"`{verb}` of {runs:,} runs", used, 2)


def ranking(place: Path, repeats: int, files: int = 10_000) -> Iterator[Measurement]:
    """The ranking of a task, of files that were written as runs write them."""
    results = place / "many"
    leaderboard.write_all(results, 100, files, each=lambda i: i % MANY or keep_compact(results))
    keep_compact(results)
    code = (
        "from pathlib import Path; from tests.perf.leaderboard import filtered; "
        f"filtered(Path({str(results)!r}))"
    )
    used = median_of([sys.executable, "-c", code], repeats)
    yield measurement(f"a ranking from {files:,} files that nobody compacted", used, 2)
    (results / COPY).unlink()
    cold = used_by([sys.executable, "-c", code], os.environ)
    yield measurement("the same where no run has compacted either", cold, None)


def report(place: Path, repeats: int, methods: int = 50, n: int = 1000) -> Iterator[Measurement]:
    """An HTML report of methods × 4 tasks × 3 seeds with predictions, so that ties are tested."""
    results = place / "report"
    for task in range(4):
        for method in range(methods):
            for seed in range(3):
                _write_run(results, task, method, seed, n)
    command = shiftbench("report", "--results", results, "--html", place / "report.html")
    cache = {"SHIFTBENCH_CACHE": str(place / "cache-of-report")}
    first = used_by(command, os.environ | cache)  # compares; later ones remember what was found
    what = f"report of {methods} methods × 4 tasks × 3 seeds with ties, HTML"
    yield measurement(what, first, 10, f"3 sets of {n:,} examples each")
    yield measurement("the same report again", median_of(command, repeats, **cache), None)


def _write_run(results: Path, task: int, method: int, seed: int, n: int) -> None:
    """A run whose accuracy grows with the method, with its predictions."""
    rng = np.random.default_rng([task, method, seed])
    run_id = f"{task:02x}{method:04x}{seed:010x}"
    sets, ids = ("id-test", "one", "two"), np.array([f"{i}" for i in range(n)])
    tables, rows = [], []
    for name in sets:
        labels = np.arange(n) % 10
        right = rng.random(n) < 0.4 + method / 250
        answers = np.where(right, labels, (labels + 1 + rng.integers(0, 9, n)) % 10)
        logits = rng.normal(size=(n, 10))
        logits[np.arange(n), answers] = logits.max(axis=1) + 1
        tables.append(predictions.table_of(name, "", ids, of_logits(labels, logits, {})))
        rows += results_of({name: float(right.mean())})
    facts = info(
        run_id,
        task=f"task-{task}",
        label=f"method-{method}",
        config={"lr": method},
        seed=seed,
        shifts=sets[1:],
        distance=1.0 + method,
    )
    write_run(results, run_id, done(facts, rows))
    predictions.write(RunFolder.of(results, run_id).predictions, predictions.concat(tables))


Part = Callable[..., Iterator[Measurement]]
PARTS: Mapping[str, Part] = {
    "start": start,
    "quickstart": quickstart,
    "planning": planning,
    "ranking": ranking,
    "report": report,
}


def measure(
    parts: Sequence[str] = tuple(PARTS), repeats: int = 3, **sizes: int
) -> list[Measurement]:
    """Measure some parts.

    Args:
        parts: names of ``PARTS``.
        repeats: of each command.
        sizes: ``runs``, ``files`` and ``methods``, other than those of the goals.
    """
    found = []
    takes = {"planning": "runs", "ranking": "files", "report": "methods"}
    with tempfile.TemporaryDirectory() as name:
        for part in parts:
            own = {k: v for k, v in sizes.items() if takes.get(part) == k}
            for one in PARTS[part](Path(name), repeats, **own):
                print(*lines([one]), flush=True)
                found.append(one)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=tuple(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    measure(given.only, given.repeats)
