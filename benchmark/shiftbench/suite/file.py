"""The keys of a suite file: their types, defaults and descriptions."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from shiftbench.models.precision import Precision

MINIATURE = "miniature"
NAMED = frozenset({"tasks", "methods"})
REPLACE = "replace"
"""The mark among named entries that leaves all inherited ones behind."""
Sharding = Literal["ddp", "fsdp2"]
"""How workers share a model: ``torch``'s DistributedDataParallel, or its ``fully_shard``."""
LABEL = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
Label = Annotated[str, Field(pattern=LABEL)]


def _all_differ(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"holds {json.dumps(value)} twice")
    return values


class _Closed(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )


class Budget(_Closed):
    """What a run may spend; part of its identity, since it changes what comes out."""

    steps: Annotated[
        int | None, Field(ge=1, description="most optimizer steps of a run; null: no limit")
    ] = None
    evaluation_images: Annotated[
        int | None, Field(ge=1, description="most images of an evaluation set; null: all")
    ] = None
    evaluation_precision: Annotated[
        Precision,
        Field(description="of the image tower when it is evaluated; the head is always fp32"),
    ] = "fp32"


class Limits(_Closed):
    """Limits on waiting, on tries and on what is kept; they never change an outcome."""

    save_every_s: Annotated[
        float | None,
        Field(
            gt=0,
            description="most seconds of a training that are lost with its worker: its state is "
            "saved so often, and at ends of epochs; null: then alone",
        ),
    ] = 300
    job_retries: Annotated[
        int,
        Field(ge=0, description="times that a job or a trial is done again whose worker was lost"),
    ] = 1
    max_preemptions: Annotated[
        int | None,
        Field(ge=0, description="times that a job is done again whose node was lost; null: any"),
    ] = None
    stall_s: Annotated[
        float | None,
        Field(
            gt=0,
            description="seconds without progress after which a job is stopped and counted as one "
            "whose worker was lost; null: 100 times its slowest step so far, at least 10 minutes, "
            "and an hour before its first",
        ),
    ] = None
    lease_s: Annotated[
        float,
        Field(
            gt=0,
            description="seconds without a sign after which whoever did a run on the same results "
            "folder is taken for gone, and the run for free",
        ),
    ] = 60
    group_restarts: Annotated[
        int, Field(ge=0, description="times that a group is started again that lost a worker")
    ] = 2
    collective_timeout_s: Annotated[
        int, Field(ge=1, description="seconds that workers of a group wait for each other")
    ] = 1800
    cluster_wait_s: Annotated[
        float,
        Field(ge=0, description="seconds that a cluster has to grow to the size that a run needs"),
    ] = 600
    idle_worker_s: Annotated[
        float,
        Field(
            ge=0,
            description="seconds after which a worker or a group is let go that has nothing to do",
        ),
    ] = 60
    connect_timeout_s: Annotated[
        float, Field(gt=0, description="seconds that the cluster at --address has to answer")
    ] = 10
    journal_lock_s: Annotated[
        int,
        Field(
            ge=1,
            description="seconds after which whoever holds the lock of a search's journal is "
            "taken for dead; writing it takes milliseconds",
        ),
    ] = 5
    object_store_bytes: Annotated[
        int,
        Field(
            ge=80 * 2**20,
            description="memory for Ray's objects of a cluster on this machine; images and "
            "weights are files and no objects",
        ),
    ] = 256 * 2**20
    decoded_bytes: Annotated[
        int,
        Field(ge=0, description="most bytes of a task's training images that are kept decoded"),
    ] = 2 * 2**30
    store_bytes: Annotated[
        int | None,
        Field(
            ge=0,
            description="most bytes of all images that methods' store keeps shrunk; null: as many "
            "as are free in the cache's folder",
        ),
    ] = None
    shared_batches_bytes: Annotated[
        int,
        Field(
            ge=0,
            description="most bytes of decoded and augmented batches, in files under the cache, "
            "that the trials of a search on one machine share; 0: none are shared",
        ),
    ] = 4 * 2**30
    features_bytes: Annotated[
        int,
        Field(
            ge=0,
            description="most bytes of image features that are kept in the cache's folder, for "
            "whatever has an equal image tower; those used least recently go; 0: none are kept",
        ),
    ] = 8 * 2**30


class TrainingResources(_Closed):
    """Hardware that a method may have for its own trainings, in place of the suite's."""

    workers: Annotated[int, Field(ge=1, description="training workers of a run")] = 1
    min_workers: Annotated[
        int | None,
        Field(
            ge=1,
            description="workers that a training starts with at least, once the cluster has not "
            "grown for a minute: as many as are free and divide its batch, and more when those "
            "have been free for a minute; null: all of them",
        ),
    ] = None
    gpus_per_worker: Annotated[
        float, Field(ge=0, description="GPUs of a worker; a fraction shares one")
    ] = 0
    cpus_per_worker: Annotated[float, Field(gt=0, description="processors of a worker")] = 1
    memory_per_worker: Annotated[
        int,
        Field(
            ge=1,
            description="bytes of memory of its machine that a worker is counted with: as many "
            "work at once as have room",
        ),
    ] = 2 * 2**30
    micro_batch: Annotated[
        int | None,
        Field(
            ge=1,
            description="images a worker holds at a time; null: its share of a batch, or on a GPU "
            "as much of it as fits the memory",
        ),
    ] = None
    sharding: Annotated[
        Sharding,
        Field(
            description="workers that share a training have the whole model each (ddp), or a part "
            "of its weights, gradients and moments (fsdp2), for models that are too large for one "
            "GPU; only methods that do not look at whole weights while they train"
        ),
    ] = "ddp"
    activation_checkpointing: Annotated[
        Literal["auto", "on", "off"],
        Field(
            description="compute activations of a tower's blocks again instead of keeping them; "
            "auto: where the memory has no room for a few images otherwise"
        ),
    ] = "auto"


