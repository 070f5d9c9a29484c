"""What a suite takes on a cluster: its own scheduler, on jobs that last as long as estimated.

No ray, no torch, and nobody waits: see ``simulation``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shiftbench.core.errors import InputError
from shiftbench.execution.jobs import Job, jobs_of
from shiftbench.execution.remaining import BRIEF_S, seconds_of
from shiftbench.execution.rooms import Rooms
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.scheduler import priorities
from shiftbench.execution.simulation import Lasts, Preemptions, Simulated, simulate
from shiftbench.execution.throughput import CPU, Device, device_of
from shiftbench.methods.base import TrainedMethod
from shiftbench.suite.file import Resources

if TYPE_CHECKING:
    from shiftbench.execution.cost import Estimator
    from shiftbench.suite.plan import Plan, Run

NODE = 8
"""GPUs of a node, at most, where nobody says how many."""
START_S = 15.0
"""Seconds until a worker on another machine has imported what it needs and loaded a model."""
SAVES = 0.9
"""Of the time with half as many GPUs: twice as many that take more than that do not help."""
FEW_JOBS = 50_000
"""Of a suite with more, fewer sizes of clusters are looked at."""


@dataclass(frozen=True)
class Cluster:
    """The cluster that a suite is planned for.

    Attributes:
        nodes: number of nodes.
        devices: GPUs of a node, or processors of one without GPUs.
        device: what these are.
    """

    nodes: int
    devices: int
    device: Device

    @classmethod
    def of(
        cls, text: str | None, nodes: int | None, gpus: int | None, device: str | None
    ) -> Cluster | None:
        """The cluster that the options of a command mean; ``None`` if none is meant.

        Args:
            text: of ``--cluster``, such as ``8xH100``: all GPUs, in nodes of up to 8.
            nodes: of ``--nodes``.
            gpus: of each node, of ``--gpus``.
            device: of ``--device``.

        Raises:
            InputError: they do not fit each other, or there is no such GPU.
        """
        if text is None and nodes is None and gpus is None:
            return None
        if text is None:
            if nodes is None or gpus is None:
                raise InputError("--nodes and --gpus say together how large a cluster is")
            return cls(nodes, gpus, _device(device or "A100", "--device"))
        match = re.fullmatch(r"\s*([1-9][0-9]*)\s*[x×*]\s*(\S.*?)\s*", text)
        if match is None:
            raise InputError(f"--cluster {text}: such as 8xH100, or 16xcpu for processors")
        if gpus is not None or device is not None:
            raise InputError("--cluster says already which GPUs and how many: leave out --gpus "
                             "and --device")  # fmt: skip
        number, found = int(match[1]), _device(match[2], "--cluster")
        several = nodes or (-(-number // NODE) if found.kind == "gpu" else 1)
        if number % several:
            raise InputError(f"--cluster {text}: {number} do not divide over {several} nodes")
        return cls(several, number // several, found)

    @property
    def all_devices(self) -> int:
        """GPUs, or processors, of all nodes."""
        return self.nodes * self.devices

    def resources(self, asked: Resources) -> Resources:
        """What a worker has here: one GPU, where there are GPUs and the suite says nothing."""
        if self.device.kind == "gpu":
            return asked.model_copy(update={"gpus_per_worker": asked.gpus_per_worker or 1.0})
        return asked.model_copy(update={"gpus_per_worker": 0.0})

    def node_slots(self, asked: Resources) -> int:
        """Workers that fit on a node."""
        resources = self.resources(asked)
        each = resources.gpus_per_worker or resources.cpus_per_worker
        return int(self.devices / each + 1e-6)


@dataclass(frozen=True)
class Forecast:
    """What a suite takes on a cluster.

    Attributes:
        cluster: that was asked about.
        sizes: the same on clusters of fewer and of more GPUs, by their number; the asked one too.
        helps: the most GPUs that help: twice as many save less than a tenth of the time; ``None``
            where even more than were looked at would help.
        preempted: on the asked cluster, while nodes are taken away; ``None`` where none are.
    """

    cluster: Cluster
    sizes: Mapping[int, Simulated]
    helps: int | None
    preempted: Simulated | None = None

    @property
    def asked(self) -> Simulated:
        """On the cluster that was asked about."""
        return self.sizes[self.cluster.all_devices]


def forecast(
    plan: Plan,
    todo: set[str],
    estimator: Estimator,
    cluster: Cluster,
    preemptions_per_hour: float = 0.0,
) -> Forecast:
    """Simulate what is left of a plan on a cluster, and on smaller and larger ones.

    Args:
        plan: the runs.
        todo: ids of the runs that are not done.
        estimator: of what is left of them, for the cluster's device.
        cluster: of nodes that are alike.
        preemptions_per_hour: times that a node is taken away in an hour, on average.

    Raises:
        InputError: a worker, or a group of them, does not fit; or nodes are taken away so often
            that nothing is ever done.
    """
    resources = cluster.resources(plan.suite.resources)
    each = cluster.node_slots(resources)
    if each == 0:
        raise InputError(f"no worker fits on a node of {cluster.devices} × {cluster.device.name}")
    begun = estimator.begun
    graph = jobs_of(
        plan.runs,
        todo,
        fitted=lambda run_id: begun.fitted(plan.runs[run_id]),
        found=lambda search_id: begun.trials(search_id) is None,
    )
    lasts = lasts_of(graph, plan.runs, estimator)
    own = {run.id: cluster.resources(plan.resources_of(run)) for run in plan.runs.values()}
    rooms = Rooms(plan.runs, resources, own)
    room = {job: rooms(job) for job in graph}
    order = priorities(plan.runs)

    def on(slots: int, preemptions: Preemptions | None = None) -> Simulated:
        slots = min(slots, resources.max_concurrent or slots)
        start_s = START_S if cluster.device.kind == "gpu" else 0.0
        try:
            return simulate(
                graph,
                order,
                room.__getitem__,
                lasts.__getitem__,
                slots,
                start_s=start_s,
                preemptions=preemptions,
            )
        except InputError as error:
            raise InputError(f"{cluster.all_devices} × {cluster.device.name}: {error}") from error

    least = max((of.least for of in room.values()), default=1)
    sizes = _sizes(cluster.all_devices, -(-least * cluster.devices // each), len(graph) > FEW_JOBS)
    found: dict[int, Simulated] = {}
    for devices in sizes:
        found[devices] = on(devices * each // cluster.devices)
        if devices > cluster.all_devices and not _helps(found, devices // 2):
            break
    known = [devices for devices in sorted(found) if 2 * devices in found]
    helps = next((devices for devices in known if not _helps(found, devices)), None)
    preempted = None
    if preemptions_per_hour:
        preempted = on(cluster.nodes * each, Preemptions(preemptions_per_hour, each))
    return Forecast(cluster, dict(sorted(found.items())), helps, preempted)


def _sizes(asked: int, fewest: int, few: bool) -> list[int]:
    """Numbers of devices to look at: fewer and more than were asked about, by factors of 2."""
    smaller = [asked >> halvings for halvings in (1, 2) if asked % (1 << halvings) == 0]
    larger = [asked << doublings for doublings in range(1, 8)]
    smaller = [devices for devices in smaller if devices >= fewest]
    return [asked, *smaller[:1], *larger[:2]] if few else [asked, *smaller, *larger]


def _helps(sizes: Mapping[int, Simulated], devices: int) -> bool:
    """True if twice as many devices save a tenth of the time or more."""
    return sizes[2 * devices].seconds <= SAVES * sizes[devices].seconds


def _device(name: str, option: str) -> Device:
    if name.lower() in ("cpu", "cpus"):
        return CPU
    return device_of(Resources(), name, option=option)


def lasts_of(
    jobs: Mapping[Job, set[Job]], runs: Mapping[str, Run], estimator: Estimator
) -> dict[Job, Lasts]:
    """How long each job lasts, as estimated."""
    known: dict[tuple[object, ...], Lasts] = {}
    found = {}
    for job in jobs:
        run = runs[job.run_id]
        if run.id in estimator.begun.runs or job.stage == "search":
            found[job] = _lasts(job, run, estimator)
            continue
        alike = (job.stage, run.task.name, run.backbone, run.label, run.shots, job.evaluation_set)
        if alike not in known:
            known[alike] = _lasts(job, run, estimator)
        found[job] = known[alike]
    return found


def _lasts(job: Job, run: Run, estimator: Estimator) -> Lasts:
    seconds = seconds_of(job, run, estimator)
    method = run.create()
    if job.stage == "search" and run.searched_by_training:
        asked = method.search()
        config = None if asked is None else asked.config
        trials = config.n_trials + config.finalists * config.repeats if config else 0
        return Lasts(seconds / max(1, trials) + BRIEF_S, max(1, trials))
    saved_every = 0.0
    if job.stage == "fit" and isinstance(method, TrainedMethod):
        n = estimator.sizes.training(run.task, run.shots, run.whole)
        if n:
            schedule = make_schedule(n, method.training, max_steps=run.budget.steps)
            saved_every = seconds * schedule.save_every / schedule.steps
    return Lasts(seconds + BRIEF_S, saved_every=saved_every)
