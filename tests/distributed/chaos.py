"""Kill parts of a cluster while a suite runs on it, and compare all that comes out.

    python -m tests.distributed.chaos --rounds 20

runs a small suite undisturbed on two nodes of this machine, then as often as asked while a warm
worker, a worker of a group, a trial, a node, the driver and the whole cluster are killed, a worker
is frozen and the disk is full, each round in another order. Whatever ends the driver, the same
command goes on. Rows, trials and weights must be those of the undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
from ray.cluster_utils import Cluster as Nodes
from safetensors.torch import load_file
from shiftbench.leaderboard.store import read
from shiftbench.models.digest import weights_digest

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  full: &small {lr: 5e-4, epochs: 1, batch_size: 24, warmup_steps: 0}
  flyp: *small
  wise-ft: {parent: full, alphas: [0, 0.5, 1]}
  tuned:
    method: tuned
    of: full
    settings: *small
    space: {lr: {kind: choice, values: [1e-4, 1e-3]}}
    search: {n_trials: 6, inner_steps: 4, sampler: random, finalists: 0}
seeds: [0]
budget: {steps: 24, evaluation_images: 100}
resources: {workers: 2, max_trials: 1, limits: {stall_s: 60, idle_worker_s: 5}}
"""
DISK_BYTES = 256 * 2**20
END_S = 900.0
EVENTS = (
    *("warm worker killed", "group's worker killed", "trial killed", "warm worker frozen"),
    *("node killed, another added", "driver killed", "cluster killed", "disk full"),
)
PROCESSES = {
    "warm worker killed": b"ray::WarmWorker.",
    "warm worker frozen": b"ray::WarmWorker.",
    "group's worker killed": b"ray::RayTrainWorker",
    "trial killed": b"ray::ResourceTrainable",
}


@dataclass
class Struck:
    """What was done to a run.

    Attributes:
        event: one of ``EVENTS``.
        at: when, in seconds of the monotonic clock.
        recovered_s: seconds until the next file of a run or a search; ``None`` if none came.
    """

    event: str
    at: float
    recovered_s: float | None = None


@dataclass
class Machine:
    """Two nodes on this machine, and the command that runs the suite on them."""

    suite: Path
    results: Path
    cache: str
    nodes: Nodes = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start a cluster of two nodes with one CPU each, over which a group stretches."""
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own spelling
        self.nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(2):
            self.nodes.add_node(num_cpus=1)

    def driver(self) -> subprocess.Popen[str]:
        """Start the command, in a process group of its own."""
        words = ["run", self.suite, "--results", self.results, "--address", self.nodes.address]
        return subprocess.Popen(
            [sys.executable, "-m", "shiftbench", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def strike(self, event: str, driver: subprocess.Popen[str]) -> bool:
        """Do something to the run; false if there is nothing yet that it could be done to."""
        if event in PROCESSES:
            processes = processes_called(PROCESSES[event], self.cache)
            if not processes:
                return False
            os.kill(processes[0], signal.SIGSTOP if "frozen" in event else signal.SIGKILL)
        elif event == "node killed, another added":
            self.nodes.remove_node(next(iter(self.nodes.worker_nodes)), allow_graceful=False)
            self.nodes.add_node(num_cpus=1)
        elif event == "driver killed":
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
        elif event == "cluster killed":
            for node in [*self.nodes.worker_nodes, self.nodes.head_node]:
                self.nodes.remove_node(node, allow_graceful=False)
            driver.wait(END_S)
            self.start()
        else:
            fill(self.results, until=lambda: driver.poll() is not None)
        return True


def processes_called(name: bytes, cache: str) -> list[int]:
    """Processes of Ray that are called so and use a cache: those of this test."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mine = f"SHIFTBENCH_CACHE={cache}\0".encode() in (folder / "environ").read_bytes()
            if mine and (folder / "cmdline").read_bytes().startswith(name):
                found.append(int(folder.name))
    return found


