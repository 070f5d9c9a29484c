"""The record of a search: every trial as a row, and what was found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from optuna.trial import FrozenTrial, TrialState

from shiftbench.core.files import written_atomically
from shiftbench.execution.search.study import Study, has_died
from shiftbench.leaderboard.runfolder import Found

if TYPE_CHECKING:
    from shiftbench.leaderboard.runfolder import SearchFolder
    from shiftbench.methods.base import Method
    from shiftbench.methods.config import MethodConfig
    from shiftbench.methods.search import Search, Values

TRIALS = pa.schema(
    [
        pa.field("search_id", pa.string(), nullable=False),
        pa.field("study", pa.string(), nullable=False),
        pa.field("number", pa.int32(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("values", pa.string(), nullable=False),
        pa.field("seed", pa.int64()),
        pa.field("score", pa.float64()),
        pa.field(
            "rungs",
            pa.list_(pa.struct([pa.field("steps", pa.int32()), pa.field("score", pa.float64())])),
            nullable=False,
        ),
        pa.field("steps", pa.int64(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("waited", pa.float64(), nullable=False),
        pa.field("computed", pa.float64(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("started", pa.timestamp("ms")),
    ]
)
"""Columns of ``trials.parquet``."""

FACTS = ("steps", "images", "seconds", "waited", "computed", "seed", "error", "milestones")
"""Attributes that the journal keeps of a trial besides its scores."""


def write(
    folder: SearchFolder,
    asked: Search[Method[MethodConfig]],
    search_id: str,
    studies: Sequence[Study],
    values: Values,
    score: float | None,
) -> None:
    """Write down what was tried and what was found; the search has then finished.

    Args:
        folder: of the search.
        asked: what the method says of it.
        search_id: its id.
        studies: that were run, the search itself first.
        values: of the chosen configuration.
        score: of it; ``None`` where nothing was tried.
    """
    tried = [trial for study in studies for trial in (*study.trials(), *study.deaths())]
    rows = [row for study in studies for row in _rows(search_id, study)]
    with written_atomically(folder.trials) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=TRIALS), temporary)
    with written_atomically(folder.exported) as temporary:
        temporary.write_text(asked.export(values))
    folder.write_found(
        Found(
            values=dict(values),
            score=score,
            n_trials=len(studies[0].trials()) if studies else 0,
            steps=sum(trial.user_attrs.get("steps", 0) for trial in tried),
            images=sum(trial.user_attrs.get("images", 0) for trial in tried),
            seconds=sum(trial.user_attrs.get("seconds", 0.0) for trial in tried),
            waited=sum(trial.user_attrs.get("waited", 0.0) for trial in tried),
            computed=sum(trial.user_attrs.get("computed", 0.0) for trial in tried),
        )
    )


def account(found: Found) -> str:
    """One line: how many trials there were, and what their time went to."""
    line = f"{found.n_trials} trials and the finalists' took {found.seconds:.0f} s"
    if not found.seconds or found.computed is None or found.waited is None:
        return line
    computed, waited = found.computed / found.seconds, found.waited / found.seconds
    return f"{line}: {computed:.0%} of it arithmetic, {waited:.0%} waiting for images"


def _rows(search_id: str, study: Study) -> Iterator[dict[str, Any]]:
    """Every trial of a study that ended or died, in the order of their numbers."""
    for trial in sorted((*study.trials(), *study.deaths()), key=lambda trial: trial.number):
        facts = trial.user_attrs
        scores = [score for _, score in sorted(trial.intermediate_values.items())]
        rungs = zip(facts.get("milestones", []), scores, strict=False)
        yield {
            "search_id": search_id,
            "study": study.name,
            "number": trial.number,
            "state": _state(trial),
            "values": json.dumps(study.values_of(trial)),
            "seed": facts.get("seed"),
            "score": scores[-1] if scores else None,
            "rungs": [{"steps": steps, "score": score} for steps, score in rungs],
            "steps": facts.get("steps", 0),
            "images": facts.get("images", 0),
            "seconds": facts.get("seconds", 0.0),
            "waited": facts.get("waited", 0.0),
            "computed": facts.get("computed", 0.0),
            "error": facts.get("error", ""),
            "started": trial.datetime_start,
        }


def _state(trial: FrozenTrial) -> str:
    """``died`` with its process, ``failed``, ``complete``, or ``stopped`` by the scheduler."""
    if has_died(trial):
        return "died"
    if trial.user_attrs.get("error"):
        return "failed"
    return "complete" if trial.state == TrialState.COMPLETE else "stopped"
