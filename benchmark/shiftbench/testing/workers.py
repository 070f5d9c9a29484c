"""Workers that share a training, against one that does it alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from shiftbench.data.batches import WorkerPlace
from shiftbench.methods.base import TrainedMethod
from shiftbench.methods.config import TrainingConfig
from shiftbench.testing import methods
from shiftbench.testing.checks import require
from shiftbench.testing.methods import Subject
from shiftbench.testing.weights import require_close

LOSSES, TERMS, WEIGHTS = 1e-5, 1e-4, 1e-4
"""Relative differences that are those of the order of sums, in fp32."""


def agree_with_one_worker(subject: Subject) -> None:
    """Two workers train on the same batches as one: the same losses and weights, but for rounding.

    So they do with a part of the weights each, where the method says that it is ``shardable``.

    Raises:
        NotCheckedError: its loss draws at random, or it has to search for its settings.
        ContractError: something differs.
    """
    methods.refuse_random(subject)
    with TemporaryDirectory() as folder:
        train_together({"it": subject}, 2, Path(folder))
        compare("it", subject, 2, Path(folder))


def train_together(subjects: Mapping[str, Subject], size: int, folder: Path) -> None:
    """Train the toy with each method by ``size`` processes, and leave what they have in a folder.

    Raises:
        Exception: as one of them did, whose traceback is in the message.
    """
    arguments = (size, folder, dict(subjects))
    mp.spawn(_worker, arguments, size)  # type: ignore[attr-defined, no-untyped-call]


def compare(name: str, subject: Subject, size: int, folder: Path) -> None:
    """Compare what processes left with what one does alone.

    Raises:
        ContractError: something differs.
    """
    model, trained, method = methods.fit(subject)
    sharded = ["fsdp2-0"] if _sharded(method, size) else []
    for who in [*map(str, range(size)), *sharded]:
        weights, losses, terms = torch.load(folder / f"{name}-{who}.pt", weights_only=True)
        with_them = f"with {size} workers" + (" of fsdp2" if who in sharded else "")
        for step, (one, two) in enumerate(zip(trained.losses, losses, strict=True), 1):
            close = math.isclose(one, two, rel_tol=LOSSES)
            require(close, f"step {step}: the loss is {two:.7g} {with_them}, {one:.7g} with one")
        require(terms.keys() == trained.terms.keys(), f"other terms of the loss {with_them}")
        for term, values in trained.terms.items():
            pairs = zip(values, terms[term], strict=True)
            odd = next((step for step, pair in enumerate(pairs, 1) if not _alike(*pair)), None)
            require(odd is None, f"step {odd}: the term {term} is another one {with_them}")
        expected = methods.final(model, method)
        require_close(weights, expected, with_them, rtol=WEIGHTS, atol=1e-5)


def _sharded(method: TrainedMethod[TrainingConfig], size: int) -> bool:
    return method.shardable and size == 2  # more workers add nothing but time


def _alike(one: float | None, two: float | None) -> bool:
    if one is None or two is None:
        return one is two
    return math.isclose(one, two, rel_tol=TERMS, abs_tol=1e-6)


def _worker(rank: int, size: int, folder: Path, subjects: Mapping[str, Subject]) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=size)
    for name, subject in subjects.items():
        model, trained, method = methods.fit(subject, WorkerPlace(rank, size))
        left = (methods.final(model, method), trained.losses, trained.terms)
        torch.save(left, folder / f"{name}-{rank}.pt")
        if _sharded(method, size):
            _, trainer, _ = methods.ready(subject, WorkerPlace(rank, size), sharding="fsdp2")
            trained = trainer.run()
            left = (dict(trainer.weights()), trained.losses, trained.terms)
            torch.save(left, folder / f"{name}-fsdp2-{rank}.pt")
    dist.destroy_process_group()
