"""What a results folder holds that nothing needs, and runs that are to go. Nothing here is torch.

Finding comes first and is all that happens unless somebody asks for more: ``removal`` and
``leftovers`` say what would go, ``delete`` does it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shiftbench.core.errors import InputError
from shiftbench.core.files import read_json
from shiftbench.core.mirror import forget, placed, shown, sizes, there
from shiftbench.leaderboard import leases, store
from shiftbench.leaderboard.files import reason
from shiftbench.leaderboard.runfolder import BEST, STATE, WEIGHTS, RunFolder
from shiftbench.leaderboard.schema import Row, runs

UNTOUCHED_S = 7 * 24 * 3600
"""Seconds without a change after which unfinished work is taken for given up."""


@dataclass(frozen=True)
class Item:
    """Something that would be deleted.

    Attributes:
        path: a file, or a folder with all that is in it.
        size: in bytes, of everything in it.
        why: nothing needs it.
    """

    path: Path
    size: int
    why: str


def removal(results: Path, run_ids: Set[str]) -> list[Item]:
    """The files of runs: rows, weights and predictions.

    Args:
        results: the results folder.
        run_ids: of the runs.

    Raises:
        InputError: another run builds on one of them, or a process is at one.
    """
    seen = leases.seen(results)
    for run_id in sorted(run_ids & seen.keys()):
        if seen[run_id].held:
            raise InputError(
                f"run {run_id} is being done by {seen[run_id].lease.holder}; stop that first, or "
                f"if that machine is gone, delete {shown(seen[run_id].files[0])}"
            )
    for run in runs(store.read(results)):
        needs = [parent for parent in run.parents if parent.run_id in run_ids]
        if run.run_id not in run_ids and needs:
            raise InputError(
                f"run {run.run_id} ({run.label}) builds on {needs[0].run_id} ({needs[0].label}); "
                "remove both, or neither"
            )
    rows = (store.folder(results) / f"{run_id}.parquet" for run_id in run_ids)
    folders = (RunFolder.of(results, run_id).path for run_id in run_ids)
    files = (path for run_id in run_ids if run_id in seen for path in seen[run_id].files)
    # Rows go first: a run without them is done again, rows without a run would be wrong.
    return [
        *(_item(path, "rows of the run") for path in rows if path.exists()),
        *(_item(path, "files of the run") for path in folders if path.exists()),
        *(_item(path, "leases of the run") for path in files),
    ]


def leftovers(results: Path, *, weights: bool = False) -> list[Item]:
    """What nothing needs any more.

    Args:
        results: the results folder.
        weights: also the weights of runs that are done, if no run that is not done builds on them;
            with them go ``load_model`` and ``export-model`` of these runs, until they are done
            again. They stay while any process is at work, and so does all of the runs that are
            being done.
    """
    seen = leases.seen(results)
    at_work = {key for key, found in seen.items() if found.held}
    known = {run.run_id: run for run in runs(store.read(results))}
    done = {run_id for run_id, run in known.items() if isinstance(run, Row)}
    folders = sorted((results / "runs").glob("*")) if (results / "runs").is_dir() else []
    records = {path.name: _record(path) for path in folders}
    parents = {run_id: _parents(record) for run_id, record in records.items()}
    awaited = {parent for run_id, of in parents.items() if run_id not in done for parent in of}
    found: list[Item] = []
    reached = list(awaited)
    for run_id in reached:  # what is derived keeps no weights, so its parents' are awaited too
        above = {*parents.get(run_id, ())} - awaited
        awaited |= above
        reached += above
    for path in folders:
        if path.name in at_work:
            continue
        folder = RunFolder(path)
        if path.name not in known and _age(path) > UNTOUCHED_S:
            found.append(_item(path, "a run without rows, untouched for a week"))
            continue
        if folder.fitted:
            spent = (path / STATE, path / BEST)
            found += [_item(p, "state of a training that is done") for p in spent if there(p)]
        if path.name in done:
            if sizes(path / "parts"):
                found.append(_item(path / "parts", "predictions that are in one file by now"))
            spared = at_work or path.name in awaited
            if weights and not spared and there(path / WEIGHTS):
                # Its record goes first: a run that builds on it later has the weights made again.
                record = _item(folder.fit, "record of these weights") if folder.fitted else None
                weighed = _item(path / WEIGHTS, "weights that no unfinished run builds on")
                found += [weighed] if record is None else [record, weighed]
    found += _searches(results, known.values(), records.values())
    found += _leases(seen)
    return [*found, *_temporaries(results, [item.path for item in found])]


def _searches(
    results: Path, known: Iterable[object], records: Iterable[dict[str, Any]]
) -> Iterator[Item]:
    """Searches that no run has."""
    used = {getattr(run, "search_id", None) for run in known}
    for record in records:
        search = record.get("search")
        if isinstance(search, dict):
            used.add(str(search.get("id")))
    for path in sorted((results / "searches").glob("*")):
        if path.name not in used and _age(path) > UNTOUCHED_S:
            yield _item(path, "a search that no run has, untouched for a week")


def _leases(seen: Mapping[str, leases.Seen]) -> Iterator[Item]:
    """Leases of what nobody is at."""
    for found in seen.values():
        if not found.held and found.age > UNTOUCHED_S:
            yield from (_item(file, "a lease of what was done long ago") for file in found.files)


def _temporaries(results: Path, covered: Collection[Path]) -> Iterator[Item]:
    """Files and folders of processes that were killed long ago."""
    temporary = (*results.rglob(".*.tmp"), *results.glob("train-*"))
    for path in sorted([*temporary, *results.glob("fast-dev-run-*")]):
        inside = any(path.is_relative_to(other) for other in covered)
        if not inside and _age(path) > UNTOUCHED_S:
            yield _item(path, "left by a process that was killed")


def delete(items: Iterable[Item]) -> int:
    """Delete them, in order; the bytes that are free then.

    Raises:
        InputError: one cannot be deleted.
    """
    freed = 0
    for item in items:
        try:
            forget(item.path)
            if item.path.is_dir():
                shutil.rmtree(item.path)
            else:
                item.path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{shown(item.path)}: cannot be deleted ({reason(error)})") from error
        freed += item.size
    return freed


def entries(folder: Path, why: str) -> list[Item]:
    """Every entry of a folder, such as a cache, in which all is made again when it is needed."""
    return [_item(path, why) for path in sorted(folder.glob("*"))] if folder.is_dir() else []


def _record(folder: Path) -> dict[str, Any]:
    """What a run's folder says of the run; nothing where the file is not there or not whole."""
    with suppress(InputError):
        found = read_json(RunFolder(folder).record).get("run")
        return found if isinstance(found, dict) else {}
    return {}


def _parents(record: Mapping[str, Any]) -> list[str]:
    """The ids of the runs that a run builds on, as far as its record says."""
    try:
        return [str(run_id) for _, _, run_id in record.get("parents", ())]
    except (TypeError, ValueError):
        return []


def _item(path: Path, why: str) -> Item:
    if placed(path):  # what is here is a part of it
        return Item(path, sum(sizes(path).values()), why)
    return Item(path, sum(found.st_size for found in _stats(_files(path))), why)


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
    else:
        yield from (file for file in path.rglob("*") if file.is_file())


def _stats(paths: Iterable[Path]) -> list[os.stat_result]:
    """Those that are still there: a run renames its files as it goes."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            found.append(path.stat())
    return found


def _age(path: Path) -> float:
    """Seconds since anything in it was written; 0 if it has just gone."""
    now = time.time()
    found = _stats(_files(path)) or _stats([path])
    return now - max((item.st_mtime for item in found), default=now)
