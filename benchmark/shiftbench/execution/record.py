"""What a run's folder says of the run: enough to use its weights without the suite's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shiftbench.core.errors import InputError, first_line
from shiftbench.core.files import written_atomically
from shiftbench.core.locations import is_remote
from shiftbench.data.tasks.definition import EvaluationSet, Task
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.methods.base import Parent
from shiftbench.methods.registry import METHODS
from shiftbench.suite.file import MINIATURE, Budget, Resources
from shiftbench.suite.plan import Run, SearchRun


def write_record(setup: Setup, run_id: str) -> None:
    """Leave the record of a run in its folder.

    Args:
        setup: of the suite that asks for it.
        run_id: of one of its runs.
    """
    known = setup.data == MINIATURE or is_remote(setup.data)
    data = setup.data if known else str(Path(setup.data).absolute())
    content = {"suite": setup.suite, "data": data, "run": _as_json(setup.runs[run_id])}
    with written_atomically(RunFolder.of(setup.results, run_id).record) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def read_records(results: Path, run_id: str) -> Setup:
    """A run and all that it builds on, as the records in their folders say.

    Args:
        results: folder of the results.
        run_id: of the run.

    Raises:
        InputError: a record is not there or not whole, or its method or a source is no longer
            installed.
    """
    content = _read(results, run_id)
    runs: dict[str, Run] = {}
    _collect(results, run_id, runs)
    return Setup(content["suite"], runs, results, content["data"], Resources(), Remarks({}, {}))


def _collect(results: Path, run_id: str, runs: dict[str, Run]) -> None:
    """Put a run into ``runs``, after its ancestors."""
    if run_id in runs:
        return
    content = _read(results, run_id)
    try:
        run = _from_json(content["run"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        file = RunFolder.of(results, run_id).record
        raise InputError(f"{file}: is no record of a run: {first_line(error)}") from None
    for _, parent in run.parents:
        _collect(results, parent, runs)
    runs[run_id] = run


def _read(results: Path, run_id: str) -> dict[str, Any]:
    file = RunFolder.of(results, run_id).record
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        texts = content["suite"], content["data"]
    except OSError as error:
        raise InputError(
            f"{file}: the record of the run cannot be read: {error.strerror}"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: is no record of a run: {first_line(error)}") from None
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{file}: is no record of a run: its suite or data is no text")
    return content


def _as_json(run: Run) -> dict[str, Any]:
    search = run.search
    return {
        "id": run.id,
        "task": run.task.model_dump(mode="json"),
        "data_kind": run.data_kind,
        "backbone": run.backbone,
        "method": run.method,
        "label": run.label,
        "also_called": [*run.also_called],
        "config": run.config.model_dump(mode="json"),
        "parents": [[*parent, run_id] for parent, run_id in run.parents],
        "seed": run.seed,
        "shots": run.shots,
        "budget": run.budget.model_dump(mode="json"),
        "whole": run.whole,
        "files": [*run.files],
        "elsewhere": run.elsewhere,
        "search": search
        and {
            "id": search.id,
            "seed": search.seed,
            "ood_val": search.ood_val and search.ood_val.model_dump(mode="json"),
        },
    }


def _from_json(content: dict[str, Any]) -> Run:
    values, search = dict(content), content["search"]
    ood_val = search and search["ood_val"]
    values["task"] = Task.model_validate(content["task"])
    values["config"] = METHODS.load(content["method"]).Config.model_validate(content["config"])
    values["parents"] = tuple(
        (Parent(label, seed), run_id) for label, seed, run_id in content["parents"]
    )
    values["also_called"] = tuple(content.get("also_called", ()))
    values["files"] = tuple((name, digest) for name, digest in content.get("files", ()))
    values["budget"] = Budget.model_validate(content["budget"])
    values["search"] = search and SearchRun(
        search["id"], search["seed"], ood_val and EvaluationSet.model_validate(ood_val)
    )
    return Run(**values)
