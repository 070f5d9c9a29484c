"""The last stage of a run: from its predictions to the rows of the leaderboard."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from shiftbench.core.mirror import fetched
from shiftbench.data.tasks.definition import ID_TEST, whole_set
from shiftbench.evaluation import predictions
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.evaluation.results import OTHER_CLASSES
from shiftbench.evaluation.scoring import Prediction, results_of, selections
from shiftbench.execution.runinfo import run_info
from shiftbench.execution.stages.looking import looked_at
from shiftbench.leaderboard.runfolder import SearchFolder
from shiftbench.leaderboard.schema import done
from shiftbench.leaderboard.store import status_of, write_run
from shiftbench.methods.base import EnsembleMethod
from shiftbench.suite.plan import evaluation_metrics
from shiftbench.suite.task_metrics import metric_of_part

if TYPE_CHECKING:
    from shiftbench.execution.workspace import Workspace
    from shiftbench.suite.plan import Run


def score(workspace: Workspace, run_id: str) -> None:
    """Turn the predictions into the run's rows, and keep them all in one file."""
    run, setup = workspace.runs[run_id], workspace.setup
    folder, method = looked_at(workspace, run), run.create()
    over = folder.predictions.exists() and not folder.parts()
    if over and status_of(setup.results, run_id) == "done":
        return  # by a process that was killed before it said so
    sets = _scored_sets(workspace, run)
    parts = {
        (variant, name): _read_part(workspace, run, variant, name, sets[name])
        for variant in method.variants()
        for name in sets
    }
    scored = {key: results_of(part) for key, part in parts.items()}
    id_val = {name: scored[name, "id-val"][0].score.value for name in method.variants()}
    searched = _searched(workspace, run)
    headline = metric(sets["id-val"])
    chosen = selections(
        method.variants(),
        method.fixed_variant(),
        None if run.whole else id_val,
        headline,
        searched=searched,
    )
    results = [
        replace(result, selection=selection)
        for variant, selection in chosen
        for name in sets
        for result in scored[variant, name]
    ]
    workspace.setup.check_held(run.id)
    tables = [part.table for part in parts.values()]
    predictions.write(folder.predictions, predictions.concat(tables))
    search = run.search
    info = run_info(
        setup.suite,
        run,
        workspace.device,
        folder.read_fit() if folder.fitted else None,
        None if search is None else SearchFolder.of(setup.results, search.id).read_found(),
        workspace.data(run).train.fingerprint,
        setup.remarks.leakage.get((run.task.name, searched)),
        workspace.runs,
    )
    if run.task.also:
        details = {**info.details, OTHER_CLASSES: _other_classes(workspace, run)}
        info = replace(info, details=details)
    write_run(setup.results, run_id, done(info, results))
    folder.drop_parts()


def _other_classes(workspace: Workspace, run: Run) -> str:
    """What names the classes of other tasks, for the row."""
    method = run.create()
    if isinstance(method, EnsembleMethod):
        return "outputs of several models" if method.any_classes else "pretrained model"
    return "own text tower" if workspace.architecture(run).text else "pretrained text tower"


def _scored_sets(workspace: Workspace, run: Run) -> dict[str, str]:
    """The headline metric of every set that there are predictions on, by its name."""
    metrics = evaluation_metrics(run.task)
    id_test = workspace.evaluation_images(run, ID_TEST)
    parts = workspace.data(run).on_classes_of_shifts(id_test)
    return metrics | {
        name: metric_of_part(metrics[shift], images, metrics[ID_TEST])
        for name, (shift, _, images) in parts.items()
    }


def _read_part(
    workspace: Workspace, run: Run, variant: str, name: str, headline: str
) -> Prediction:
    table = predictions.read_part(fetched(workspace.folder(run).part(variant, name)))
    facts = table.schema.metadata
    seconds = facts.get(b"seconds")  # none of its own, where it is a part of another set
    remarks = workspace.setup.remarks
    of_data = (
        remarks.files.get((run.task.name, whole_set(name))),
        workspace.data(run).shortage if run.shots else None,
    )
    return Prediction(
        variant=variant,
        evaluation_set=name,
        metric=headline,
        table=table.replace_schema_metadata(None),
        seconds=None if seconds is None else float(seconds),
        fingerprint=facts[b"fingerprint"].decode(),
        incomplete_reason=remarks.incomplete.get((run.task.name, whole_set(name))),
        data_remark="; ".join(filter(None, of_data)) or None,
        also=run.task.also_metrics,
    )


def _searched(workspace: Workspace, run: Run) -> bool:
    """True if settings of the run, or of one that it builds on, come from OOD validation data."""
    above = (workspace.runs[run_id] for _, run_id in run.parents)
    return run.searched or any(_searched(workspace, parent) for parent in above)
