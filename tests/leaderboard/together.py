"""Many processes at one leaderboard: writers, one that compacts, and one that reads. No pytest."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from shiftbench.leaderboard.store import compact, folder, read, write_run

from tests.leaderboard.records import run


def _write(place, writer, runs):
    """Write each run twice: first two rows, later three."""
    for version in (1, 2):
        sets = dict.fromkeys(("id-test", "r", "a")[: version + 1], version / 10)
        for number in range(runs):
            run_id = f"{writer}{number:03x}"
            write_run(place, run_id, run(run_id, sets))


def _compact_until(place, path):
    times = 0
    while not path.exists():
        compact(place, settled=0.1)
        times += 1
    return times


def everyone_at_once(place, stop, writers, runs, pause):
    """Write, compact and read at once, and see that no row is lost, doubled or half read.

    Returns:
        how often it was compacted and how often read.
    """
    folder(place).mkdir(parents=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    latest: dict[str, float] = {}
    polls = 0
    with ProcessPoolExecutor(writers + 1, mp_context=context) as pool:
        compactor = pool.submit(_compact_until, place, stop)
        jobs = [pool.submit(_write, place, writer, runs) for writer in range(writers)]
        try:
            while not all(job.done() for job in jobs):
                rows = read(place, columns=["run_id", "value"]).to_pylist()
                count = Counter((row["run_id"], row["value"]) for row in rows)
                assert all(n == round(10 * value) + 1 for (_, value), n in count.items())
                now = dict(count.keys())
                assert len(now) == len(count)  # one version of each run
                assert all(now[name] >= value for name, value in latest.items())  # none is lost
                latest = now
                polls += 1
                time.sleep(pause)
        finally:
            stop.touch()
        for job in jobs:
            job.result()
        compacted = compactor.result()

    names = {f"{writer}{number:03x}" for writer in range(writers) for number in range(runs)}
    table = read(place)
    assert Counter(table["run_id"].to_pylist()) == dict.fromkeys(names, 3)
    assert set(table["value"].to_pylist()) == {0.2}
    return compacted, polls
