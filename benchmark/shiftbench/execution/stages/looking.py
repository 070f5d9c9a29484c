"""What other machines have left of a run, before a stage of it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shiftbench.leaderboard.runfolder import SearchFolder

if TYPE_CHECKING:
    from shiftbench.execution.workspace import Workspace
    from shiftbench.leaderboard.runfolder import RunFolder
    from shiftbench.suite.plan import Run


def looked_at(workspace: Workspace, run: Run) -> RunFolder:
    """The folder of a run, as it is by now, with what the run builds on and its search."""
    found = [run.id]
    for run_id in found:  # ancestors, too
        above = (parent for _, parent in workspace.runs[run_id].parents)
        found += [parent for parent in above if parent not in found]
    for of in map(workspace.runs.__getitem__, found):
        workspace.folder(of).look()
        if of.search is not None:
            SearchFolder.of(workspace.setup.results, of.search.id).look()
    return workspace.folder(run)