class Resources(TrainingResources):
    """Hardware for a run; never changes its outcome beyond floating-point order."""

    data_workers: Annotated[
        int | None,
        Field(
            ge=0,
            description="processes of a worker that decode training images ahead; 0: it does so "
            "itself; null: the processors that its machine has for each GPU, 0 without GPUs",
        ),
    ] = None
    compile: Annotated[
        Literal["auto", "on", "off"],
        Field(description="torch.compile; auto: on a GPU, where it saves more time than it takes"),
    ] = "auto"
    max_concurrent: Annotated[
        int | None,
        Field(ge=1, description="most workers on the cluster at once; null: as many as fit"),
    ] = None
    max_trials: Annotated[
        int | None, Field(ge=1, description="most trials of a search at once; null: as many as fit")
    ] = None
    limits: Annotated[
        Limits, Field(description="on waiting, on tries and on what is kept, for special cases")
    ] = Limits()

    @model_validator(mode="after")
    def _check_workers(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is more than {self.workers} workers")
        return self


OF_METHODS: dict[str, str] = {
    "method": "registered name, where the label is another",
    "resources": "hardware for its trainings in place of the suite's, which changes no outcome",
}
"""Keys that a suite's method has beside its settings, and what they mean."""
OF_TASKS: dict[str, str] = {
    "from": "a registered task to start from, under a name of one's own",
    "methods": "settings that differ for this task; null: not for this task",
}
"""Keys that a suite's task has beside those of ``Task``, and what they mean."""


class SuiteFile(_Closed):
    """The content of a suite file, after ``extends`` and ``--set`` are applied.

    Tasks and methods are typed one by one when they are resolved, because what they may hold
    depends on their names.
    """

    extends: Annotated[
        str | None,
        Field(description="suite to start from: a file, relative to this one, or a shipped suite"),
    ] = None
    name: Annotated[str, Field(min_length=1, description="default: the file's name")]
    description: Annotated[str, Field(description="one line for people")] = ""
    data: Annotated[
        str | None,
        Field(
            description="'miniature', or a folder (relative to this file) or URI that holds the "
            "data sets; --data overrides it"
        ),
    ] = None
    tasks: Annotated[
        dict[Label, dict[str, Any] | None],
        Field(
            min_length=1,
            description="registered tasks (imagenet, cifar10, iwildcam, fmow, a plugin's), or your "
            "own; in a suite that extends another, null removes one, a list of names picks some, "
            "and the key replace: true leaves all inherited ones behind",
        ),
    ]
    backbones: Annotated[
        tuple[str, ...],
        AfterValidator(_all_differ),
        Field(
            min_length=1,
            description="'miniature', pretrained/model of open_clip such as openai/ViT-B-16, "
            "hf-hub:org/name, the name of a plugin's, or a folder or a file of weights, starting "
            "with ./, ../, ~ or / (relative to this file); after a bare file its model, such as "
            "./epoch_3.pt/ViT-B-16",
        ),
    ]
    methods: Annotated[
        dict[Label, dict[str, Any] | None],
        Field(
            min_length=1,
            description="settings by label; the label is the method's name unless the key method "
            "says otherwise; in a suite that extends another, null removes one, a list of labels "
            "picks some with what they build on, and the key replace: true leaves all inherited "
            "ones behind",
        ),
    ]
    also: Annotated[
        tuple[str, ...],
        AfterValidator(_all_differ),
        Field(
            description="tasks, of this suite or registered, on whose test sets every other task's "
            "models are scored too: what fine-tuning forgets; no part of a run's identity"
        ),
    ] = ()
    ood_detection: Annotated[
        tuple[str, ...],
        AfterValidator(_all_differ),
        Field(
            description="tasks, of this suite or registered, with none of the others' classes: "
            "their test images are to be told from each other task's own; no part of a run's "
            "identity"
        ),
    ] = ()
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        AfterValidator(_all_differ),
        Field(min_length=1, description="each is a full repetition of the grid"),
    ] = (0,)
    shots: Annotated[
        tuple[Literal["full"] | Annotated[int, Field(ge=1)], ...],
        AfterValidator(_all_differ),
        Field(min_length=1, description="training images per class, or 'full' for all"),
    ] = ("full",)
    budget: Annotated[
        Budget, Field(description="what a run may spend, which is a part of its identity")
    ] = Budget()
    resources: Annotated[
        Resources, Field(description="hardware for a run, which changes no outcome")
    ] = Resources()
    loggers: Annotated[
        tuple[str, ...],
        AfterValidator(_all_differ),
        Field(
            description="what shows trainings as they go on: tensorboard, wandb, mlflow or a "
            "plugin's; changes no outcome"
        ),
    ] = ()
