"""The training images that a plan's methods keep shrunk: how much they take, before any is made."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shiftbench.core.errors import InputError
from shiftbench.core.locations import cache_dir
from shiftbench.data.images import NONE_UNREADABLE
from shiftbench.data.store import Store
from shiftbench.data.tasks.opening import open_task
from shiftbench.methods.base import TrainedMethod

if TYPE_CHECKING:
    from shiftbench.data.images import Unreadable
    from shiftbench.data.shards import Form
    from shiftbench.suite.plan import Plan


@dataclass(frozen=True)
class TrainingStore:
    """A training set in a form that some methods ask for.

    Attributes:
        task: whose training set.
        form: what is kept of each image.
        images: how many.
        bytes: what they take, estimated from a sample.
        there: whether it has been made already.
    """

    task: str
    form: Form
    images: int
    bytes: int
    there: bool


def training_stores(
    plan: Plan, root: str, unreadable: Unreadable = NONE_UNREADABLE
) -> list[TrainingStore]:
    """The training sets that a plan's runs keep shrunk; a few images of each are decoded.

    Raises:
        InputError: a task cannot be opened, or one of those images cannot be decoded.
    """
    store = Store(cache_dir() / "store")
    found: dict[tuple[str, int | None, int, bool, Form], TrainingStore] = {}
    for _, runs in plan.groups():
        method = runs[0].create()
        if not isinstance(method, TrainedMethod) or method.training.store is None:
            continue
        form = method.training.store.form
        for run in runs:
            seed = run.seed if run.shots else 0
            key = (run.task.name, run.shots, seed, run.whole, form)
            if key not in found:
                task = open_task(run.task, root, run.shots, seed, unreadable, whole=run.whole)
                found[key] = TrainingStore(
                    run.task.name,
                    form,
                    len(task.train),
                    store.estimated_bytes(task.train, form),
                    store.has(task.train, form),
                )
    return list(found.values())


def check_training_stores(plan: Plan, root: str, unreadable: Unreadable = NONE_UNREADABLE) -> None:
    """Refuse more than the suite allows, or than the disk has room for.

    Raises:
        InputError: one of these.
    """
    stores = training_stores(plan, root, unreadable)
    limit = plan.suite.resources.limits.store_bytes
    total = sum(store.bytes for store in stores)
    if limit is not None and total > limit:
        raise plan.suite.error(
            f"store_bytes is {limit:,}, but the training images that methods' store asks for take "
            f"about {total:,} bytes",
            *("resources", "limits"),
        )
    missing = sum(store.bytes for store in stores if not store.there)
    free = free_bytes()
    if missing > free:
        raise InputError(
            f"{cache_dir()}: the training images that methods' store asks for take about "
            f"{missing / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free; SHIFTBENCH_CACHE "
            "names another place"
        )


def free_bytes() -> int:
    """What is free where the store is, or will be."""
    folder = cache_dir().absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(there).free
