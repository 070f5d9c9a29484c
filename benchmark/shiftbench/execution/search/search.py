"""The search of a run: many trials, then the best of them again on fresh seeds.

Every trial that has ended is in a journal before the next one begins; after a crash the journal
gives the sampler its history back, and trials that were under way are proposed again, as is one
whose process or node died. The finalists are a second study of the same journal.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

from optuna.distributions import CategoricalDistribution

from shiftbench.core.mirror import checked_out
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.execution.search import record
from shiftbench.execution.search.finalists import best_finalist, finalists, score_of
from shiftbench.execution.search.space import draw, space_of
from shiftbench.execution.search.study import FINALISTS, SEARCH, Study, open_journal
from shiftbench.leaderboard.leases import search_key
from shiftbench.leaderboard.runfolder import JOURNAL, SearchFolder

if TYPE_CHECKING:
    from shiftbench.execution.setup import Setup
    from shiftbench.suite.plan import Run


def _no_trials(study: Study) -> None:
    raise ValueError(f"nothing is here to run the {study.wanted} trials of a search")


def search(
    setup: Setup,
    run: Run,
    run_trials: Callable[[Study], None] = _no_trials,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Search for a run's settings, or go on with it, and leave what was found.

    Args:
        setup: of the suite.
        run: one of those that share the search.
        run_trials: runs what is left of a study's trials; not called where settings are drawn and
            not tried.
        tell: shows a line that says what of the journal was repaired.

    Raises:
        RunFailedError: no trial got to its end, or another process has taken the search over.
    """
    asked = run.create().search()
    if asked is None or run.search is None:
        raise ValueError(f"{run.label} has no search")
    folder = SearchFolder.of(setup.results, run.search.id)
    if folder.finished:
        return
    config = asked.config
    seed = config.seed + 1_000_003 * run.search.seed
    if not config.n_trials:
        setup.check_held(search_key(run.search.id))
        record.write(folder, asked, run.search.id, [], draw(asked, seed), None)
        return

    if run.search.ood_val is None:
        raise ValueError(f"{run.label}: trials are scored on an OOD validation set")
    file = checked_out(folder.path / JOURNAL)
    journal = open_journal(file, setup.resources.limits.journal_lock_s, tell)
    measured = metric(run.search.ood_val.metric)
    first = Study(journal, SEARCH, space_of(asked), measured, config.n_trials, seed)
    run_trials(first)
    best = finalists(first.trials(), config, measured)
    winner, score = best[0], score_of(best[0])
    studies = [first]
    if len(best) > 1:
        grid = {
            "finalist": CategoricalDistribution(list(range(len(best)))),
            "repeat": CategoricalDistribution(list(range(config.repeats))),
        }
        points = [trial.params for trial in best]
        second = Study(journal, FINALISTS, grid, measured, len(best) * config.repeats, seed, points)
        for finalist, repeat in product(*(d.choices for d in grid.values())):
            second.propose({"finalist": finalist, "repeat": repeat})
        run_trials(second)
        studies.append(second)
        winner, score = best_finalist(best, second.trials(), measured)
    setup.check_held(search_key(run.search.id))  # others may build on what they found
    record.write(folder, asked, run.search.id, studies, winner.params, score)