def fill(folder: Path, until: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Leave no space on a disk until something is so, then give it back."""
    ballast = folder / "ballast"
    end = time.monotonic() + timeout_s
    with ballast.open("wb", buffering=0) as file:
        while not until() and time.monotonic() < end:
            try:
                file.write(bytes(2**16))
            except OSError:  # it is full, and what others delete is taken, too
                time.sleep(0.01)
    ballast.unlink()


def run_through(machine: Machine, events: list[str]) -> list[Struck]:
    """Run the suite to its end while all events come, in their order as far as they can.

    Raises:
        AssertionError: the command failed of itself, or waits for ever.
    """
    struck: list[Struck] = []
    pending, end = [*events], time.monotonic() + END_S
    while True:
        driver = machine.driver()
        killed = False
        before = files_of(machine.results)
        while driver.poll() is None:
            assert time.monotonic() < end, f"it does not end; still to come: {pending}"
            there = files_of(machine.results)
            if there - before:
                for earlier in struck:
                    if earlier.recovered_s is None:
                        earlier.recovered_s = time.monotonic() - earlier.at
                recovered = bool(struck) or len(there) > 2
                event = next((e for e in pending if recovered and machine.strike(e, driver)), None)
                if event is not None:
                    pending.remove(event)
                    struck.append(Struck(event, time.monotonic()))
                    killed = killed or event in ("driver killed", "cluster killed", "disk full")
                    before = files_of(machine.results)
            time.sleep(0.02)
        output = driver.stdout.read() if driver.stdout else ""
        if driver.returncode == 0:
            for earlier in struck:
                if earlier.recovered_s is None:
                    earlier.recovered_s = time.monotonic() - earlier.at
            return struck
        assert killed, f"it ended with {driver.returncode}:\n{output}"
        if struck[-1].event == "disk full":
            assert "Traceback" not in output, output
            assert "No space left on device" in output, output


def files_of(results: Path) -> set[str]:
    """The files that runs and searches have written; a file that is replaced counts again."""
    found = set()
    for kind in ("runs", "searches"):
        for folder, _, names in os.walk(results / kind):  # which may go as it looks
            for file in (Path(folder, name) for name in names if not name.startswith(".")):
                with suppress(OSError):
                    found.add(f"{file} {file.stat().st_mtime_ns}")
    return found


def outcome(results: Path) -> dict[str, Any]:
    """All that must not depend on what happened meanwhile, by what it is."""
    found: dict[str, Any] = {}
    for row in read(results).to_pylist():
        key = f"{row['label']} {row['seed']} {row['variant']} {row['selection']}"
        name = f"row {key} {row['evaluation_set']} {row['metric']}"
        assert name not in found, f"{name} is there twice"
        found[name] = [row[kind] for kind in ("status", "value", "low", "high", "n", "error")]
    for file in sorted(results.glob("runs/*/*.safetensors")):
        found[f"weights {file.parent.name} {file.name}"] = weights_digest(load_file(file))
    for file in results.glob("searches/*/trials.parquet"):
        for trial in pq.read_table(file).to_pylist():
            if trial["state"] != "died":
                key = json.loads(trial["values"])["lr"]
                found[f"trial {file.parent.name} {key}"] = [trial["state"], trial["score"]]
    return found


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of ``DISK_BYTES`` at a folder; yields whether this user may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(mounting, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def main() -> None:
    """Run rounds by hand, and print what was struck and what differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=20, help="number of them [20]")
    parser.add_argument("--first", type=int, default=0, help="seed of the first [0]")
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="chaos-") as folder:
        place = Path(folder)
        cache = os.environ.setdefault("SHIFTBENCH_CACHE", str(place / "cache"))
        suite = place / "suite.yaml"
        suite.write_text(SUITE, encoding="utf-8")
        undisturbed = _round(suite, place / "undisturbed", cache, [])
        different = 0
        for seed in range(asked.first, asked.first + asked.rounds):
            events = random.Random(seed).sample(EVENTS, len(EVENTS))  # noqa: S311
            found = _round(suite, place / f"round-{seed}", cache, events)
            for name in sorted(found | undisturbed):
                if found.get(name) != undisturbed.get(name):
                    different += 1
                    print(f"  {name}: {undisturbed.get(name)} became {found.get(name)}")
        print(f"{different} differences in {asked.rounds} rounds")
    sys.exit(different > 0)


def _round(suite: Path, results: Path, cache: str, events: list[str]) -> dict[str, Any]:
    with small_disk(results) as mounted:
        machine = Machine(suite, results, cache)
        began = time.monotonic()
        able = [event for event in events if mounted or event != "disk full"]
        struck = run_through(machine, able)
        print(f"{results.name}: {time.monotonic() - began:.0f} s")
        for each in struck:
            print(f"  {each.event}: went on after {each.recovered_s:.1f} s")
        for event in events:
            if event not in {each.event for each in struck}:
                print(f"  {event}: never came")
        machine.nodes.shutdown()
        return outcome(results)


if __name__ == "__main__":
    main()
