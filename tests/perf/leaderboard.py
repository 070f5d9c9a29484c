"""How the leaderboard scales: ``python -m tests.perf.leaderboard [--files 10000 --rows 100]``.

With ``--together 1000``, instead: 8 processes write so many runs each, and each run twice, while
another compacts and this one reads, and no row may be lost, doubled or half read.

Writes many runs, then times what people do with them: ranking the methods of one task and backbone,
and all that a report needs. Once with a file for each run and once compacted; before each reading
the kernel is told to forget the files. The reference is what reading file by file with pyarrow
takes, measured on some files in the same process and scaled to all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from shiftbench.evaluation.results import Result, Score
from shiftbench.leaderboard.files import COPY
from shiftbench.leaderboard.schema import SCHEMA, done
from shiftbench.leaderboard.schema import rows as typed
from shiftbench.leaderboard.store import compact, folder, read, write_run
from shiftbench.report.model import build
from shiftbench.report.ranking import rank

from tests.leaderboard.records import info
from tests.leaderboard.together import everyone_at_once

TASKS, BACKBONES, RECIPES = 10, 4, 25
SETS = ("id-test", "id-val", "imagenet-v2", "imagenet-r", "imagenet-sketch")
VARIANTS = tuple(f"alpha={step / 4}" for step in range(5))
SAMPLE = 500
FILTERED, ALL = 2.0, 10.0  # seconds that are aimed at
T = TypeVar("T")


def template(rows: int) -> pa.Table:
    """A run with ``rows`` rows, of 5 variants on 5 sets; a fifth of its variants are selected."""
    results = [
        Result(
            variant=variant,
            evaluation_set=name,
            metric=f"ece:{metric + 1}",
            primary=metric == 0,
            score=Score(0.5, 0.4, 0.6, 1000, "Clopper-Pearson"),
            selection="fixed" if variant == "alpha=0.5" else None,
            evaluation_seconds=1.0,
            data_fingerprint="0" * 16,
        )
        for variant in VARIANTS
        for name in SETS
        for metric in range(max(rows // (len(VARIANTS) * len(SETS)), 1))
    ]
    return done(info(), results)


def runs(files: int) -> Iterator[dict[str, Any]]:
    """What tells each run from the others: its task, backbone, recipe and seed."""
    for number in range(files):
        rest, recipe = divmod(number, RECIPES)
        rest, task = divmod(rest, TASKS)
        seed, backbone = divmod(rest, BACKBONES)
        yield {
            "run_id": f"{(number * 0x9E3779B97F4A7C15) % 2**64:016x}",
            "task": f"task-{task}",
            "backbone": f"backbone-{backbone}",
            "label": f"method-{recipe}",
            "config": json.dumps({"lr": recipe}),
            "seed": seed,
            "distance": 1.0 + recipe,
        }


def write_all(results: Path, rows: int, files: int, each: Callable[[int], object]) -> None:
    """Write all runs; ``each`` is called with the number of those written."""
    folder(results).mkdir(parents=True)
    for number, _ in enumerate(write(results, rows, files), start=1):
        each(number)


def write_part(results: Path, rows: int, files: int, part: int, parts: int) -> None:
    """Write every ``parts``-th run."""
    for _ in write(results, rows, files, part, parts):
        pass


def write(results: Path, rows: int, files: int, part: int = 0, parts: int = 1) -> Iterator[str]:
    """Write every ``parts``-th run, and yield its id once it is written."""
    table = template(rows)
    rng = np.random.default_rng(part)
    for run in islice(runs(files), part, None, parts):
        values = rng.uniform(0.1, 0.9, len(table))
        columns: dict[str, Any] = {name: [value] * len(table) for name, value in run.items()}
        columns |= {"value": values, "low": values - 0.01, "high": values + 0.01}
        finished = table["finished"][0].as_py() + timedelta(seconds=run["seed"])
        columns["finished"] = [finished] * len(table)
        for name, column in columns.items():
            position = SCHEMA.get_field_index(name)
            field = SCHEMA.field(position)
            table = table.set_column(position, field, pa.array(column, field.type))
        write_run(results, run["run_id"], table)
        yield run["run_id"]


def forget(results: Path) -> None:
    """Have the kernel drop the files from memory, as far as it does."""
    for path in results.rglob("*.parquet"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(action: Callable[[], T]) -> tuple[float, float, T]:
    """Wall time, processor time and value of ``action``."""
    wall, processor = time.perf_counter(), time.process_time()
    value = action()
    return time.perf_counter() - wall, time.process_time() - processor, value


def by_sql(results: Path) -> list[Any]:
    """A ranking of one task and backbone as anyone would ask DuckDB for it."""
    files = results / COPY if (results / COPY).exists() else folder(results) / "*.parquet"
    query = f"""
        SELECT label, avg(value) FROM '{files}'
        WHERE task = 'task-3' AND backbone = 'backbone-1' AND "primary" AND role = 'shift'
        AND selection = 'fixed' GROUP BY ALL ORDER BY ALL
    """  # noqa: S608 - the folder is our own
    with duckdb.connect() as connection:
        return connection.sql(query).fetchall()


def filtered(results: Path) -> Any:
    """The report's ranking of one task and backbone."""
    where = {"task": ["task-3"], "backbone": ["backbone-1"]}
    return rank(typed(read(results, where=where)))


