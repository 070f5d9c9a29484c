"""What one process does for a run: fit it, predict with each of its variants, score it. No ray.

Each stage leaves its result in the run's folder under a final name, and finds nothing to do when
it is there. So a process may be killed anywhere, and the same call goes on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import torch
from torch import Tensor

from benchmark.data.base import draw
from benchmark.data.batches import (
    AugmentedImages,
    World,
    feature_batches,
    image_batches,
    micro_batches,
)
from benchmark.data.roots import cache_dir, resolve
from benchmark.data.store import Store
from benchmark.data.tasks import Task, open_task
from benchmark.evaluation import predictions
from benchmark.evaluation.inference import (
    Array,
    DecodedOnAccess,
    Pixels,
    cached_features,
    head_logits,
    image_features,
    same_image_tower,
)
from benchmark.evaluation.scoring import Prediction, results_of, selections
from benchmark.leaderboard.schema import to_table
from benchmark.leaderboard.store import write_run
from benchmark.models.backbones import load_backbone
from benchmark.models.checkpoints import load, save
from benchmark.models.classifier import ImageClassifier, zero_shot_classifier
from benchmark.plan import Run, evaluation_metrics
from benchmark.provenance import peak_memory_bytes
from benchmark.runfolder import Fit, RunFolder
from benchmark.runinfo import run_info
from benchmark.schedule import Schedule, make_schedule
from benchmark.training import train

if TYPE_CHECKING:
    from benchmark.data.images import ImageSet
    from benchmark.data.tasks import TaskData
    from benchmark.methods.base import Method, TrainingConfig, Weights
    from benchmark.suite import Resources

RAW_PIXELS_LIMIT = 2 * 2**30  # bytes of decoded training images kept on disk for one task


class Runner:
    """One process's view of a suite's runs, with what is worth keeping between them.

    Args:
        suite: its name, for the rows.
        runs: the plan's runs by id.
        results: the results folder.
        data: the data root, as the suite or ``--data`` names it.
        resources: how training is fed.
        incomplete: what is missing from data sets that may be incomplete, by task and set.
        device: where to compute.
    """

    def __init__(
        self,
        suite: str,
        runs: Mapping[str, Run],
        results: Path,
        data: str,
        resources: Resources,
        incomplete: Mapping[tuple[str, str], str],
        device: torch.device,
    ) -> None:
        self._suite = suite
        self._runs = runs
        self._results = results
        self._root = resolve(data)
        self._resources = resources
        self._incomplete = incomplete
        self._device = device
        self._store = Store(cache_dir() / "store")
        self._backbone = lru_cache(maxsize=2)(load_backbone)
        self._task = lru_cache(maxsize=4)(self._open_task)
        self._zero_shot = lru_cache(maxsize=4)(self._make_zero_shot)
        self._variant = lru_cache(maxsize=1)(self._load_variant)

    # Stage 1: fit

    def fit(
        self,
        run_id: str,
        world: World = World(),
        on_step: Callable[[int, int], None] = lambda step, steps: None,
    ) -> None:
        """Train a run, or go on with it, and leave its weights.

        Args:
            run_id: of a run whose method trains.
            world: this worker among those that share the training.
            on_step: called with the steps done and the steps in all.

        Raises:
            RunFailedError: a loss is not finite.
        """
        run, folder = self._runs[run_id], RunFolder.of(self._results, run_id)
        if folder.fitted:
            return
        started = datetime.now(UTC).isoformat(timespec="seconds")
        method = cast("Method[TrainingConfig]", run.create())
        data = self._data(run)
        model = deepcopy(self._pretrained(run))
        method.prepare(model, self._parents(run))
        model.to(self._device)

        schedule = make_schedule(
            len(data.train),
            method.config,
            world.size,
            self._resources.micro_batch if method.inputs == "images" else None,
            run.budget.steps,
        )
        trained = train(
            model,
            method,
            schedule,
            self._batches(run, data.train, method, schedule, world),
            seed=run.seed,
            world=world,
            state_file=folder.state,
            on_step=lambda step: on_step(step, schedule.steps),
        )
        if world.rank == 0:
            weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
            save(folder.weights, weights, {"run": run.id, "backbone": run.backbone})
            folder.write_fit(
                Fit(
                    **asdict(trained),
                    peak_memory_bytes=peak_memory_bytes(self._device),
                    world_size=world.size,
                    started=started,
                )
            )

    def _batches(
        self,
        run: Run,
        examples: ImageSet,
        method: Method[TrainingConfig],
        schedule: Schedule,
        world: World,
    ) -> Callable[[range], Iterator[tuple[Tensor, Tensor]]]:
        """This worker's micro-batches of a range of steps, on the device."""
        preprocessing = self._backbone(run.backbone).preprocessing
        on_gpu = self._device.type == "cuda"

        def order(steps: range) -> Iterator[list[tuple[int, int]]]:
            n, batch, micro = len(examples), schedule.batch_size, schedule.micro_batch
            return micro_batches(n, batch, run.seed, steps, world, micro)

        def images(steps: range) -> Iterator[tuple[Tensor, Tensor]]:
            decoded = self._store.raw(examples, RAW_PIXELS_LIMIT)
            dataset = AugmentedImages(decoded, examples.labels, preprocessing, run.seed)
            loader_workers = self._resources.data_workers
            for pixels, labels in image_batches(dataset, order(steps), loader_workers, on_gpu):
                inputs = preprocessing.normalise(pixels.to(self._device, non_blocking=True))
                yield inputs, labels.to(self._device, non_blocking=True)

        def features(steps: range) -> Iterator[tuple[Tensor, Tensor]]:
            pixels = DecodedOnAccess(examples.images, preprocessing)
            known = self._pretrained_features(run, examples, pixels)
            for inputs, labels in feature_batches(known, examples.labels, order(steps)):
                yield inputs.to(self._device), labels.to(self._device)

        return images if method.inputs == "images" else features

    # Stage 2: predict

    def predict(self, run_id: str, variant: str, evaluation_set: str) -> None:
        """Leave the predictions of one variant on one evaluation set."""
        run, folder = self._runs[run_id], RunFolder.of(self._results, run_id)
        file = folder.part(variant, evaluation_set)
        if file.exists():
            return
        started = time.monotonic()
        images = self._evaluation_images(run, evaluation_set)
        preprocessing = self._backbone(run.backbone).preprocessing
        pixels = self._store.evaluation(images, preprocessing)
        model, tower_is_pretrained = self._variant(run_id, variant)
        if tower_is_pretrained:
            features = self._pretrained_features(run, images, pixels)
        else:
            features = image_features(model, pixels, preprocessing, self._device)
        logits = head_logits(model, features, self._device)
        if images.projection is not None:
            logits = images.projection(logits)
        table = predictions.to_table(evaluation_set, variant, images, logits)
        facts = {"seconds": str(time.monotonic() - started), "fingerprint": images.fingerprint}
        predictions.write(file, table.replace_schema_metadata(facts))

    def _load_variant(self, run_id: str, variant: str) -> tuple[ImageClassifier, bool]:
        """The model with a variant's weights, and whether its image tower is the pretrained one."""
        run = self._runs[run_id]
        pretrained = self._pretrained(run)
        weights = self._weights(run, variant)
        model = deepcopy(pretrained)
        model.load_state_dict(weights)
        same = same_image_tower(weights, pretrained.state_dict())
        return model.to(self._device).eval(), same

    def _weights(self, run: Run, variant: str) -> Weights:
        method = run.create()
        pretrained = self._pretrained(run)
        trained = None
        if method.inputs is not None:
            trained, _ = load(RunFolder.of(self._results, run.id).weights)
        return method.finish(variant, pretrained.state_dict(), self._parents(run), trained)

    def _parents(self, run: Run) -> dict[str, Weights]:
        """Weights of the parents by label: of each, the variant that stands for it."""
        parents = {label: self._runs[run_id] for label, run_id in run.parents}
        return {
            label: self._weights(parent, parent.create().fixed_variant())
            for label, parent in parents.items()
        }

    # Stage 3: score

    def score(self, run_id: str) -> None:
        """Turn the predictions into the run's rows, and keep them all in one file."""
        run, folder = self._runs[run_id], RunFolder.of(self._results, run_id)
        method = run.create()
        parts = {
            (variant, name): self._read_part(run, folder, variant, name)
            for variant in method.variants()
            for name in evaluation_metrics(run.task)
        }
        scored = {key: results_of(part) for key, part in parts.items()}
        id_val = {name: scored[name, "id-val"][0].score.value for name in method.variants()}
        results = [
            replace(result, selection=selection)
            for variant, selection in selections(method.variants(), method.fixed_variant(), id_val)
            for name in evaluation_metrics(run.task)
            for result in scored[variant, name]
        ]
        tables = [part.table for part in parts.values()]
        predictions.write(folder.predictions, pa.concat_tables(tables))
        fit = folder.read_fit() if folder.fitted else None
        info = run_info(self._suite, run, self._device, fit, self._data(run).train.fingerprint)
        write_run(self._results, run_id, to_table(info, results))
        folder.drop_parts()

    def _read_part(self, run: Run, folder: RunFolder, variant: str, name: str) -> Prediction:
        table = predictions.read(folder.part(variant, name))
        facts = table.schema.metadata
        return Prediction(
            variant=variant,
            evaluation_set=name,
            metric=evaluation_metrics(run.task)[name],
            table=table.replace_schema_metadata(None),
            seconds=float(facts[b"seconds"]),
            fingerprint=facts[b"fingerprint"].decode(),
            incomplete_reason=self._incomplete.get((run.task.name, name)),
        )

    # What is kept between runs

    def _data(self, run: Run) -> TaskData:
        # Without shots nothing is drawn, so all seeds share what is opened.
        return self._task(run.task.model_dump_json(), run.shots, run.seed if run.shots else 0)

    def _open_task(self, task: str, shots: int | None, seed: int) -> TaskData:
        return open_task(Task.model_validate_json(task), self._root, shots, seed)

    def _pretrained(self, run: Run) -> ImageClassifier:
        data = self._data(run)
        return self._zero_shot(run.backbone, data.classes, data.templates)

    def _make_zero_shot(
        self, backbone: str, classes: tuple[str, ...], templates: tuple[str, ...]
    ) -> ImageClassifier:
        return zero_shot_classifier(self._backbone(backbone), classes, templates)

    def _evaluation_images(self, run: Run, evaluation_set: str) -> ImageSet:
        """The set, or the part of it that the budget allows, the same for every run."""
        _, images = self._data(run).evaluation[evaluation_set]
        limit = run.budget.evaluation_images
        if limit is None or limit >= len(images):
            return images
        return images.subset(draw(images.ids, images.labels, limit, balanced=False))

    def _pretrained_features(self, run: Run, images: ImageSet, pixels: Pixels) -> Array:
        """Features of the pretrained image tower, computed once for all runs that need them."""
        backbone = self._backbone(run.backbone)
        parts = [backbone.identity, backbone.preprocessing.key(), images.fingerprint, *images.ids]
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]

        def compute() -> Array:
            model = deepcopy(self._pretrained(run)).to(self._device)
            return image_features(model, pixels, backbone.preprocessing, self._device)

        return cached_features(cache_dir() / "features" / f"{name}.npy", compute)
