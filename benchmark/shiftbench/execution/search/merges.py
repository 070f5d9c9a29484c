"""Trials of a search of a method that derives weights: merges, one after the other. No ray.

Nothing is trained. The parents' weights are loaded once, and a trial is a merge and its score on
OOD validation, so one process does them all.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from shiftbench.core.errors import RunFailedError
from shiftbench.execution.search.space import sampler
from shiftbench.execution.validation import score_of_weights
from shiftbench.execution.variants import derivation
from shiftbench.methods.base import DerivedMethod

if TYPE_CHECKING:
    from shiftbench.execution.search.study import Study
    from shiftbench.execution.workspace import Workspace
    from shiftbench.suite.plan import Run


def merge(workspace: Workspace, run: Run, study: Study) -> None:
    """Do what is left of a study of a run's settings.

    What is proposed depends on the trials before alone, so an interrupted search goes on as if it
    had not been.

    Args:
        workspace: of this process.
        run: whose method derives weights, and whose parents are there.
        study: which trials, and where they are kept.
    """
    method = run.create()
    asked = method.search() if isinstance(method, DerivedMethod) else None
    if asked is None or run.search is None or run.search.ood_val is None:
        raise ValueError(f"{run.label} has no search by merges")
    given = derivation(workspace, run)
    measured, images = workspace.ood_val(run, run.search.ood_val)
    study.propose_interrupted()
    while len(study.trials()) < study.wanted:
        trial = study.ask(sampler(asked.config, study.seed + len(study.trials())))
        begun = time.monotonic()
        score, error = measured.worst, ""
        try:
            candidate = asked.candidate(trial.params)
            weights = candidate.derive(candidate.fixed_variant(), given)
            score = score_of_weights(workspace, run, weights, measured, images)
        except RunFailedError as failure:
            error = str(failure)
        study.tell(trial, score, _facts(time.monotonic() - begun, error))


def _facts(seconds: float, error: str) -> dict[str, Any]:
    """What the record says of a trial that trained nothing."""
    return {
        "steps": 0,
        "images": 0,
        "seconds": seconds,
        "waited": 0.0,
        "computed": seconds,
        "seed": None,
        "error": error,
        "milestones": [0],
    }
