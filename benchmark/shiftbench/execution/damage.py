"""Files of runs that are cut short, as a full disk or a copy that broke off leaves them. No torch.

What stands under its final name was whole when it was written. Before a launch counts on a file, it
looks whether it still is: one that is not gets ``.damaged`` behind its name, and what it held is
made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from shiftbench.core.errors import InputError
from shiftbench.core.mirror import placed
from shiftbench.data.tasks.definition import ID_TEST, PART
from shiftbench.leaderboard.leases import Leases
from shiftbench.leaderboard.runfolder import RunFolder

Check = Callable[[Path], None]
"""Raises ``InputError`` unless a file is whole."""


def set_damaged_aside(
    results: Path, run_ids: Iterable[str], tell: Callable[[str], None], leases: Leases
) -> frozenset[str]:
    """Set aside the damaged files of runs, with all that cannot be used without them.

    Those of runs that another process does are left to it.

    Args:
        results: folder of the results.
        run_ids: of the runs to look at.
        tell: shows a line for each damaged file.
        leases: of the results folder.

    Returns:
        ids of the runs whose predictions are to be made again: done or not, they lack them.
    """
    redone = set()
    if placed(results) is not None:  # an object is whole, and a copy of it has its name once it is
        return frozenset()
    for run_id in run_ids:
        folder = RunFolder.of(results, run_id)
        if not folder.path.exists():
            continue
        if any(_is_damaged(file, check) for file, check in _checked(folder)):
            with leases.taken(run_id) as ours:
                if ours:
                    _set_aside(folder, tell)
        if not folder.predictions.exists() and _aside(folder.predictions).exists():
            redone.add(run_id)
    return frozenset(redone)


def _checked(folder: RunFolder) -> Iterator[tuple[Path, Check]]:
    """The files of a run that can be damaged, each with its check."""
    for file in (folder.state, folder.best, folder.weights, folder.ensemble):
        yield file, _tensors
    for part in folder.parts():
        yield part, _part
    yield folder.predictions, _table


def _set_aside(folder: RunFolder, tell: Callable[[str], None]) -> None:
    """Set aside the damaged files of a run."""
    # A training goes on from its state and its best weights together, or from the start.
    if _damaged(folder.state, _tensors, tell, "the training starts again"):
        folder.best.unlink(missing_ok=True)
    if _damaged(folder.best, _tensors, tell, "the training starts again"):
        folder.state.unlink(missing_ok=True)
    for file in (folder.weights, folder.ensemble):
        if _damaged(file, _tensors, tell, "made again when it is needed"):
            folder.forget_fit()
    for part in folder.parts():
        damaged = _damaged(part, _part, tell, "predicted again")
        if damaged and part.name.startswith(PART):  # made together with the whole set's
            part.with_name(f"{ID_TEST}{part.suffix}").unlink(missing_ok=True)
    _damaged(folder.predictions, _table, tell, "predicted again")


def _damaged(file: Path, check: Check, tell: Callable[[str], None], then: str) -> bool:
    """True if a file was there and damaged; it is then called otherwise."""
    if not _is_damaged(file, check):
        return False
    aside = _aside(file)
    file.replace(aside)
    tell(f"{file}: damaged or cut short; set aside as {aside.name}, {then}")
    return True


def _is_damaged(file: Path, check: Check) -> bool:
    if not file.exists():
        return False
    try:
        check(file)
    except InputError:
        return file.exists()  # another process may be at the run, and done with the file
    return False


def _aside(file: Path) -> Path:
    return file.with_name(f"{file.name}.damaged")


def _tensors(file: Path) -> None:
    from shiftbench.models.safetensors import check_file

    check_file(file)


def _table(file: Path) -> None:
    from shiftbench.evaluation.predictions import check_file

    check_file(file)


def _part(file: Path) -> None:
    from shiftbench.evaluation.predictions import read_part

    read_part(file)
