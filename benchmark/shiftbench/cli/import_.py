"""``shiftbench import``: take in what was computed elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from shiftbench.cli.common import RESULTS, Data, Overrides, Results, load_suite

if TYPE_CHECKING:
    from shiftbench.data.tasks.definition import Task
    from shiftbench.leaderboard.bundles.labels import DataLabels

app = typer.Typer(
    name="import",
    help="Take in predictions of your own, or a bundle of results.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog="""[bold]Examples[/bold]

Score the predictions of a model that was trained elsewhere:

  shiftbench import predictions mine.csv --task cifar10 --evaluation-set cifar10.1 --method mine
  --backbone openai/ViT-B-16 --data ~/data

What somebody has submitted:

  shiftbench import bundle submission.zip
""",
)

_PREDICTIONS_EPILOG = """[bold]Examples[/bold]

A CSV file with the columns id and prediction, of one evaluation set:

  shiftbench import predictions mine.csv --task cifar10 --evaluation-set cifar10.1 --method mine
  --backbone openai/ViT-B-16 --data ~/data

All evaluation sets in one file, with a column "set", of a suite's task and image budget:

  shiftbench import predictions mine.parquet --task cifar10 --suite miniature
  --method mine --backbone miniature --seed 1

[bold]The file[/bold]

Parquet, CSV or npz, with a row for each example: "id" (as in a run's predictions.parquet) or
"index" (from 0, in the order of the set, which is told); and "prediction", the class as its name or
its position, or "logits" (in CSV the columns logit_0, logit_1, …), which are projected if they are
over all classes of the task. The true classes in a column "label" are checked; a column "method"
names the models where the file is of several.
"""

_BUNDLE_EPILOG = """[bold]Examples[/bold]

  shiftbench import bundle submission.zip

  shiftbench import bundle submission.zip --results all

Labels are checked too where the data are:

  shiftbench import bundle submission.zip --data ~/data

Everything in it is checked before anything is written: hashes, names and sizes, and that every
value follows from the predictions. A run that is there with other values stays, the bundle's is
kept in results/conflicts, and you decide between them with --theirs or --ours.
"""


@app.command(epilog=_PREDICTIONS_EPILOG)
def predictions(
    file: Annotated[Path, typer.Argument(help="Parquet, CSV or npz file of predictions.")],
    task: Annotated[str, typer.Option("--task", help="Registered task, or one of the suite.")],
    backbone: Annotated[str, typer.Option("--backbone", help="What was fine-tuned.")],
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help='What to call the method; else, or to take one of several, the column "method".',
        ),
    ] = None,
    evaluation_set: Annotated[
        str | None,
        typer.Option(
            "--evaluation-set",
            metavar="NAME",
            help='Evaluation set, such as id-test or cifar10.1; else the column "set" says.',
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the training; runs are averaged over seeds.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=1, help="Training images per class; by default all.")
    ] = None,
    selection: Annotated[
        Literal["fixed", "id-val", "ood-val", "oracle"],
        typer.Option(help="What the weights were chosen on."),
    ] = "fixed",
    suite: Annotated[
        str | None, typer.Option("--suite", help="Suite whose task and image budget are meant.")
    ] = None,
    overrides: Overrides = None,
    data: Data = None,
    results: Results = RESULTS,
) -> None:
    """Score predictions of your own and add them to the leaderboard."""
    from shiftbench.core.errors import InputError
    from shiftbench.core.mirror import shown
    from shiftbench.evaluation.metrics.registry import metric
    from shiftbench.leaderboard.importing.record import import_predictions
    from shiftbench.leaderboard.importing.target import Target
    from shiftbench.leaderboard.schema import rows

    for option, value in (("--method", method), ("--backbone", backbone)):
        if value is not None and not (value.strip() and value.isprintable()):
            raise InputError(f"{option}: must be a name")
    known, images, where, data_kind, name = _meant(suite, overrides, task, data)
    target = Target(
        task=known,
        data_kind=data_kind,
        root=where,
        suite=name,
        label=method or "",
        backbone=backbone,
        seed=seed,
        shots=shots,
        images=images,
        selection=selection,
    )
    found = import_predictions(file, target, results, evaluation_set)
    for imported in found:
        whose = f"{imported.label}, " if len(found) > 1 else ""
        for row in rows(imported.table):
            unit, factor = (" %", 100) if metric(row.metric).percent else ("", 1)
            value, low, high = (f"{factor * x:.2f}" for x in (row.value, row.low, row.high))
            typer.echo(
                f"{whose}{row.evaluation_set}: {row.metric} {value}{unit} ({low} to {high}), "
                f"{row.n:,} examples"
            )
        for note in imported.notes:
            typer.echo(note)
        there = "is in" if imported.new else "was in"
        end = "; shiftbench report shows it" if imported.new else " already"
        typer.echo(f"run {imported.run_id} {there} {shown(results)}{end}")


def _meant(
    suite: str | None, overrides: list[str] | None, task: str, data: str | None
) -> tuple[Task, int | None, str, str, str]:
    """The task, the most images of a set, the data root, the kind of data and the suite's name.

    Raises:
        InputError: there is no such task, or nothing says where the data are.
    """
    from shiftbench.core.errors import InputError
    from shiftbench.core.words import nearest
    from shiftbench.data.roots import resolve

    def drawn(name: str) -> None:
        typer.echo(f"drawing {name} (once)", err=True)

    if suite is not None:
        loaded = load_suite(suite, overrides, data)
        if task not in loaded.tasks:
            raise InputError(f'--task: {suite} has no task "{task}"{nearest(task, loaded.tasks)}')
        root = resolve(loaded.require_data(), drawn)
        images = loaded.budget.evaluation_images
        return loaded.tasks[task], images, root, loaded.data_kind, loaded.name
    from shiftbench.data.tasks.registry import TASKS

    if overrides:
        raise InputError("--set changes a suite; name it with --suite")
    if data is None:
        raise InputError("no data: add --data FOLDER, or --data miniature for a small copy")
    if data == "miniature":
        from shiftbench.data.miniature.definition import VERSION
        from shiftbench.data.tasks.registry import miniature_tasks

        tasks = miniature_tasks()
        if task in tasks:
            return tasks[task], None, resolve(data, drawn), f"miniature/{VERSION}", "imported"
    return TASKS.load(task), None, resolve(data, drawn), "real", "imported"


@app.command(epilog=_BUNDLE_EPILOG)
def bundle(
    file: Annotated[Path, typer.Argument(help="What shiftbench export has written.")],
    data: Data = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Suite whose tasks are meant, with --data.")
    ] = None,
    theirs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help="Take this run in place of ours. May be given several times.",
        ),
    ] = None,
    ours: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN", help="Leave this run as it is here. May be given several times."
        ),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Take in the runs of a bundle: all of them, or none."""
    from shiftbench.core.words import some
    from shiftbench.leaderboard.bundles.take import take

    labels = None if data is None and suite is None else labels_of(suite, data)
    taken = take(file, results, data=labels, theirs=theirs or (), ours=ours or ())
    for run_id in taken.new:
        unchecked = taken.unchecked[run_id]
        told = f"; labels of {some(unchecked, 10)} not checked" if unchecked else ""
        typer.echo(f"{run_id}: taken in{told}")
    for run_id in taken.known:
        typer.echo(f"{run_id}: was there already")
    for conflict in taken.conflicts:
        typer.echo(
            f"{conflict.run_id}: CONFLICT, stays as it is here: {some(conflict.differences)}; the "
            f"bundle's is kept in {conflict.kept}; decide with --theirs or --ours {conflict.run_id}"
        )
    for (task, name), why in ({} if labels is None else labels.problems).items():
        typer.echo(f"{task}, {name}: labels not checked ({why})")
    if labels is None and any(taken.unchecked.values()):
        typer.echo("--data FOLDER checks labels")
    if taken.conflicts:
        raise typer.Exit(1)


def labels_of(suite: str | None, data: str | None) -> DataLabels:
    """Labels of the tasks of a suite, or of the registered ones.

    Raises:
        InputError: nothing says where the data are.
    """
    from shiftbench.data.roots import resolve
    from shiftbench.data.tasks.registry import builtin_tasks, miniature_tasks
    from shiftbench.leaderboard.bundles.labels import DataLabels
    from shiftbench.leaderboard.schema import REAL, task_digest

    if suite is not None:
        loaded = load_suite(suite, None, data)
        tasks, kind, where = loaded.tasks, loaded.data_kind, loaded.require_data()
    else:
        where = str(data)
        tasks, kind = builtin_tasks(), REAL
        if data == "miniature":
            from shiftbench.data.miniature.definition import VERSION

            tasks, kind = miniature_tasks(), f"miniature/{VERSION}"
    root = resolve(where, lambda name: typer.echo(f"drawing {name} (once)", err=True))
    return DataLabels({task_digest(task): task for task in tasks.values()}, kind, root)
