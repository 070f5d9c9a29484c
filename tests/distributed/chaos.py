"""Kill parts of a cluster while a suite runs on it, and compare all that comes out.

    python -m tests.distributed.chaos --rounds 20

runs a small suite as often as asked on two nodes of this machine. In each round a warm worker, a
worker of a group and what leads it, a trial, a node, the driver and the head are killed, a worker
is frozen and the disk is full, at other moments in each; whatever ends the driver, the same command
goes on. Rows, trials and weights must be those of a run that nothing disturbs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from unittest.mock import patch

import pyarrow.parquet as pq
from ray.cluster_utils import Cluster as Nodes
from safetensors.torch import load_file
from shiftbench.leaderboard.store import read
from shiftbench.models.digest import weights_digest

from tests.distributed.blows import (
    END_DRIVERS,
    LEADER,
    MOMENTS,
    Blow,
    blows,
    comes,
    summary,
    went_on,
)

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  tuned:
    method: tuned
    of: full
    settings: {epochs: 1, batch_size: 24, warmup_steps: 0}
    space: {lr: {kind: choice, values: [1e-4, 1e-3]}}
    # Wherever it is begun again, both values are among the first that are drawn.
    search:
      {n_trials: 4, inner_steps: 12, sampler: random, scheduler: none, finalists: 0, seed: 182}
  wise-ft: {parent: tuned, alphas: [0, 0.5, 1]}
seeds: [0]
budget: {steps: 48, evaluation_images: 100}
resources:
  workers: 2
  max_trials: 1
  limits:
    {idle_worker_s: 5, save_every_s: 0.5, job_retries: 9, group_restarts: 9}
"""
DISK_BYTES = 256 * 2**20
END_S = 1800.0
LOOK_S = 0.02
RUNS = 3
"""So often is the suite run in a round, until all blows have come."""
STALL_S = 30.0
STALL_STARTS = 5
"""A job hangs that shows no progress for so long, or so many times as long as nodes took to start:
all takes long on a machine that is busy with other things."""
RAY = {
    "RAY_worker_niceness": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",  # 60: a driver's patience with a head
    "RAY_health_check_period_ms": "1000",  # 3000: with nodes
}
"""What Ray is told, so that it soon notices what is gone; and what it does otherwise."""


@dataclass
class Machine:
    """Two nodes on this machine, and the command that runs the suite on them; a context manager.

    Attributes:
        suite: its file.
        nodes: a head without CPUs, and two with one each, over which a group stretches.
        stall_s: of ``limits.stall_s``.
    """

    suite: Path
    nodes: Nodes = field(init=False)
    stall_s: float = STALL_S

    def __enter__(self) -> Self:
        self._settings = patch.dict(os.environ, RAY)
        self._settings.start()
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._settings.stop()

    def start(self) -> None:
        """Start the nodes."""
        began = time.monotonic()
        head = {"num_cpus": 0, "dashboard_port": free_port()}
        self.nodes = Nodes(initialize_head=True, head_node_args=head)
        for _ in range(2):
            self.nodes.add_node(num_cpus=1, wait=False)
        self.nodes.wait_for_nodes()
        self.stall_s = max(self.stall_s, STALL_STARTS * (time.monotonic() - began))

    def stop(self) -> None:
        """Kill what there is of them."""
        for node in [*self.nodes.worker_nodes, self.nodes.head_node]:
            if node is not None:
                self.nodes.remove_node(node, allow_graceful=False)

    def driver(self, results: Path, log: Path) -> subprocess.Popen[bytes]:
        """Start the command, in a process group of its own."""
        words = ["run", self.suite, "--results", results, "--address", self.nodes.address,
                 "--set", f"resources.limits.stall_s={self.stall_s:.0f}"]  # fmt: skip
        command = [sys.executable, "-m", "shiftbench", *map(str, words)]
        with log.open("wb") as file:
            return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)

    def strike(self, blow: Blow, driver: subprocess.Popen[bytes], results: Path) -> bool:
        """Do something to the run; false if there is nothing that it could be done to."""
        at = time.monotonic()
        match blow.event:
            case "node killed, another added":
                self.nodes.remove_node(next(iter(self.nodes.worker_nodes)), allow_graceful=False)
                driver.send_signal(signal.SIGSTOP)  # or no work may be left for other blows
                self.nodes.add_node(num_cpus=1)
                driver.send_signal(signal.SIGCONT)
            case "driver killed":
                os.killpg(driver.pid, signal.SIGKILL)
            case "head killed":
                self.nodes.remove_node(self.nodes.head_node, allow_graceful=False)
                driver.wait(END_S)
                self.stop()
                self.start()
            case "disk full":
                fill(results, until=lambda: driver.poll() is not None)
            case _:
                leads = blow.event == "group's leader killed"
                processes = processes_called(LEADER if leads else MOMENTS[blow.moment][0])
                if not processes:
                    return False
                blow.frozen = processes[0] if blow.event == "worker frozen" else None
                os.kill(processes[0], signal.SIGSTOP if blow.frozen else signal.SIGKILL)
        blow.at = at
        return True


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def processes_called(name: bytes) -> list[int]:
    """Processes of Ray that are called so and use the same cache: those of this test."""
    cache = f"SHIFTBENCH_CACHE={os.environ['SHIFTBENCH_CACHE']}\0".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mine = cache in (folder / "environ").read_bytes()
            if mine and (folder / "cmdline").read_bytes().startswith(name):
                found.append(int(folder.name))
    return found