def everything(results: Path) -> Any:
    """All that a report shows."""
    return build(read(results))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--together", type=int, metavar="RUNS")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if arguments.together:
            together(Path(name), arguments.together)
        else:
            measure(Path(name), arguments.files, arguments.rows)


def together(directory: Path, runs: int) -> None:
    """Write, compact and read at once, and print how often."""
    places = directory / "results", directory / "stop"
    seconds, _, (compacted, polls) = timed(
        lambda: everyone_at_once(*places, writers=8, runs=runs, pause=1)
    )
    print(f"8 × {runs:,} runs written twice in {seconds:.0f} s")
    print(f"meanwhile compacted {compacted} times and read {polls} times: every row is there once")


def measure(results: Path, files: int, rows: int) -> None:
    """Write the runs, and print what reading them takes."""
    folder(results).mkdir()
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(write_part, results, rows, files, part, 2) for part in range(2)]
        seconds = timed(lambda: [job.result() for job in jobs])[0]
    paths = sorted(folder(results).glob("*.parquet"))
    size = sum(path.stat().st_size for path in paths)
    total = files * len(template(rows))
    print(f"{total:,} rows in {len(paths):,} files, {size / 1e6:.0f} MB, {seconds:.0f} s to write")
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}; wall (processor) seconds")

    sample = paths[:SAMPLE]
    forget(results)
    wall, processor, _ = timed(lambda: [pq.ParquetFile(path).read() for path in sample])
    reference = wall * len(paths) / len(sample)
    print(f"{'file by file':34} {reference:7.2f} ({processor * len(paths) / len(sample):.2f})")

    def show(what: str, action: Callable[[], T], limit: float | None) -> T:
        forget(results)
        wall, processor, value = timed(action)
        aim = "" if limit is None else f", {'within' if wall < limit else 'OVER'} {limit:.0f} s"
        ratio = f"{reference / wall:.1f} times as fast as file by file"
        print(f"{what:34} {wall:7.2f} ({processor:.2f}): {ratio}{aim}", flush=True)
        return value

    kept = []
    for state in ("a file for each run", "compacted"):
        print(state)
        kept.append(
            (
                show("  one task and backbone, SQL", lambda: by_sql(results), FILTERED),
                show("  one task and backbone, ranked", lambda: filtered(results), FILTERED),
                show("  the report's data", lambda: everything(results), ALL),
                show("  all rows and columns", lambda: read(results).num_rows, None),
            )
        )
        if state != "compacted":
            done = show("compacting", lambda: compact(results), None)
            size = (results / COPY).stat().st_size
            print(f"{done.runs:,} runs are in one file of {size / 1e6:.0f} MB")
    if repr(kept[0][1:]) != repr(kept[1][1:]):
        raise SystemExit("compaction has changed the report")
    print("the report is the same before and after")


if __name__ == "__main__":
    main()
