"""What runs have cost so far, as their rows say. No torch, no ray."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from shiftbench.leaderboard import store

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["GPU", "processor"]
COLUMNS = (
    *("run_id", "status", "device", "hardware", "variant", "evaluation_set", "evaluation_seconds"),
    *("train_seconds", "world_size", "search_id", "search_seconds"),
)


@dataclass(frozen=True)
class Spent:
    """Time of workers.

    Attributes:
        seconds: of all workers together.
        kind: of the device that each of them had.
    """

    seconds: float
    kind: Kind


def spent_on(results: Path, run_ids: Collection[str]) -> dict[str, Spent]:
    """The time that workers had for each run that is done; of a search, with its first run.

    Raises:
        InputError: the leaderboard cannot be read.
    """
    table = store.read(results, run_ids, columns=COLUMNS, where={"status": ["done"]})
    seconds: dict[str, float] = defaultdict(float)
    kinds: dict[str, Kind] = {}
    counted: set[object] = set()
    gpus: dict[str | None, frozenset[str]] = {}

    def once(what: object, amount: float | None) -> float:
        if what in counted or not amount:
            return 0.0
        counted.add(what)
        return amount

    for row in table.to_pylist():
        run_id, text = row["run_id"], row["hardware"]
        if text not in gpus:
            gpus[text] = _gpus(text)
        kinds[run_id] = "GPU" if row["device"] in gpus[text] else "processor"
        pair = (run_id, row["variant"], row["evaluation_set"])
        seconds[run_id] += once(pair, row["evaluation_seconds"])
        training = (row["train_seconds"] or 0.0) * (row["world_size"] or 1)
        seconds[run_id] += once(run_id, training)
        if row["search_id"] is not None:
            seconds[run_id] += once(("search", row["search_id"]), row["search_seconds"])
    return {run_id: Spent(seconds[run_id], kind) for run_id, kind in kinds.items()}


def hours(spent: Iterable[Spent]) -> dict[Kind, float]:
    """Hours of workers in all, by the kind of their device."""
    total: Counter[Kind] = Counter()
    for one in spent:
        total[one.kind] += one.seconds / 3600  # type: ignore[assignment]  # a Counter of floats
    return {**total}


def in_words(of: Mapping[Kind, float]) -> str:
    """Such as ``12.3 GPU-hours``; "" for none."""
    return ", ".join(f"{each:,.2f} {kind}-hours" for kind, each in of.items() if each)


def _gpus(hardware: str | None) -> frozenset[str]:
    facts: Any = None if hardware is None else json.loads(hardware)
    return frozenset((facts or {}).get("gpus") or ())