def fill(folder: Path, until: Callable[[], bool]) -> None:
    """Leave no space on a disk until something is so, then give it back."""
    ballast = folder / "ballast"
    end = time.monotonic() + END_S
    with ballast.open("wb", buffering=0) as file:
        while not until():
            assert time.monotonic() < end, "nobody takes notice that the disk is full"
            try:
                file.write(bytes(2**16))
            except OSError:  # it is full, and what others delete is taken, too
                time.sleep(0.01)
    ballast.unlink()


def run_through(machine: Machine, results: Path, blows_to_come: list[Blow]) -> None:
    """Run the suite to its end while all blows come, each at its moment.

    Raises:
        AssertionError: the command failed of itself, or waits for ever.
    """
    pending, log = [*blows_to_come], results.with_suffix(".log")
    struck: list[Blow] = []
    end = time.monotonic() + END_S
    while True:
        driver = machine.driver(results, log)
        ended_by = _strike_while_it_runs(machine, driver, results, pending, struck, end)
        output = log.read_text(encoding="utf-8", errors="replace")
        assert driver.poll() is not None, f"it waits for ever; to come: {pending}\n{output}"
        if driver.returncode == 0:
            assert went_on(struck), "what is frozen was never stopped"
            return
        told = f"it ended with {driver.returncode}:\n{output}"
        assert ended_by is not None, told
        if ended_by.event == "disk full":
            assert "Traceback" not in output, told
            assert "No space left on device" in output, told


def _strike_while_it_runs(
    machine: Machine,
    driver: subprocess.Popen[bytes],
    results: Path,
    pending: list[Blow],
    struck: list[Blow],
    end: float,
) -> Blow | None:
    """Let blows come until the command ends, or it is that time; the one that ended it, if any."""
    before, new = files_of(results), set[str]()
    while driver.poll() is None and time.monotonic() < end:
        time.sleep(LOOK_S)
        new |= files_of(results) - before
        if not new or not went_on(struck):
            continue
        coming = (one for one in pending if comes(one, new))
        blow = next((one for one in coming if machine.strike(one, driver, results)), None)
        if blow is None:
            continue
        pending.remove(blow)
        struck.append(blow)
        if blow.event in END_DRIVERS:
            driver.wait(END_S)
            return blow
        before, new = files_of(results), set()
    return None


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
        ended = [one for one in pq.read_table(file).to_pylist() if one["state"] != "died"]
        found[f"trials {file.parent.name}"] = len(ended)
        for trial in ended:
            key = json.loads(trial["values"])["lr"]
            found[f"trial {file.parent.name} {key}"] = [trial["state"], trial["score"]]
    return found


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """A line for each row, trial and tensor that is another one, lacks or should not be there."""
    return [
        f"{name}: {expected.get(name)} became {found.get(name)}"
        for name in sorted(expected | found)
        if expected.get(name) != found.get(name)
    ]


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


def written(folder: Path) -> Path:
    """The suite's file, in a folder."""
    suite = folder / "suite.yaml"
    suite.write_text(SUITE, encoding="utf-8")
    return suite


@contextmanager
def undisturbed(suite: Path, results: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """Run the suite beside all else; yields what waits for its outcome."""
    words = ["nice", sys.executable, "-m", "tests.distributed.undisturbed", suite, results]
    with subprocess.Popen([*map(str, words)], start_new_session=True) as process:

        def wait() -> dict[str, Any]:
            assert process.wait(END_S) == 0, "the undisturbed run failed"
            return outcome(results)

        try:
            yield wait
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def one_round(machine: Machine, folder: Path, seed: int) -> tuple[list[Blow], list[dict[str, Any]]]:
    """Run the suite while all is done to it that this user may do; the blows, and each outcome.

    Where a run is over before a blow finds its moment, another one, from its beginning, waits for
    that.
    """
    pending, found, outcomes = blows(seed), list[Blow](), list[dict[str, Any]]()
    for attempt in range(RUNS):
        results = folder / f"run-{attempt}"
        with small_disk(results) as mounted:
            if not mounted:
                pending = [blow for blow in pending if blow.event != "disk full"]
            run_through(machine, results, pending)
            outcomes.append(outcome(results))
        found += [blow for blow in pending if blow.at is not None]
        pending = [blow for blow in pending if blow.at is None]
        if not pending:
            break
    return found + pending, outcomes


def main() -> None:
    """Run rounds by hand, and print what was struck and what differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=20, help="number of them [20]")
    parser.add_argument("--first", type=int, default=0, help="seed of the first [0]")
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + asked.rounds)
    every: list[Blow] = []
    faults: list[str] = []
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory(prefix="chaos-")))
        os.environ.setdefault("SHIFTBENCH_CACHE", str(place / "cache"))
        suite = written(place)
        expected = stack.enter_context(undisturbed(suite, place / "undisturbed"))
        machine = stack.enter_context(Machine(suite))
        for seed in seeds:
            began = time.monotonic()
            try:
                found_blows, outcomes = one_round(machine, place / f"round-{seed}", seed)
            except AssertionError as error:
                faults.append(f"seed {seed}: {error}")
                print(faults[-1], flush=True)
                machine.stop()
                machine.start()
                continue
            every += found_blows
            lines = [line for found in outcomes for line in differences(expected(), found)]
            never = [f"{one.event} when {one.moment}" for one in found_blows if one.at is None]
            faults += [f"seed {seed}: {line}" for line in lines]
            faults += [f"seed {seed}: {event}: never came" for event in never]
            print(
                f"seed {seed}: {time.monotonic() - began:.0f} s, {len(outcomes)} runs of "
                f"{len(expected())} rows, trials and tensors, {len(lines)} differences, "
                f"{len(never)} blows never came",
                flush=True,
            )
    print(summary(every))
    print("\n".join([*faults, f"{len(faults)} faults in {asked.rounds} rounds"]))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
