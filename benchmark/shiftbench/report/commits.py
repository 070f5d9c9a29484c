"""The part of a leaderboard that one commit of the code computed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from shiftbench.core.errors import InputError
from shiftbench.core.provenance import commit_named
from shiftbench.core.words import some
from shiftbench.leaderboard.schema import runs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from shiftbench.leaderboard.schema import RunInfo

SHORT = 7  # digits of a commit, for people


class OfCommit(NamedTuple):
    """What a commit computed.

    Attributes:
        sha: the whole commit.
        table: rows of its runs, and of those that they build on.
        changed: how many of its runs were computed with changes that are not in the commit.
    """

    sha: str
    table: pa.Table
    changed: int


def of_commit(table: pa.Table, commit: str, checkout: Path | None = None) -> OfCommit:
    """The runs that are done and were computed by a commit, with their ancestors.

    Args:
        table: rows of the leaderboard.
        commit: the beginning of its hash, or what git calls it, such as ``HEAD~1`` or a tag.
        checkout: folder in which git is asked; by default the current one.

    Raises:
        InputError: no run or several commits are meant.
    """
    done = [run for run in runs(table) if run.status == "done"]
    shas = Counter(run.git_sha for run in done if run.git_sha)
    meant = _meant(commit, shas)
    if not meant:
        resolved = commit_named(commit, checkout or Path.cwd())
        meant = _meant(resolved, shas) if resolved else []
    if len(meant) != 1:
        there = some([f"{sha[:SHORT]} ({count} runs)" for sha, count in shas.most_common()], 10)
        problem = "several commits are meant" if meant else "no run is of such a commit"
        raise InputError(f"{commit}: {problem}; runs are of {there or 'no known commit'}")
    (sha,) = meant
    own = [run for run in done if run.git_sha == sha]
    family = _with_ancestors({run.run_id for run in own}, done)
    wanted = pc.is_in(table["run_id"], pa.array(sorted(family), pa.string()))
    return OfCommit(sha, table.filter(wanted), sum(bool(run.git_dirty) for run in own))


def _meant(beginning: str, shas: Iterable[str]) -> list[str]:
    return [sha for sha in shas if sha.startswith(beginning.lower())]


def _with_ancestors(run_ids: Collection[str], done: Iterable[RunInfo]) -> set[str]:
    known = {run.run_id: run for run in done}
    found: set[str] = set()
    left = {*run_ids}
    while left:
        found |= left
        parents = (p.run_id for run_id in left for p in known[run_id].parents)
        left = {run_id for run_id in parents if run_id in known} - found
    return found
