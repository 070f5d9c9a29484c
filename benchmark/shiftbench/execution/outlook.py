"""What is left of a plan, in a few lines for people: time, cost, memory, disk. No torch, no ray."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from shiftbench.core.cpus import available_cpus
from shiftbench.core.errors import InputError
from shiftbench.core.locations import cache_dir
from shiftbench.core.memory import available_memory
from shiftbench.core.mirror import placed
from shiftbench.core.words import duration, size
from shiftbench.execution.processes import workers_that_fit
from shiftbench.execution.throughput import gpu_models
from shiftbench.methods.base import TrainedMethod
from shiftbench.models.arithmetic import tower_of

if TYPE_CHECKING:
    from shiftbench.execution.amounts import Amount
    from shiftbench.execution.cost import PlanState
    from shiftbench.execution.throughput import Device
    from shiftbench.suite.file import Resources
    from shiftbench.suite.plan import Plan

TRAINED_BYTES = 16
"""Of a weight that trains with AdamW: itself, its gradient and two moments, fp32."""
SAVED_BYTES = 12
"""Of a weight in the saved state of a training: itself and two moments, fp32."""
ACTIVATION_BYTES = 34
"""Kept for the backward pass of each value between a transformer's layers, in 16 bits and without
attention's matrices (arXiv 2205.05198, eq. 2): 29.4 GiB for 512 images of a ViT-B/16, of which with
weights 33.2 were measured (docs/performance.md)."""
SOON_S = 12 * 3600
"""Seconds up to which an end is told by the clock alone."""


@dataclass(frozen=True)
class Machine:
    """What this machine can do at once.

    Attributes:
        workers: that fit; 0 where it has none of the GPUs that they need, or is not to do it.
        memory: bytes that are free.
        disk: bytes that are free where the results are.
    """

    workers: int
    memory: int
    disk: int

    @classmethod
    def here(cls, resources: Resources, results: Path) -> Machine:
        """This one, for workers with these resources."""
        memory = available_memory()
        folder = results.absolute()
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        return cls(_workers(resources, memory), memory, shutil.disk_usage(there).free)


def outlook(
    plan: Plan,
    state: PlanState,
    results: Path,
    *,
    machine: Machine | None = None,
    now: Callable[[], datetime] = datetime.now,
) -> list[str]:
    """Time, cost, memory and disk of what is left, a line each; where it ends by the clock.

    Args:
        plan: the runs.
        state: of them.
        results: the results folder.
        machine: that does them; by default this one.
        now: the local time.
    """
    if not state.count("left") and not state.count("failed"):
        return ["Nothing is left to do."]
    machine = machine or Machine.here(plan.suite.resources, results)
    return [
        _time(state, machine, now),
        _money(state, plan.suite.resources),
        *needs(plan, state, results, machine),
    ]


def needs(plan: Plan, state: PlanState, results: Path, machine: Machine) -> list[str]:
    """What the times are made of, memory and disk of what is left, a line each."""
    saved = _saved(plan)
    return [
        _calibration(state),
        _memory(plan, state, machine, saved),
        _disk(state, results, machine, saved),
    ]


def eta_seconds(state: PlanState, workers: int) -> Amount:
    """Seconds until the end with so many workers at once: no sooner than the longest run takes."""
    shared = state.cost.worker_seconds * (1 / max(1, workers))
    return type(shared)(max(shared.known, state.longest), shared.whole)


def amount(of: Amount, text: Callable[[float], str] = lambda n: f"{n:,.0f}") -> str:
    """An amount in words: ``at least 1,200`` where only a part of it is known."""
    return text(of.known) if of.whole else f"at least {text(of.known)}"


def _workers(resources: Resources, memory: int) -> int:
    if resources.gpus_per_worker:
        fit = int(len(gpu_models()) / resources.gpus_per_worker)
        return min(fit, resources.max_concurrent or sys.maxsize)
    try:
        return workers_that_fit(resources, available_cpus(), memory)
    except InputError:  # too few processors: run says so
        return 0


def _time(state: PlanState, machine: Machine, now: Callable[[], datetime]) -> str:
    alone = f"Time: {amount(state.cost.seconds, duration)}, one run after the other"
    if not machine.workers:
        return f"{alone}; to be divided by the workers that are at it at once."
    left = eta_seconds(state, machine.workers)
    at_once = "1 worker" if machine.workers == 1 else f"{machine.workers} workers at once"
    end = now() + timedelta(seconds=left.known)
    clock = f"{end:%H:%M}" if left.known < SOON_S else f"{end:%a %d %b %H:%M}"
    return f"{alone}; {amount(left, duration)} here with {at_once}, until {clock} if begun now."


def _money(state: PlanState, resources: Resources) -> str:
    on_gpu = state.device.kind == "gpu"
    unit = "GPU" if on_gpu else "processor"
    each = (resources.gpus_per_worker or 1.0) if on_gpu else resources.cpus_per_worker
    hours = amount(state.cost.worker_seconds * each, lambda s: f"{s / 3600:,.2f}")
    return f"Cost: {hours} {unit}-hours of workers."


def _calibration(state: PlanState) -> str:
    """What the times are made of."""
    cost, device = state.cost, state.device
    seconds = cost.seconds.known
    if not seconds:
        return "No time is known: sizes of data, or the arithmetic of a backbone, are missing."
    measured = max(0.0, seconds - cost.estimated - cost.calibrated)
    calibration = state.estimator.rates.calibration
    when = "" if calibration is None else f" of {calibration.device}, {calibration.measured}"
    parts = {
        "runs like these in these results": measured,
        f"a calibration{when}": cost.calibrated,
        f"published throughputs ({device.name}: {device.source}), of arithmetic alone and not "
        "calibrated": cost.estimated,
    }
    shares = {what: part / seconds for what, part in parts.items() if part > 0.001 * seconds}
    told = ", ".join(
        f"{share:.0%} from {what}" if len(shares) > 1 else f"from {what}"
        for what, share in shares.items()
    )
    better = " shiftbench calibrate, or finished runs, take their place." if cost.estimated else ""
    return f"Times: {told}.{better}"


def _saved(plan: Plan) -> int:
    """Bytes of the largest state that a training of the plan saves as it goes; 0 if unknown."""
    trained = {
        run.backbone
        for run in plan.runs.values()
        if isinstance(method := run.create(), TrainedMethod) and method.inputs == "images"
    }
    towers = [tower_of(name) for name in trained]
    return int(SAVED_BYTES * max((tower.parameters for tower in towers if tower), default=0))


def _memory(plan: Plan, state: PlanState, machine: Machine, saved: int) -> str:
    resources = plan.suite.resources
    towers = [tower_of(name) for name in {run.backbone for run in plan.runs.values()}]
    least = TRAINED_BYTES * max((tower.parameters for tower in towers if tower), default=0)
    seen = "" if state.peak_memory is None else f"; the most so far was {size(state.peak_memory)}"
    states = f"weights, gradients and moments take at least {size(least)}"
    if state.device.kind == "gpu":
        copied = f". Saving a state takes {size(saved)} of a node's own memory" if saved else ""
        return f"GPU memory: {states}{_activations(plan, state.device)}{seen}{copied}."
    counted = f"a worker is counted with {size(resources.memory_per_worker)}"
    more = (
        "; set resources.memory_per_worker higher"
        if max(least, state.peak_memory or 0) > resources.memory_per_worker
        else ""
    )
    return f"Memory: {counted}, {states}{seen}; {size(machine.memory)} are free{more}."


def _activations(plan: Plan, device: Device) -> str:
    """What the images of a step add to what a GPU holds, of the run that needs most."""
    resources, most = plan.suite.resources, (0.0, 0.0, 1)
    for run in plan.runs.values():
        method, tower = run.create(), tower_of(run.backbone)
        if not isinstance(method, TrainedMethod) or method.inputs != "images":
            continue
        if tower is None or tower.activations is None:
            return ", and activations what is left"
        wide = 1 if method.training.precision == "bf16" else 2
        each = wide * ACTIVATION_BYTES * tower.activations
        share = max(1, method.training.batch_size // plan.resources_of(run).workers)
        weights = TRAINED_BYTES * tower.parameters
        most = max(most, (weights + each * share, each, share))
    whole, each, share = most
    if not whole:
        return ""
    text = f"; with a worker's {share:,} images of a step about {size(whole)}"
    if resources.micro_batch is not None and resources.micro_batch < share:
        held = size(whole - each * (share - resources.micro_batch))
        return f"{text}, or {held} with {resources.micro_batch:,} at a time"
    if not device.memory:
        return text
    text += f" of the {size(device.memory)} of a GPU"
    fit = int((device.memory - whole + each * share) / each)
    if fit >= share:
        return text
    return f"{text}, so about {max(1, fit):,} images are held at a time"


def _disk(state: PlanState, results: Path, machine: Machine, saved: int) -> str:
    left = state.cost.disk
    short = ", which is not enough" if left.known + saved > machine.disk else ""
    where = results if placed(results) is None else cache_dir()  # which has the copies
    states = f", and {size(saved)} for the state of each training under way" if saved else ""
    return (
        f"Disk: {amount(left, size)} of weights and predictions{states}; {size(machine.disk)} are "
        f"free in {where}{short}."
    )
