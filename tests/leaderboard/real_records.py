"""Hand-written runs on the real data of built-in tasks."""

from __future__ import annotations

from shiftbench.data.tasks.registry import builtin_tasks
from shiftbench.evaluation.results import Result, Score
from shiftbench.leaderboard.golden import WHOLE_SETS
from shiftbench.leaderboard.schema import done, task_digest

from tests.leaderboard.records import info

B16 = "openai/ViT-B-16"
GOLDEN = {
    # open_clip's table
    "imagenet": {
        "id-test": 0.6834,
        "imagenet-v2": 0.6188,
        "imagenet-r": 0.7770,
        "imagenet-sketch": 0.4824,
        "imagenet-a": 0.4995,
        "objectnet": 0.5531,
    },
    "iwildcam": {"iwildcam-ood": 0.1099},
    "fmow": {"fmow-ood": 0.1888},  # of another metric
}
METRICS = {"imagenet": "accuracy", "iwildcam": "macro-f1", "fmow": "worst-region"}


def golden(task, changes=None, **settings):
    values = GOLDEN[task] | (changes or {})
    return zero_shot(results(values, task, metric=METRICS[task]), task=task, **settings)


def results(values, task, variant="", selection="fixed", n=None, metric="accuracy", half=0.01):
    return [
        Result(
            variant=variant,
            selection=selection,
            evaluation_set=name,
            metric=metric,
            primary=True,
            score=Score(
                value,
                max(0, value - half),
                min(1, value + half),
                n or WHOLE_SETS.get((task, name), 100),
                "by hand",
            ),
        )
        for name, value in values.items()
    ]


def of_task(run_id, found, *, task="imagenet", **changes):
    """A run on the real data of a built-in task, whose results ``found`` makes from the task."""
    known = builtin_tasks().get(task)
    settings = {"task": task, "backbone": B16}
    if known is not None:
        settings["task_digest"] = task_digest(known)
    made = results(found, task) if isinstance(found, dict) else found
    return done(info(run_id, **(settings | changes)), made)


def zero_shot(values, **changes):
    settings = {"method": "zero-shot", "label": "zero-shot", "seeded": False, "reference": True}
    return of_task("zs", values, **(settings | changes))
